"""Bytes into lines, the same lines however the bytes come.

LF alone ends a line. Of a line longer than LINE_BYTES only its beginning and its end are looked at, parted by a CR;
which bytes those are depends on the line alone. What has no end yet is kept as bytes, bounded in the same way.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import Struct

LINE_BYTES = 16 * 1024
HALF_BYTES = LINE_BYTES // 2
BLOCK_BYTES = 1 << 20
"""What is scanned at once."""


class Partial(Struct, gc=False, array_like=True):
    """A stream's line that has no end yet, and how far the stream has come."""

    begin: int = 0
    """Where the line begins, in bytes of the stream."""
    size: int = 0
    kept: bytes = b""
    """All of it, or its beginning and its end."""

    @property
    def consumed(self) -> int:
        return self.begin + self.size

    def blocks(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Whole lines, each with its LF, in blocks; with each block where it begins in the stream.

        A line that is too long is a block of its own, of what is looked at of it.
        """
        at = 0
        if self.size:
            at = data.find(b"\n") + 1
            self._grow(data[: at - 1] if at else data)
            if not at:
                return
            begin, looked = self.begin, self.text()
            self._next(begin + self.size + 1)
            yield looked + b"\n", begin
        base = self.begin - at
        last = data.rfind(b"\n", at) + 1
        while at < last:
            until = _end_of_short(data, at, last)
            if until > at:
                block = data[at:until]
            else:
                until = data.find(b"\n", at) + 1
                block = _looked_at(data[at : until - 1]) + b"\n"
            self._next(base + until)
            yield block, base + at
            at = until
        self._grow(data[at:])

    def text(self) -> bytes:
        """What is looked at of the line as it is now."""
        return self.kept if self.size <= LINE_BYTES else self.kept[:HALF_BYTES] + b"\r" + self.kept[HALF_BYTES:]

    def _grow(self, piece: bytes) -> None:
        was, self.size = self.size, self.size + len(piece)
        if self.size <= LINE_BYTES:
            self.kept += piece
        elif was <= LINE_BYTES:
            whole = self.kept + piece
            self.kept = whole[:HALF_BYTES] + whole[-HALF_BYTES:]
        else:
            self.kept = self.kept[:HALF_BYTES] + (self.kept[HALF_BYTES:] + piece)[-HALF_BYTES:]

    def _next(self, begin: int) -> None:
        self.begin, self.size, self.kept = begin, 0, b""


def _looked_at(line: bytes) -> bytes:
    return line if len(line) <= LINE_BYTES else line[:HALF_BYTES] + b"\r" + line[-HALF_BYTES:]


def _end_of_short(data: bytes, at: int, last: int) -> int:
    """Behind the last of the short lines from `at` on, about a block at most. `at`: the first one is too long."""
    begin = at
    while at < last and at - begin < BLOCK_BYTES:
        found = data.rfind(b"\n", at, at + LINE_BYTES + 1)
        if found < 0:
            break
        at = found + 1
    return at
