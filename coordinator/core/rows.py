"""The rows of the truth: what survives a restart, as the core writes it and the store keeps it.

Frozen: a change is a new row. `store` has the SQL beside each of these. Times are Unix milliseconds on
the observed clock (wall clock at boot + monotonic, never decreasing).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from operator import attrgetter
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from coordinator.core.amounts import Ask, Price, Share
from coordinator.core.audit_rows import AuditRow as AuditRow
from coordinator.core.data.rows import (
    ArtifactRow,
    BlobRow,
    CheckpointRow,
    DataRow,
    FileEntry,
    HoldRow,
    OutputRow,
    UploadRow,
)
from coordinator.core.ends import EndCause as EndCause
from coordinator.core.ends import ExitInfo as ExitInfo
from coordinator.core.ids import (
    AttemptId,
    Digest,
    JobId,
    Ms,
    PoolName,
    ProviderId,
    ProviderKey,
    SessionId,
    TaskId,
    TenantName,
    TokenId,
)
from coordinator.core.verdict.rows import Judged, SuspicionRow, VerdictRow
from coordinator.core.work.jobspec import Isolation, JobSpec


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
    named: dict[str, float] = {}
    """Whatever else is counted there: licences, slots of a device."""


class Promises(Struct, frozen=True, gc=False, kw_only=True):
    """What a provider's agent has found that it can do for attempts."""

    work: bool = False
    """It runs attempts at all; an agent that speaks version 1 does not."""
    isolation: Isolation = Isolation.NONE
    """The most that it gives."""
    kills_all: bool = False
    """Nothing of an attempt survives, not even the death of the keeper (cgroup or PID namespace)."""
    freezes_all: bool = False
    """By the cgroup freezer; else by stopping every process that it can find."""
    memory_limit: bool = False
    """By cgroup; else by rlimit of each process."""
    prefetch: int = 0
    """Prefetched leases that it takes at a time; 0: none, like an agent that is one version older."""
    data: bool = False
    """It stages inputs, publishes outputs and keeps checkpoints; an agent that is one version older does not."""
    cpu_limit: bool = False
    """No attempt gets more CPU time than it asked for; else it takes what is there."""
    disk_bytes: int = 0
    """Of the disks that inputs are brought to, the smaller one's whole size; 0: an agent that is one version older."""


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
    promises: Promises = Promises()
    quarantined_until_ms: Ms | None = None
    quarantine_why: str = ""
    quarantines: int = 0
    """In a row, without a success between them: each is twice as long as the one before."""


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
    price: Price = Price()
    """What is granted from now on costs so much; a lease keeps the price that it was granted at."""


class OnFull(StrEnum):
    """What becomes of a job whose tenant has no room for it now under its concurrent quotas."""

    QUEUE = "queue"
    REFUSE = "refuse"


class OnBudget(StrEnum):
    """What becomes of running work when its tenant's budget is used up. Nothing new starts either way."""

    CONTINUE = "continue"
    STOP = "stop"


class Quota(Struct, frozen=True, gc=False, kw_only=True):
    """What a tenant may use. None: no limit. Amounts as in `amounts`."""

    cpus: int | None = None
    """Held at a time, in millionths; likewise gpus. A concurrent quota is filled to its guardrail, 90 %."""
    gpus: int | None = None
    memory: int | None = None
    """Bytes held at a time."""
    running: int | None = None
    """Jobs that hold something at a time; exact, without a guardrail, like `queued`."""
    queued: int | None = None
    """Jobs that wait for their first lease."""
    storage: int | None = None
    """Bytes kept. A cumulative quota refuses what would reach its guardrail, 90 %; so do the next three."""
    ingress: int | None = None
    """Bytes in a month (UTC); likewise egress."""
    egress: int | None = None
    budget: int | None = None
    """Millionths of the unit of account in a month (UTC)."""


class TenantRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="tenant"):
    """Who submits, pays and is isolated. Key: `name`. `default` is there without a row, until it is changed."""

    name: TenantName
    created_at_ms: Ms
    note: str = ""
    quota: Quota = Quota()
    weight: int = 1
    """Of its fair share: 3 beside 1 gets three quarters."""
    priority_max: int = 0
    """The highest priority that its own tokens may ask for; an admin may ask for any."""
    on_full: OnFull = OnFull.QUEUE
    on_budget: OnBudget = OnBudget.CONTINUE
    runtime_ms: Ms = 3_600_000
    """How long a task is taken to run that says neither how long it will nor how long it may: for estimates."""


class AccountRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="account"):
    """What a tenant has used. Key: `tenant`. One row: the month before is in the ledger."""

    tenant: TenantName
    month: int
    """As 202611, UTC: cost, ingress and egress began at 0 with it."""
    cost: int = 0
    """The sum of its ledger rows of this month, exactly."""
    ingress: int = 0
    egress: int = 0
    storage: int = 0
    """Bytes of its blobs, each counted once: the sum of its blob rows, exactly."""
    storage_mb_s: int = 0
    """Of this month: what was kept times how long, up to `storage_at_ms`, in megabyte-seconds (10^6 bytes for 1 s)."""
    storage_at_ms: Ms = 0
    share: float = 0.0
    """Its dominant share of the fleet, decayed: what fair share remembers."""
    share_at_ms: Ms = 0


class LedgerRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="ledger"):
    """One charge: what one rank of an attempt held for how long, at which price. Key: `seq`, which counts up.

    Other kinds than `run` meter bytes of a tenant in one hour (UTC), which begins at `at_ms`: of them that, `month`,
    `tenant`, `kind`, `amount` and `cost` count, and the row of the current hour is written anew as it grows.

    `cost` = ceil of (cpus x price.cpu + gpus x price.gpu + memory x price.memory) x length, in whole millionths.
    """

    seq: int
    at_ms: Ms
    month: int
    tenant: TenantName
    job_id: JobId
    step: int
    task: int
    attempt: int
    rank: int
    provider_id: ProviderId
    pool: PoolName
    cpus: int
    gpus: int
    memory: int
    price: Price
    ran_ms: Ms
    """Metered: never more than the coordinator saw, whatever the agent says."""
    cost: int
    kind: str = "run"
    """`run`, `ingress`, `egress` (bytes) or `storage` (megabyte-seconds)."""
    amount: int = 0


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


# ---- work


class WorkState(StrEnum):
    """How a job, a step or a task stands."""

    PENDING = "pending"
    STAGING = "staging"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED = frozenset({WorkState.COMPLETED, WorkState.FAILED, WorkState.CANCELLED})


class AttemptState(StrEnum):
    """How one attempt stands. The ones up to FROZEN are live: the attempt may run, or may yet be launched."""

    RESERVED = "reserved"
    """Capacity is held for it while the attempt before it is in doubt; it has no token yet."""
    LEASED = "leased"
    """The grant is on its way; nothing was started."""
    STAGING = "staging"
    """Its agents hold the lease and were told to launch it."""
    RUNNING = "running"
    IN_DOUBT = "in_doubt"
    """A provider of it is silent. It may be running until its lease is over."""
    FROZEN = "frozen"
    """Its agent stopped its processes, and says so."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    """With its provider, or its lease ran out."""
    TAKEN_BACK = "taken_back"
    """It was never launched: the grant was not answered or was refused, or it was not needed any more."""


LIVE_ATTEMPT = frozenset(
    {
        AttemptState.RESERVED,
        AttemptState.LEASED,
        AttemptState.STAGING,
        AttemptState.RUNNING,
        AttemptState.IN_DOUBT,
        AttemptState.FROZEN,
    }
)


class LeaseToken(Struct, frozen=True, gc=False, order=True, array_like=True):
    """Only grows. An agent and the coordinator refuse the lower one."""

    generation: int
    number: int


class RankRow(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One node's share of an attempt."""

    provider_id: ProviderId
    share: Share = Share(ask=Ask())
    acked: bool = False
    """Its agent holds the lease."""
    launched: bool = False
    """The order to launch was given: from now on it may be running."""
    running: bool = False
    """Its agent said that it runs."""
    released: bool = False
    """Nothing of it holds capacity there any more: its agent said so, or can hold nothing of it."""
    exit: ExitInfo | None = None
    price: Price = Price()
    """Its pool's when it was granted."""
    pool: PoolName = PoolName("")
    orphaned: bool = False
    """Its provider was forgotten, or is another machine now: whoever says hello under that name knows nothing of it."""


class JobRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="job"):
    """A job. Key: `job_id`. What it consists of is its SpecRow."""

    job_id: JobId
    tenant: TenantName
    name: str
    state: WorkState
    submitted_at_ms: Ms
    by: str
    """Who submitted it: `token:ID`."""
    tasks: int
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    started_at_ms: Ms | None = None
    ended_at_ms: Ms | None = None
    reason: str = ""
    """Why it stands as it does, in words."""
    cancelling: str = ""
    """Why it is being cancelled; empty: it is not."""
    retries: int = 0
    """Manual ones."""
    idempotency_key: str = ""
    """SHA-256 of the key; unique within the tenant. Empty: none was given."""
    body_digest: str = ""
    priority: int = 0
    estimate: int = 0
    """What was reserved for it when it was admitted, in millionths of the unit of account."""
    cost: int = 0
    """What it was charged so far: the sum of its ledger rows."""
    promised_at_ms: Ms | None = None
    """When its first task was first expected to start; compared with when it did."""


class SpecRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="spec"):
    """What a job consists of. Key: `job_id`. Written once."""

    job_id: JobId
    spec: JobSpec


class StepRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="step"):
    """One step's tasks as counts. Key: (`job_id`, `step`).

    Tasks get rows in their order: those below `cursor` have one, those from it on were never launched.
    """

    job_id: JobId
    step: int
    state: WorkState
    cursor: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    """Those that never got a row included."""
    reason: str = ""
    task_estimate: int = 0
    """What is reserved for each of its tasks until it ends, in millionths of the unit of account."""
    made: tuple[tuple[Digest, int], ...] = ()
    """The largest files that steps before it made for it, with their sizes, as far as that is known."""


