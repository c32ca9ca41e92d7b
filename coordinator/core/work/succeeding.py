"""Many ends at once: what succeeded of one step on one provider, and leaves nothing behind, ends together.

Most ends are these. The rows, orders and turns of those in line are what `attempts.on_exited` makes of each by itself,
in the order in which they came; it serves whatever is not plain, or is not alike.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from coordinator.core.amounts import Share
from coordinator.core.commands import Decision, Ended, Send, Settlements
from coordinator.core.events import AttemptExited, AttemptsEnded
from coordinator.core.ids import AttemptId, Ms, dotted
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import add_share, lined_up, promote
from coordinator.core.queue.lines import waits_again
from coordinator.core.rows import AttemptRow, AttemptState, EndCause, ExitInfo, LeaseToken, RankRow, TaskRow, WorkState
from coordinator.core.state import ClusterState, Provider
from coordinator.core.tenants.account import FREE, let_go_more
from coordinator.core.verdict.asking import ask
from coordinator.core.work import graph
from coordinator.core.work.attempts import LASTED_MAX, on_exited
from coordinator.core.work.endings import count, settle_job, settle_step
from coordinator.core.work.live import NO_TOKEN, Attempt, Job, Step, Task


class _Alike(NamedTuple):
    """What attempts have in common that end together."""

    job: Job
    step: Step
    share: Share
    state: AttemptState
    task_state: WorkState


def on_ended(state: ClusterState, event: AttemptsEnded, policy: Policy, out: Decision) -> None:
    """Each of them has ended there so."""
    provider = state.provider_of(event.conn_id)
    attempts = state.work.attempts
    together: _Together | None = None
    for attempt_id, rank, token, exit in event.ended:
        attempt = attempts.get(attempt_id)
        if together is not None and (attempt is None or not together.takes(attempt.row)):
            together.close()
            together, attempt = None, attempts.get(attempt_id)
        if attempt is not None and together is None and provider is not None:
            alike = _alike(state, attempt.row)
            together = _Together(state, event, provider, alike, policy, out) if alike is not None else None
        if attempt is not None and together is not None and together.add(attempt_id, attempt, rank, token, exit):
            continue
        if together is not None:
            together.close()
            together = None
        one = AttemptExited(
            at_ms=event.at_ms, conn_id=event.conn_id, attempt_id=attempt_id, rank=rank, token=token, exit=exit
        )
        on_exited(state, one, policy, out)
    if together is not None:
        together.close()


def _alike(state: ClusterState, row: AttemptRow) -> _Alike | None:
    """What may end together with this one; None: it goes its own way. The first that is heard of has its step and job
    begin, and where not all may run at once the next one's turn comes with each end."""
    job = state.work.jobs.get(row.job_id)
    if job is None or row.state not in (AttemptState.STAGING, AttemptState.RUNNING) or len(row.ranks) != 1:
        return None
    step = job.steps[row.step]
    task = step.tasks.get(row.task)
    if task is None or job.row.state is not WorkState.RUNNING or step.row.state is not WorkState.RUNNING:
        return None
    if step.spec.outputs or step.spec.max_running is not None:
        return None
    return _Alike(job, step, row.ranks[0].share, row.state, task.row.state)


