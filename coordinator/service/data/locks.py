"""One at a time for each blob: publishing its bytes and removing them never meet.

Between the bytes' coming to lie under their digest and the row that makes them count, and between the row's going and
the bytes', nobody else may touch that digest.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

from coordinator.core.ids import TenantName

Key = tuple[TenantName, str]
UNKNOWN = ""
"""Of bytes that only their SHA-256 is known of: while such are published, no blob of their tenant goes."""


class BlobLocks:
    """Bound: one lock for each publication and removal that is under way."""

    def __init__(self) -> None:
        self._locks: dict[Key, tuple[asyncio.Lock, int]] = {}

    @asynccontextmanager
    async def alone(self, tenant: TenantName, digest: str) -> AsyncIterator[None]:
        key = (tenant, digest)
        lock = self._take(key)
        try:
            async with lock:
                yield
        finally:
            self._leave(key)

    @asynccontextmanager
    async def idle(self, blobs: Iterable[Key]) -> AsyncIterator[list[Key]]:
        """Those of `blobs` that nobody is at, kept from others while the block runs. Waits for nobody."""
        free = [key for key in blobs if key not in self._locks and (key[0], UNKNOWN) not in self._locks]
        keys = [*free, *((tenant, UNKNOWN) for tenant in {tenant for tenant, _ in free})]
        for key in keys:
            await self._take(key).acquire()  # a fresh one: nobody has it, so this does not wait
        try:
            yield free
        finally:
            for key in keys:
                self._locks[key][0].release()
                self._leave(key)

    def _take(self, key: Key) -> asyncio.Lock:
        lock, others = self._locks.get(key, (asyncio.Lock(), 0))
        self._locks[key] = lock, others + 1
        return lock

    def _leave(self, key: Key) -> None:
        lock, others = self._locks[key]
        if others > 1:
            self._locks[key] = lock, others - 1
        else:
            del self._locks[key]
