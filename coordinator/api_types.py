"""The structs of HTTP answers: for the service, the client and analytics.

Times are RFC 3339 in UTC with milliseconds (`2026-11-22T04:31:05.123Z`); lengths of time and shares have
their unit in the name or are 0..1. A value that is not known is null, never 0.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Timestamp = str
"""RFC 3339, UTC, milliseconds."""


class Interval(Struct, frozen=True, kw_only=True):
    """A 90 % interval."""

    low: float
    high: float


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


class ProblemPart(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is wrong in a body. `path` as `step[1].resources.cpu`, empty for the whole."""

    path: str
    detail: str
    hint: str = ""


class ScoreTerms(Struct, frozen=True, kw_only=True):
    """What each term adds to the liveness score before it is clamped to 0..1. `recent_failure` is <= 0."""

    uptime: float
    stays_4h: float
    stays_8h: float
    mtbf: float
    recent_failure: float


class Forecast(Struct, frozen=True, kw_only=True):
    """P(the stay goes on unbroken for `horizon_s` | what is known), with its 90 % interval."""

    horizon_s: float
    probability: float
    low: float
    high: float
    age_s: float
    """How long the stay has lasted."""
    departures: int
    """Leavings of this provider in the window."""
    online_s: float
    """Its online time in the window."""
    fleet_hazard_per_h: float
    model: str
    flags: tuple[str, ...] = ()
    """`thin`: fewer than 3 leavings of its own; `fleet_thin`: fewer than 10 in the whole fleet."""


class Features(Struct, frozen=True, kw_only=True):
    """A provider's record in the window. `n`, intervals and flags say how much stands behind each figure."""

    provider_id: str
    updated_at: Timestamp
    as_of: Timestamp
    window_days: float
    online: bool
    observed_seconds: float
    online_seconds: float
    uptime_pct: float
    sessions_count: int
    stays_count: int
    failures_count: int
    departures_count: int
    mtbf_seconds: float
    mtbf_lower_bound: bool
    """True: no failure yet, the figure is the online time."""
    mttr_seconds: float | None
    mttr_n: int
    median_session_seconds: float | None
    p10_session_seconds: float | None
    p90_session_seconds: float | None
    hourly_availability: tuple[tuple[float | None, ...], ...] | None
    """[weekday 0 = Monday][hour], share of the observed time online; null where never observed."""
    disconnect_reasons: dict[str, int]
    p_stays_4h: float
    p_stays_4h_interval: Interval
    p_stays_8h: float
    p_stays_8h_interval: Interval
    last_disconnect_at: Timestamp | None
    last_failure_at: Timestamp | None
    last_session_duration_seconds: float | None
    liveness_score: float
    score_terms: ScoreTerms
    flags: tuple[str, ...]
    """Of `never_observed thin borrowed_4h borrowed_8h mtbf_lower_bound newcomer`."""
    first_seen_at: Timestamp | None
    forecast: Forecast | None = None
    """Only where a horizon was asked for; null for a provider that is not online."""


class ReliabilityFilters(Struct, frozen=True, kw_only=True):
    """The filters of a reliability listing, echoed."""

    min_score: float | None = None
    max_score: float | None = None
    min_uptime: float | None = None
    min_stays_4h: float | None = None
    min_stays_8h: float | None = None
    limit: int = 100
    horizon_s: float | None = None
    as_of: Timestamp | None = None


class ReliabilityAnswer(Struct, frozen=True, kw_only=True):
    """Entries by score descending, uptime descending, id ascending; `matched` counts them before the limit."""

    filters: ReliabilityFilters
    as_of: Timestamp
    computed_at: Timestamp
    providers: int
    matched: int
    entries: tuple[Features, ...]


class NetworkAvailability(Struct, frozen=True, kw_only=True):
    """The fleet's uptime, over every provider observed in the window."""

    window_days: float
    as_of: Timestamp
    providers: int
    mean_uptime_pct: float | None
    p10_uptime_pct: float | None
    p50_uptime_pct: float | None
    p90_uptime_pct: float | None
    highly_reliable: int
    """Providers with an uptime of at least 0.95."""


class Availability(Struct, frozen=True, kw_only=True):
    """A 7x24 grid: share of the observed time that was online, [weekday 0 = Monday][hour of `time_zone`]."""

    provider_id: str | None
    """None: the whole fleet."""
    as_of: Timestamp
    window_days: float
    time_zone: str
    hourly_availability: tuple[tuple[float | None, ...], ...]
    observed_seconds: tuple[tuple[float, ...], ...]
    """How much time stands behind each cell."""
    uptime_pct: float | None


