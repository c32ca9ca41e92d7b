"""The in-memory twin of stored logs. For tests and the simulator."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

from coordinator.core.errors import CoordError
from coordinator.core.ids import AttemptId, JobId, Ms
from coordinator.ports.logs import LogKey, LogMark, LogWrite


class MemoryLogs:
    """See ports.logs.Logs. `fault`, while set, is raised by every append, as a full or broken disk does."""

    def __init__(self) -> None:
        self.fault: CoordError | None = None
        self._streams: dict[LogKey, bytearray] = {}
        self._marks: dict[tuple[AttemptId, int], list[LogMark]] = {}

    async def append(self, writes: Sequence[LogWrite]) -> dict[LogKey, int]:
        if self.fault is not None:
            raise self.fault
        for key, offset, data, at_ms in writes:
            stream = self._streams.setdefault(key, bytearray())
            length = len(stream)
            if offset <= length < offset + len(data):
                fresh = data[length - offset :]
                stream += fresh
                marks = self._marks.setdefault((key.attempt_id, key.rank), [])
                last_ms = marks[-1].at_ms if marks else 0
                marks.append(LogMark(max(at_ms, last_ms), key.stream, length, len(fresh)))
        return {write.key: len(self._streams[write.key]) for write in writes}

    async def length(self, key: LogKey) -> int:
        return len(self._streams.get(key, b""))

    async def read(self, key: LogKey, offset: int, limit: int) -> bytes:
        return bytes(self._streams.get(key, b"")[offset : offset + limit])

    async def marks(self, attempt_id: AttemptId, rank: int, after: int, limit: int) -> list[LogMark]:
        return self._marks.get((attempt_id, rank), [])[after : after + limit]

    async def marks_count(self, attempt_id: AttemptId, rank: int) -> int:
        return len(self._marks.get((attempt_id, rank), []))

    async def since(self, attempt_id: AttemptId, rank: int, at_ms: Ms) -> int:
        return bisect_left(self._marks.get((attempt_id, rank), []), at_ms, key=lambda mark: mark.at_ms)

    async def remove(self, job_id: JobId) -> None:
        for key in [key for key in self._streams if key.attempt_id[0] == job_id]:
            del self._streams[key]
        for place in [place for place in self._marks if place[0][0] == job_id]:
            del self._marks[place]
