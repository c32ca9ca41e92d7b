"""Waking those who wait for something new, without a queue for each of them."""

from __future__ import annotations

import asyncio


class Bell:
    """Take `next()` first, then look; when there was nothing, await it: no ring is missed in between."""

    def __init__(self) -> None:
        self._next: asyncio.Future[None] | None = None

    def next(self) -> asyncio.Future[None]:
        """Done at the next ring. Shared by all who wait: await it through `heard` alone."""
        if self._next is None:
            self._next = asyncio.get_running_loop().create_future()
        return self._next

    def ring(self) -> None:
        if self._next is not None:
            if not self._next.done():
                self._next.set_result(None)
            self._next = None


async def heard(ring: asyncio.Future[None], within_s: float | None = None) -> bool:
    """Wait for the ring; False when it did not come within that time. A cancelled wait cancels nobody else's."""
    done, _ = await asyncio.wait((ring,), timeout=within_s)
    return bool(done)
