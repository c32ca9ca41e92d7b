"""After a full disk: the state is loaded again, and what must not be lost by that is carried over."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from coordinator.core.commands import CloseCode, CloseLink, Decision, Delete, Send, rows_put
from coordinator.core.data.image import carry_data
from coordinator.core.data.live import Blob
from coordinator.core.data.meters import count_again
from coordinator.core.fleet.pace import fit_interval
from coordinator.core.fleet.publish import changed
from coordinator.core.policy import Policy
from coordinator.core.rows import JobRow, OutageRow, Row, SessionRow
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState, LiveSession, Provider
from coordinator.core.tenants.budgets import tell_again, write_accounts
from coordinator.core.verdict.settling import carry_unsaid
from coordinator.core.work.carrying import carry_work
from coordinator.core.work.loading import look_at_all
from coordinator.core.work.renewals import renew_all


def reloaded(old: ClusterState, fresh: ClusterState, policy: Policy, undone: Iterable[Decision] = ()) -> Decision:
    """Carry connections and last heartbeats from `old` over to `fresh`, which was just loaded after a rollback.

    A connection whose welcome never became durable is closed, so that its agent says hello again; so is one
    that the `undone` decisions would have closed. A session whose end never became durable is ended again,
    and an outage is written again, by the next tick.
    """
    out = Decision()
    fresh.now_ms, fresh.booted_at_ms, fresh.interval_ms = old.now_ms, old.booted_at_ms, old.interval_ms
    fresh.rejoin_by_ms, fresh.stopping, fresh.ticked_at_ms = old.rejoin_by_ms, old.stopping, old.ticked_at_ms
    fresh.figures, fresh.beats_saved_ms, fresh.outage_ms = old.figures, old.beats_saved_ms, old.outage_ms
    fresh.stepped_ahead = old.stepped_ahead
    fresh.next_session_id = max(fresh.next_session_id, old.next_session_id)
    fresh.next_key = max(fresh.next_key, old.next_key)
    fresh.ended = old.ended
    fresh.undone_outages = list({row.began_at_ms: row for row in (*old.undone_outages, *_outages(undone))}.values())
    ended = {row.session_id: row for row in old.ended}
    for provider_id, provider in fresh.providers.items():
        before = old.providers.get(provider_id)
        if before is not None:
            provider.peer, provider.duplicate, provider.cached = before.peer, before.duplicate, before.cached
        if provider.session is not None:
            undone_end = ended.get(provider.session.row.session_id)
            _carry_session(fresh, provider, provider.session, before, undone_end, policy)
        else:
            _carry_absence(fresh, provider, before, policy)
        changed(out, provider)
    reason = "the coordinator's disk was full, and what it had decided about you is undone; say hello again"
    again = CloseLink(code=CloseCode.GOING_AWAY, reason=reason)
    closing = [s.conn_id for decision in undone for s in decision.sends if isinstance(s.message, CloseLink)]
    for conn_id in dict.fromkeys((*old.conns, *old.challengers, *closing)):
        if conn_id not in fresh.conns:
            out.sends.append(Send(conn_id, again))
    rows = _undone_rows(undone)
    carry_data(old.data, fresh.data, _undone_removals(undone))
    count_again(old.work.accounts, fresh.work.accounts, out)
    write_accounts(fresh, out)
    carry_unsaid(old.work, fresh.work, rows)
    carry_work(old.work, fresh, {row.job_id for row in rows if isinstance(row, JobRow)})
    for conn_id, provider_id in fresh.conns.items():
        carried = fresh.providers[provider_id].session
        renew_all(fresh, fresh.providers[provider_id], carried.seq if carried else 0, conn_id, 0, out)
    look_at_all(fresh.work, fresh.now_ms)
    tell_again(old.work.accounts, fresh, policy, out)
    fit_interval(fresh, policy, out)
    return out


def _outages(undone: Iterable[Decision]) -> list[OutageRow]:
    return [row for row in _undone_rows(undone) if isinstance(row, OutageRow)]


def _undone_removals(undone: Iterable[Decision]) -> set[Blob]:
    """Blobs whose rows were removed by these."""
    deletes = [write for decision in undone for write in decision.writes if isinstance(write, Delete)]
    return {cast(Blob, write.key) for write in deletes if write.table == "blob"}


def _undone_rows(undone: Iterable[Decision]) -> list[Row]:
    return [row for decision in undone for row in rows_put(decision.writes)]


def _carry_session(
    fresh: ClusterState,
    provider: Provider,
    session: LiveSession,
    before: Provider | None,
    undone: SessionRow | None,
    policy: Policy,
) -> None:
    """An open session that is durable: it lives on, is awaited again, or is to be ended by the next tick."""
    lived = before.session if before is not None else None
    if before is not None and lived is not None and lived.row.session_id == session.row.session_id:
        session.last_beat_ms = lived.last_beat_ms
        session.quiet_from_ms, session.interval_ms = lived.quiet_from_ms, lived.interval_ms
        session.pinged, session.undone, session.seq = lived.pinged, lived.undone, lived.seq
        welcomed = before.row.resume_digest_unconfirmed or before.row.resume_digest
        if lived.conn_id is None or welcomed in (provider.row.resume_digest, provider.row.resume_digest_unconfirmed):
            session.conn_id = lived.conn_id
            provider.phase = before.phase
            if lived.conn_id is not None:
                fresh.conns[lived.conn_id] = provider.row.provider_id
        else:
            fresh.rejoin_by_ms = max(fresh.rejoin_by_ms, fresh.now_ms + policy.rejoin_ms)
    else:
        provider.phase = Liveness.SUSPECT
        session.undone = undone
        if before is not None and before.gone_from_ms is not None:
            session.quiet_from_ms = before.gone_from_ms
    fresh.review_at(provider, fresh.now_ms)


def _carry_absence(fresh: ClusterState, provider: Provider, before: Provider | None, policy: Policy) -> None:
    """No open session is durable: the provider is as it was, or as it was before the one that was undone."""
    if before is not None and before.session is None:
        provider.phase, provider.gone_from_ms = before.phase, before.gone_from_ms
    gone_ms = provider.gone_from_ms
    recent = gone_ms is not None and gone_ms + policy.lost_ms(fresh.interval_ms) > fresh.now_ms
    if provider.phase is Liveness.LOST and recent:
        provider.phase = Liveness.SUSPECT
    if provider.phase is Liveness.SUSPECT:
        fresh.review_at(provider, fresh.now_ms)
