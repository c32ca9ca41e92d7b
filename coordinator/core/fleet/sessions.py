"""Sessions: who may take over a provider, when one begins, goes on, and ended.

A session ends at min(disconnect, last heartbeat + one interval), never when we noticed. A provider has at
most one open session; the connection that holds it is the one in `state.conns`.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import (
    CloseCode,
    CloseLink,
    Decision,
    LinkBound,
    PingAgent,
    ProviderChanged,
    Put,
    Send,
    SessionEnded,
    SessionOpened,
    Welcome,
)
from coordinator.core.events import AgentBye, AgentHello, LinkClosed
from coordinator.core.fleet.alive import say_alive
from coordinator.core.fleet.challenges import drop_challenger, refuse_duplicate, refuse_hello, turn_away_challenger
from coordinator.core.fleet.pace import fit_interval
from coordinator.core.fleet.publish import changed, view_of
from coordinator.core.ids import Ms, SessionId
from coordinator.core.policy import Policy
from coordinator.core.rows import EndReason, SessionRow
from coordinator.core.snapshot import Liveness
from coordinator.core.state import Challenger, ClusterState, LiveSession, Provider
from coordinator.core.work.arrivals import on_arrival
from coordinator.core.work.loss import silence


def on_hello(state: ClusterState, event: AgentHello, policy: Policy, out: Decision) -> None:
    """Open a session, let one go on, or have the old connection prove that it lives."""
    provider = state.providers.get(event.provider_id)
    if provider is None:
        refuse_hello(out, event, CloseCode.FORGOTTEN, "this provider is not enrolled; enrol it again with a join token")
        return
    if event.conn_id in state.conns or event.conn_id in state.challengers:
        refuse_hello(out, event, CloseCode.BAD_FRAME, "hello was said already on this connection")
        return
    if provider.row.machine_id != event.machine_id:
        refuse_hello(
            out,
            event,
            CloseCode.MACHINE_MISMATCH,
            "this identity belongs to another machine; enrol this machine under an id of its own",
        )
        return
    if state.stopping:
        refuse_hello(out, event, CloseCode.GOING_AWAY, "the coordinator restarts; come back soon")
        return
    session = provider.session
    if session is None or session.conn_id is None:
        _take_up(state, provider, event, policy, out)
    elif _holds_key(provider, event):
        supersede(state, provider, event, policy, out, EndReason.SUPERSEDED)
        turn_away_challenger(state, provider, out)
    elif provider.challenger is not None:
        refuse_duplicate(state, provider, event, out)
    else:
        provider.challenger = Challenger(
            conn_id=event.conn_id, hello=event, deadline_ms=state.now_ms + policy.challenge_ms
        )
        state.challengers[event.conn_id] = event.provider_id
        state.review_at(provider, provider.challenger.deadline_ms)
        out.sends.append(Send(session.conn_id, PingAgent()))


def _holds_key(provider: Provider, event: AgentHello) -> bool:
    row = provider.row
    return bool(event.resume_digest) and event.resume_digest in (row.resume_digest, row.resume_digest_unconfirmed)


def supersede(
    state: ClusterState, provider: Provider, event: AgentHello, policy: Policy, out: Decision, reason: EndReason
) -> None:
    session = provider.session
    assert session is not None and session.conn_id is not None
    old_conn = session.conn_id
    out.sends.append(
        Send(old_conn, CloseLink(code=CloseCode.SUPERSEDED, reason="another connection of this agent took over"))
    )
    end_session(state, provider, reason, policy, out)
    _take_up(state, provider, event, policy, out)


def _take_up(state: ClusterState, provider: Provider, event: AgentHello, policy: Policy, out: Decision) -> None:
    """Bind the connection: the awaited session goes on for the same agent process, else a new one begins.

    None goes on over a wall clock that was set forward: it would be longer than it was. Its stay does, and the
    process that lived through it was there from our start on.
    """
    if provider.session is not None and provider.phase is not Liveness.AWAITED:
        end_session(state, provider, EndReason.READ_ERROR, policy, out)
    awaited = provider.session
    same_process = awaited is not None and awaited.row.process_id == event.process_id and bool(event.process_id)
    resumed = same_process and not state.stepped_ahead
    if awaited is not None and not resumed:
        end_awaited(state, provider, out)
    now = state.now_ms
    row = provider.row
    gap_ms = _observed_gap(state, provider.gone_from_ms, policy)
    stays = row.boot_id == event.boot_id and gap_ms < policy.lost_ms(state.interval_ms)
    if awaited is not None and resumed:
        session = awaited
        session.conn_id = event.conn_id
        session.quiet_from_ms = now
        session.seq = 0
        session.interval_ms = state.interval_ms
        session.pinged = False
    else:
        session = LiveSession(
            row=SessionRow(
                session_id=state.next_session_id,
                provider_id=row.provider_id,
                connected_at_ms=state.booted_at_ms if same_process else now,
                coordinator_id=state.coordinator_id,
                boot_id=event.boot_id,
                process_id=event.process_id,
            ),
            conn_id=event.conn_id,
            quiet_from_ms=now,
            interval_ms=state.interval_ms,
        )
        state.next_session_id = SessionId(state.next_session_id + 1)
        out.writes.append(Put(session.row))
        say_alive(state, out)
    provider.session = session
    provider.phase = Liveness.ONLINE
    provider.peer = event.peer
    provider.gone_from_ms = None
    provider.row = replace(
        row,
        labels=event.labels,
        resources=event.resources,
        promises=event.promises,
        boot_id=event.boot_id,
        agent_version=event.agent_version,
        resume_digest=event.resume_digest if _holds_key(provider, event) else row.resume_digest,
        resume_digest_unconfirmed=event.fresh_resume_digest,
        away_until_ms=row.away_until_ms if row.drained_at_ms is not None else None,
        last_end=None,
        last_seen_ms=now if not resumed else row.last_seen_ms,
        stay_began_ms=row.stay_began_ms if (stays or resumed) and row.stay_began_ms is not None else now,
    )
    out.writes.append(Put(provider.row))
    state.conns[event.conn_id] = row.provider_id
    state.review_at(provider, now + int(policy.ping_after_intervals * state.interval_ms))
    out.sends.append(
        Send(
            event.conn_id,
            Welcome(
                session_id=session.row.session_id,
                resumed=resumed,
                heartbeat_interval_ms=state.interval_ms,
                lost_after_ms=policy.lost_ms(state.interval_ms),
                draining=provider.row.drained_at_ms is not None,
                provider_id=row.provider_id,
            ),
        )
    )
    out.notes.append(SessionOpened(session.row, resumed))
    view = view_of(provider)
    out.notes.append(LinkBound(event.conn_id, view))
    out.notes.append(ProviderChanged(view))
    on_arrival(state, provider, event, row.boot_id != event.boot_id, policy, out)
    fit_interval(state, policy, out)


def _observed_gap(state: ClusterState, since_ms: Ms | None, policy: Policy) -> Ms:
    """How much of the time from `since_ms` until now we watched."""
    if since_ms is None:
        return state.now_ms
    unwatched_ms = state.outage_ms if since_ms < state.booted_at_ms else 0
    # After a stall the sockets are read before the tick that reports it: no tick for so long, and we did not look.
    unticked_ms = state.now_ms - max(since_ms, state.ticked_at_ms)
    if unticked_ms >= policy.stall_ms:
        unwatched_ms += unticked_ms
    return state.now_ms - since_ms - unwatched_ms


def admit_challenger(state: ClusterState, provider: Provider, policy: Policy, out: Decision) -> None:
    """The session that it waited for is over: nobody is left who could answer."""
    challenger = provider.challenger
    if challenger is not None:
        drop_challenger(state, provider)
        _take_up(state, provider, challenger.hello, policy, out)


def on_bye(state: ClusterState, event: AgentBye, policy: Policy, out: Decision) -> None:
    """The agent leaves on purpose. An admin's word on when it will be back stands unless it says another."""
    goodbye = Send(event.conn_id, CloseLink(code=CloseCode.GOING_AWAY, reason="good bye"))
    challenged = state.challengers.get(event.conn_id)
    if challenged is not None:
        drop_challenger(state, state.providers[challenged])
        out.sends.append(goodbye)
        return
    provider = state.provider_of(event.conn_id)
    if provider is None:
        return
    if event.away_until_ms is not None:
        provider.row = replace(provider.row, away_until_ms=event.away_until_ms)
    reason = EndReason.DRAINING if event.draining else EndReason.CLEAN_CLOSE
    end_session(state, provider, reason, policy, out)
    silence(state, provider, policy, out)
    out.sends.append(goodbye)
    admit_challenger(state, provider, policy, out)


