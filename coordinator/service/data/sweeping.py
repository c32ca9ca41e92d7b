"""Blobs that nobody holds, removed after their grace time: first the rows, durably, then the bytes. And bytes without
a row, which a crash in between leaves behind."""

from __future__ import annotations

import asyncio
import logging

from coordinator.core.data.answers import Swept
from coordinator.core.data.events import SweepBegin, SweepEnd
from coordinator.core.data.rows import BlobRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from coordinator.ports.blobs import BlobStore
from coordinator.ports.store import Store
from coordinator.service.data.locks import BlobLocks, Key
from coordinator.service.engine import Engine

log = logging.getLogger("coord.data")

PAGE = 1_000
"""Files whose rows are looked for together."""


class Sweeper:
    """Looks for the former every `pace_s`, `policy.sweep_max` at a time, for the latter every `scan_s`, the first time
    with the first sweep after a start."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        blobs: BlobStore,
        locks: BlobLocks,
        pace_s: float,
        scan_s: float,
    ) -> None:
        self._engine = engine
        self._store = store
        self._blobs = blobs
        self._locks = locks
        self._pace_s = pace_s
        self._scan_s = scan_s
        self.swept = 0
        """Blobs removed since the start."""
        self.freed_bytes = 0
        self.orphans = 0
        """Files without a row that were removed since the start."""

    async def sweep(self) -> int:
        """Once. -> how many went.

        Between the two events the core remembers what is referred to; what is being published just now is left out.
        """
        engine, policy = self._engine, self._engine.policy
        await engine.call(lambda request_id: SweepBegin(at_ms=engine.clock.now_ms(), request_id=request_id))
        candidates: dict[Key, BlobRow] = {}
        try:
            found = await self._store.unheld(engine.clock.now_ms() - policy.blob_grace_ms, policy.sweep_max)
            candidates = {(row.tenant, row.digest): row for row in found}
        finally:
            async with self._locks.idle(candidates) as free:
                rows = tuple(candidates[key] for key in free)
                swept = await engine.call(
                    lambda request_id: SweepEnd(at_ms=engine.clock.now_ms(), request_id=request_id, candidates=rows)
                )
                assert isinstance(swept, Swept)
                if swept.gone:
                    self.freed_bytes += await self._blobs.remove(swept.gone)
        self.swept += len(swept.gone)
        return len(swept.gone)

    async def scan(self) -> int:
        """Look at every file that has been there for the grace time. -> how many had no row, and were removed."""
        before_ms = self._engine.clock.now_ms() - self._engine.policy.blob_grace_ms
        removed = 0
        after: Key | None = None
        while page := await self._blobs.stored(before_ms, PAGE, after):
            after = page[-1]
            orphans = await self._without_row(page)
            if orphans:
                async with self._locks.idle(orphans) as free:
                    orphans = await self._without_row(free)  # nobody can publish them now: this is how it stands
                    self.freed_bytes += await self._blobs.remove(orphans)
                removed += len(orphans)
        self.orphans += removed
        if removed:
            log.info("%d files of blobs belonged to none, and were removed", removed)
        return removed

    async def _without_row(self, keys: list[Key]) -> list[Key]:
        by_tenant: dict[TenantName, list[str]] = {}
        for tenant, digest in keys:
            by_tenant.setdefault(tenant, []).append(digest)
        known = {
            (tenant, str(row.digest))
            for tenant, digests in by_tenant.items()
            for row in await self._store.blobs(tenant, digests)
        }
        return [key for key in keys if key not in known]

    async def run(self) -> None:
        """Until cancelled. A full or slow disk delays it; a broken one raises STORE_BROKEN."""
        loop = asyncio.get_running_loop()
        scan_s = loop.time()
        while True:
            await asyncio.sleep(self._pace_s)
            try:
                while await self.sweep() >= self._engine.policy.sweep_max:
                    pass  # there are more; a sweep waits for the disk, so others have their turn
                if loop.time() >= scan_s:
                    await self.scan()
                    scan_s = loop.time() + self._scan_s
            except CoordError as error:
                if error.code in (Code.STORE_BROKEN, Code.INTERNAL):
                    raise
                log.warning("blobs that nobody holds stay for now: %s", error)
