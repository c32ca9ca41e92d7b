"""Leases: who may run what until when, and what agents are told of it.

A grant, a longest term, a fence and a release are durable before an agent hears of them; a renewal is memory. The
coordinator counts a term from the receipt of the heartbeat that it answered, the agent from its sending: ours ends
later, always. Nothing here knows what becomes of a task.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.amounts import Share
from coordinator.core.commands import AttemptChanged, Decision, Grant, Launch, Message, Put, Send, StopAttempt, Warm
from coordinator.core.data.passing import passed_on
from coordinator.core.data.saving import every_ms, unsaved_ms
from coordinator.core.ids import AttemptId, ConnId, JobId, Ms, ProviderId, dotted
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import hold, line_up, promote, release
from coordinator.core.queue.lines import fit_step, has_room
from coordinator.core.rows import AttemptRow, AttemptState, Choice, LeaseToken, RankRow, WorkState
from coordinator.core.state import ClusterState
from coordinator.core.tenants.account import FREE, hold_for, rank_let_go
from coordinator.core.tenants.reservations import leaves_queue
from coordinator.core.work.jobspec import StepSpec
from coordinator.core.work.live import NO_TOKEN, Attempt, Job, Step, Task, Work, is_live
from coordinator.core.work.transitions import (
    audit_attempt,
    move_attempt,
    move_job,
    move_step,
    move_task,
    put_attempt,
    set_rank,
)

HELD = "its agents hold the lease"
"""Why an attempt is launched."""

# ---- looking


def connection(state: ClusterState, provider_id: ProviderId) -> ConnId | None:
    """The connection of this provider, if it has one."""
    provider = state.providers.get(provider_id)
    session = provider.session if provider is not None else None
    return session.conn_id if session is not None else None


def over_ms(attempt: Attempt, rank: int) -> Ms:
    """From when on this rank's agent cannot be running it any more, unless it renews it before."""
    return attempt.renewed_ms[rank] + attempt.terms_ms[rank]


def lease_over_ms(attempt: Attempt) -> Ms:
    """The same of the whole attempt: the latest of the ranks that are silent, or of all when none is."""
    ranks = attempt.silent or range(len(attempt.row.ranks))
    return max(over_ms(attempt, rank) for rank in ranks)


def is_over(state: ClusterState, attempt: Attempt, rank: int) -> bool:
    """Nothing of this rank can be running: it ended, was never launched, or its silent agent has frozen it for good."""
    row = attempt.row.ranks[rank]
    ended = row.exit is not None or row.released or not row.launched
    return ended or (rank in attempt.silent and over_ms(attempt, rank) <= state.now_ms)


def has_not_begun(attempt: Attempt) -> bool:
    """A prefetched one that, as far as its agent told, was never started: whatever ends it, nothing is lost."""
    ran = any(rank.running or (rank.exit is not None and rank.exit.ran_ms) for rank in attempt.row.ranks)
    return attempt.row.prefetched and not ran


def home_of(work: Work, attempt: Attempt) -> tuple[Job, Step, Task] | None:
    """The job, step and task of an attempt; None when they ended before it held nothing any more."""
    row = attempt.row
    job = work.jobs.get(row.job_id)
    task = work.task(row.task_id)
    return (job, job.steps[row.step], task) if job is not None and task is not None else None


def may_revive(state: ClusterState, attempt: Attempt) -> bool:
    """It was lost, but no newer token was issued since: it is still the task's own. One of several ranks does not come
    back: its fellows were stopped, or are not there."""
    task = state.work.task(attempt.row.task_id)
    return (
        attempt.row.state is AttemptState.LOST
        and len(attempt.row.ranks) == 1
        and task is not None
        and not task.cancelling
        and task.newest == attempt.row.token
        and attempt not in task.attempts
    )


# ---- terms


def first_term_ms(state: ClusterState, spec: StepSpec, policy: Policy) -> Ms:
    """The term that a lease of this step begins with.

    A fleet that is told a longer interval has longer terms: an agent counts a grant from its last acknowledged
    heartbeat, and must not freeze what only the next but one can renew.
    """
    term_ms = policy.term_ms
    if state.interval_ms > policy.heartbeat_interval_ms:
        term_ms = max(term_ms, 6 * state.interval_ms)
    return max(term_ms, spec.on_lost.wait_ms) if spec.on_lost.mode == "wait" else term_ms


def due_term_ms(state: ClusterState, attempt: Attempt, spec: StepSpec, policy: Policy) -> Ms:
    """The term that it should have now: `auto` grows it with the unsaved work, in doublings: few writes."""
    first = first_term_ms(state, spec, policy)
    if spec.on_lost.mode != "auto" or attempt.row.started_at_ms is None:
        return first
    task = state.work.task(attempt.row.task_id) if spec.checkpoint is not None else None
    at_stake = unsaved_ms(state, attempt, task) * policy.term_unsaved_share
    term, longest = first, max(first, policy.term_max_ms)
    while term < longest and min(2 * term, longest) <= at_stake:
        term = min(2 * term, longest)
    return term