class Progress(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """What a program said last of how far it is."""

    at_ms: Ms
    fraction: float | None = None
    """0..1"""
    values: tuple[tuple[str, str], ...] = ()
    """As it named them: (`step`, `1200`)."""
    text: str = ""


class TaskRow(Struct, frozen=True, gc=False, kw_only=True, array_like=True, tag_field="row", tag="task"):
    """A task that was launched at least once, or is about to be. Key: (`job_id`, `step`, `task`).

    Encoded as an array, like Choice, AttemptRow and AuditRow: a new field comes last and has a default.
    """

    job_id: JobId
    step: int
    task: int
    state: WorkState
    attempts: int = 0
    """How many were made: the number of the last one."""
    failures: int = 0
    """Charged to `retry.limit`."""
    losses: int = 0
    """Charged to `retry.losses`."""
    not_before_ms: Ms | None = None
    """A retry backs off until then."""
    failed_on: tuple[ProviderId, ...] = ()
    """Where it failed, oldest first, each once."""
    unstaged_on: tuple[ProviderId, ...] = ()
    """Where what it needs could not be brought: it is placed elsewhere."""
    straggler: bool = False
    started_at_ms: Ms | None = None
    """When its last attempt began to run."""
    ended_at_ms: Ms | None = None
    exit_code: int | None = None
    """Of rank 0 of its last attempt."""
    reason: str = ""
    waits_for: str = ""
    """What let it wait last: becomes `unblocked_by` of the next attempt."""
    checkpoints: tuple[int, ...] = ()
    """Numbers of those that are kept, rising, damaged ones left out."""
    checkpoint: int = 0
    """The highest number given."""
    saved_ms: Ms | None = None
    """When the newest of them was taken."""
    manifest: Digest = Digest("")
    """Of the newest of them: the same one again is no other checkpoint."""
    checkpoint_cost_ms: Ms | None = None
    """What one costs: the mean of the last ones."""
    judged: Judged | None = None
    """None: no verdict ever concerned it. Goes with its end."""

    @property
    def task_id(self) -> TaskId:
        return self.job_id, self.step, self.task


class Choice(Struct, frozen=True, gc=False, kw_only=True, array_like=True):
    """Why an attempt was placed where it is: the terms of its ranking. The worst rank's, where there are several. An
    array, see TaskRow."""

    among: int
    """Providers that could have taken it."""
    run_ms: Ms
    """How long it was taken to run."""
    loss_ms: Ms
    """Work that is expected to be lost there with the provider, of a run of `run_ms`."""
    fit: float
    """0: fills what is free there completely, 1: leaves all of it; the other way round where work is spread."""
    basis: str = ""
    """What the forecast rests on: `provider`, `age`, `none`."""
    backfilled: bool = False
    """It started before one that stands ahead of it, without delaying that one's planned start."""
    fetch: int = 0
    """Bytes of its inputs that were not in the provider's cache; of all ranks together."""


class AttemptRow(Struct, frozen=True, gc=False, kw_only=True, array_like=True, tag_field="row", tag="attempt"):
    """One try of a task, and its lease. Key: (`job_id`, `step`, `task`, `attempt`). An array, see TaskRow."""

    job_id: JobId
    step: int
    task: int
    attempt: int
    state: AttemptState
    created_at_ms: Ms
    ranks: tuple[RankRow, ...]
    token: LeaseToken = LeaseToken(0, 0)
    """(0, 0): none was issued yet."""
    term_ms: Ms = 0
    """The longest term that an agent of it may hold now. Durable before an agent hears of a longer one."""
    started_at_ms: Ms | None = None
    ended_at_ms: Ms | None = None
    doubted_at_ms: Ms | None = None
    lease_over_ms: Ms | None = None
    """Of one in doubt: from then on it cannot be running any more."""
    reason: str = ""
    unblocked_by: str = ""
    forecast: float | None = None
    """P(its provider stays for the expected run time) when it was placed; the lowest of several ranks."""
    choice: Choice | None = None
    prefetched: bool = False
    """Granted ahead, behind others that run there, and not heard to run since. Such ones stand in line there
    (`Load.behind`), hold nothing, and are started by their agent in the order of their tokens as room comes free. As
    it does they hold their shares in the same order; that follows from the rows, and is not written."""
    metered_ms: Ms | None = None
    """Until when it was charged; None: not yet."""
    restored: int = 0
    """The checkpoint that it resumed from; 0: none."""
    progress: Progress | None = None
    """Written when something else of it is, and every half minute."""
    outputs: tuple[FileEntry, ...] = ()
    """What its rank 0 brought while other ranks still run: the task's result when all of them succeed."""
    lost_ms: Ms | None = None
    """Of one that ended without a result: how much it had done since its last checkpoint."""

    @property
    def attempt_id(self) -> AttemptId:
        return self.job_id, self.step, self.task, self.attempt

    @property
    def task_id(self) -> TaskId:
        return self.job_id, self.step, self.task


Row = (
    ProviderRow
    | SessionRow
    | OutageRow
    | TokenRow
    | PoolRow
    | TenantRow
    | AccountRow
    | LedgerRow
    | MetaRow
    | JobRow
    | SpecRow
    | StepRow
    | TaskRow
    | AttemptRow
    | AuditRow
    | DataRow
    | VerdictRow
    | SuspicionRow
)


_KEYS: Mapping[type, tuple[str, Callable[[Any], object]]] = MappingProxyType({
    ProviderRow: ("provider", attrgetter("provider_id")),
    SessionRow: ("session", attrgetter("session_id")),
    OutageRow: ("outage", attrgetter("coordinator_id", "began_at_ms")),
    TokenRow: ("token", attrgetter("token_id")),
    PoolRow: ("pool", attrgetter("name")),
    TenantRow: ("tenant", attrgetter("name")),
    AccountRow: ("account", attrgetter("tenant")),
    LedgerRow: ("ledger", attrgetter("seq")),
    MetaRow: ("meta", attrgetter("name")),
    JobRow: ("job", attrgetter("job_id")),
    SpecRow: ("spec", attrgetter("job_id")),
    StepRow: ("step", attrgetter("job_id", "step")),
    TaskRow: ("task", attrgetter("job_id", "step", "task")),
    AttemptRow: ("attempt", attrgetter("job_id", "step", "task", "attempt")),
    AuditRow: ("audit", attrgetter("seq")),
    BlobRow: ("blob", attrgetter("tenant", "digest")),
    HoldRow: ("hold", attrgetter("tenant", "holder")),
    ArtifactRow: ("artifact", attrgetter("tenant", "name")),
    UploadRow: ("upload", attrgetter("upload_id")),
    OutputRow: ("output", attrgetter("job_id", "step", "task")),
    CheckpointRow: ("checkpoint", attrgetter("job_id", "step", "task", "number")),
    VerdictRow: ("verdict", attrgetter("job_id", "step", "task", "attempt")),
    SuspicionRow: ("suspicion", attrgetter("provider_id", "attempt")),
})  # fmt: skip


def row_key(row: Row) -> tuple[str, object]:
    """(table, primary key) of a row: two writes with the same one are one entity."""
    table, key = _KEYS[type(row)]
    return table, key(row)
