"""The live work: jobs that have not ended, their steps and tasks, and every attempt that still holds something.

Part of the ClusterState, changed by functions of this package alone. Nothing here grows with history: tasks that were
never launched are a range, tasks that ended are counts, an attempt goes when nothing of it holds capacity any more.
"""

from __future__ import annotations

from msgspec import Struct, field

from coordinator.core.account import Accounts
from coordinator.core.amounts import Ask, Share
from coordinator.core.ids import AttemptId, JobId, Ms, PoolName, ProviderId, TaskId, TenantName
from coordinator.core.jobspec import Isolation, JobSpec, StepSpec
from coordinator.core.rows import LIVE_ATTEMPT, AttemptRow, JobRow, LeaseToken, StepRow, TaskRow
from coordinator.core.wheel import Wheel

NO_TOKEN = LeaseToken(0, 0)
"""Of an attempt that was not granted yet."""
FRESH = 1 << 60
"""Stands for "the next task that was never launched" in a line: behind every task that has a number."""
RECENT_MAX = 4_096
"""Jobs that ended lately and are remembered (about 2 MB): a look into the store may have missed their end."""


class Want(Struct, frozen=True, gc=False, kw_only=True, cache_hash=True):
    """What a task needs of a provider. Tasks with equal wants stand in one line and are judged once."""

    tenant: TenantName
    asks: tuple[Ask, ...]
    nodes: int
    pools: tuple[PoolName, ...]
    labels: tuple[tuple[str, str], ...]
    isolation: Isolation
    min_score: float | None
    min_forecast: float | None
    horizon_ms: Ms
    """How long it is expected to run."""
    avoid: tuple[ProviderId, ...] = ()
    """Where it must not be placed again."""


Place = tuple[JobId, int, int]
"""A place in a line: (job, step, task), or FRESH as the task. Their order is that of the queue."""


class Line(Struct, kw_only=True):
    """Those who wait for the same."""

    heap: list[Place] = field(default_factory=list)
    """Who left the line stays in here until it is its turn."""
    waiting: int = 0
    blocked: bool = False
    """A Place found nothing for it."""
    judged: int = 0
    """Of one that is blocked: `Work.betters` when nothing was found. Only who got better since can be something."""
    looked_ms: Ms = 0
    """`Work.looked_ms` then: forecasts and scores move with the time."""


class Task(Struct, kw_only=True):
    """A task that has a row and has not ended."""

    row: TaskRow
    attempts: dict[int, Attempt] = field(default_factory=dict)
    """Its live ones by number: one, or with `overlap` or a replacement two. Ended ones that still hold capacity are
    only in `Work.attempts`."""
    cancelling: bool = False
    wanted: bool = False
    """Its attempt is in doubt, and a replacement is to be reserved or launched."""
    newest: LeaseToken = NO_TOKEN
    """The highest token that was issued for it: only the attempt that has it may come back from being lost."""
    line: Want | None = None
    """Where it stands in the queue."""


class Attempt(Struct, kw_only=True):
    """An attempt that is live, or ended and still holds capacity somewhere."""

    row: AttemptRow
    renewed_ms: list[Ms]
    """By rank: receipt of the last heartbeat that renewed it. Memory only, carried over a full disk."""
    terms_ms: list[Ms]
    """By rank: the longest term that its agent may hold, counted from `renewed_ms`. Never above `row.term_ms`."""
    stopping: str = ""
    """Why its agents were told to stop it."""
    silent: set[int] = field(default_factory=set)
    """Ranks whose provider is suspect or gone."""
    granted_ms: Ms = 0
    """When its grant was sent, as far as is remembered."""
    shrinks: dict[int, tuple[int, Ms]] = field(default_factory=dict)
    """By rank: the renewal (its seq) that told of a shorter term. It counts when the agent is known to have it."""
    tenant: TenantName = TenantName("")
    """Its job's; empty when that had ended before the coordinator started."""


class Step(Struct, kw_only=True):
    """One step of a live job."""

    row: StepRow
    spec: StepSpec
    tasks: dict[int, Task] = field(default_factory=dict)
    """Those below the cursor that have not ended."""
    ready: bool = False
    """Everything that it needs has ended as it wants it."""
    retry: list[int] = field(default_factory=list)
    """Tasks that have a row and no live attempt, and may be placed when their backoff is over; in their order."""
    running: int = 0
    """Tasks with a live attempt that has a token."""
    lasted_ms: list[Ms] = field(default_factory=list)
    """Run times of the last hundred that completed, for the median. Memory only."""
    unblocked_by: str = ""
    """What let it start."""
    closed: bool = False
    """Its tasks that were never launched never will be: they are counted as cancelled."""
    want: Want
    line: Want | None = None
    """Where its next task that was never launched stands in the queue."""


