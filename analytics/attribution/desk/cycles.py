"""Cycles within one file: a launcher that restarts a program writes `Cycle: N` before what the N-th run writes.

The first number belongs to everything before it too. Only a number above all before it begins another cycle: several
ranks say theirs at different times. A program that counts so far as no launcher does means something else by the word.
"""

from __future__ import annotations

from collections.abc import Iterator

import re2

CYCLES_MAX = 256
"""A file with more has none: the word is the program's own."""
_MARK = re2.compile(rb"\bCycle: (\d{1,9})\b")
_WORD = b"Cycle: "
LINE_MAX = 1 << 20
"""Of a line that has no end yet; a longer one is no mark."""


class Splitter:
    """Pieces of a file -> pieces of its cycles. Where the pieces are cut has no effect on which line begins a cycle."""

    def __init__(self) -> None:
        self.cycle = 0
        """From 0: the one that the last piece belongs to."""
        self._number = -1
        self._rest = b""

    @property
    def none(self) -> bool:
        """What was taken for cycles are none."""
        return self.cycle >= CYCLES_MAX

    def feed(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """(cycle, bytes) of all lines that have an end now."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        if not end and len(data) > LINE_MAX:
            end = len(data)
        self._rest = data[end:]
        if end:
            yield from self._split(data[:end])

    def close(self) -> Iterator[tuple[int, bytes]]:
        """The line without an end."""
        rest, self._rest = self._rest, b""
        if rest:
            yield from self._split(rest)

    def _split(self, block: bytes) -> Iterator[tuple[int, bytes]]:
        begin = at = 0
        while (found := block.find(_WORD, at)) >= 0:
            line = block.rfind(b"\n", 0, found) + 1
            stop = block.find(b"\n", found)
            at = stop if stop >= 0 else len(block)  # once a line, however often it has the word
            mark = _MARK.search(block[line:at])
            if mark is None or (number := int(mark[1])) <= self._number:
                continue
            first, self._number = self._number < 0, number
            if first or self.none:
                continue
            if line > begin:
                yield self.cycle, block[begin:line]
            begin, self.cycle = line, self.cycle + 1
        if begin < len(block):
            yield self.cycle, block[begin:]
