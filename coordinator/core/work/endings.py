"""How tasks, steps and jobs end, and what their end lets begin.

A task ends once. It leaves memory then: its row and its step's counts remain.
"""

from __future__ import annotations

from bisect import bisect_left

from msgspec.structs import replace

from coordinator.core.commands import Calmed, Decision
from coordinator.core.ids import Ms, ProviderId, dotted
from coordinator.core.plural import count as counted
from coordinator.core.queue.lines import fit_fresh, fit_step, leave
from coordinator.core.rows import AttemptState, WorkState
from coordinator.core.state import ClusterState
from coordinator.core.tenants.reservations import give_back, set_aside_again
from coordinator.core.work import graph
from coordinator.core.work.leases import (
    drop_if_free,
    free_rank,
    has_not_begun,
    held_by,
    is_over,
    lease_over_ms,
    part,
    send_stop,
)
from coordinator.core.work.live import RECENT_MAX, Attempt, Job, Step, Task, is_live
from coordinator.core.work.transitions import (
    move_attempt,
    move_job,
    move_step,
    move_task,
    put_attempt,
    touch_job,
    touch_step,
)

STOP_AGAIN_MS: Ms = 20_000
"""An agent that has not said for so long beyond the grace that an attempt ended is told again."""


# ---- attempts that are not to go on


def stop(state: ClusterState, job: Job, step: Step, attempt: Attempt, why: str, out: Decision) -> None:
    """Have it ended: at once where nothing was launched, else by its agents, who say when it is done."""
    if any(rank.launched for rank in attempt.row.ranks):
        attempt.stopping = attempt.stopping or why
        for rank in range(len(attempt.row.ranks)):
            if not is_over(state, attempt, rank):
                send_stop(state, attempt, rank, why, step.spec.grace_ms, out)
        if not attempt.silent:
            # An earlier look stands: after a full disk it may be the one that notices a silent provider.
            state.work.wheel.hasten(attempt.row.attempt_id, state.now_ms + step.spec.grace_ms + STOP_AGAIN_MS)
    else:
        take_back(state, attempt, why, out)


def recall(state: ClusterState, attempt: Attempt, why: str, out: Decision) -> None:
    """Have a prefetched one that was not begun given back: its task goes into the queue again, uncharged. One that its
    agent has begun meanwhile goes on, and says so."""
    if not is_live(attempt) or not has_not_begun(attempt):
        return
    for rank, row in enumerate(attempt.row.ranks):
        if not row.released:
            send_stop(state, attempt, rank, why, 0, out, unbegun=True)
    if not attempt.silent:
        state.work.wheel.hasten(attempt.row.attempt_id, state.now_ms + STOP_AGAIN_MS)


def recall_all(state: ClusterState, provider_id: ProviderId, why: str, out: Decision) -> None:
    """The same of all that this provider was given ahead. O(its attempts)."""
    for attempt_id, _ in held_by(state.work, provider_id):
        attempt = state.work.attempts.get(attempt_id)
        if attempt is not None:
            recall(state, attempt, why, out)


def take_back(state: ClusterState, attempt: Attempt, why: str, out: Decision) -> None:
    """Fence what was never launched. What an agent may hold of it waits out its term, or for the agent's word."""
    reserved = attempt.row.state is AttemptState.RESERVED
    part(state, attempt)
    if reserved:
        for rank in range(len(attempt.row.ranks)):
            free_rank(state, attempt, rank)
    else:
        for rank, row in enumerate(attempt.row.ranks):
            if not row.released:
                send_stop(state, attempt, rank, why, 0, out)
        state.work.wheel.put(attempt.row.attempt_id, lease_over_ms(attempt))
    move_attempt(state, attempt, AttemptState.TAKEN_BACK, out, why=why, fenced=not reserved, ended_at_ms=state.now_ms)
    drop_if_free(state.work, attempt)


# ---- tasks


