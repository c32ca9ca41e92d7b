"""The structs of HTTP about the fleet: providers, their sessions and heartbeats, pools."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.tenants import PriceEntry
from coordinator.api_types.units import Timestamp


class SessionEntry(Struct, frozen=True, kw_only=True):
    session_id: int
    provider_id: str
    connected_at: Timestamp
    disconnected_at: Timestamp | None
    disconnect_reason: str | None
    last_heartbeat_at: Timestamp | None
    coordinator_id: str
    duration_seconds: float | None
    requests_served: int
    tokens_generated: int


class HeartbeatEntry(Struct, frozen=True, kw_only=True):
    observed_at: Timestamp
    status: str
    memory_pressure: float | None
    cpu_usage: float | None
    thermal_state: str | None
    memory_available_gb: float | None
    gpu_memory_active_gb: float | None
    gpu_memory_cache_gb: float | None
    backend_state: str | None
    active_model: str | None
    capacity: float | None


class HourEntry(Struct, frozen=True, kw_only=True):
    hour: Timestamp
    count: int
    """Heartbeats in this hour."""
    mean_memory_pressure: float | None
    mean_cpu_usage: float | None
    worst_thermal_state: str | None
    mean_memory_available_gb: float | None


class WindowOf(Struct, frozen=True, kw_only=True):
    """What every answer over a window begins with."""

    provider_id: str
    window: str
    next_page: str | None = None


class Sessions(WindowOf, frozen=True, kw_only=True):
    entries: tuple[SessionEntry, ...]


class Heartbeats(WindowOf, frozen=True, kw_only=True):
    entries: tuple[HeartbeatEntry, ...]


class Hours(WindowOf, frozen=True, kw_only=True):
    entries: tuple[HourEntry, ...]


RESERVED = frozenset({"reliability", "enrol"})
"""Words of the API that stand where a provider's id does: no provider is called so."""


class DuplicateClaim(Struct, frozen=True, kw_only=True):
    """A second agent with this provider's identity was refused."""

    at: Timestamp
    peer: str
    holder_peer: str


class SuspicionEntry(Struct, frozen=True, kw_only=True):
    """A verdict that blames a provider."""

    attempt: str
    at: Timestamp
    cause: str
    confidence: float
    text: str
    """The line of its log that it rests on."""
    tenant: str = ""
    """Whose attempt it was; empty: not known any more."""


class ProviderEntry(Struct, frozen=True, kw_only=True):
    """One enrolled provider now."""

    provider_id: str
    pool: str
    liveness: str
    """online, suspect, awaited, lost, away or never_seen."""
    drained: bool
    drain_note: str
    away_until: Timestamp | None
    connected_at: Timestamp | None
    last_heartbeat_at: Timestamp | None
    stay_seconds: float | None
    score: float | None
    forecast_8h: float | None
    """Forecast for the next 8 h from the published figures; null when it is not online."""
    cpus: float
    memory_gb: float
    gpus: tuple[str, ...]
    labels: dict[str, str]
    agent_version: str
    machine_id: str
    peer: str
    enrolled_at: Timestamp
    duplicate: DuplicateClaim | None
    heartbeat: HeartbeatEntry | None
    clock_offset_ms: float | None
    clock_bound_ms: float | None
    quarantined_until: Timestamp | None = None
    """Gets no new work until then, after failures in a row."""
    quarantine_why: str = ""
    isolation: str | None = None
    """The most that its agent gives; null: it takes no work."""
    promises: tuple[str, ...] = ()
    """Of kills_all, freezes_all, memory_limit and cpu_limit, what its agent has found that it can do."""
    suspicion: float | None = None
    """The probability that a run fails there by its fault, as verdicts say; halves in 24 h. Null in a list."""
    suspicions: tuple[SuspicionEntry, ...] = ()
    """The verdicts that this rests on, newest first; empty in a list."""
    cpus_free: float = 0.0
    """Of what it offers, what no attempt holds, whether or not it takes work now. Likewise the next two."""
    memory_gb_free: float = 0.0
    gpus_free: float = 0.0
    runs: int = 0
    """Ranks of attempts that hold something there, or are lined up."""
    attempts: tuple[str, ...] = ()
    """Whose these are; empty in a list."""


class Providers(Struct, frozen=True, kw_only=True):
    entries: tuple[ProviderEntry, ...]
    next_page: str | None = None


class DrainRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    note: str = ""
    away_until: Timestamp | None = None


class PoolRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    name: str
    note: str = ""


class PoolEntry(Struct, frozen=True, kw_only=True):
    name: str
    note: str
    created_at: Timestamp | None
    """Null for the pool that is always there."""
    providers: int
    price: PriceEntry = PriceEntry()


class Pools(Struct, frozen=True, kw_only=True):
    entries: tuple[PoolEntry, ...]
