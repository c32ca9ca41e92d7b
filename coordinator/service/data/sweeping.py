"""Blobs that nobody holds, removed after their grace time: first the rows, durably, then the bytes."""

from __future__ import annotations

import asyncio
import logging

from coordinator import ports
from coordinator.core.data.answers import Swept
from coordinator.core.data.events import SweepBegin, SweepEnd
from coordinator.core.data.rows import BlobRow
from coordinator.core.errors import Code, CoordError
from coordinator.service.data.locks import BlobLocks
from coordinator.service.engine import Engine

log = logging.getLogger("coord.data")


class Sweeper:
    """Looks for them every `pace_s`, `policy.sweep_max` at a time."""

    def __init__(
        self, engine: Engine, store: ports.Store, blobs: ports.BlobStore, locks: BlobLocks, pace_s: float
    ) -> None:
        self._engine = engine
        self._store = store
        self._blobs = blobs
        self._locks = locks
        self._pace_s = pace_s
        self.swept = 0
        """Blobs removed since the start."""
        self.freed_bytes = 0

    async def sweep(self) -> int:
        """Once. -> how many went.

        Between the two events the core remembers what is referred to; what is being published just now is left out.
        """
        engine, policy = self._engine, self._engine.policy
        await engine.call(lambda request_id: SweepBegin(at_ms=engine.clock.now_ms(), request_id=request_id))
        candidates: list[BlobRow] = []
        try:
            candidates = await self._store.unheld(engine.clock.now_ms() - policy.blob_grace_ms, policy.sweep_max)
        finally:
            async with self._locks.idle(candidates) as free:
                found = await engine.call(
                    lambda request_id: SweepEnd(
                        at_ms=engine.clock.now_ms(), request_id=request_id, candidates=tuple(free)
                    )
                )
                assert isinstance(found, Swept)
                if found.gone:
                    self.freed_bytes += await self._blobs.remove(found.gone)
        self.swept += len(found.gone)
        return len(found.gone)

    async def run(self) -> None:
        """Until cancelled. A full or slow disk delays it; a broken one raises STORE_BROKEN."""
        while True:
            await asyncio.sleep(self._pace_s)
            try:
                while await self.sweep() >= self._engine.policy.sweep_max:
                    pass  # there are more; a sweep waits for the disk, so others have their turn
            except CoordError as error:
                if error.code in (Code.STORE_BROKEN, Code.INTERNAL):
                    raise
                log.warning("blobs that nobody holds stay for now: %s", error)
