"""Loss: what is decided of attempts whose provider fell silent, and what when it is heard again.

In doubt at once; replaced when the lease is over, unless its provider is back before. The lease of an attempt in doubt
ends by the wheel alone, after our own stalls were forgiven.
"""

from __future__ import annotations

from coordinator.core.commands import Decision
from coordinator.core.data.lasting import remaining_ms
from coordinator.core.data.saving import unsaved_ms
from coordinator.core.fleet.forecast import returns, stays_once_back
from coordinator.core.ids import AttemptId, Ms, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.queue.lines import fit_task, leave
from coordinator.core.rows import AttemptState
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState, Provider
from coordinator.core.verdict.suspicion import forget_suspicions
from coordinator.core.work.attempts import STAGED, begin, finish, runs, unanswered
from coordinator.core.work.endings import STOP_AGAIN_MS, rank_freed, recall, stop, take_back
from coordinator.core.work.leases import (
    drop_if_free,
    free_rank,
    has_not_begun,
    held_by,
    home_of,
    lease_over_ms,
)
from coordinator.core.work.live import Attempt, Step, is_live, without
from coordinator.core.work.retries import blame_provider
from coordinator.core.work.transitions import audit_attempt, move_attempt, put_attempt, set_rank


def silence(state: ClusterState, provider: Provider, policy: Policy, out: Decision) -> None:
    """Nothing is heard of this provider: what it runs is in doubt, what it was only offered goes elsewhere."""
    state.work.changed(provider.row.provider_id)
    why = f"{provider.row.provider_id} is {provider.phase.value}"
    for attempt_id, rank in held_by(state.work, provider.row.provider_id):
        attempt = state.work.attempts.get(attempt_id)
        if attempt is not None and is_live(attempt):
            rank_silent(state, attempt, rank, why, policy, out)


def rank_silent(state: ClusterState, attempt: Attempt, rank: int, why: str, policy: Policy, out: Decision) -> None:
    row = attempt.row
    if row.ranks[rank].exit is not None or rank in attempt.silent:
        return
    if row.state is AttemptState.RESERVED:
        _drop_reservation(state, attempt, why, out)
    elif not row.ranks[rank].launched:
        unanswered(state, attempt, why, out)
    else:
        attempt.silent |= {rank}
        attempt.shrinks = without(attempt.shrinks, rank)
        _doubt(state, attempt, why, policy, out)


def _drop_reservation(state: ClusterState, attempt: Attempt, why: str, out: Decision) -> None:
    """The replacement's own provider is gone: another one is looked for."""
    home = home_of(state.work, attempt)
    take_back(state, attempt, why, out)
    if home is not None:
        job, step, task = home
        task.wanted = bool(task.attempts)
        fit_task(state.work, job, step, task)


def _doubt(state: ClusterState, attempt: Attempt, why: str, policy: Policy, out: Decision) -> None:
    over = lease_over_ms(attempt)
    if attempt.row.state is AttemptState.IN_DOUBT:
        put_attempt(attempt, out, lease_over_ms=over)
    else:
        move_attempt(
            state,
            attempt,
            AttemptState.IN_DOUBT,
            out,
            why=why,
            doubted_at_ms=_unheard_ms(state, attempt),
            lease_over_ms=over,
        )
    state.work.wheel.put(attempt.row.attempt_id, over)
    _seek_replacement(state, attempt, policy)


def _unheard_ms(state: ClusterState, attempt: Attempt) -> Ms:
    """Since when nothing was heard of it: now, or where we were away ourselves, when it was heard last before. Its row
    must say that: the row of its provider may be gone at the next start, and what nobody saw run is not charged."""
    return min((attempt.unseen_ms.get(rank, state.now_ms) for rank in attempt.silent), default=state.now_ms)


def _seek_replacement(state: ClusterState, attempt: Attempt, policy: Policy) -> None:
    """Have another provider looked for, if that is better than to wait."""
    home = home_of(state.work, attempt)
    if home is None or attempt.stopping:
        return
    job, step, task = home
    if not task.cancelling and len(task.attempts) == 1:
        task.wanted = wants_replacement(state, step, attempt, policy)
        fit_task(state.work, job, step, task)


