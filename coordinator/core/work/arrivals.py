"""An agent is back: what it holds is compared with what is believed to be there.

What is current goes on, what is not is stopped, an end that was not heard of counts now. What it does not name has
ended with an agent or a machine, or its grant never arrived.
"""

from __future__ import annotations

from coordinator.core.commands import Decision, Renew, Send, Settled, StopAttempt, Term
from coordinator.core.events import AgentHello, HeldAttempt
from coordinator.core.ids import AttemptId, Ms
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import promote
from coordinator.core.rows import AttemptState, EndCause, ExitInfo
from coordinator.core.state import ClusterState, Provider
from coordinator.core.tenants.quotas import room_again
from coordinator.core.work.attempts import acknowledge, end_rank, last_ran_ms, revive, take_exit, take_phase, unanswered
from coordinator.core.work.endings import rank_freed
from coordinator.core.work.leases import held_by, home_of, may_revive, send_launch, send_stop
from coordinator.core.work.live import NO_TOKEN, Attempt, is_live, with_rank, without
from coordinator.core.work.loss import heard_again
from coordinator.core.work.transitions import put_attempt, set_rank

NOT_HELD = "its lease is not current"


def on_arrival(
    state: ClusterState, provider: Provider, hello: AgentHello, rebooted: bool, policy: Policy, out: Decision
) -> None:
    """After the welcome. Renewals are of the hello: seq 0."""
    state.work.able(provider.row.provider_id, state.now_ms)
    named = {(held.attempt_id, held.rank): held for held in hello.attempts}
    promote(state.work, provider.row.provider_id, provider.offer)  # it may offer more than before
    why = "the machine was started anew" if rebooted else "its agent came back without it"
    for key in held_by(state.work, provider.row.provider_id):
        if key not in named:
            _missing(state, *key, why, policy, out)
    ends_first = sorted(hello.attempts, key=lambda held: held.phase != "exited")  # those behind them may run already
    terms = [term for held in ends_first if (term := _held(state, provider, hello, held, policy, out)) is not None]
    # what it had no more, or told the end of, comes free with it
    state.work.gave_room(provider.row.provider_id, state.now_ms, f"provider {provider.row.provider_id}")
    if terms:
        out.sends.append(Send(hello.conn_id, Renew(seq=0, terms=tuple(terms))))


def _missing(state: ClusterState, attempt_id: AttemptId, rank: int, why: str, policy: Policy, out: Decision) -> None:
    """It holds nothing of this rank any more."""
    attempt = state.work.attempts.get(attempt_id)
    if attempt is None or attempt.row.ranks[rank].released:
        return
    if not is_live(attempt):
        rank_freed(state, attempt, rank, out)
    elif attempt.row.state is AttemptState.RESERVED or attempt.row.ranks[rank].orphaned:
        return  # nothing of it was there; or it runs on the machine that had this name before
    elif attempt.row.ranks[rank].launched:
        end_rank(state, attempt, rank, ExitInfo(cause=EndCause.AGENT, text=why), "coord", policy, out)
    else:
        unanswered(state, attempt, "the grant never arrived", out)
        if not attempt.row.ranks[rank].released:
            rank_freed(state, attempt, rank, out)


def _held(
    state: ClusterState, provider: Provider, hello: AgentHello, held: HeldAttempt, policy: Policy, out: Decision
) -> Term | None:
    """One attempt that the hello names; the term that it goes on with, if it does."""
    attempt = state.work.attempts.get(held.attempt_id)
    theirs = (
        attempt is not None
        and attempt.row.token != NO_TOKEN
        and held.rank < len(attempt.row.ranks)
        and attempt.row.ranks[held.rank].provider_id == provider.row.provider_id
    )
    if attempt is None or not theirs:
        _refuse(hello, held, out)
        return None
    if held.phase == "exited":
        exit = held.exit or ExitInfo(cause=EndCause.AGENT)
        take_exit(state, attempt, held.rank, held.token, exit, policy, out)
        _refuse(hello, held, out)
        return None
    current = held.token == attempt.row.token and not attempt.row.ranks[held.rank].released
    lost = current and not is_live(attempt)
    if lost and may_revive(state, attempt) and room_again(state, attempt, policy):
        revive(state, attempt, out, f"{provider.row.provider_id} came back with it before anybody else was given it")
    if not current or not is_live(attempt):
        _refuse(hello, held, out)
        return None
    return _goes_on(state, attempt, held, hello.at_ms, policy, out)


def _refuse(hello: AgentHello, held: HeldAttempt, out: Decision) -> None:
    """Its end is known or concerns nobody; or it is to be ended."""
    if held.phase == "exited":
        out.sends.append(Send(hello.conn_id, Settled(attempt_id=held.attempt_id, rank=held.rank, token=held.token)))
    else:
        order = StopAttempt(attempt_id=held.attempt_id, token=held.token, why=NOT_HELD, grace_ms=0)
        out.sends.append(Send(hello.conn_id, order))


def _goes_on(
    state: ClusterState, attempt: Attempt, held: HeldAttempt, heard_ms: Ms, policy: Policy, out: Decision
) -> Term | None:
    """The agent holds it under the current token. What was said while nobody listened is said again. `heard_ms`: when
    it said so; where that had to wait for us, its lease counts from now, and what it is charged does not."""
    rank = held.rank
    if held.phase == "uploading":
        attempt.ended_by_ms = {rank: last_ran_ms(state, attempt, rank), **attempt.ended_by_ms}
    attempt.renewed_ms = with_rank(attempt.renewed_ms, rank, state.now_ms)
    attempt.unseen_ms = without(attempt.unseen_ms, rank)
    if heard_ms < state.now_ms:
        attempt.unseen_ms = {**attempt.unseen_ms, rank: heard_ms}
    attempt.shrinks = without(attempt.shrinks, rank)
    if attempt.row.ranks[rank].orphaned:  # the same machine was enrolled again
        attempt.row = set_rank(attempt.row, rank, orphaned=False)
        put_attempt(attempt, out)
    heard_again(state, attempt, rank, held.phase == "frozen", out)
    home = home_of(state.work, attempt)
    assert home is not None
    job, step, _ = home
    if attempt.row.ranks[rank].launched:
        if held.phase == "leased":
            send_launch(state, job, step, attempt, rank, policy, out)
        elif held.phase != "staging":
            take_phase(state, attempt, rank, held.phase, policy, out)
    else:
        acknowledge(state, attempt, rank, policy, out)
    if attempt.stopping:
        send_stop(state, attempt, rank, attempt.stopping, step.spec.grace_ms, out)
    return Term(attempt_id=held.attempt_id, token=held.token, term_ms=attempt.terms_ms[rank])
