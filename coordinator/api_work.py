"""The structs of HTTP answers about work: jobs, steps, tasks, attempts, their logs, what happens, and capacity.

`api_types` has them too: readers import them from there.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

Timestamp = str
"""RFC 3339, UTC, milliseconds."""
Amount = Annotated[int, Meta(ge=0, le=2**53)]
"""Beyond this JSON's numbers are not exact everywhere."""


class PriceEntry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Of an hour, in millionths of the unit of account: of one CPU, of one GPU, of 10^9 bytes of memory."""

    cpu: Amount = 0
    gpu: Amount = 0
    memory: Amount = 0


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
    priority: int = 0
    estimate: int = 0
    """What was reserved for it when it was admitted, in millionths of the unit of account."""
    estimate_text: str = "0"
    cost: int = 0
    """What it was charged so far."""
    cost_text: str = "0"
    promised_at: Timestamp | None = None
    """When its first task was first expected to start."""
    progress: float | None = None
    """0..1 over all of its tasks, as far as programs tell; null where none does, and when it has ended."""
    eta: Timestamp | None = None
    """When it should end by that; null where a task of it waits, or runs and does not tell."""


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
    resources: tuple[str, ...] = ()
    """What a rank asks, in words: the alternatives, the preferred one first."""
    command: tuple[str, ...] = ()
    """The argument list of its first task."""
    settings: dict[str, str] = {}
    """Whatever was not left at its default, in words; of the environment the names alone."""


class ExitEntry(Struct, frozen=True, kw_only=True):
    """How a rank ended. `cause`: exited, signalled, timeout, oom, log_full, stalled, output, start, stage, stopped,
    expired or agent."""

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


class ChoiceEntry(Struct, frozen=True, kw_only=True):
    """Why an attempt was placed where it is: the terms of its ranking, the worst rank's where there are several."""

    among: int
    """Providers that could have taken it."""
    run_ms: int
    """How long it was taken to run."""
    loss_ms: int
    """Work that was expected to be lost there with the provider."""
    fit: float
    """0: fills what was free there completely, 1: leaves all of it; the other way round where work is spread."""
    basis: str
    """What the forecast rests on: provider, age or none."""
    backfilled: bool
    """It started before one that stands ahead of it, without delaying that one's planned start."""
    fetch: int = 0
    """Bytes of its inputs that were not in the caches there."""


class ProgressEntry(Struct, frozen=True, kw_only=True):
    """What a program said last of how far it is."""

    at: Timestamp
    fraction: float | None
    """0..1; null: it gave none."""
    values: dict[str, str]
    text: str


class VerdictBrief(Struct, frozen=True, kw_only=True):
    """What an attempt died of, without the lines that this rests on."""

    cause: str
    """A class of docs/reference/causes.md."""
    fault: str
    """job, provider, platform, data, nobody or unknown."""
    recommendation: str
    """RESTART, RESTART_ELSEWHERE, STOP, OK or UNKNOWN."""
    confidence: float
    summary: str
    advice: str
    late: bool
    """It came when the rules for exit codes had decided, or corrects one that came before it."""


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
    choice: ChoiceEntry | None = None
    prefetched: bool = False
    """Granted behind others that run there: it starts when its agent has room."""
    restored: int = 0
    """The checkpoint that it resumed from; 0: none."""
    progress: ProgressEntry | None = None
    eta: Timestamp | None = None
    """When it should end, as fast as its progress was until now; null: nothing tells."""
    saved_ms: int | None = None
    """How much of what it did is in a checkpoint, while it runs and when it ended without a result."""
    lost_ms: int | None = None
    """Of one that ended without a result: how much it had done since its last checkpoint."""
    verdict: VerdictBrief | None = None
    """What it died of; null: nothing is known (yet)."""


class AvoidedEntry(Struct, frozen=True, kw_only=True):
    """A provider that a verdict sends a task away from."""

    provider_id: str
    at: Timestamp
    until: Timestamp | None
    """Until then it is not placed there at all; null: it only counts as worse there."""
    why: str


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
    avoids: tuple[AvoidedEntry, ...] = ()
    """Where its verdicts send it away from, while it has not ended."""


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
    """When it is expected to start, those ahead of it in the queue counted, where run times or limits tell."""
    obstacles: tuple[Obstacle, ...]
    ahead: int = 0
    """Places in the queue before it."""


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


class DimensionAsk(Struct, frozen=True, kw_only=True):
    """A limited dimension of a tenant's quota, and what a job would ask of it. Units as in `api_tenants`."""

    name: str
    used: int
    reserved: int
    request: int
    limit: int
    guardrail: int
    fits: bool


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
    estimate: int = 0
    """What would be reserved for it, in millionths of the unit of account."""
    estimate_text: str = "0"
    dimensions: tuple[DimensionAsk, ...] = ()
    """The tenant's limited dimensions."""


class EventEntry(Struct, frozen=True, kw_only=True):
    """One transition, or one thing that a person did."""

    seq: int
    at: Timestamp
    wall_ns: int
    mono_ns: int
    """CLOCK_BOOTTIME of the head node."""
    entity: str
    """job, step, task, attempt, provider, token, pool or tenant."""
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