def wants_replacement(state: ClusterState, step: Step, attempt: Attempt, policy: Policy) -> bool:
    """Whether to look for another provider now, or to wait for this one's return as long as its lease lasts.

    `auto` waits when the work that a return would save, times how likely it is that the provider returns and then stays
    for the rest of the run, outweighs the time lost by waiting in vain, times how likely that is.
    """
    mode = step.spec.on_lost.mode
    if mode != "auto":
        return mode == "retry"
    left_ms = max(0, lease_over_ms(attempt) - state.now_ms)
    at_stake_ms = unsaved_ms(state, attempt, state.work.task(attempt.row.task_id))
    rest_ms = remaining_ms(state, attempt, step.spec)
    back = min(_return_probability(state, attempt, rank, left_ms, policy) for rank in attempt.silent)
    saves = min(_saves(state, attempt, rank, rest_ms) for rank in attempt.silent)
    return back * saves * at_stake_ms <= (1 - back) * left_ms


def _return_probability(state: ClusterState, attempt: Attempt, rank: int, left_ms: int, policy: Policy) -> float:
    provider = state.providers.get(attempt.row.ranks[rank].provider_id)
    if provider is None or provider.phase is Liveness.AWAY:
        return 0.0
    gone_ms = state.now_ms - attempt.renewed_ms[rank]
    return returns(state, provider, gone_ms, left_ms, policy)


def _saves(state: ClusterState, attempt: Attempt, rank: int, rest_ms: Ms) -> float:
    """P(what it has done is not lost after all), should the provider of this rank be back."""
    provider = state.providers.get(attempt.row.ranks[rank].provider_id)
    return stays_once_back(state, provider, rest_ms) if provider is not None else 0.0


def heard_again(state: ClusterState, attempt: Attempt, rank: int, frozen: bool, out: Decision) -> None:
    """Its agent holds it still, under the current token: it goes on, and its replacement is not needed."""
    if attempt.silent:
        attempt.silent -= {rank}
    if attempt.row.state is not AttemptState.IN_DOUBT:
        return
    for number, ranked in enumerate(attempt.row.ranks):
        provider = state.providers.get(ranked.provider_id)
        if ranked.exit is None and (provider is None or provider.phase is not Liveness.ONLINE):
            attempt.silent |= {number}
    if attempt.silent:
        return
    work, row = state.work, attempt.row
    begun = row.started_at_ms is not None
    to = AttemptState.STAGING if not begun else AttemptState.FROZEN if frozen else AttemptState.RUNNING
    where = row.ranks[rank].provider_id
    move_attempt(
        state,
        attempt,
        to,
        out,
        why=f"{where} is back, and its lease was not over",
        by=f"agent:{where}",
        doubted_at_ms=None,
        lease_over_ms=None,
    )
    if attempt.stopping:
        work.wheel.put(row.attempt_id, state.now_ms)
    else:
        work.wheel.drop(row.attempt_id)
    if not begun and runs(row):
        begin(state, attempt, f"agent:{where}", out)
    home = home_of(work, attempt)
    if home is None:
        return
    _, _, task = home
    task.wanted = False
    leave(work, task)
    for other in task.attempts:
        if other.row.state is AttemptState.RESERVED:
            take_back(state, other, f"{where} is back", out)


# ---- the wheel


def review(state: ClusterState, attempt_id: AttemptId, policy: Policy, out: Decision) -> None:
    """Look at a lease whose appointment has come."""
    attempt = state.work.attempts.get(attempt_id)
    if attempt is None:
        return
    if not is_live(attempt):
        _review_taken_back(state, attempt, out)
    else:
        _review_live(state, attempt, policy, out)


def _review_taken_back(state: ClusterState, attempt: Attempt, out: Decision) -> None:
    """Nothing of it was launched: when its term is over, whatever an agent may have of the grant is worth nothing."""
    if attempt.row.state is not AttemptState.TAKEN_BACK:
        return
    over = lease_over_ms(attempt)
    if over > state.now_ms:
        state.work.wheel.put(attempt.row.attempt_id, over)
        return
    for rank in range(len(attempt.row.ranks)):
        free_rank(state, attempt, rank)
    put_attempt(attempt, out)
    drop_if_free(state.work, attempt)


def _review_live(state: ClusterState, attempt: Attempt, policy: Policy, out: Decision) -> None:
    row = attempt.row
    for rank, ranked in enumerate(row.ranks):
        provider = state.providers.get(ranked.provider_id)
        if provider is None or provider.phase is not Liveness.ONLINE:
            phase = provider.phase.value if provider is not None else "forgotten"
            rank_silent(state, attempt, rank, f"{ranked.provider_id} is {phase}", policy, out)
            if not is_live(attempt):
                return
    row = attempt.row
    if row.state is AttemptState.LEASED:
        _review_grant(state, attempt, policy, out)
    elif row.state is AttemptState.STAGING and not attempt.stopping and has_not_begun(attempt):
        recall(state, attempt, "those before it last longer than expected", out)
    elif row.state is AttemptState.STAGING and not attempt.stopping and row.reason != STAGED:
        since_ms = attempt.renewed_ms[0]
        audit_attempt(state, attempt, out, "slow", row.state.value, "ordered to launch, and slow to begin")
        put_attempt(attempt, out, reason=f"was ordered to launch {(state.now_ms - since_ms) // 1000} s ago at least")
    elif row.state is AttemptState.IN_DOUBT:
        _review_doubt(state, attempt, policy, out)
    elif attempt.stopping:
        _stop_again(state, attempt, out)