class CalibrationBin(Struct, frozen=True, kw_only=True):
    """Forecasts between `low` and `high`: how many, their mean, and the share that came true."""

    low: float
    high: float
    n: int
    mean_forecast: float | None
    observed: float | None


class BacktestHorizon(Struct, frozen=True, kw_only=True):
    """How the forecast did at one horizon, on cases that were not known when it was made."""

    horizon_s: float
    n: int
    base_rate: float | None
    auc: float | None
    brier: float | None
    log_loss: float | None
    brier_base_rate: float | None
    """Brier score of always saying the base rate."""
    calibration: tuple[CalibrationBin, ...]


class Backtest(Struct, frozen=True, kw_only=True):
    """Forecasts made at past cuts with only what was known then, against what came."""

    from_: Timestamp | None
    to: Timestamp | None
    cuts: int
    every_s: float
    window_s: float
    model: str
    horizons: tuple[BacktestHorizon, ...]
    note: str = ""


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


class Alerts(Struct, frozen=True, kw_only=True):
    entries: tuple[AlertEntry, ...]


class CheckAnswer(Struct, frozen=True, kw_only=True):
    files: int
    rows: int
    segments: int
    problems: tuple[str, ...]


class BackupRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`name`: of a directory beneath the coordinator's own backups that the copy's new directory is made in."""

    name: str | None = None


class BackupAnswer(Struct, frozen=True, kw_only=True):
    path: str


# ---- work


class Counts(Struct, frozen=True, kw_only=True):
    """Tasks by how they stand. They sum to `tasks`."""

    tasks: int
    waiting: int
    running: int
    """Those with a live attempt that holds a lease, in doubt and frozen ones included."""
    completed: int
    failed: int
    cancelled: int


class JobEntry(Struct, frozen=True, kw_only=True):
    """One job."""

    job_id: int
    tenant: str
    name: str
    state: str
    """pending, staging, running, completed, failed or cancelled."""
    reason: str
    """Why it stands as it does."""
    submitted_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None
    submitted_by: str
    cancelling: str
    """Why it is being cancelled; empty: it is not."""
    retries: int
    """Manual ones."""
    counts: Counts


class Jobs(Struct, frozen=True, kw_only=True):
    entries: tuple[JobEntry, ...]
    next_page: str | None = None


class StepEntry(Struct, frozen=True, kw_only=True):
    """One step of a job."""

    step: int
    name: str
    state: str
    reason: str
    needs: tuple[str, ...]
    """Names of the steps that it waits for."""
    when: str
    nodes: int
    counts: Counts


class ExitEntry(Struct, frozen=True, kw_only=True):
    """How a rank ended. `cause`: exited, signalled, timeout, oom, log_full, start, stopped, expired or agent."""

    cause: str
    code: int | None
    signal: int | None
    text: str
    ran_seconds: float
    out_bytes: int
    err_bytes: int
    dropped_bytes: int
    """Beyond a log's bound."""
    memory_max: int
    cpu_seconds: float


class RankEntry(Struct, frozen=True, kw_only=True):
    """One node's share of an attempt, and what it holds there."""

    rank: int
    provider_id: str
    cpus: float
    memory: int
    """Bytes."""
    gpus: tuple[int, ...]
    """Indexes of the GPUs on the provider."""
    launched: bool
    running: bool
    released: bool
    exit: ExitEntry | None


class AttemptEntry(Struct, frozen=True, kw_only=True):
    """One try of a task."""

    attempt: str
    """`JOB.STEP.TASK.ATTEMPT`."""
    number: int
    state: str
    """reserved, leased, staging, running, in_doubt, frozen, completed, failed, cancelled, lost or taken_back."""
    reason: str
    created_at: Timestamp
    started_at: Timestamp | None
    ended_at: Timestamp | None
    doubted_at: Timestamp | None
    lease_over_at: Timestamp | None
    """Of one in doubt: from then on it cannot be running any more."""
    unblocked_by: str
    forecast: float | None
    """P(its provider stays for the expected run time) when it was placed."""
    ranks: tuple[RankEntry, ...]


