"""What programs say in runs that go well: of lines that occur there too, none is why a run failed."""

from __future__ import annotations

from collections import OrderedDict, deque

import msgspec

RUNS = 3
"""Of each program, the latest."""
LINES_MAX = 64
"""Fingerprints of one run."""
PROGRAMS_MAX = 128
"""The least recently run are forgotten."""


class Usual:
    """Fingerprints by program: tenant, job's name, step's name."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, deque[tuple[str, ...]]] = OrderedDict()

    def learn(self, program: str, lines: frozenset[str]) -> None:
        """A run went well, and said this."""
        runs = self._runs.pop(program, None) or deque(maxlen=RUNS)
        runs.append(tuple(sorted(lines)[:LINES_MAX]))
        self._runs[program] = runs
        while len(self._runs) > PROGRAMS_MAX:
            self._runs.popitem(last=False)

    def of(self, program: str) -> frozenset[str]:
        """What any of its latest good runs said."""
        return frozenset(line for run in self._runs.get(program, ()) for line in run)

    def save(self) -> bytes:
        return msgspec.msgpack.encode([(program, list(runs)) for program, runs in self._runs.items()])

    def restore(self, data: bytes) -> None:
        """Take over what `save` gave; what is none of it is left."""
        try:
            found = msgspec.msgpack.decode(data, type=list[tuple[str, list[tuple[str, ...]]]])
        except msgspec.DecodeError:
            return
        self._runs = OrderedDict((program, deque(runs, maxlen=RUNS)) for program, runs in found[-PROGRAMS_MAX:])
