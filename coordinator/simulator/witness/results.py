"""What became durable of the work: nothing ends twice, one result a task, budgets held, every change audited."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.core import commands
from coordinator.core.errors import CoordError
from coordinator.core.ids import AttemptId, JobId, TaskId, dotted
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AttemptRow,
    AttemptState,
    AuditRow,
    JobRow,
    LeaseToken,
    Row,
    SpecRow,
    StepRow,
    TaskRow,
    WorkState,
)
from coordinator.core.state import ClusterState
from coordinator.simulator.witness.ground import Ground
from coordinator.simulator.witness.runs import Runs

Stateful = JobRow | StepRow | TaskRow | AttemptRow
NO_TOKEN = LeaseToken(0, 0)


class Results:
    """Books of the durable rows of work, kept beside the disk's own."""

    def __init__(self, ground: Ground, runs: Runs) -> None:
        self.settled: dict[str, int] = {}
        """Ended jobs by state."""
        self._ground, self._runs = ground, runs
        self._jobs: dict[JobId, JobRow] = {}
        self._steps: dict[tuple[JobId, int], StepRow] = {}
        self._tasks: dict[TaskId, TaskRow] = {}
        self._attempts: dict[AttemptId, AttemptRow] = {}
        self._tokens: dict[LeaseToken, AttemptId] = {}
        self._newest: dict[TaskId, LeaseToken] = {}
        self._results: dict[TaskId, AttemptId] = {}
        self._charged: dict[TaskId, dict[AttemptState, set[int]]] = {}
        """Attempts that failed and were lost since the last manual retry."""
        self._keys: dict[str, JobId] = {}
        self._acked: set[JobId] = set()
        self._audited = 0

    # ---- what became durable

    def durable(self, writes: Sequence[commands.Write]) -> None:
        """One commit, in its order."""
        audited = {
            (write.row.entity, write.row.subject, write.row.after)
            for write in writes
            if isinstance(write, commands.Put) and isinstance(write.row, AuditRow)
        }
        for write in writes:
            if isinstance(write, commands.Put):
                self._take(write.row, audited)
        rows = [write.row for write in writes if isinstance(write, commands.Put)]
        for task in {row.task_id: row for row in rows if isinstance(row, TaskRow)}.values():
            self._check_budget(task)

    def _take(self, row: Row, audited: set[tuple[str, str, str]]) -> None:
        match row:
            case AuditRow(seq=seq):
                self._ground.expect(seq == self._audited + 1, f"audit row {seq} follows {self._audited}")
                self._audited = seq
            case JobRow(job_id=job_id):
                job = self._jobs.get(job_id)
                self._check_audited("job", (job_id,), job, row, audited)
                self._check_job(row, job)
                self._jobs[job_id] = row
            case StepRow(job_id=job_id, step=number):
                step = self._steps.get((job_id, number))
                self._check_audited("step", (job_id, number), step, row, audited)
                self._check_step(row, step)
                self._steps[job_id, number] = row
            case TaskRow():
                task = self._tasks.get(row.task_id)
                self._check_audited("task", row.task_id, task, row, audited)
                self._check_task(row, task)
                self._tasks[row.task_id] = row
            case AttemptRow():
                attempt = self._attempts.get(row.attempt_id)
                self._check_audited("attempt", row.attempt_id, attempt, row, audited)
                self._check_attempt(row, attempt)
                self._attempts[row.attempt_id] = row
            case _:
                pass

    def _check_audited(
        self,
        entity: str,
        of: tuple[int, ...],
        before: Stateful | None,
        after: Stateful,
        audited: set[tuple[str, str, str]],
    ) -> None:
        """A state that changed is in an audit row of the same commit; what is new and waits changed nothing."""
        was = before.state.value if before is not None else WorkState.PENDING.value
        told = was == after.state.value or (entity, dotted(of), after.state.value) in audited
        self._ground.expect(told, f"{entity} {dotted(of)} was {was} and is {after.state.value}: no audit row says so")

    def _check_job(self, row: JobRow, before: JobRow | None) -> None:
        expect, who = self._ground.expect, f"job {row.job_id}"
        counted = row.completed + row.failed + row.cancelled
        expect(counted <= row.tasks, f"{who} counts {counted} ends of {row.tasks} tasks")
        if row.idempotency_key:
            first = self._keys.setdefault(row.idempotency_key, row.job_id)
            expect(first == row.job_id, f"{who} and job {first} have one idempotency key")
        if before is None:
            expect(row.job_id > max(self._jobs, default=0), f"{who}: ids do not rise")
        elif before.state in ENDED:
            retried = row.retries > before.retries
            expect(retried or row.state == before.state, f"{who} was {before.state} and becomes {row.state}")
        if row.state in ENDED:
            expect(counted == row.tasks, f"{who} is {row.state} and {row.tasks - counted} tasks are not")
            if before is None or before.state not in ENDED:
                self.settled[row.state.value] = self.settled.get(row.state.value, 0) + 1
        if before is not None and row.retries > before.retries:
            for task_id in [t for t in self._charged if t[0] == row.job_id]:
                del self._charged[task_id]

    def _check_step(self, row: StepRow, before: StepRow | None) -> None:
        spec = self._ground.disk.rows.get(("spec", row.job_id))
        if not isinstance(spec, SpecRow):
            return
        tasks, who = spec.spec.steps[row.step].tasks, f"step {row.job_id}.{row.step}"
        counted = row.completed + row.failed + row.cancelled
        self._ground.expect(counted <= tasks, f"{who} counts {counted} ends of {tasks} tasks")
        if row.state in ENDED:
            self._ground.expect(counted == tasks, f"{who} is {row.state} and {tasks - counted} tasks are not")
        if before is not None and before.cursor > row.cursor:
            self._ground.expect(self._was_retried(row.job_id), f"{who}: its cursor goes back")

    def _was_retried(self, job_id: JobId) -> bool:
        row = self._ground.disk.rows.get(("job", job_id))
        return isinstance(row, JobRow) and row.retries > 0

    def _check_task(self, row: TaskRow, before: TaskRow | None) -> None:
        expect, who = self._ground.expect, f"task {dotted(row.task_id)}"
        if before is None:
            return
        if before.state is WorkState.COMPLETED:
            expect(row.state is WorkState.COMPLETED, f"{who} had completed and becomes {row.state}")
        elif before.state in ENDED:
            again = row.state == before.state or self._was_retried(row.job_id)
            expect(again, f"{who} was {before.state} and becomes {row.state}")
        if row.state is WorkState.COMPLETED and before.state is not WorkState.COMPLETED:
            expect(row.task_id in self._results, f"{who} completed without a result")
        expect(row.attempts >= before.attempts, f"{who} forgot an attempt")

    def _check_budget(self, row: TaskRow) -> None:
        """As a commit leaves it. One whose last failure waits for its verdict is spent: `Verdicts` sees to it that
        nothing of it is placed meanwhile, and that the wait is over in time."""
        waits = row.judged is not None and row.judged.awaits is not None
        expect, who = self._ground.expect, f"task {dotted(row.task_id)}"
        spec = self._ground.disk.rows.get(("spec", row.job_id))
        if isinstance(spec, SpecRow) and row.state not in ENDED:
            rule = spec.spec.steps[row.step].retry
            spent = row.failures - (waits and row.state is WorkState.PENDING)
            expect(spent <= rule.limit, f"{who} goes on after {row.failures} failures of {rule.limit}")
            expect(row.losses <= rule.losses, f"{who} goes on after {row.losses} losses of {rule.losses}")

    def _check_attempt(self, row: AttemptRow, before: AttemptRow | None) -> None:
        expect, who = self._ground.expect, f"attempt {dotted(row.attempt_id)}"
        was_live = before is None or before.state in LIVE_ATTEMPT
        if before is not None:
            back = before.state is AttemptState.LOST and row.token == self._newest[row.task_id]
            expect(was_live or back or row.state == before.state, f"{who} was {before.state} and becomes {row.state}")
            expect(before.token in (row.token, NO_TOKEN), f"{who}: its token {before.token} becomes {row.token}")
            expect([r.provider_id for r in row.ranks] == [r.provider_id for r in before.ranks], f"{who} moved")
            for old, new in zip(before.ranks, row.ranks, strict=True):
                expect(new.launched or not old.launched, f"{who} was launched, and was not")
                expect(new.released or not old.released, f"{who} gave capacity back, and holds it again")
        if row.token != NO_TOKEN and (before is None or before.token == NO_TOKEN):
            expect(row.token not in self._tokens, f"{who} has the token of {self._tokens.get(row.token)}")
            newest = self._newest.get(row.task_id, NO_TOKEN)
            expect(row.token > newest, f"{who}: token {row.token} is not above {newest}")
            self._tokens[row.token] = row.attempt_id
            self._newest[row.task_id] = row.token
        if before is not None and before.state != row.state:
            if row.state is AttemptState.COMPLETED:
                self._check_result(row)
            elif row.state is AttemptState.FAILED or (row.state is AttemptState.LOST and not _never_began(row)):
                self._charge(row)
            elif before.state is AttemptState.LOST:
                self._charged.get(row.task_id, {}).get(AttemptState.LOST, set()).discard(row.attempt)  # it is back

    def _check_result(self, row: AttemptRow) -> None:
        expect, who = self._ground.expect, f"attempt {dotted(row.attempt_id)}"
        first = self._results.setdefault(row.task_id, row.attempt_id)
        expect(first == row.attempt_id, f"{who} completed, and so did attempt {first[3]}")
        newest = self._newest[row.task_id]
        expect(row.token == newest, f"{who} completed with token {row.token}, which {newest} had fenced")
        expect(self._runs.succeeded(row.attempt_id, len(row.ranks)), f"{who} completed, and its processes did not")

    def _charge(self, row: AttemptRow) -> None:
        """Failures of the job and losses of a provider have separate budgets, and one attempt more than each."""
        charged = self._charged.setdefault(row.task_id, {})
        charged.setdefault(row.state, set()).add(row.attempt)
        spec = self._ground.disk.rows.get(("spec", row.job_id))
        if isinstance(spec, SpecRow):
            rule = spec.spec.steps[row.step].retry
            budget = rule.limit if row.state is AttemptState.FAILED else rule.losses
            spent = len(charged[row.state])
            self._ground.expect(
                spent <= budget + 1,
                f"task {dotted(row.task_id)}: {spent} attempts are {row.state}, the budget is {budget}",
            )

    # ---- what was acknowledged

    def replied(self, reply: commands.Reply) -> None:
        """A job that is acknowledged is on the disk."""
        if isinstance(reply.result, JobRow) and not isinstance(reply.result, CoordError):
            job_id = reply.result.job_id
            self._ground.expect(("job", job_id) in self._ground.disk.rows, f"job {job_id} is acknowledged, not durable")
            self._acked.add(job_id)

    def started(self, state: ClusterState) -> None:
        """Everything acknowledged is there, and lives in the core unless it has ended."""
        for job_id in sorted(self._acked):
            row = self._ground.disk.rows.get(("job", job_id))
            self._ground.expect(isinstance(row, JobRow), f"job {job_id} was acknowledged and is gone")
            if isinstance(row, JobRow) and row.state not in ENDED:
                self._ground.expect(job_id in state.work.jobs, f"job {job_id} has not ended, and nobody works at it")

    def unsettled(self) -> list[JobId]:
        """Acknowledged jobs that have not ended."""
        return [job_id for job_id in sorted(self._acked) if self._jobs[job_id].state not in ENDED]


def _never_began(row: AttemptRow) -> bool:
    """It stood in line when it was lost: nothing is lost with it."""
    return row.prefetched and not any(rank.running for rank in row.ranks)
