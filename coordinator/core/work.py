"""The live work: jobs that have not ended, their steps and tasks, and every attempt that still holds something.

Part of the ClusterState, changed by functions of this package alone. Nothing here grows with history: tasks that were
never launched are a range, tasks that ended are counts, an attempt goes when nothing of it holds capacity any more.
"""

from __future__ import annotations

from msgspec import Struct, field

from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TaskId, TenantName
from coordinator.core.jobspec import JobSpec, StepSpec
from coordinator.core.rows import AttemptRow, JobRow, StepRow, TaskRow


class Task(Struct, kw_only=True):
    """A task that has a row and has not ended."""

    row: TaskRow
    attempts: dict[int, Attempt] = field(default_factory=dict)
    """Its live ones by number: one, or with `overlap` or a replacement two. Ended ones that still hold capacity are
    only in `Work.attempts`."""
    cancelling: bool = False


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


class Job(Struct, kw_only=True):
    """A live job."""

    row: JobRow
    spec: JobSpec
    steps: list[Step]
    retried_ms: list[Ms] = field(default_factory=list)
    """When its last retries were, as many as a storm needs. Memory only."""


class Load(Struct, kw_only=True):
    """What a provider holds for attempts. Derived from the attempts alone; rebuilt on load."""

    cpus: int = 0
    """Held, in millionths; likewise the others."""
    memory: int = 0
    gpus: list[int] = field(default_factory=list)
    """Held of each GPU, by index."""
    named: dict[str, int] = field(default_factory=dict)
    attempts: set[tuple[AttemptId, int]] = field(default_factory=set)
    """(attempt, rank) of all that hold something here."""
    failures: list[tuple[JobId, Ms]] = field(default_factory=list)
    """Failures in a row, oldest first. Memory only."""


class Work:
    """Jobs, attempts and what providers hold."""

    def __init__(self) -> None:
        self.jobs: dict[JobId, Job] = {}
        """In the order of submission, which is the order of the queue."""
        self.attempts: dict[AttemptId, Attempt] = {}
        self.loads: dict[ProviderId, Load] = {}
        """Of providers that hold something or failed lately; absent: nothing."""
        self.by_key: dict[tuple[TenantName, str], JobId] = {}
        """Idempotency keys of live jobs."""
        self.recent_keys: dict[tuple[TenantName, str], JobRow] = {}
        """Of jobs that ended lately: a look into the store may have missed them. Bounded, the oldest goes first."""
        self.place_due = False
        """The queue or capacity changed: the engine posts a Place."""
        self.freed_by: str = ""
        """What freed capacity last, as `AuditRow.unblocked_by` has it."""
        self.next_job_id = JobId(1)
        self.next_token = 1
        self.next_audit = 1

    def task(self, task_id: TaskId) -> Task | None:
        """The live task of this id."""
        job = self.jobs.get(task_id[0])
        if job is None or not 0 <= task_id[1] < len(job.steps):
            return None
        return job.steps[task_id[1]].tasks.get(task_id[2])
