"""The structs of HTTP answers: for the service, the client and analytics.

Times are RFC 3339 in UTC with milliseconds (`2026-11-22T04:31:05.123Z`); lengths of time and shares have
their unit in the name or are 0..1. A value that is not known is null, never 0.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from coordinator.api_reliability import Availability as Availability
from coordinator.api_reliability import Backtest as Backtest
from coordinator.api_reliability import BacktestHorizon as BacktestHorizon
from coordinator.api_reliability import CalibrationBin as CalibrationBin
from coordinator.api_reliability import Features as Features
from coordinator.api_reliability import Forecast as Forecast
from coordinator.api_reliability import Interval as Interval
from coordinator.api_reliability import NetworkAvailability as NetworkAvailability
from coordinator.api_reliability import ReliabilityAnswer as ReliabilityAnswer
from coordinator.api_reliability import ReliabilityFilters as ReliabilityFilters
from coordinator.api_reliability import ScoreTerms as ScoreTerms
from coordinator.api_tenants import DimensionEntry as DimensionEntry
from coordinator.api_tenants import Ledger as Ledger
from coordinator.api_tenants import LedgerEntry as LedgerEntry
from coordinator.api_tenants import PriceRequest as PriceRequest
from coordinator.api_tenants import RefusalEntry as RefusalEntry
from coordinator.api_tenants import TenantChange as TenantChange
from coordinator.api_tenants import TenantEntry as TenantEntry
from coordinator.api_tenants import TenantRequest as TenantRequest
from coordinator.api_tenants import Tenants as Tenants
from coordinator.api_tenants import UsageBy as UsageBy
from coordinator.api_tenants import UsageEntry as UsageEntry
from coordinator.api_tenants import UsageLine as UsageLine
from coordinator.api_tenants import Usages as Usages
from coordinator.api_work import AttemptEntry as AttemptEntry
from coordinator.api_work import Audit as Audit
from coordinator.api_work import AvoidedEntry as AvoidedEntry
from coordinator.api_work import ChoiceEntry as ChoiceEntry
from coordinator.api_work import Counts as Counts
from coordinator.api_work import DimensionAsk as DimensionAsk
from coordinator.api_work import EventEntry as EventEntry
from coordinator.api_work import ExitEntry as ExitEntry
from coordinator.api_work import JobDetails as JobDetails
from coordinator.api_work import JobEntry as JobEntry
from coordinator.api_work import Jobs as Jobs
from coordinator.api_work import JobWhy as JobWhy
from coordinator.api_work import LogEvent as LogEvent
from coordinator.api_work import NodePool as NodePool
from coordinator.api_work import NodePools as NodePools
from coordinator.api_work import Obstacle as Obstacle
from coordinator.api_work import Preview as Preview
from coordinator.api_work import PriceEntry as PriceEntry
from coordinator.api_work import ProgressEntry as ProgressEntry
from coordinator.api_work import RankEntry as RankEntry
from coordinator.api_work import StepEntry as StepEntry
from coordinator.api_work import StepPlan as StepPlan
from coordinator.api_work import StepWhy as StepWhy
from coordinator.api_work import TaskEntry as TaskEntry
from coordinator.api_work import Tasks as Tasks
from coordinator.api_work import Timestamp as Timestamp
from coordinator.api_work import VerdictBrief as VerdictBrief


class Problem(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """RFC 9457: `application/problem+json`. `code` is stable (docs/reference/errors.md)."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    hint: str = ""
    instance: str = ""
    errors: tuple[ProblemPart, ...] = ()
    """Each thing that is wrong with a job."""
    refusals: tuple[RefusalEntry, ...] = ()
    """Of `quota`: every dimension that the request does not fit under."""


class ProblemPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong in a body. `path` as `step[1].resources.cpu`, empty for the whole."""

    path: str
    detail: str
    hint: str = ""


class SqlAnswer(Struct, frozen=True, kw_only=True):
    """Rows of a query, in column order. `truncated`: there were more than the limit."""

    columns: tuple[str, ...]
    types: tuple[str, ...]
    entries: tuple[tuple[object, ...], ...]
    truncated: bool
    elapsed_s: float


class SqlRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A read-only query over the documented views (docs/reference/views.md)."""

    statement: str
    timeout_s: Annotated[float, Meta(gt=0.0, le=300.0)] = 30.0
    rows_max: Annotated[int, Meta(ge=1, le=100_000)] = 10_000


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


class TokenRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`role`: admin, tenant, read-only or join."""

    role: str
    note: str = ""
    expires_in_s: float | None = None
    pool: str | None = None
    tenant: str | None = None


class TokenEntry(Struct, frozen=True, kw_only=True):
    """A token without its text."""

    token_id: str
    role: str
    note: str
    created_at: Timestamp
    expires_at: Timestamp | None
    revoked_at: Timestamp | None
    provider_id: str | None
    pool: str | None
    tenant: str | None


class TokenMade(Struct, frozen=True, kw_only=True):
    """`token` is shown this once."""

    token: str
    entry: TokenEntry


class Tokens(Struct, frozen=True, kw_only=True):
    entries: tuple[TokenEntry, ...]
    next_page: str | None = None


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


class ImportAnswer(Struct, frozen=True, kw_only=True):
    rows: int
    added: int
    closed: int
    unchanged: int
    providers: int
    first_at: Timestamp | None
    last_at: Timestamp | None


class AlertEntry(Struct, frozen=True, kw_only=True):
    """Something to look at. It goes away by itself when its cause does."""

    kind: str
    severity: str
    subject: str
    since: Timestamp
    last: Timestamp
    count: int
    text: str
    hint: str
    resolved_at: Timestamp | None
    id: str = ""
    """Of this one, since it began: what an acknowledgement names."""
    acknowledged_at: Timestamp | None = None
    """Somebody looks after it. It stands until its cause is gone all the same."""
    acknowledged_by: str = ""


class Alerts(Struct, frozen=True, kw_only=True):
    entries: tuple[AlertEntry, ...]


class CheckAnswer(Struct, frozen=True, kw_only=True):
    files: int
    rows: int
    segments: int
    problems: tuple[str, ...]
    blobs: int = 0
    unread: int = 0
    """Of these, those whose bytes were not looked at: it would have taken too long."""
    ownerless: int = 0
    """Files of blobs without a row: what a crash left for the next sweep."""


class BackupRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name`: of a directory beneath the coordinator's own backups that the copy's new directory is made in."""

    name: str | None = None


class BackupAnswer(Struct, frozen=True, kw_only=True):
    path: str


class OpenApi(Struct, frozen=True, kw_only=True):
    """An OpenAPI 3.1 document, as far as a client of ours looks into it."""

    openapi: str
    info: dict[str, str]
    paths: dict[str, dict[str, object]]


class Alive(Struct, frozen=True, kw_only=True):
    """The process is there and answers. `status` is ok."""

    status: str


class Health(Struct, frozen=True, kw_only=True):
    """`status`: ok, or what is wrong."""

    status: str
    version: str
    coordinator_id: str
    uptime_s: float
    providers_online: int
    store: str
    analytics: str
    figures_age_s: float | None
    loop_lag_ms: float
