"""What readers see of the live state: immutable views, published when their writes are durable."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from coordinator.core.ids import Ms, PoolName, ProviderId, ProviderKey, SessionId
from coordinator.core.rows import Promises, Resources


class Liveness(StrEnum):
    """How a provider stands right now."""

    ONLINE = "online"
    SUSPECT = "suspect"
    """Silent for two intervals, or its socket broke less than `lost_after` ago: no new work."""
    AWAITED = "awaited"
    """The coordinator restarted and the agent has not come back yet: unobserved."""
    LOST = "lost"
    AWAY = "away"
    """It said that it leaves."""
    NEVER_SEEN = "never_seen"
    """Enrolled, never connected."""


class Duplicate(Struct, frozen=True, gc=False, kw_only=True):
    """A second agent that claimed the same provider and was refused."""

    at_ms: Ms
    peer: str
    holder_peer: str


class ProviderView(Struct, frozen=True, gc=False, kw_only=True):
    """One provider now. `session_id` is None while it is not connected."""

    provider_id: ProviderId
    key: ProviderKey
    pool: PoolName
    liveness: Liveness
    enrolled_at_ms: Ms
    labels: dict[str, str]
    resources: Resources
    agent_version: str
    machine_id: str
    boot_id: str
    peer: str = ""
    session_id: SessionId | None = None
    connected_at_ms: Ms | None = None
    last_heartbeat_at_ms: Ms | None = None
    stay_began_at_ms: Ms | None = None
    drained: bool = False
    drain_note: str = ""
    away_until_ms: Ms | None = None
    quarantined_until_ms: Ms | None = None
    quarantine_why: str = ""
    promises: Promises = Promises()
    """What its agent said last that it can do for attempts."""
    duplicate: Duplicate | None = None
