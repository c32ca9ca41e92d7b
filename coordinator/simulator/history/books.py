"""The replay's own books: what ran from when to when, and what came of it. They never ask the scheduler."""

from __future__ import annotations

from msgspec import Struct, field

from coordinator.core.ids import AttemptId, JobId, Ms
from coordinator.simulator.history.workload import Job


class Record(Struct, kw_only=True):
    """One job as it went."""

    job: Job
    started_ms: Ms | None = None
    """When its first attempt began to run."""
    ended_ms: Ms | None = None
    starts: int = 0
    """Attempts of it that began to run."""
    wasted_ms: Ms = 0
    """Run time of ranks whose attempt came to nothing, all together; of one that saved its state, since then."""
    saving_ms: Ms = 0
    """Of its ranks together, spent on taking checkpoints and on laying them out."""
    kept_ms: Ms = 0
    """Up to when what it did is kept, whatever happens; 0: nothing of it."""
    running: dict[int, Ms] = field(default_factory=dict)
    """Ranks of its live attempt that run: since when."""
    done: int = 0
    """Ranks of its live attempt that have ended well."""


class Step(Struct, frozen=True, gc=False):
    """From this moment on so much more, or less, is held. Amounts as in core.amounts."""

    at_ms: Ms
    cpus: int
    gpus: int
    tenant: str


class Books:
    """Jobs by the number that the coordinator gave them, and how much was held when."""

    def __init__(self) -> None:
        self.records: dict[JobId, Record] = {}
        self.refusals: list[str] = []
        """What the coordinator said to jobs that it did not take."""
        self.steps: list[Step] = []
        self.waiting: list[tuple[Ms, int]] = []
        """(when, how many jobs more or less wait for their first start)."""

    def submitted(self, job_id: JobId, job: Job) -> None:
        self.records[job_id] = Record(job=job)
        self.waiting.append((job.at_ms, 1))

    def began(self, attempt_id: AttemptId, rank: int, at_ms: Ms) -> None:
        """This rank runs from now on."""
        record = self.records[attempt_id[0]]
        if not record.running and not record.done:
            record.starts += 1
        if record.started_ms is None:
            record.started_ms = at_ms
            self.waiting.append((at_ms, -1))
        assert rank not in record.running, f"rank {rank} of {attempt_id} runs twice"
        record.running[rank] = at_ms
        self._hold(record, at_ms, 1)

    def kept(self, attempt_id: AttemptId, at_ms: Ms, cost_ms: Ms) -> None:
        """All its ranks stood still for `cost_ms` up to now; what was done before is a checkpoint, or was one."""
        record = self.records[attempt_id[0]]
        record.saving_ms += cost_ms * record.job.nodes
        record.kept_ms = at_ms

    def ended(self, attempt_id: AttemptId, rank: int, at_ms: Ms, *, well: bool) -> None:
        """This rank runs no more: it came to its end, or died or was stopped. What its attempt did and did not save is
        lost then."""
        record = self.records[attempt_id[0]]
        since_ms = record.running.pop(rank)
        self._hold(record, at_ms, -1)
        if well:
            record.done += 1
            if record.done == record.job.nodes:
                record.ended_ms = at_ms
            return
        record.wasted_ms += at_ms - max(since_ms, record.kept_ms) + record.done * record.job.run_ms
        record.done = 0

    def _hold(self, record: Record, at_ms: Ms, sign: int) -> None:
        ask = record.job.ask
        self.steps.append(Step(at_ms, sign * ask.cpus, sign * ask.gpus, record.job.tenant))