def on_link_closed(state: ClusterState, event: LinkClosed, policy: Policy, out: Decision) -> None:
    """A socket broke without a word."""
    challenged = state.challengers.get(event.conn_id)
    if challenged is not None:
        drop_challenger(state, state.providers[challenged])
        return
    provider = state.provider_of(event.conn_id)
    if provider is None or provider.session is None or state.stopping:
        # A socket that breaks after we said that we restart is our own doing: its session waits for the restart.
        return
    process_id = provider.session.row.process_id
    restarted = provider.challenger is not None and provider.challenger.hello.process_id != process_id
    end_session(state, provider, EndReason.AGENT_RESTART if restarted else EndReason.READ_ERROR, policy, out)
    silence(state, provider, policy, out)
    admit_challenger(state, provider, policy, out)


def end_session(state: ClusterState, provider: Provider, reason: EndReason, policy: Policy, out: Decision) -> None:
    """Close the open session at the last moment it is known to have lived.

    An end that a full disk undid is made again as it was: the first reason wins. Whether its provider is lost
    is judged by ticks alone: they know of our own stalls.
    """
    session = provider.session
    assert session is not None
    known = session.last_beat_ms if session.last_beat_ms is not None else session.row.connected_at_ms
    ended_ms = max(min(state.now_ms, known + state.interval_ms), session.row.connected_at_ms)
    if session.undone is not None and session.undone.disconnect_reason is not None:
        session.last_beat_ms = session.undone.last_heartbeat_at_ms
        ended_ms, reason = session.undone.disconnected_at_ms or ended_ms, session.undone.disconnect_reason
    if session.conn_id is not None:
        state.conns.pop(session.conn_id, None)
    left = reason in (EndReason.CLEAN_CLOSE, EndReason.DRAINING)
    _close_row(state, provider, session, ended_ms, reason, out)
    provider.phase = Liveness.AWAY if left else Liveness.SUSPECT
    provider.gone_from_ms = min(session.quiet_from_ms, state.now_ms)
    if reason is EndReason.STALE_HEARTBEAT:
        provider.phase = Liveness.LOST
    elif not left:
        state.review_at(provider, provider.gone_from_ms + policy.lost_ms(state.interval_ms))
    changed(out, provider)