def _stop_again(state: ClusterState, attempt: Attempt, out: Decision) -> None:
    home = home_of(state.work, attempt)
    if home is not None:
        job, step, _ = home
        stop(state, job, step, attempt, attempt.stopping, out)


def _review_grant(state: ClusterState, attempt: Attempt, policy: Policy, out: Decision) -> None:
    offered_ms = max(attempt.row.created_at_ms, attempt.granted_ms)
    if offered_ms + policy.grant_ms > state.now_ms:
        state.work.wheel.put(attempt.row.attempt_id, offered_ms + policy.grant_ms)
        return
    silent = [r.provider_id for r in attempt.row.ranks if not r.acked]
    for provider_id in silent:
        blame_provider(state, provider_id, attempt.row.job_id, policy, out)
    unanswered(state, attempt, f"{', '.join(silent)} did not answer the grant", out)


def _review_doubt(state: ClusterState, attempt: Attempt, policy: Policy, out: Decision) -> None:
    """The lease of its silent ranks is over, or was moved meanwhile."""
    over = lease_over_ms(attempt)
    if over > state.now_ms:
        state.work.wheel.put(attempt.row.attempt_id, over)
        if attempt.row.lease_over_ms != over:
            put_attempt(attempt, out, lease_over_ms=over)
        if attempt.silent:
            _seek_replacement(state, attempt, policy)
        return
    if not attempt.silent:
        state.work.wheel.put(attempt.row.attempt_id, state.now_ms + 1_000)
        return
    if finish(state, attempt, "coord", policy, out):
        return
    gone = min(attempt.silent)
    attempt.stopping = attempt.stopping or f"rank {gone} was lost with {attempt.row.ranks[gone].provider_id}"
    _stop_again(state, attempt, out)
    state.work.wheel.put(attempt.row.attempt_id, state.now_ms + STOP_AGAIN_MS)


def forgive(state: ClusterState, stalled_ms: int) -> None:
    """We were not looking for so long: no lease ends by it. O(attempts)."""
    for attempt in state.work.attempts.values():
        attempt.unseen_ms = {**dict(enumerate(attempt.renewed_ms)), **attempt.unseen_ms}
        attempt.renewed_ms = tuple([min(state.now_ms, heard_ms + stalled_ms) for heard_ms in attempt.renewed_ms])


def unnamed(state: ClusterState, provider: Provider, policy: Policy, out: Decision) -> None:
    """Its agent is there and has not spoken of these for longer than of a silent one: they are in doubt."""
    for attempt_id, rank in held_by(state.work, provider.row.provider_id):
        attempt = state.work.attempts.get(attempt_id)
        if attempt is None or not is_live(attempt) or not attempt.row.ranks[rank].launched:
            continue
        quiet_ms = state.now_ms - attempt.renewed_ms[rank]
        if quiet_ms > policy.suspect_after_intervals * state.interval_ms:
            rank_silent(state, attempt, rank, f"{provider.row.provider_id} does not speak of it", policy, out)


def forgotten(state: ClusterState, provider_id: ProviderId, policy: Policy, out: Decision) -> None:
    """An admin says that this provider is not coming back: nothing is held there, and what it ran is lost."""
    work = state.work
    orphan(state, provider_id, f"{provider_id} was forgotten", policy, out)
    work.forget(provider_id)


def orphan(state: ClusterState, provider_id: ProviderId, why: str, policy: Policy, out: Decision) -> None:
    """The machine behind this name is not its provider any more. What it runs may go on until its lease is over: that
    is waited for, whoever says hello under the name meanwhile."""
    forget_suspicions(state, provider_id, out)
    for attempt_id, rank in held_by(state.work, provider_id):
        attempt = state.work.attempts.get(attempt_id)
        if attempt is None:
            continue
        if not is_live(attempt):
            rank_freed(state, attempt, rank, out)
            continue
        rank_silent(state, attempt, rank, why, policy, out)
        if is_live(attempt):
            attempt.row = set_rank(attempt.row, rank, orphaned=True)
            put_attempt(attempt, out)
