"""The structs of HTTP answers about capacity: what each pool has, what is free, and when room comes free."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.tenants import PriceEntry
from coordinator.api_types.units import Timestamp


class NodePool(Struct, frozen=True, kw_only=True):
    """A pool's capacity now. `free` is of providers that take work at this moment."""

    name: str
    providers: int
    online: int
    """Those that take work now: online, not drained, not quarantined, able to run attempts."""
    drained: int
    quarantined: int
    cpus: float
    cpus_free: float
    memory: int
    """Bytes."""
    memory_free: int
    gpus: int
    gpus_free: float
    attempts: int
    """That hold something there."""
    queued: int
    """Tasks that wait and may go there."""
    next_free_at: Timestamp | None
    """When the first of its attempts should end, where run times or limits tell; null: not known, or nothing runs."""
    eta: Timestamp | None
    """When a task that is queued now should start: now where there is room, else where plans or run times tell."""
    waits_since: Timestamp | None = None
    """When the oldest job with a task among those was submitted."""
    cpus_held: float = 0.0
    """Held there by whose things the token may see; likewise the next two."""
    gpus_held: float = 0.0
    memory_held: int = 0
    price: PriceEntry = PriceEntry()


class NodePools(Struct, frozen=True, kw_only=True):
    entries: tuple[NodePool, ...]