# ---- beginning


def new_attempt(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    shares: list[tuple[ProviderId, Share]],
    forecast: float | None,
    unblocked_by: str,
    prefetched: bool = False,
    choice: Choice | None = None,
) -> Attempt:
    """Reserve: hold the capacity, or stand in line for it. Nobody is told, and it has no token yet. The task's row
    counts it already."""
    work, of, tenant, now_ms = state.work, task.row, job.row.tenant, state.now_ms
    row = AttemptRow(
        job_id=of.job_id,
        step=of.step,
        task=of.task,
        attempt=of.attempts,
        state=AttemptState.RESERVED,
        created_at_ms=now_ms,
        ranks=tuple([rank_row(state, provider_id, share) for provider_id, share in shares]),
        unblocked_by=unblocked_by,
        forecast=forecast,
        choice=choice,
        prefetched=prefetched,
    )
    attempt_id = row.attempt_id
    attempt = Attempt(row=row, renewed_ms=(now_ms,) * len(shares), terms_ms=(0,) * len(shares), tenant=tenant)
    work.attempts[attempt_id] = attempt
    task.attempts = (*task.attempts, attempt)
    hold_for(work.accounts, tenant, row)
    begin = line_up if prefetched else hold
    for rank, (provider_id, share) in enumerate(shares):
        begin(work, provider_id, attempt_id, rank, share, tenant)
    return attempt


def rank_row(state: ClusterState, provider_id: ProviderId, share: Share) -> RankRow:
    """Of a rank that is granted now. It keeps the price of its grant."""
    name = state.providers[provider_id].row.pool
    pool = state.pools.get(name)
    return RankRow(provider_id=provider_id, share=share, pool=name, price=pool.price if pool is not None else FREE)


def reserve(state: ClusterState, attempt: Attempt, why: str, out: Decision) -> None:
    """It waits under its reservation until the attempt before it cannot be running. What it needs is brought there."""
    put_attempt(attempt, out, reason=why)
    audit_attempt(state, attempt, out, AttemptState.RESERVED.value, why=why)
    home = home_of(state.work, attempt)
    if home is not None and (home[1].spec.inputs or home[2].row.checkpoints):
        for rank, row in enumerate(attempt.row.ranks):
            tell(state, row.provider_id, Warm(attempt_id=attempt.row.attempt_id, rank=rank), out)


def grant(
    state: ClusterState, job: Job, step: Step, task: Task, attempt: Attempt, why: str, policy: Policy, out: Decision
) -> None:
    """Issue the token, which fences every one before it, and offer the lease to the agents."""
    work, now_ms = state.work, state.now_ms
    token = task.newest = LeaseToken(state.generation, work.next_token)
    work.next_token += 1
    term_ms = first_term_ms(state, step.spec, policy)
    before = attempt.row.state._value_ if attempt.row.reason else ""
    work.unanswered[attempt.row.attempt_id] = None
    row = attempt.row = replace(attempt.row, state=AttemptState.LEASED, token=token, term_ms=term_ms, reason=why)
    attempt_id, ranks = row.attempt_id, row.ranks
    out.writes.append(Put(row))
    out.notes.append(AttemptChanged(row=row, tenant=attempt.tenant))
    audit_attempt(state, attempt, out, "leased", before, why)
    attempt.granted_ms = now_ms
    attempt.renewed_ms = (now_ms,) * len(ranks)
    attempt.terms_ms = (term_ms,) * len(ranks)
    for rank, held in enumerate(ranks):
        conn_id = connection(state, held.provider_id)
        if conn_id is not None:
            order = Grant(
                attempt_id=attempt_id,
                rank=rank,
                token=token,
                term_ms=term_ms,
                share=held.share,
                prefetched=row.prefetched,
            )
            out.sends.append(Send(conn_id, order))
    work.wheel.put(attempt_id, now_ms + policy.grant_ms)
    step.running += 1
    if not has_room(step):
        fit_step(work, job, step)
    if task.row.state is not WorkState.STAGING:
        move_task(state, job, task, WorkState.STAGING, out, why=why, unblocked_by=attempt.row.unblocked_by)
    begin_work(state, job, step, out)


def begin_work(state: ClusterState, job: Job, step: Step, out: Decision) -> None:
    """The first lease of a step or a job takes it out of the queue."""
    if step.row.state is WorkState.PENDING:
        move_step(state, job, step, WorkState.STAGING, out, unblocked_by=step.unblocked_by)
    if job.row.state is WorkState.PENDING:
        leaves_queue(state.work.accounts, job)
        move_job(state, job, WorkState.STAGING, out)


