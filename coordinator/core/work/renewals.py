"""Renewals: the leases that a heartbeat names go on for their term. Memory only, but for a longer term.

A longer term is durable before an agent hears of it. A shorter one counts when the agent is known to have heard of it.
"""

from __future__ import annotations

from coordinator.core.commands import Decision, Renew, Send, Term
from coordinator.core.events import Beat
from coordinator.core.ids import ConnId
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState, Provider
from coordinator.core.tenants.quotas import room_again
from coordinator.core.work.attempts import revive
from coordinator.core.work.leases import due_term_ms, held_by, home_of, may_revive, send_stop
from coordinator.core.work.live import NO_TOKEN, Attempt, is_live, with_rank, without
from coordinator.core.work.loss import heard_again, unnamed
from coordinator.core.work.transitions import put_attempt


def renew_named(state: ClusterState, provider: Provider, beat: Beat, policy: Policy, out: Decision) -> None:
    """Renew what this heartbeat names. O(its attempts)."""
    load = state.work.loads.get(provider.row.provider_id)
    if load is None or not load.attempts or state.stopping:
        return  # a term that was made longer for our stop is not to be made shorter now
    terms = []
    for attempt_id in beat.attempts:
        attempt = state.work.attempts.get(attempt_id)
        rank = rank_of(attempt, provider) if attempt is not None else None
        if attempt is None or rank is None or attempt.row.ranks[rank].released or attempt.row.token == NO_TOKEN:
            continue
        if not is_live(attempt) and not _counts_again(state, attempt, rank, provider, policy, out):
            continue
        _confirm(attempt, rank, beat.renewed_seq, out)
        terms.append(_renew(state, attempt, rank, beat, policy, out))
        heard_again(state, attempt, rank, False, out)
    if terms:
        out.sends.append(Send(beat.conn_id, Renew(seq=beat.seq, terms=tuple(terms))))
    if len(load.attempts) > len(terms):
        unnamed(state, provider, policy, out)


def _counts_again(
    state: ClusterState, attempt: Attempt, rank: int, provider: Provider, policy: Policy, out: Decision
) -> bool:
    """One that was given up: it goes on if nobody else was given its task, else it is to be ended there."""
    if may_revive(state, attempt) and room_again(state, attempt, policy):
        revive(state, attempt, out, f"{provider.row.provider_id} holds it, and nobody else was given it")
        return True
    if not attempt.stopping:
        attempt.stopping = "its lease is not current"
        send_stop(state, attempt, rank, attempt.stopping, 0, out)
    return False


def rank_of(attempt: Attempt, provider: Provider) -> int | None:
    """Which rank of it is this provider's."""
    who, ranks = provider.row.provider_id, attempt.row.ranks
    if ranks[0].provider_id == who:  # of nearly all of them
        return 0
    return next((rank for rank, row in enumerate(ranks) if row.provider_id == who), None)


def _confirm(attempt: Attempt, rank: int, renewed_seq: int, out: Decision) -> None:
    """The agent has heard of the shorter term: from now on that is the longest it may hold."""
    shrink = attempt.shrinks.get(rank)
    if shrink is None or renewed_seq < shrink[0]:
        return
    attempt.shrinks = without(attempt.shrinks, rank)
    attempt.terms_ms = with_rank(attempt.terms_ms, rank, shrink[1])
    longest = max(attempt.terms_ms)
    if longest < attempt.row.term_ms:
        put_attempt(attempt, out, term_ms=longest)


def _renew(state: ClusterState, attempt: Attempt, rank: int, beat: Beat, policy: Policy, out: Decision) -> Term:
    home = home_of(state.work, attempt)
    held_ms = attempt.terms_ms[rank]
    term_ms = due_term_ms(state, attempt, home[1].spec, policy) if home is not None else held_ms
    if term_ms > held_ms:
        attempt.terms_ms = with_rank(attempt.terms_ms, rank, term_ms)
        attempt.shrinks = without(attempt.shrinks, rank)
        if term_ms > attempt.row.term_ms:
            put_attempt(attempt, out, term_ms=term_ms)
    elif term_ms < held_ms and rank not in attempt.shrinks and beat.seq:
        attempt.shrinks = {**attempt.shrinks, rank: (beat.seq, term_ms)}
    if attempt.renewed_ms[rank] < beat.received_ms:
        attempt.renewed_ms = with_rank(attempt.renewed_ms, rank, beat.received_ms)
    attempt.unseen_ms = without(attempt.unseen_ms, rank)
    return Term(attempt_id=attempt.row.attempt_id, token=attempt.row.token, term_ms=term_ms)


def renew_all(
    state: ClusterState, provider: Provider, seq: int, conn_id: ConnId, longer_ms: int, out: Decision
) -> None:
    """Say every term of this connection again, each longer by `longer_ms`: durable with this decision."""
    terms = []
    for attempt_id, rank in held_by(state.work, provider.row.provider_id):
        attempt = state.work.attempts.get(attempt_id)
        if attempt is None or not is_live(attempt) or not attempt.row.ranks[rank].acked or rank in attempt.silent:
            continue
        attempt.shrinks = without(attempt.shrinks, rank)
        if seq and provider.session is not None:
            # The agent counts from that heartbeat again: so do we, also where it had not renewed this lease.
            heard_ms = max(attempt.renewed_ms[rank], provider.session.last_beat_ms or 0)
            attempt.renewed_ms = with_rank(attempt.renewed_ms, rank, heard_ms)
        if longer_ms:
            attempt.terms_ms = with_rank(attempt.terms_ms, rank, attempt.terms_ms[rank] + longer_ms)
            if attempt.terms_ms[rank] > attempt.row.term_ms:
                put_attempt(attempt, out, term_ms=attempt.terms_ms[rank])
        terms.append(Term(attempt_id=attempt_id, token=attempt.row.token, term_ms=attempt.terms_ms[rank]))
    if terms:
        out.sends.append(Send(conn_id, Renew(seq=seq, terms=tuple(terms))))
