"""Bytes that moved, by tenant: counted as they do, also of transfers that were cut, and charged every few seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from coordinator.core.data.events import BytesMoved, Moved
from coordinator.core.ids import TenantName, UploadId
from coordinator.ports.clock import Clock


class Outflow:
    """One body that goes out: what is left of it counts as gone already, so that many at once pass no limit."""

    def __init__(self, meters: Meters, tenant: TenantName, left: int) -> None:
        self.left = left
        self._meters = meters
        self._tenant = tenant

    def sent(self, size: int) -> None:
        self.left -= size
        self._meters.sent(self._tenant, size)


class Meters:
    """What moved and is not charged yet. Bound: one entry a tenant that moved something, and one an upload that got
    bytes, within `pace_s`."""

    def __init__(self, post: Callable[[BytesMoved], None], clock: Clock, pace_s: float) -> None:
        self._post = post
        self._clock = clock
        self._pace_s = pace_s
        self._ingress: dict[TenantName, int] = {}
        self._egress: dict[TenantName, int] = {}
        self._uploads: dict[UploadId, None] = {}
        """That got bytes: told with the next charge of all."""
        self._outflows: dict[TenantName, dict[Outflow, None]] = {}
        self.ingress_total = 0
        """Since the start, of all tenants; so is the next."""
        self.egress_total = 0

    def received(self, tenant: TenantName, upload_id: UploadId, size: int) -> None:
        self._uploads[upload_id] = None
        self._ingress[tenant] = self._ingress.get(tenant, 0) + size
        self.ingress_total += size

    def sent(self, tenant: TenantName, size: int) -> None:
        self._egress[tenant] = self._egress.get(tenant, 0) + size
        self.egress_total += size

    @contextmanager
    def outflow(self, tenant: TenantName, size: int) -> Iterator[Outflow]:
        """While the block runs `size` bytes are on their way out."""
        one = Outflow(self, tenant, size)
        own = self._outflows.setdefault(tenant, {})
        own[one] = None
        try:
            yield one
        finally:
            del own[one]
            if not own:
                del self._outflows[tenant]

    def leaving(self, tenant: TenantName) -> int:
        """Bytes out that its account does not know of yet: sent since, or on their way. O(its downloads)."""
        return self._egress.get(tenant, 0) + sum(one.left for one in self._outflows.get(tenant, ()))

    def charge_one(self, tenant: TenantName) -> None:
        """The same as `charge`, of one tenant."""
        ingress, egress = self._ingress.pop(tenant, 0), self._egress.pop(tenant, 0)
        if ingress or egress:
            moved = (Moved(tenant=tenant, ingress=ingress, egress=egress),)
            self._post(BytesMoved(at_ms=self._clock.now_ms(), moved=moved))

    def charge(self) -> None:
        """Tell the core what moved since the last time."""
        ingress, self._ingress = self._ingress, {}
        egress, self._egress = self._egress, {}
        uploads, self._uploads = tuple(self._uploads), {}
        moved = tuple(
            Moved(tenant=tenant, ingress=ingress.get(tenant, 0), egress=egress.get(tenant, 0))
            for tenant in sorted(ingress.keys() | egress.keys())
        )
        if moved or uploads:
            self._post(BytesMoved(at_ms=self._clock.now_ms(), moved=moved, uploads=uploads))

    async def run(self) -> None:
        """Charge at its pace, until cancelled."""
        while True:
            await asyncio.sleep(self._pace_s)
            self.charge()
