"""A real store of logs, written as the relay writes it, for whoever reads behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from coordinator.core.ids import AttemptId, JobId
from coordinator.ports.logs import LogKey, LogWrite
from store.logs import DiskLogs
from store.settings import StoreSettings

ATTEMPT: AttemptId = (JobId(7), 0, 0, 1)


class StoredLogs:
    """`write` stores and syncs, piece by piece; each piece is an arrival. Entered again, it is another process."""

    def __init__(self, directory: Path) -> None:
        self.root = directory / "logs"
        self.root.mkdir(exist_ok=True)
        self._at_ms = 1_000

    def __enter__(self) -> StoredLogs:
        self._runner = asyncio.Runner()
        self._disk = self._runner.run(self._open())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._runner.run(self._disk.close())
        self._runner.close()

    async def _open(self) -> DiskLogs:
        disk = DiskLogs(self.root, StoreSettings(), lambda problem: None)
        await disk.open()
        return disk

    def write(self, *pieces: tuple[int, bytes], attempt: AttemptId = ATTEMPT, rank: int = 0) -> None:
        """(stream, bytes) one behind the other."""
        self._runner.run(self._write(pieces, attempt, rank))

    async def _write(self, pieces: Sequence[tuple[int, bytes]], attempt: AttemptId, rank: int) -> None:
        for stream, data in pieces:
            self._at_ms += 1
            key = LogKey(attempt, rank, stream)
            await self._disk.append([LogWrite(key, await self._disk.length(key), data, self._at_ms)])

    def open_ranks(self, count: int, attempt: AttemptId = ATTEMPT) -> None:
        """As whoever reads does: what an index lacks is added."""
        for rank in range(count):
            self._runner.run(self._disk.length(LogKey(attempt, rank, 0)))

    def remove(self, attempt: AttemptId = ATTEMPT) -> None:
        self._runner.run(self._disk.remove(attempt[0]))