def end_task(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    to: WorkState,
    out: Decision,
    *,
    why: str = "",
    by: str = "coord",
    exit_code: int | None = None,
) -> None:
    """The task is over, once. Whatever is still held for it is given back."""
    work, row = state.work, task.row
    for other in task.attempts:
        take_back(state, other, "not needed any more", out)
    task.wanted = False
    if row.judged is not None:
        task.row = replace(row, judged=None)
    leave(work, task)
    work.wheel.drop(row.task_id)
    at = bisect_left(step.retry, row.task)
    if at < len(step.retry) and step.retry[at] == row.task:
        del step.retry[at]
    del step.tasks[row.task]
    move_task(
        state,
        job,
        task,
        to,
        out,
        why=why,
        by=by,
        ended_at_ms=state.now_ms,
        exit_code=exit_code,
        not_before_ms=None,
    )
    if row.straggler:
        out.notes.append(Calmed(kind="straggler", subject=dotted(row.task_id)))
    count(state, job, step, to, 1)
    if to is WorkState.FAILED or (to is WorkState.CANCELLED and not step.row.failed):
        touch_step(state, step, reason=f"task {row.task}: {why}")
    most = step.spec.max_fails
    if to is WorkState.FAILED and most is not None and step.row.failed > most and not step.closed:
        close_step(state, job, step, f"{counted(step.row.failed, 'task')} of its step failed, {most} were allowed", out)
    settle_step(state, job, step, out, why=why)
    if graph.has_ended(step):
        settle_job(state, job, out, unblocked_by=f"step {row.job_id}.{row.step}")


def count(state: ClusterState, job: Job, step: Step, to: WorkState, tasks: int) -> None:
    """Add ended tasks to the counts of their step and job."""
    name = to.value
    set_aside_again(state.work.accounts, job, step, -tasks)
    touch_step(state, step, **{name: getattr(step.row, name) + tasks})
    touch_job(state, job, **{name: getattr(job.row, name) + tasks})


def skip_doomed(state: ClusterState, job: Job, step: Step, out: Decision) -> None:
    """Tasks that were cancelled before their turn came end when it comes."""
    while (doomed := step.tasks.get(step.row.cursor)) is not None:
        touch_step(state, step, cursor=step.row.cursor + 1)
        why = doomed.row.reason.removeprefix(graph.CANCELLING)
        end_task(state, job, step, doomed, WorkState.CANCELLED, out, why=why)
    fit_fresh(state.work, job, step)


# ---- steps


def close_step(state: ClusterState, job: Job, step: Step, why: str, out: Decision, by: str = "coord") -> None:
    """Nothing of it begins any more: what waits is cancelled, what runs is stopped. The job is settled by the caller,
    or by the last task that ends."""
    if graph.has_ended(step):
        return
    fresh = graph.fresh_tasks(step)
    step.closed = True
    fit_step(state.work, job, step)
    if fresh:
        count(state, job, step, WorkState.CANCELLED, fresh)
    step.retry.clear()  # none of them waits any more; one after the other would cost the square of them
    for task in list(step.tasks.values()):
        cancel_task(state, job, step, task, why, out, by)
    settle_step(state, job, step, out, why=why, by=by)


def cancel_task(
    state: ClusterState, job: Job, step: Step, task: Task, why: str, out: Decision, by: str = "coord"
) -> None:
    """At once when it does not run, else when its agents say so or its lease is over. One that has failed for good, and
    waits only to be told what of, has failed."""
    if task.row.task not in step.tasks:
        return
    spent = task.row.judged.awaits.spent if task.row.judged is not None and task.row.judged.awaits is not None else ""
    if spent:
        end_task(state, job, step, task, WorkState.FAILED, out, why=spent, exit_code=task.row.exit_code)
        return
    task.cancelling = True
    task.wanted = False
    leave(state.work, task)
    for attempt in task.attempts:
        stop(state, job, step, attempt, why, out)
    if not task.attempts:
        end_task(state, job, step, task, WorkState.CANCELLED, out, why=why, by=by)