class _Together:
    """Attempts that end together: until `close` nothing else may change the state."""

    def __init__(
        self,
        state: ClusterState,
        event: AttemptsEnded,
        provider: Provider,
        alike: _Alike,
        policy: Policy,
        out: Decision,
    ) -> None:
        self._state, self._event, self._policy, self._out = state, event, policy, out
        self._job, self._step, self._share, self._was, self._task_was = alike
        self._job_id, self._number = self._step.row.job_id, self._step.row.step
        self._provider, self._who = provider, provider.row.provider_id
        self._attempts: list[AttemptRow] = []
        self._tasks: list[TaskRow] = []
        self._leases: list[tuple[AttemptId, LeaseToken]] = []
        self._lasted: list[Ms] = []
        self._wrote: list[tuple[Task, Attempt]] = []
        """Those that left something to be read."""

    def takes(self, row: AttemptRow) -> bool:
        """Whether this one is alike: of the same step, in the same state, with the same share."""
        ranks = row.ranks
        return (
            row.job_id == self._job_id
            and row.step == self._number
            and row.state is self._was
            and len(ranks) == 1
            and (ranks[0].share is self._share or ranks[0].share == self._share)
        )

    def add(self, attempt_id: AttemptId, attempt: Attempt, rank: int, token: LeaseToken, exit: ExitInfo) -> bool:
        """It has ended. False: it is not plain, and nothing was done. `takes` was asked, or it is the first."""
        state, work, row = self._state, self._state.work, attempt.row
        task, held = self._step.tasks.get(row.task), row.ranks[0]
        if (
            exit.cause is not EndCause.EXITED
            or exit.code != 0
            or rank != 0
            or row.token != token
            or token == NO_TOKEN
            or not self._is_plain(attempt_id, attempt, held)
            or task is None
            or not self._is_alone(task, attempt)
        ):
            return False
        load = work.loads[self._who]
        key = (attempt_id, 0)
        tenant = load.attempts.pop(key)
        if load.behind.pop(key, None) is not None:
            lined_up(work, tenant, self._share, -1)
        else:
            add_share(load, self._share, -1)
        work.gave_room(self._who, state.now_ms, f"slot {dotted(attempt_id)}")
        if load.behind:
            promote(work, self._who, self._provider.offer)
        now_ms, began_ms, turned_by = state.now_ms, row.started_at_ms, attempt.turned_by
        if began_ms is None:  # a short one may have ended before it was said to run
            began_ms = max(row.created_at_ms, now_ms - exit.ran_ms)
        attempt.row = replace(
            row,
            state=AttemptState.COMPLETED,
            reason="",
            ranks=(replace(held, released=True, exit=exit),),
            started_at_ms=began_ms,
            ended_at_ms=now_ms,
            unblocked_by=turned_by or row.unblocked_by,
            lost_ms=None,
        )
        self._attempts.append(attempt.row)
        self._tasks.append(
            replace(
                task.row,
                state=WorkState.COMPLETED,
                reason="",
                started_at_ms=began_ms if row.started_at_ms is None else task.row.started_at_ms,
                ended_at_ms=now_ms,
                exit_code=0,
                not_before_ms=None,
            )
        )
        self._leases.append((attempt_id, token))
        self._lasted.append(exit.ran_ms)
        if exit.out_bytes or exit.err_bytes:
            self._wrote.append((task, attempt))
        del work.attempts[attempt_id], self._step.tasks[row.task]
        work.wheel.drop(attempt_id)
        work.wheel.drop(attempt_id[:3])
        return True

    def _is_plain(self, attempt_id: AttemptId, attempt: Attempt, rank: RankRow) -> bool:
        """It runs there as it was told to, costs nothing, and left nothing that is to be settled."""
        row, provider = attempt.row, self._provider.row
        return (
            rank.provider_id == self._who
            and rank.launched
            and not rank.released
            and rank.exit is None
            and not rank.orphaned
            and rank.price == FREE
            and not attempt.stopping
            and not attempt.silent
            and not row.outputs
            and attempt_id not in self._state.data.by_attempt
            and (not provider.quarantines or provider.quarantined_until_ms is not None)
        )

    def _is_alone(self, task: Task, attempt: Attempt) -> bool:
        """Nothing else is at work for its task, or was: it ends with this attempt alone."""
        row, attempts = task.row, task.attempts
        return (
            len(attempts) == 1
            and attempts[0] is attempt
            and row.state is self._task_was
            and not task.cancelling
            and not task.wanted
            and task.line is None
            and row.judged is None
            and not row.checkpoints
            and not row.straggler
            and not (self._step.retry and waits_again(self._step, row.task))
        )

    def close(self) -> None:
        """Write, answer and count: no more come to it."""
        ended = len(self._leases)
        if not ended:
            return
        state, work, out, job, step, who = (
            self._state,
            self._state.work,
            self._out,
            self._job,
            self._step,
            self._who,
        )
        work.drop_empty_load(who)
        work.betters += ended - 1
        work.better(who)
        work.failures.pop(who, None)
        let_go_more(work.accounts, job.row.tenant, self._job_id, self._share.ask, ended)
        step.running -= ended
        step.lasted_ms = [*step.lasted_ms, *self._lasted][-LASTED_MAX:]
        written = Ended(
            tenant=job.row.tenant,
            seq=work.next_audit,
            wall_ns=state.wall_ns,
            mono_ns=state.mono_ns,
            before=self._was,
            task_before=self._task_was,
            tasks=self._tasks,
            attempts=self._attempts,
            ids=[attempt_id for attempt_id, _ in self._leases],
        )
        work.next_audit = written.last_seq + 1
        out.writes.append(written)
        out.notes.append(written)
        for task, attempt in self._wrote:
            ask(state, job, step, task, attempt, self._policy, out)
        count(state, job, step, WorkState.COMPLETED, ended)
        settle_step(state, job, step, out)
        if graph.has_ended(step):
            settle_job(state, job, out, unblocked_by=f"step {self._job_id}.{self._number}")
        out.sends.append(Send(self._event.conn_id, Settlements(leases=self._leases)))