def launch(state: ClusterState, job: Job, step: Step, attempt: Attempt, policy: Policy, out: Decision) -> None:
    """Every rank holds the lease: from here on it may be running."""
    ranks = tuple([replace(row, acked=True, launched=True) for row in attempt.row.ranks])
    move_attempt(state, attempt, AttemptState.STAGING, out, why=HELD, ranks=ranks)
    for rank in range(len(ranks)):
        send_launch(state, job, step, attempt, rank, policy, out)
    when_ms = state.now_ms + patience_ms(attempt.row.prefetched, policy)
    state.work.wheel.put(attempt.row.attempt_id, when_ms)


def patience_ms(prefetched: bool, policy: Policy) -> Ms:
    """How long after the order it may not have begun, until it is looked at."""
    return policy.prefetch_wait_ms if prefetched else policy.launch_ms


def send_launch(
    state: ClusterState, job: Job, step: Step, attempt: Attempt, rank: int, policy: Policy, out: Decision
) -> None:
    order = launch_order(state, job, step, attempt, rank, policy)
    tell(state, attempt.row.ranks[rank].provider_id, order, out)


def launch_order(state: ClusterState, job: Job, step: Step, attempt: Attempt, rank: int, policy: Policy) -> Launch:
    """What the agent of this rank is told to start."""
    row = attempt.row
    task = state.work.task(row.task_id) if step.spec.checkpoint is not None else None
    return Launch(
        attempt_id=row.attempt_id,
        rank=rank,
        token=row.token,
        tenant=job.row.tenant,
        step=step.spec,
        share=row.ranks[rank].share,
        nodes=tuple([r.provider_id for r in row.ranks]),
        checkpoint_every_ms=every_ms(state, attempt, task, step.spec, policy) if task is not None else None,
        restore=task is not None and bool(task.row.checkpoints),
        passed_on=passed_on(job, step),
    )


def tell(state: ClusterState, provider_id: ProviderId, message: Message, out: Decision) -> None:
    """Say it if the provider is connected; who is not asks by its next hello."""
    conn_id = connection(state, provider_id)
    if conn_id is not None:
        out.sends.append(Send(conn_id, message))


# ---- ending


def send_stop(
    state: ClusterState, attempt: Attempt, rank: int, why: str, grace_ms: Ms, out: Decision, unbegun: bool = False
) -> None:
    row = attempt.row
    order = StopAttempt(attempt_id=row.attempt_id, token=row.token, why=why, grace_ms=grace_ms, unbegun=unbegun)
    tell(state, row.ranks[rank].provider_id, order, out)


def free_rank(state: ClusterState, attempt: Attempt, rank: int) -> None:
    """This rank holds nothing any more. Whoever calls writes the attempt's row, whose rank is changed here."""
    work, row = state.work, attempt.row
    held = row.ranks[rank]
    if not held.released:
        release(work, held.provider_id, row.attempt_id, rank, held.share)
        rank_let_go(work.accounts, attempt.tenant, row, rank)
        attempt.row = set_rank(row, rank, released=True)
        work.gave_room(held.provider_id, state.now_ms, f"slot {dotted(row.attempt_id)}")
        provider = state.providers.get(held.provider_id)
        if provider is not None:
            promote(work, held.provider_id, provider.offer)


def part(state: ClusterState, attempt: Attempt) -> None:
    """It is not live any more: its task goes on without it."""
    work = state.work
    home = home_of(work, attempt)
    if home is None:
        return
    job, step, task = home
    if attempt not in task.attempts:
        return
    task.attempts = tuple([other for other in task.attempts if other is not attempt])
    if attempt.row.token != NO_TOKEN:
        was_full = not has_room(step)
        step.running -= 1
        if was_full and has_room(step):
            step.unblocked_by, step.unblocked_ms = "limit max_running", state.now_ms
            fit_step(work, job, step)


def drop_if_free(work: Work, attempt: Attempt) -> None:
    """Forget an attempt that is not live and holds nothing."""
    if not is_live(attempt) and all(rank.released for rank in attempt.row.ranks):
        work.attempts.pop(attempt.row.attempt_id, None)
        work.wheel.drop(attempt.row.attempt_id)


def held_by(work: Work, provider_id: ProviderId) -> list[tuple[AttemptId, int]]:
    """(attempt, rank) of all that hold something there, in the order of their ids."""
    load = work.loads.get(provider_id)
    return sorted(load.attempts) if load is not None else []


def attempts_of(work: Work, job_id: JobId) -> list[Attempt]:
    """The live attempts of a job. O(its live tasks)."""
    job = work.jobs.get(job_id)
    if job is None:
        return []
    return [attempt for step in job.steps for task in step.tasks.values() for attempt in task.attempts]