class Job(Struct, kw_only=True):
    """A live job."""

    row: JobRow
    spec: JobSpec
    steps: list[Step]
    retried_ms: list[Ms] = field(default_factory=list)
    """When its last retries were, as many as a storm needs. Memory only."""
    stormed: bool = False
    """A retry storm was reported. Memory only."""


class Load(Struct, kw_only=True):
    """What a provider holds for attempts. Derived from the attempts alone; rebuilt on load."""

    cpus: int = 0
    """Held, in millionths; likewise the others."""
    memory: int = 0
    gpus: list[int] = field(default_factory=list)
    """Held of each GPU, by index."""
    named: dict[str, int] = field(default_factory=dict)
    attempts: dict[tuple[AttemptId, int], TenantName] = field(default_factory=dict)
    """(attempt, rank) of all that hold something here or stand in line, and whose they are."""
    behind: dict[tuple[AttemptId, int], Share] = field(default_factory=dict)
    """Of these the prefetched ones that hold nothing yet, in the order of their tokens. While there are any, the first
    of them does not fit, and nothing else is placed here."""
    failures: list[tuple[JobId, Ms]] = field(default_factory=list)
    """Failures in a row, oldest first. Memory only."""


class Work:
    """Jobs, attempts and what providers hold."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, Job] = {}
        """In the order of submission, which is the order of the queue."""
        self.attempts: dict[AttemptId, Attempt] = {}
        self.behind: dict[TenantName, tuple[int, int]] = {}
        """CPUs and memory that prefetched ones of a tenant will hold when it is their turn; absent: nothing."""
        self.loads: dict[ProviderId, Load] = {}
        """Of providers that hold something or failed lately; absent: nothing."""
        self.by_key: dict[tuple[TenantName, str], JobId] = {}
        """Idempotency keys of live jobs."""
        self.recent: dict[JobId, JobRow] = {}
        """Jobs that ended lately, RECENT_MAX of them: the oldest goes first."""
        self.recent_keys: dict[tuple[TenantName, str], JobId] = {}
        """Idempotency keys of the recent ones."""
        self.queue: dict[Want, Line] = {}
        """Everything that could be placed at once if there were room."""
        self.accounts = Accounts()
        """Of tenants."""
        self.wheel: Wheel[tuple[int, ...]] = Wheel()
        """(job): its deadline. (job, step): the look for stragglers. TaskId: the end of a backoff. AttemptId: a look
        at its lease."""
        self.quarantined: dict[ProviderId, Ms] = {}
        """Until when."""
        self.looked_ms: Ms = 0
        """When the queue was last looked at for no other reason than the time."""
        self.touched_steps: dict[tuple[JobId, int], Step] = {}
        """Counts that changed in this decision; written at its end. Empty between decisions, like the next one."""
        self.touched_jobs: dict[JobId, Job] = {}
        self.betters = 0
        """How often a provider became able to take what it could not before."""
        self.bettered: dict[ProviderId, int] = {}
        """Which of these times was the last one of each provider; the latest stands last."""
        self.place_due = False
        """The queue or capacity changed: the engine posts a Place."""
        self.freed_by: str = ""
        """What freed capacity last, as `AuditRow.unblocked_by` has it."""
        self.next_job_id = JobId(1)
        self.next_token = 1
        self.next_audit = 1

    def load_of(self, provider_id: ProviderId) -> Load:
        """What it holds, to be changed."""
        load = self.loads.get(provider_id)
        if load is None:
            load = self.loads[provider_id] = Load()
        return load

    def drop_empty_load(self, provider_id: ProviderId) -> None:
        """A provider that holds nothing and failed nothing lately has none."""
        load = self.loads.get(provider_id)
        if load is not None and not load.attempts and not load.failures:
            del self.loads[provider_id]

    def better(self, provider_id: ProviderId) -> None:
        """This provider may be able to take what it could not before."""
        self.betters += 1
        self.bettered.pop(provider_id, None)
        self.bettered[provider_id] = self.betters
        self.ask_place()

    def better_since(self, then: int) -> list[ProviderId]:
        """Who became better after `betters` was `then`. O(those)."""
        found = []
        for provider_id in reversed(self.bettered):
            if self.bettered[provider_id] <= then:
                break
            found.append(provider_id)
        return found

    def ask_place(self) -> None:
        """Capacity or the queue changed: whoever waits should be looked at."""
        if self.queue:
            self.place_due = True

    def task(self, task_id: TaskId) -> Task | None:
        """The live task of this id."""
        job = self.jobs.get(task_id[0])
        if job is None or not 0 <= task_id[1] < len(job.steps):
            return None
        return job.steps[task_id[1]].tasks.get(task_id[2])


def is_live(attempt: Attempt) -> bool:
    """It may run, or may yet be launched."""
    return attempt.row.state in LIVE_ATTEMPT
