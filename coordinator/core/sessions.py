"""Sessions: alive -> suspect -> lost, who may take over a provider, and when a session ended.

A session ends at min(disconnect, last heartbeat + one interval), never when we noticed. A provider has at
most one open session; the connection that holds it is the one in `state.conns`.
"""

from __future__ import annotations

from collections.abc import Iterable

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
    TellInterval,
    Warned,
    Welcome,
)
from coordinator.core.events import AgentBye, AgentHello, AgentPong, Boot, Heartbeats, LinkClosed, Tick
from coordinator.core.ids import Ms, SessionId
from coordinator.core.policy import Policy
from coordinator.core.rows import EndReason, Meta, MetaRow, OutageRow, SessionRow
from coordinator.core.snapshot import Duplicate, Liveness, ProviderView
from coordinator.core.state import Challenger, ClusterState, LiveSession, Provider


def view_of(provider: Provider) -> ProviderView:
    """What readers see of this provider."""
    row, session = provider.row, provider.session
    return ProviderView(
        provider_id=row.provider_id,
        key=row.key,
        pool=row.pool,
        liveness=provider.phase,
        enrolled_at_ms=row.enrolled_at_ms,
        labels=row.labels,
        resources=row.resources,
        agent_version=row.agent_version,
        machine_id=row.machine_id,
        boot_id=row.boot_id,
        peer=provider.peer,
        session_id=session.row.session_id if session else None,
        connected_at_ms=session.row.connected_at_ms if session else None,
        last_heartbeat_at_ms=(session.last_beat_ms if session else None) or row.last_seen_ms,
        stay_began_at_ms=row.stay_began_ms if session else None,
        drained=row.drained_at_ms is not None,
        drain_note=row.drain_note,
        away_until_ms=row.away_until_ms,
        duplicate=provider.duplicate,
    )


def changed(out: Decision, provider: Provider) -> None:
    out.notes.append(ProviderChanged(view_of(provider)))


# ---- a connection comes


def on_hello(state: ClusterState, event: AgentHello, policy: Policy, out: Decision) -> None:
    """Open a session, let one go on, or have the old connection prove that it lives."""
    provider = state.providers.get(event.provider_id)
    if provider is None:
        _close(out, event, CloseCode.FORGOTTEN, "this provider is not enrolled; enrol it again with a join token")
        return
    if event.conn_id in state.conns or event.conn_id in state.challengers:
        _close(out, event, CloseCode.BAD_FRAME, "hello was said already on this connection")
        return
    if provider.row.machine_id != event.machine_id:
        _close(
            out,
            event,
            CloseCode.MACHINE_MISMATCH,
            "this identity belongs to another machine; enrol this machine under an id of its own",
        )
        return
    if state.stopping:
        _close(out, event, CloseCode.GOING_AWAY, "the coordinator restarts; come back soon")
        return
    session = provider.session
    if session is None or session.conn_id is None:
        _take_up(state, provider, event, policy, out)
    elif _holds_key(provider, event):
        _supersede(state, provider, event, policy, out, EndReason.SUPERSEDED)
        _turn_away_challenger(state, provider, out)
    elif provider.challenger is not None:
        _refuse_duplicate(state, provider, event, out)
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


def _close(out: Decision, event: AgentHello, code: CloseCode, reason: str) -> None:
    out.sends.append(Send(event.conn_id, CloseLink(code=code, reason=reason)))


def _refuse_duplicate(state: ClusterState, provider: Provider, event: AgentHello, out: Decision) -> None:
    """Two agents with one identity: the holder keeps it, both are shown."""
    provider.duplicate = Duplicate(at_ms=state.now_ms, peer=event.peer, holder_peer=provider.peer)
    _close(
        out,
        event,
        CloseCode.DUPLICATE,
        f"provider {event.provider_id} is connected from {provider.peer} and answers; this one came from {event.peer}",
    )
    out.notes.append(
        Warned(
            kind="duplicate_provider",
            subject=event.provider_id,
            text=f"agents at {provider.peer} and {event.peer} use one identity; the second was refused",
        )
    )
    changed(out, provider)