def end_awaited(state: ClusterState, provider: Provider, out: Decision) -> None:
    """Its agent did not come back as the same process: it ended, unobserved, after its last heartbeat."""
    session = provider.session
    assert session is not None
    ended_ms = session.last_beat_ms if session.last_beat_ms is not None else session.row.connected_at_ms
    _close_row(state, provider, session, max(ended_ms, session.row.connected_at_ms), EndReason.COORDINATOR_RESTART, out)
    provider.phase = Liveness.LOST
    provider.gone_from_ms = ended_ms
    changed(out, provider)


def end_orphan(row: SessionRow, out: Decision) -> None:
    """Its provider is not known any more: nobody can come back to it."""
    ended_ms = max(row.last_heartbeat_at_ms or 0, row.connected_at_ms)
    row = replace(row, disconnected_at_ms=ended_ms, disconnect_reason=EndReason.COORDINATOR_RESTART)
    out.writes.append(Put(row))
    out.notes.append(SessionEnded(row, EndReason.COORDINATOR_RESTART))


def _close_row(
    state: ClusterState, provider: Provider, session: LiveSession, ended_ms: Ms, reason: EndReason, out: Decision
) -> None:
    row = replace(
        session.row,
        disconnected_at_ms=ended_ms,
        disconnect_reason=reason,
        last_heartbeat_at_ms=session.last_beat_ms,
    )
    provider.session = None
    state.ended.append(row)
    provider.row = replace(
        provider.row,
        last_seen_ms=session.last_beat_ms if session.last_beat_ms is not None else ended_ms,
        last_end=reason,
    )
    out.writes.append(Put(row))
    out.writes.append(Put(provider.row))
    say_alive(state, out)
    out.notes.append(SessionEnded(row, reason))
