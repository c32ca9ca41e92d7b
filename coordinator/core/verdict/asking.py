"""Asking analytics what an attempt died of, and remembering that it was asked."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import Decision, VerdictWanted
from coordinator.core.ids import AttemptId, Ms, ProviderId, TenantName, attempt_of
from coordinator.core.policy import Policy
from coordinator.core.rows import AttemptState, ExitInfo, TaskRow
from coordinator.core.state import ClusterState
from coordinator.core.verdict.rows import ASKED_MAX, HISTORY_MAX, Judged, PastVerdict
from coordinator.core.verdict.suspicion import suspicion
from coordinator.core.work.jobspec import Heed
from coordinator.core.work.live import Asked, Attempt, Job, Step, Task
from coordinator.core.work.transitions import put_task

NOT_JUDGED = Judged()
SUSPECTED_FROM = 0.25
"""Of what one fresh verdict weighs: it counts as one for two days."""


def judged_of(row: TaskRow) -> Judged:
    """What verdicts made of it so far."""
    return row.judged if row.judged is not None else NOT_JUDGED


def ask(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    attempt: Attempt,
    policy: Policy,
    out: Decision,
    until_ms: Ms | None = None,
) -> None:
    """Have the end of this attempt explained; its task waits for that until `until_ms`. A success that wrote nothing
    has nothing to tell."""
    row = attempt.row
    if row.state is AttemptState.COMPLETED:  # most of them: a loop is the cheapest way to find that there is nothing
        for rank in row.ranks:
            if rank.exit is not None and (rank.exit.out_bytes or rank.exit.err_bytes):
                break
        else:
            return
    elif not any(rank.launched for rank in row.ranks):
        return
    if step.spec.retry.verdict is Heed.OFF:
        return
    exits = tuple(rank.exit for rank in row.ranks)
    providers = tuple(rank.provider_id for rank in row.ranks)
    want(state, job, step, task, row.attempt_id, row.state, exits, providers, policy, out, until_ms)


def want(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    attempt_id: AttemptId,
    ended: AttemptState,
    exits: tuple[ExitInfo | None, ...],
    providers: tuple[ProviderId, ...],
    policy: Policy,
    out: Decision,
    until_ms: Ms | None,
) -> None:
    """Tell analytics, and remember it where an answer is expected."""
    work = state.work
    if ended is not AttemptState.COMPLETED:
        work.asked.pop(attempt_id, None)
        work.asked[attempt_id] = Asked(tenant=job.row.tenant, providers=providers)
        while len(work.asked) > ASKED_MAX:
            del work.asked[next(iter(work.asked))]
    out.notes.append(
        VerdictWanted(
            attempt_id=attempt_id,
            tenant=TenantName(job.row.tenant),
            name=job.row.name,
            step=step.spec.name,
            state=ended,
            exits=exits,
            providers=providers,
            until_ms=until_ms,
            history=history(job, task),
            suspected=suspected_of(state, attempt_id, providers, policy) if work.suspicions else (),
        )
    )


def history(job: Job, task: Task) -> tuple[PastVerdict, ...]:
    """What came before: of the task, then of others of its job."""
    past = judged_of(task.row).past
    if not job.past:
        return past
    own = {one.attempt for one in past}
    others = [_seen_by(task, one) for one in job.past if one.attempt not in own]
    return (*past, *others[-(HISTORY_MAX - len(past)) :])


def _seen_by(task: Task, one: PastVerdict) -> PastVerdict:
    *whose, attempt = attempt_of(one.attempt)
    return replace(one, first_of_another=True) if tuple(whose) != task.row.task_id and attempt == 1 else one


def suspected_of(
    state: ClusterState, attempt_id: AttemptId, providers: tuple[ProviderId, ...], policy: Policy
) -> tuple[ProviderId, ...]:
    """Those of them against which verdicts of other jobs still speak."""
    found = []
    for who in dict.fromkeys(providers):
        rows = state.work.suspicions.get(who, ())
        others = [row for row in rows if attempt_of(row.attempt)[0] != attempt_id[0]]
        if suspicion(others, state.now_ms, policy) >= policy.suspicion_weight * SUSPECTED_FROM:
            found.append(who)
    return tuple(found)


def ask_again(state: ClusterState, policy: Policy, out: Decision) -> None:
    """After a start, for those who wait still: whoever was asked before has forgotten it. Our clock may be a little
    behind the one of the last run: nobody waits longer for that. O(live tasks)."""
    latest_ms = state.now_ms + policy.verdict_wait_ms
    for job in state.work.jobs.values():
        for step in job.steps:
            for number in step.retry:
                task = step.tasks[number]
                awaited = task.row.judged.awaits if task.row.judged is not None else None
                if awaited is None:
                    continue
                until_ms = min(task.row.not_before_ms or 0, latest_ms)
                if until_ms != task.row.not_before_ms:
                    put_task(task, out, not_before_ms=until_ms)
                    state.work.wheel.put(task.row.task_id, until_ms)
                attempt_id = (*task.row.task_id, awaited.attempt)
                exits, providers = awaited.exits, awaited.providers
                want(state, job, step, task, attempt_id, AttemptState.FAILED, exits, providers, policy, out, until_ms)