def settle_step(state: ClusterState, job: Job, step: Step, out: Decision, *, why: str = "", by: str = "coord") -> None:
    """End the step when every task of it has ended."""
    row = step.row
    if graph.has_ended(step) or row.completed + row.failed + row.cancelled < step.spec.tasks:
        return
    to = WorkState.FAILED if row.failed else WorkState.CANCELLED if row.cancelled else WorkState.COMPLETED
    step.closed = True
    fit_fresh(state.work, job, step)
    state.work.wheel.drop((row.job_id, row.step))
    move_step(state, job, step, to, out, why=_end_in_words(step, to, why), by=by)


def _end_in_words(step: Step, to: WorkState, why: str) -> str:
    """Why a step ended as it did; `why` is that of its last task."""
    row, tasks = step.row, step.spec.tasks
    if to is WorkState.COMPLETED:
        return ""
    if to is WorkState.CANCELLED:
        return why if row.cancelled == tasks else f"{row.cancelled} of {tasks} tasks were cancelled; {row.reason}"
    if tasks == 1:
        return why
    most = step.spec.max_fails
    bound = f", {most} were allowed" if most is not None and row.failed > most else ""
    return f"{row.failed} of {tasks} tasks failed{bound}; {row.reason}"


def open_steps(state: ClusterState, job: Job, out: Decision, unblocked_by: str) -> None:
    """Let begin what may begin, and skip what never will. Every step comes after those that it needs: one pass."""
    for step in job.steps:
        if step.ready or graph.has_ended(step):
            continue
        never = graph.cannot_start(job, step)
        if never:
            close_step(state, job, step, never, out)
        elif graph.may_start(job, step):
            step.ready = True
            step.unblocked_by, step.unblocked_ms = unblocked_by, state.now_ms
            touch_step(state, step, reason="waits for capacity")
            fit_step(state.work, job, step)


def settle_job(state: ClusterState, job: Job, out: Decision, unblocked_by: str) -> None:
    """End the job when every step has ended. It leaves memory then."""
    work, row = state.work, job.row
    if row.job_id not in work.jobs:
        return
    open_steps(state, job, out, unblocked_by)
    ended = graph.outcome(job)
    if ended is None or row.job_id not in work.jobs:
        return
    to, why = ended
    del work.jobs[row.job_id]
    give_back(work.accounts, job)
    work.wheel.drop((row.job_id,))
    move_job(state, job, to, out, why=why, ended_at_ms=state.now_ms)
    if job.row.estimate or job.row.cost:
        work.accounts.ended.append(job.row)
    if job.stormed:
        out.notes.append(Calmed(kind="retry_storm", subject=str(row.job_id)))
    work.recent[row.job_id] = job.row
    if row.idempotency_key:
        work.by_key.pop((row.tenant, row.idempotency_key), None)
        work.recent_keys[row.tenant, row.idempotency_key] = row.job_id
    while len(work.recent) > RECENT_MAX:
        oldest = work.recent.pop(next(iter(work.recent)))
        work.recent_keys.pop((oldest.tenant, oldest.idempotency_key), None)


def cancel_job(state: ClusterState, job: Job, why: str, out: Decision, by: str = "coord") -> None:
    """Nothing of it begins any more. It has ended when the last attempt of it has."""
    if job.row.cancelling:
        return
    touch_job(state, job, cancelling=why, reason=f"is being cancelled: {why}")
    for step in reversed(job.steps):  # those behind first: they are cancelled, not skipped
        close_step(state, job, step, why, out, by)
    settle_job(state, job, out, unblocked_by="")


def rank_freed(state: ClusterState, attempt: Attempt, rank: int, out: Decision) -> None:
    """An attempt that is not live any more holds nothing on this rank's provider from now on."""
    free_rank(state, attempt, rank)
    put_attempt(attempt, out)
    drop_if_free(state.work, attempt)
