"""Log bytes that wait for the disk, by attempt and rank: joined where they adjoin, handed out in turns."""

from __future__ import annotations

from collections import deque

from coordinator.core.ids import AttemptId, Ms
from coordinator.ports.logs import LogKey, LogWrite
from coordinator.wire import LOG_BYTES_MAX

Where = tuple[AttemptId, int]
"""An attempt and the rank: both of its streams, in the order in which they came."""


class _Run:
    """Bytes of one stream without a gap, at most LOG_BYTES_MAX."""

    __slots__ = ("at_ms", "key", "offset", "parts", "size")

    def __init__(self, key: LogKey, offset: int, data: bytes, at_ms: Ms) -> None:
        self.key, self.offset, self.at_ms = key, offset, at_ms
        self.parts = [data]
        self.size = len(data)


class Waiting:
    """Bound: what its user lets in. Nothing is copied but where small pieces are joined."""

    def __init__(self) -> None:
        self.bytes = 0
        self._runs: dict[Where, deque[_Run]] = {}
        self._turns: deque[Where] = deque()

    def __bool__(self) -> bool:
        return bool(self._runs)

    def __contains__(self, key: LogKey) -> bool:
        """Whether bytes of this stream wait."""
        return any(run.key == key for run in self._runs.get((key.attempt_id, key.rank), ()))

    def add(self, key: LogKey, offset: int, data: bytes, at_ms: Ms) -> None:
        where = (key.attempt_id, key.rank)
        runs = self._runs.get(where)
        if runs is None:
            runs = self._runs[where] = deque()
            self._turns.append(where)
        last = runs[-1] if runs else None
        fits = last is not None and last.size + len(data) <= LOG_BYTES_MAX
        if last is not None and fits and last.key == key and last.offset + last.size == offset:
            last.parts.append(data)
            last.size += len(data)
        else:
            runs.append(_Run(key, offset, data, at_ms))
        self.bytes += len(data)

    def take(self, bytes_max: int, streams_max: int) -> list[LogWrite]:
        """At most about that much, LOG_BYTES_MAX of each attempt a turn: a flood of one holds up no other."""
        writes: list[LogWrite] = []
        left = bytes_max
        wheres: set[Where] = set()
        while self._turns and left > 0 and len(wheres) < streams_max:
            where = self._turns.popleft()
            wheres.add(where)
            runs, turn = self._runs[where], LOG_BYTES_MAX
            while runs and turn > 0:
                run = runs.popleft()
                data = run.parts[0] if len(run.parts) == 1 else b"".join(run.parts)
                writes.append(LogWrite(run.key, run.offset, data, run.at_ms))
                turn -= max(run.size, 1)
                left -= run.size
                self.bytes -= run.size
            if runs:
                self._turns.append(where)
            else:
                del self._runs[where]
        return writes