class TaskEntry(Struct, frozen=True, kw_only=True):
    """A task that was launched at least once, or is about to be."""

    task: str
    """`JOB.STEP.TASK`."""
    step: str
    """The step's name."""
    number: int
    values: dict[str, str]
    """What its placeholders stand for."""
    state: str
    reason: str
    attempts: int
    failures: int
    """Charged to retry.limit."""
    losses: int
    """Charged to retry.losses."""
    not_before: Timestamp | None
    """A retry backs off until then."""
    failed_on: tuple[str, ...]
    straggler: bool
    started_at: Timestamp | None
    ended_at: Timestamp | None
    exit_code: int | None
    waits_for: str
    tries: tuple[AttemptEntry, ...]
    """Its attempts, the oldest first; only where they were asked for."""


class Tasks(Struct, frozen=True, kw_only=True):
    """Tasks by step and number. Those that were never launched have no entry: they are counted in their step."""

    entries: tuple[TaskEntry, ...]
    next_page: str | None = None


class JobDetails(Struct, frozen=True, kw_only=True):
    """A job, its steps, and the first of its tasks with their attempts."""

    job: JobEntry
    deadline: Timestamp | None
    steps: tuple[StepEntry, ...]
    tasks: tuple[TaskEntry, ...]
    next_page: str | None = None
    """Of `/v1/jobs/{id}/tasks`, when there are more."""


class Obstacle(Struct, frozen=True, kw_only=True):
    """One constraint and how many of the enrolled providers it alone rules out."""

    constraint: str
    providers: int
    text: str
    ever: bool
    """Waiting may help."""


class StepWhy(Struct, frozen=True, kw_only=True):
    """Why a step's tasks run or do not run."""

    step: int
    name: str
    tasks: int
    waiting: int
    running: int
    verdict: str
    """runs, wait, never or ended."""
    text: str
    hint: str
    """The nearest change that would help."""
    able_now: int
    """Providers that could take a task of it this moment."""
    able_ever: int
    """Providers that could with nothing else on them."""
    eta: Timestamp | None
    """When capacity is expected to be free, where run times or limits tell."""
    obstacles: tuple[Obstacle, ...]


class JobWhy(Struct, frozen=True, kw_only=True):
    """Why a job stands as it does, step by step."""

    job_id: int
    state: str
    reason: str
    providers: int
    """Enrolled ones."""
    steps: tuple[StepWhy, ...]


class StepPlan(Struct, frozen=True, kw_only=True):
    """A step as it would be run."""

    step: int
    name: str
    needs: tuple[str, ...]
    when: str
    tasks: int
    nodes: int
    resources: tuple[str, ...]
    """The alternatives in words, the preferred one first."""
    commands: tuple[tuple[str, ...], ...]
    """Argument lists of the first tasks."""
    settings: dict[str, str]
    """Whatever was not left at its default, in words."""


class Preview(Struct, frozen=True, kw_only=True):
    """A job that was not submitted: what it consists of, and who could run it now."""

    name: str
    tenant: str
    tasks: int
    deadline: Timestamp | None
    steps: tuple[StepPlan, ...]
    providers: int
    """Enrolled ones."""
    why: tuple[StepWhy, ...]


class EventEntry(Struct, frozen=True, kw_only=True):
    """One transition, or one thing that a person did."""

    seq: int
    at: Timestamp
    wall_ns: int
    mono_ns: int
    """CLOCK_BOOTTIME of the head node."""
    entity: str
    """job, step, task, attempt, provider, token or pool."""
    subject: str
    before: str
    after: str
    why: str
    by: str
    unblocked_by: str
    tenant: str
    job_id: int | None
    provider_id: str | None


class Audit(Struct, frozen=True, kw_only=True):
    """Newest first."""

    entries: tuple[EventEntry, ...]
    next_page: str | None = None


class LogEvent(Struct, frozen=True, kw_only=True):
    """A piece of a log in an event stream; the event's id leads to what follows it."""

    attempt: str
    rank: int
    stream: str
    """stdout or stderr."""
    offset: int
    """Where it begins in its stream."""
    at: Timestamp
    """When it arrived here."""
    data: str
    encoding: str = "utf-8"
    """utf-8, or base64 for bytes that are not."""


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
    """When a task that is queued now should start: now where there is room, else where run times tell."""


class NodePools(Struct, frozen=True, kw_only=True):
    entries: tuple[NodePool, ...]


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
