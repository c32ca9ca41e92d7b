"""The structs of HTTP answers about work: jobs, steps, tasks, their attempts and ranks."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.units import Timestamp


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
