"""The rows of the truth: what survives a restart, as the core writes it and the store keeps it.

Frozen: a change is a new row. `store` has the SQL beside each of these. Times are Unix milliseconds on
the observed clock (wall clock at boot + monotonic, never decreasing).
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from coordinator.core.ids import Ms, PoolName, ProviderId, ProviderKey, SessionId, TokenId


class EndReason(StrEnum):
    """Why a session ended. The first reason wins."""

    CLEAN_CLOSE = "clean_close"
    DRAINING = "draining"
    READ_ERROR = "read_error"
    STALE_HEARTBEAT = "stale_heartbeat"
    COORDINATOR_RESTART = "coordinator_restart"
    SUPERSEDED = "superseded"
    AGENT_RESTART = "agent_restart"


class Role(StrEnum):
    """What a token may do. `join` only enrols; `agent` is one provider's credential."""

    ADMIN = "admin"
    TENANT = "tenant"
    READ_ONLY = "read-only"
    JOIN = "join"
    AGENT = "agent"


class Resources(Struct, frozen=True, gc=False, kw_only=True):
    """What a provider offers. `memory_gb` in GB (10^9 bytes)."""

    cpus: float = 0.0
    memory_gb: float = 0.0
    gpus: tuple[str, ...] = ()
    """One name per GPU, in index order."""


class ProviderRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="provider"):
    """An enrolled provider. Key: `provider_id`; `key` is unique too."""

    provider_id: ProviderId
    key: ProviderKey
    machine_id: str
    pool: PoolName
    credential_id: TokenId
    enrolled_at_ms: Ms
    labels: dict[str, str] = {}
    resources: Resources = Resources()
    boot_id: str = ""
    agent_version: str = ""
    resume_digest: str = ""
    """SHA-256 of the resume key that the agent has confirmed by a heartbeat."""
    resume_digest_unconfirmed: str = ""
    """SHA-256 of the key in the last welcome; also accepted, the welcome may have been lost."""
    drained_at_ms: Ms | None = None
    drain_note: str = ""
    away_until_ms: Ms | None = None
    last_seen_ms: Ms | None = None
    """The end of its last session, or of the open one the last save."""
    last_end: EndReason | None = None
    """Why its last session ended; None while one is open or before the first."""
    stay_began_ms: Ms | None = None


class SessionRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="session"):
    """One connection of a provider. Key: `session_id`. Open while `disconnected_at_ms` is None."""

    session_id: SessionId
    provider_id: ProviderId
    connected_at_ms: Ms
    coordinator_id: str
    boot_id: str = ""
    process_id: str = ""
    disconnected_at_ms: Ms | None = None
    disconnect_reason: EndReason | None = None
    last_heartbeat_at_ms: Ms | None = None
    requests_served: int = 0
    tokens_generated: int = 0


class OutageRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="outage"):
    """A time that this coordinator did not observe. Key: (`coordinator_id`, `began_at_ms`)."""

    coordinator_id: str
    began_at_ms: Ms
    ended_at_ms: Ms
    cause: str
    """`restart` or `stall`."""


class TokenRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="token"):
    """A token, known by the SHA-256 of its text alone. Key: `token_id`."""

    token_id: TokenId
    role: Role
    digest: str
    created_at_ms: Ms
    note: str = ""
    expires_at_ms: Ms | None = None
    revoked_at_ms: Ms | None = None
    provider_id: ProviderId | None = None
    """Of an agent's credential: the one provider that it speaks for."""
    pool: PoolName | None = None
    """Of a join token: the pool that it enrols into."""
    tenant: str | None = None


class PoolRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="pool"):
    """A named group of providers. Key: `name`."""

    name: PoolName
    created_at_ms: Ms
    note: str = ""


class MetaRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="meta"):
    """One fact about the coordinator itself. Key: `name`, a member of Meta."""

    name: str
    value: str


class Meta(StrEnum):
    """The names of the meta rows."""

    ALIVE_AT_MS = "alive_at_ms"
    """Stored every few seconds: from the last one to the next start is unobserved."""
    GENERATION = "generation"
    """Raised by a restore; tokens of leases begin with it."""
    CLOCK = "clock"
    """The machine's boot id, and when that was on our clock: tells at the next start how the wall clock was moved."""


Row = ProviderRow | SessionRow | OutageRow | TokenRow | PoolRow | MetaRow


def row_key(row: Row) -> tuple[str, object]:
    """(table, primary key) of a row: two writes with the same one are one entity."""
    match row:
        case ProviderRow():
            return "provider", row.provider_id
        case SessionRow():
            return "session", row.session_id
        case OutageRow():
            return "outage", (row.coordinator_id, row.began_at_ms)
        case TokenRow():
            return "token", row.token_id
        case PoolRow():
            return "pool", row.name
        case MetaRow():
            return "meta", row.name
