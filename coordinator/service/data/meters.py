"""Bytes that moved, by tenant: counted as they do, also of transfers that were cut, and charged every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator import ports
from coordinator.core.data.events import BytesMoved, Moved
from coordinator.core.ids import TenantName


class Meters:
    """What moved and is not charged yet. Bound: one entry a tenant that moved something within `pace_s`."""

    def __init__(self, post: Callable[[BytesMoved], None], clock: ports.Clock, pace_s: float) -> None:
        self._post = post
        self._clock = clock
        self._pace_s = pace_s
        self._ingress: dict[TenantName, int] = {}
        self._egress: dict[TenantName, int] = {}
        self.ingress_total = 0
        """Since the start, of all tenants; so is the next."""
        self.egress_total = 0

    def received(self, tenant: TenantName, size: int) -> None:
        self._ingress[tenant] = self._ingress.get(tenant, 0) + size
        self.ingress_total += size

    def sent(self, tenant: TenantName, size: int) -> None:
        self._egress[tenant] = self._egress.get(tenant, 0) + size
        self.egress_total += size

    def uncharged(self, tenant: TenantName) -> tuple[int, int]:
        """(ingress, egress) that its account does not know of yet."""
        return self._ingress.get(tenant, 0), self._egress.get(tenant, 0)

    def charge(self) -> None:
        """Tell the core what moved since the last time."""
        ingress, self._ingress = self._ingress, {}
        egress, self._egress = self._egress, {}
        moved = tuple(
            Moved(tenant=tenant, ingress=ingress.get(tenant, 0), egress=egress.get(tenant, 0))
            for tenant in sorted(ingress.keys() | egress.keys())
        )
        if moved:
            self._post(BytesMoved(at_ms=self._clock.now_ms(), moved=moved))

    async def run(self) -> None:
        """Charge at its pace, until cancelled."""
        while True:
            await asyncio.sleep(self._pace_s)
            self.charge()