def _supersede(
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
        _end_awaited(state, provider, out)
    now = state.now_ms
    row = provider.row
    gap_ms = _observed_gap(state, provider.gone_from_ms, policy)
    stays = row.boot_id == event.boot_id and gap_ms < policy.lost_ms(state.interval_ms)
    if awaited is not None and resumed:
        session = awaited
        session.conn_id = event.conn_id
        session.quiet_from_ms = now
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
        _say_alive(state, out)
    provider.session = session
    provider.phase = Liveness.ONLINE
    provider.peer = event.peer
    provider.gone_from_ms = None
    provider.row = replace(
        row,
        labels=event.labels,
        resources=event.resources,
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
    _fit_interval(state, policy, out)


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


def _fit_interval(state: ClusterState, policy: Policy, out: Decision) -> None:
    """Tell everybody a new interval when the fleet outgrew its budget, or shrank well below it."""
    fitting = policy.interval_ms(len(state.conns))
    shrunk = policy.interval_ms(len(state.conns) * 5 // 4)
    if fitting > state.interval_ms or shrunk < state.interval_ms:
        # A shorter one counts from an agent's next sign of life: until then it may go by what it was told before.
        for provider_id in state.conns.values():
            session = state.providers[provider_id].session
            assert session is not None
            session.interval_ms = max(session.interval_ms, fitting)
        state.interval_ms = fitting
        out.sends.extend(Send(conn_id, TellInterval(heartbeat_interval_ms=fitting)) for conn_id in state.conns)


# ---- signs of life


def on_heartbeats(state: ClusterState, event: Heartbeats, policy: Policy, out: Decision) -> None:
    """Connections that sent heartbeats are alive. O(1) a connection."""
    for beat in event.beats:
        provider = state.provider_of(beat.conn_id)
        session = provider.session if provider is not None else None
        if provider is None or session is None:
            continue
        session.last_beat_ms = max(beat.received_ms, session.last_beat_ms or 0)
        if beat.requests_served != session.row.requests_served or beat.tokens_generated != session.row.tokens_generated:
            session.row = replace(
                session.row, requests_served=beat.requests_served, tokens_generated=beat.tokens_generated
            )
        if provider.row.resume_digest_unconfirmed:
            provider.row = replace(
                provider.row, resume_digest=provider.row.resume_digest_unconfirmed, resume_digest_unconfirmed=""
            )
            out.writes.append(Put(provider.row))
        _sign_of_life(state, provider, session, policy, out)


def on_pong(state: ClusterState, event: AgentPong, policy: Policy, out: Decision) -> None:
    """The connection answered. A challenger of its provider is refused."""
    provider = state.provider_of(event.conn_id)
    if provider is not None and provider.session is not None:
        _sign_of_life(state, provider, provider.session, policy, out)


def _sign_of_life(state: ClusterState, provider: Provider, session: LiveSession, policy: Policy, out: Decision) -> None:
    session.quiet_from_ms = max(state.now_ms, session.quiet_from_ms)
    session.pinged = False
    if provider.phase is Liveness.SUSPECT or session.interval_ms > state.interval_ms:
        # Its appointment is a late one; from this sign of life on it is pinged and suspected in time again.
        session.interval_ms = state.interval_ms
        state.review_at(provider, state.now_ms + int(policy.ping_after_intervals * session.interval_ms))
    if provider.phase is Liveness.SUSPECT:
        provider.phase = Liveness.ONLINE
        changed(out, provider)
    _turn_away_challenger(state, provider, out)


def _turn_away_challenger(state: ClusterState, provider: Provider, out: Decision) -> None:
    challenger = provider.challenger
    if challenger is not None:
        _drop_challenger(state, provider)
        _refuse_duplicate(state, provider, challenger.hello, out)


def _admit_challenger(state: ClusterState, provider: Provider, policy: Policy, out: Decision) -> None:
    """The session that it waited for is over: nobody is left who could answer."""
    challenger = provider.challenger
    if challenger is not None:
        _drop_challenger(state, provider)
        _take_up(state, provider, challenger.hello, policy, out)


def _drop_challenger(state: ClusterState, provider: Provider) -> None:
    if provider.challenger is not None:
        state.challengers.pop(provider.challenger.conn_id, None)
        provider.challenger = None


# ---- a connection goes


def on_bye(state: ClusterState, event: AgentBye, policy: Policy, out: Decision) -> None:
    """The agent leaves on purpose. An admin's word on when it will be back stands unless it says another."""
    goodbye = Send(event.conn_id, CloseLink(code=CloseCode.GOING_AWAY, reason="good bye"))
    challenged = state.challengers.get(event.conn_id)
    if challenged is not None:
        _drop_challenger(state, state.providers[challenged])
        out.sends.append(goodbye)
        return
    provider = state.provider_of(event.conn_id)
    if provider is None:
        return
    if event.away_until_ms is not None:
        provider.row = replace(provider.row, away_until_ms=event.away_until_ms)
    reason = EndReason.DRAINING if event.draining else EndReason.CLEAN_CLOSE
    end_session(state, provider, reason, policy, out)
    out.sends.append(goodbye)
    _admit_challenger(state, provider, policy, out)


def on_link_closed(state: ClusterState, event: LinkClosed, policy: Policy, out: Decision) -> None:
    """A socket broke without a word."""
    challenged = state.challengers.get(event.conn_id)
    if challenged is not None:
        _drop_challenger(state, state.providers[challenged])
        return
    provider = state.provider_of(event.conn_id)
    if provider is None or provider.session is None or state.stopping:
        # A socket that breaks after we said that we restart is our own doing: its session waits for the restart.
        return
    process_id = provider.session.row.process_id
    restarted = provider.challenger is not None and provider.challenger.hello.process_id != process_id
    end_session(state, provider, EndReason.AGENT_RESTART if restarted else EndReason.READ_ERROR, policy, out)
    _admit_challenger(state, provider, policy, out)


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


def _end_awaited(state: ClusterState, provider: Provider, out: Decision) -> None:
    """Its agent did not come back as the same process: it ended, unobserved, after its last heartbeat."""
    session = provider.session
    assert session is not None
    ended_ms = session.last_beat_ms if session.last_beat_ms is not None else session.row.connected_at_ms
    _close_row(state, provider, session, max(ended_ms, session.row.connected_at_ms), EndReason.COORDINATOR_RESTART, out)
    provider.phase = Liveness.LOST
    provider.gone_from_ms = ended_ms
    changed(out, provider)


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
    _say_alive(state, out)
    out.notes.append(SessionEnded(row, reason))


# ---- time


def on_boot(state: ClusterState, event: Boot, policy: Policy, out: Decision) -> None:
    """From the last `alive_at` until now is unobserved; open sessions wait for their agents."""
    state.booted_at_ms = state.ticked_at_ms = state.now_ms
    state.rejoin_by_ms = state.now_ms + policy.rejoin_ms
    state.interval_ms = policy.heartbeat_interval_ms
    state.stepped_ahead = event.wall_step_ms >= policy.wall_jump_ms
    if abs(event.wall_step_ms) >= policy.wall_jump_ms:
        _warn_of_step(event.wall_step_ms, out)
    if event.clock:
        out.writes.append(Put(MetaRow(name=Meta.CLOCK, value=event.clock)))
    if state.alive_at_ms is not None and state.alive_at_ms < state.now_ms:
        state.outage_ms = state.now_ms - state.alive_at_ms
        out.writes.append(
            Put(
                OutageRow(
                    coordinator_id=state.coordinator_id,
                    began_at_ms=state.alive_at_ms,
                    ended_at_ms=state.now_ms,
                    cause="restart",
                )
            )
        )
    for last in event.last_beats:
        provider = state.providers.get(last.provider_id)
        session = provider.session if provider is not None else None
        if session is not None and last.at_ms >= session.row.connected_at_ms:
            session.last_beat_ms = max(min(last.at_ms, state.now_ms), session.last_beat_ms or 0)
    for provider in state.providers.values():
        if provider.session is not None:
            state.review_at(provider, state.rejoin_by_ms)
        changed(out, provider)
    _say_alive(state, out)


def on_tick(state: ClusterState, event: Tick, policy: Policy, out: Decision) -> None:
    """Judge whose time has come. A stall of our own moves every deadline and is nobody's fault."""
    stalled_ms = _stalled_ms(state, event, policy)
    if stalled_ms >= policy.stall_ms:
        _forgive(state, stalled_ms, policy, out)
    if abs(event.wall_step_ms) >= policy.wall_jump_ms:
        _warn_of_step(event.wall_step_ms, out)
    state.ticked_at_ms = state.now_ms
    for provider in state.due() if not state.stopping else ():
        _review(state, provider, policy, out)
    if state.alive_at_ms is None or state.now_ms - state.alive_at_ms >= policy.alive_every_ms:
        _say_alive(state, out)
    if state.now_ms - state.beats_saved_ms >= policy.beat_save_every_ms:
        _save_beats(state, out)
    _fit_interval(state, policy, out)


def _warn_of_step(step_ms: Ms, out: Decision) -> None:
    text = f"the wall clock was moved by {step_ms / 1000:+.1f} s; no deadline or session moved"
    out.notes.append(Warned(kind="clock_jump", subject="coordinator", text=text))


def on_stopping(state: ClusterState, out: Decision) -> None:
    """A planned stop. Sessions stay open: their agents are expected back as the same processes."""
    state.stopping = True
    _save_beats(state, out)
    _say_alive(state, out)
    goodbye = CloseLink(code=CloseCode.GOING_AWAY, reason="the coordinator restarts; come back soon")
    out.sends.extend(Send(conn_id, goodbye) for conn_id in (*state.conns, *state.challengers))


def _say_alive(state: ClusterState, out: Decision) -> None:
    """Also with every stored begin, end or heartbeat: a clock that starts from `alive_at` is behind no stored time."""
    if state.alive_at_ms != state.now_ms:
        state.alive_at_ms = state.now_ms
        out.writes.append(Put(MetaRow(name=Meta.ALIVE_AT_MS, value=str(state.now_ms))))


def _save_beats(state: ClusterState, out: Decision) -> None:
    state.beats_saved_ms = state.now_ms
    _say_alive(state, out)
    for provider_id in state.conns.values():
        session = state.providers[provider_id].session
        if session is not None and session.last_beat_ms is not None and session.last_beat_ms != session.saved_beat_ms:
            session.saved_beat_ms = session.last_beat_ms
            session.row = replace(session.row, last_heartbeat_at_ms=session.last_beat_ms)
            out.writes.append(Put(session.row))


def _stalled_ms(state: ClusterState, event: Tick, policy: Policy) -> Ms:
    """How long we were not looking before this tick. Never more than the time since the last one: a stall that was
    seen by the ticks themselves (one waited while we stood still) is not counted again when it is reported."""
    gap_ms = state.now_ms - state.ticked_at_ms
    if event.stalled_ms >= policy.stall_ms:
        return min(event.stalled_ms, gap_ms)
    return gap_ms - policy.tick_ms


def _forgive(state: ClusterState, stalled_ms: Ms, policy: Policy, out: Decision) -> None:
    """Move every deadline by the stall, but none behind what a sign of life right now would give."""
    now = state.now_ms
    for provider in state.providers.values():
        session, challenger = provider.session, provider.challenger
        if session is not None:
            session.quiet_from_ms = min(now, session.quiet_from_ms + stalled_ms)
        if provider.gone_from_ms is not None and provider.phase in (Liveness.SUSPECT, Liveness.AWAY):
            provider.gone_from_ms = min(now, provider.gone_from_ms + stalled_ms)
        if challenger is not None:
            challenger.deadline_ms = min(now + policy.challenge_ms, challenger.deadline_ms + stalled_ms)
    state.rejoin_by_ms = min(now + policy.rejoin_ms, state.rejoin_by_ms + stalled_ms)
    if stalled_ms >= policy.outage_ms:
        out.writes.append(
            Put(
                OutageRow(
                    coordinator_id=state.coordinator_id,
                    began_at_ms=state.now_ms - stalled_ms,
                    ended_at_ms=state.now_ms,
                    cause="stall",
                )
            )
        )


def _review(state: ClusterState, provider: Provider, policy: Policy, out: Decision) -> None:
    """Look at one provider whose appointment has come, and make the next one."""
    now = state.now_ms
    challenger, session = provider.challenger, provider.session
    if challenger is not None and session is not None:
        if challenger.deadline_ms <= now:
            _yield_to_challenger(state, provider, challenger, session, policy, out)
            return
        state.review_at(provider, challenger.deadline_ms)
    if session is None:
        _review_gone(state, provider, policy, out)
    elif session.conn_id is None and provider.phase is Liveness.AWAITED:
        if state.rejoin_by_ms <= now:
            _end_awaited(state, provider, out)
        else:
            state.review_at(provider, state.rejoin_by_ms)
    elif session.conn_id is None:
        end_session(state, provider, EndReason.READ_ERROR, policy, out)
    else:
        _review_silence(state, provider, session, policy, out)


def _yield_to_challenger(
    state: ClusterState,
    provider: Provider,
    challenger: Challenger,
    session: LiveSession,
    policy: Policy,
    out: Decision,
) -> None:
    """The old connection did not answer: the newcomer has the provider."""
    hello = challenger.hello
    _drop_challenger(state, provider)
    same = hello.process_id == session.row.process_id
    _supersede(state, provider, hello, policy, out, EndReason.SUPERSEDED if same else EndReason.AGENT_RESTART)


def _review_gone(state: ClusterState, provider: Provider, policy: Policy, out: Decision) -> None:
    if provider.phase is not Liveness.SUSPECT or provider.gone_from_ms is None:
        return
    lost_ms = provider.gone_from_ms + policy.lost_ms(state.interval_ms)
    if lost_ms <= state.now_ms:
        provider.phase = Liveness.LOST
        changed(out, provider)
    else:
        state.review_at(provider, lost_ms)


def _review_silence(
    state: ClusterState, provider: Provider, session: LiveSession, policy: Policy, out: Decision
) -> None:
    assert session.conn_id is not None
    quiet_ms = state.now_ms - session.quiet_from_ms
    ping_ms = int(policy.ping_after_intervals * session.interval_ms)
    suspect_ms = int(policy.suspect_after_intervals * session.interval_ms)
    lost_ms = policy.lost_ms(session.interval_ms)
    if quiet_ms >= lost_ms:
        out.sends.append(
            Send(session.conn_id, CloseLink(code=CloseCode.LOST, reason=f"no sign of life for {quiet_ms / 1000:.0f} s"))
        )
        end_session(state, provider, EndReason.STALE_HEARTBEAT, policy, out)
        _admit_challenger(state, provider, policy, out)
        return
    if quiet_ms >= suspect_ms and provider.phase is Liveness.ONLINE:
        provider.phase = Liveness.SUSPECT
        changed(out, provider)
    if quiet_ms >= ping_ms and not session.pinged:
        session.pinged = True
        out.sends.append(Send(session.conn_id, PingAgent()))
    ahead = next(limit for limit in (ping_ms, suspect_ms, lost_ms) if limit > quiet_ms)
    state.review_at(provider, session.quiet_from_ms + ahead)


# ---- a full disk


def reloaded(old: ClusterState, fresh: ClusterState, policy: Policy, undone: Iterable[Decision] = ()) -> Decision:
    """Carry connections and last heartbeats from `old` over to `fresh`, which was just loaded after a rollback.

    A connection whose welcome never became durable is closed, so that its agent says hello again; so is one
    that the `undone` decisions would have closed. A session whose end never became durable is ended again,
    by the next tick.
    """
    out = Decision()
    fresh.now_ms, fresh.booted_at_ms, fresh.interval_ms = old.now_ms, old.booted_at_ms, old.interval_ms
    fresh.rejoin_by_ms, fresh.stopping, fresh.ticked_at_ms = old.rejoin_by_ms, old.stopping, old.ticked_at_ms
    fresh.figures, fresh.beats_saved_ms, fresh.outage_ms = old.figures, old.beats_saved_ms, old.outage_ms
    fresh.stepped_ahead = old.stepped_ahead
    fresh.next_session_id = max(fresh.next_session_id, old.next_session_id)
    fresh.next_key = max(fresh.next_key, old.next_key)
    fresh.ended = old.ended
    ended = {row.session_id: row for row in old.ended}
    for provider_id, provider in fresh.providers.items():
        before = old.providers.get(provider_id)
        if before is not None:
            provider.peer, provider.duplicate = before.peer, before.duplicate
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
    _fit_interval(fresh, policy, out)
    return out


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
        session.pinged, session.undone = lived.pinged, lived.undone
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
