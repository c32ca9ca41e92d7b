"""What follows from a verdict: its task stops, goes on here or elsewhere, or is left to the rules for exit codes.

A verdict settles a task once, and only while the task waits for it: one of an older attempt, one that is late and one
that is said twice are no orders. Budgets bound what a verdict may ask for.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from coordinator.core.commands import Decision, Put
from coordinator.core.ids import AttemptId, ProviderId, dotted
from coordinator.core.policy import Policy
from coordinator.core.queue.feasible import EXPECTED, could_ever
from coordinator.core.queue.lines import fit_task, job_of, stands
from coordinator.core.rows import Row, WorkState, row_key
from coordinator.core.state import ClusterState
from coordinator.core.verdict.asking import judged_of
from coordinator.core.verdict.avoiding import hard_ones, lifted, with_avoided
from coordinator.core.verdict.events import VerdictGiven
from coordinator.core.verdict.rows import (
    HISTORY_MAX,
    PAST_MAX,
    Avoided,
    Awaited,
    Fault,
    PastVerdict,
    Recommendation,
    SuspicionRow,
    Verdict,
    VerdictRow,
    past_of,
)
from coordinator.core.verdict.suspicion import keep_suspicion, suspect
from coordinator.core.work.endings import end_task
from coordinator.core.work.live import Job, Step, Task, Work
from coordinator.core.work.retries import (
    again,
    backoff_ms,
    blame_provider,
    by_rules,
    cause_of,
    count_retry,
    exit_code_of,
    is_obeyed,
    no_more,
    told,
)
from coordinator.core.work.transitions import decide_task, put_task

NOT_OF_THE_PLACE = (Fault.JOB, Fault.DATA, Fault.NOBODY)
"""Whose failures say nothing against the provider that they came to pass on."""


def on_given(state: ClusterState, event: VerdictGiven, policy: Policy, out: Decision) -> None:
    """The answer of analytics. It is kept and shown whenever it comes, the last one of an attempt; it counts for a task
    that still waits for it."""
    work, attempt_id = state.work, event.attempt_id
    asked = work.asked.get(attempt_id)
    if attempt_id[0] >= work.next_job_id:
        return
    job, task = work.jobs.get(attempt_id[0]), work.task(attempt_id[:3])
    waits = job is not None and task is not None and waits_for(task, attempt_id)
    if event.verdict is not None:
        awaited = judged_of(task.row).awaits if waits and task is not None else None
        row = VerdictRow(
            job_id=attempt_id[0],
            step=attempt_id[1],
            task=attempt_id[2],
            attempt=attempt_id[3],
            at_ms=state.now_ms,
            late=not waits,
            verdict=event.verdict,
            remark=event.remark,
            provider_id=asked.providers[0] if asked is not None and asked.providers else ProviderId(""),
            saved=awaited is not None and awaited.saved,
            run=job.row.retries if job is not None else 0,
        )
        out.writes.append(Put(row))
        if asked is not None:
            suspect(state, attempt_id, event.verdict, asked.providers, asked.tenant, policy, out)
        if job is not None:
            remember(job, task, past_of(row), out)
    if job is not None and task is not None and waits:
        settle(state, job, job.steps[attempt_id[1]], task, event.verdict, policy, out)


def waits_for(task: Task, attempt_id: AttemptId) -> bool:
    """Whether this task waits for the verdict on this attempt."""
    awaited = judged_of(task.row).awaits
    return awaited is not None and awaited.attempt == attempt_id[3]


def overdue(state: ClusterState, task: Task, policy: Policy, out: Decision) -> None:
    """Its verdict did not come in time: the rules decide, and it is kept when it comes."""
    job = state.work.jobs[task.row.job_id]
    settle(state, job, job.steps[task.row.step], task, None, policy, out)


def carry_unsaid(old: Work, fresh: Work, undone: Iterable[Row]) -> None:
    """After a full disk: analytics says it once, so what it said is kept for the next tick. What followed is undone:
    whether the task waited for it is over, and the rules decide."""
    found: dict[tuple[str, object], VerdictRow | SuspicionRow] = {row_key(row): row for row in old.unsaid}
    for row in undone:
        if isinstance(row, VerdictRow):
            found[row_key(row)] = replace(row, late=True)
        elif isinstance(row, SuspicionRow):
            found[row_key(row)] = row
    fresh.unsaid = list(found.values())


def say_unsaid(state: ClusterState, policy: Policy, out: Decision) -> None:
    """Write again what a full disk undid."""
    rows, state.work.unsaid = state.work.unsaid, []
    for row in rows:
        if isinstance(row, VerdictRow):
            out.writes.append(Put(row))
        elif row.provider_id in state.providers:
            keep_suspicion(state, row, policy, out)


def remember(job: Job, task: Task | None, past: PastVerdict, out: Decision) -> None:
    """For the attempts that come after it."""
    job.past = [*(one for one in job.past if one.attempt != past.attempt), past][-HISTORY_MAX:]
    if task is not None:
        judged = judged_of(task.row)
        own = (*(one for one in judged.past if one.attempt != past.attempt), past)
        put_task(task, out, judged=replace(judged, past=own[-PAST_MAX:]))


# ---- what becomes of the task


def settle(
    state: ClusterState, job: Job, step: Step, task: Task, verdict: Verdict | None, policy: Policy, out: Decision
) -> None:
    """It waits no longer."""
    judged = judged_of(task.row)
    awaited = judged.awaits
    assert awaited is not None, f"{dotted(task.row.task_id)} waits for no verdict"
    state.work.wheel.drop(task.row.task_id)
    put_task(task, out, judged=replace(judged, awaits=None), not_before_ms=None)
    if verdict is None or verdict.recommendation in (Recommendation.OK, Recommendation.UNKNOWN):
        by_rules(state, job, step, task, awaited, policy, out)
        return
    exit = awaited.exits[awaited.rank]
    assert exit is not None
    if not is_obeyed(step, exit):  # it only says what the task died of
        by_rules(state, job, step, task, awaited, policy, out, in_words(verdict, told(exit)))
        return
    if verdict.fault not in NOT_OF_THE_PLACE:
        for who in suspects_of(verdict, awaited):
            blame_provider(state, who, job.row.job_id, policy, out)
    if verdict.recommendation is Recommendation.STOP:
        refused = "it is not tried again"
    else:
        refused = no_more(state, job, step, task, cause_of(exit), policy, helps=True)
    if refused:
        why = f"{in_words(verdict, told(exit))}; {refused}"
        end_task(state, job, step, task, WorkState.FAILED, out, why=why, exit_code=exit_code_of(exit))
    elif verdict.recommendation is Recommendation.RESTART:
        _again(state, job, step, task, awaited, verdict, "", policy, out)
    else:
        _elsewhere(state, job, step, task, awaited, verdict, policy, out)


def _again(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    awaited: Awaited,
    verdict: Verdict,
    first: str,
    policy: Policy,
    out: Decision,
) -> None:
    """Behind a backoff, wherever it fits. `first`: what there is to be said before that."""
    rule, failures = step.spec.retry, task.row.failures
    exit, where = awaited.exits[awaited.rank], awaited.providers[awaited.rank]
    assert exit is not None
    delay_ms = backoff_ms(rule, failures, dotted((*task.row.task_id, awaited.attempt)), policy)
    count_retry(state, job, policy, out)
    why = (
        f"{in_words(verdict, f'{told(exit)} on {where}')}; {first}retry {failures} of {rule.limit} "
        f"in {delay_ms / 1000:.1f} s"
    )
    again(state, job, step, task, out, why=why, waits_for="backoff", delay_ms=delay_ms)


def _elsewhere(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    awaited: Awaited,
    verdict: Verdict,
    policy: Policy,
    out: Decision,
) -> None:
    """At once, away from where it was. Where that leaves nobody, the provider that was left first is taken again."""
    suspects = suspects_of(verdict, awaited)
    why = f"{verdict.cause.value}: {verdict.summary}"
    judged = judged_of(task.row)
    avoid = with_avoided(judged.avoid, suspects, why, state.now_ms, policy)
    avoid, back_again = _lift(state, step, task, avoid, policy)
    put_task(task, out, judged=replace(judged, avoid=avoid))
    if any(who in back_again for who in suspects):
        _again(
            state, job, step, task, awaited, verdict, "no other provider could run it, so there again: ", policy, out
        )
        return
    exit = awaited.exits[awaited.rank]
    assert exit is not None
    count_retry(state, job, policy, out)
    back = f" ({', '.join(back_again)} may take it again: nobody else could)" if back_again else ""
    words = in_words(verdict, f"{told(exit)} on {awaited.providers[awaited.rank]}")
    failures, limit = task.row.failures, step.spec.retry.limit
    why = f"{words}; retry {failures} of {limit}, not on {', '.join(suspects)}{back}"
    again(state, job, step, task, out, why=why, waits_for="verdict")


def _lift(
    state: ClusterState, step: Step, task: Task, avoid: tuple[Avoided, ...], policy: Policy
) -> tuple[tuple[Avoided, ...], list[ProviderId]]:
    """Let providers be taken again, the one first that was left first, until somebody could run it. The end of a
    quarantine is waited for only where all who could run it are quarantined, whether it left them or not."""
    others = (*task.row.unstaged_on, *(task.row.failed_on if step.spec.retry.elsewhere else ()))
    hard = hard_ones(avoid, state.now_ms)
    for quarantined in (False, True):
        left = [one for one in hard if quarantined or one.provider_id not in state.work.quarantined]
        for count in range(len(left) + 1):
            away = (*others, *(one.provider_id for one in hard if one not in left[:count]))
            if could_ever(state, step, policy, away, EXPECTED, quarantined=quarantined):
                return _taken_again(avoid, left[:count], policy)
    return _taken_again(avoid, hard, policy)


def _taken_again(
    avoid: tuple[Avoided, ...], back: list[Avoided], policy: Policy
) -> tuple[tuple[Avoided, ...], list[ProviderId]]:
    after = tuple(lifted(one, policy) if one in back else one for one in avoid)
    return after, [one.provider_id for one in back]


def relent(state: ClusterState, policy: Policy, out: Decision) -> None:
    """Tasks that wait elsewhere while everybody who could have run them there has gone, or is quarantined, may go back.
    O(lines)."""
    work = state.work
    for want, line in list(work.queue.items()):
        if not want.shape.shunned or line.held_by != "nobody":
            continue
        for place in sorted(set(line.heap)):
            if not stands(work, place, want):
                continue
            job, step, task = job_of(work, place)
            if task is None:
                continue
            judged = judged_of(task.row)
            avoid, back_again = _lift(state, step, task, judged.avoid, policy)
            if back_again:
                put_task(task, out, judged=replace(judged, avoid=avoid))
                why = f"nobody else could run it any more: {', '.join(back_again)} may take it again"
                if task.row.state is WorkState.PENDING:
                    decide_task(state, job, task, out, why=why)
                fit_task(work, job, step, task)


def suspects_of(verdict: Verdict, ended: Awaited) -> tuple[ProviderId, ...]:
    """Those of the attempt's own providers that the verdict names; else the one whose rank failed. A log may name
    anybody: who had no part in the attempt is not judged by it."""
    named = tuple(dict.fromkeys(who for who in ended.providers if who in verdict.avoid_providers))
    return named or (ended.providers[ended.rank],)


def in_words(verdict: Verdict, ended: str) -> str:
    """For people: how it ended, what that was, on which line that rests, what to do."""
    line = next((one for one in verdict.evidence if one.line), None)
    at = f" ({f'{line.source} ' if line.source else ''}line {line.line})" if line is not None else ""
    advice = f"; {_within(verdict.advice)}" if verdict.advice else ""
    return f"{ended}; {verdict.cause.value}: {verdict.summary}{at}{advice}"


def _within(sentence: str) -> str:
    """As it stands in the middle of another."""
    begins_a_word = sentence[1:2].islower() or sentence[1:2] == " "
    return (sentence[:1].lower() + sentence[1:] if begins_a_word else sentence).removesuffix(".")
