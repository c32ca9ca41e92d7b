"""Alive -> suspect -> lost: signs of life, and what a tick makes of silence.

Whether somebody is lost is judged by ticks alone. A tick that comes late is a stall of our own: deadlines
move by it, and nobody is judged by it.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import CloseCode, CloseLink, Decision, PingAgent, Put, Send
from coordinator.core.events import AgentPong, Heartbeats, Tick
from coordinator.core.fleet.alive import save_beats, say_alive
from coordinator.core.fleet.challenges import drop_challenger, turn_away_challenger
from coordinator.core.fleet.pace import fit_interval
from coordinator.core.fleet.publish import changed
from coordinator.core.fleet.sessions import admit_challenger, end_awaited, end_orphan, end_session, supersede
from coordinator.core.ids import Ms
from coordinator.core.policy import Policy
from coordinator.core.restart import warn_of_step
from coordinator.core.rows import EndReason, OutageRow
from coordinator.core.snapshot import Liveness
from coordinator.core.state import Challenger, ClusterState, LiveSession, Provider
from coordinator.core.work.due import on_time
from coordinator.core.work.loss import forgive, silence
from coordinator.core.work.renewals import renew_named

LATE_MS: Ms = 50
"""The next tick may come so much later than it should: suspicion, and what it decides, does not wait for that."""


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
        _sign_of_life(state, provider, session, min(beat.received_ms, state.now_ms), policy, out)
        session.seq = max(session.seq, beat.seq)
        renew_named(state, provider, beat, policy, out)


def on_pong(state: ClusterState, event: AgentPong, policy: Policy, out: Decision) -> None:
    """The connection answered. A challenger of its provider is refused."""
    provider = state.provider_of(event.conn_id)
    if provider is not None and provider.session is not None:
        _sign_of_life(state, provider, provider.session, state.now_ms, policy, out)


def _sign_of_life(
    state: ClusterState, provider: Provider, session: LiveSession, at_ms: Ms, policy: Policy, out: Decision
) -> None:
    session.quiet_from_ms = max(at_ms, session.quiet_from_ms)
    session.pinged = False
    if provider.phase is Liveness.SUSPECT or session.interval_ms > state.interval_ms:
        # Its appointment is a late one; from this sign of life on it is pinged and suspected in time again.
        session.interval_ms = state.interval_ms
        state.review_at(provider, state.now_ms + int(policy.ping_after_intervals * session.interval_ms))
    if provider.phase is Liveness.SUSPECT:
        provider.phase = Liveness.ONLINE
        state.work.able(provider.row.provider_id, state.now_ms)
        changed(out, provider)
    turn_away_challenger(state, provider, out)


def on_tick(state: ClusterState, event: Tick, policy: Policy, out: Decision) -> None:
    """Judge whose time has come. A stall of our own moves every deadline and is nobody's fault."""
    stalled_ms = _stalled_ms(state, event, policy)
    if stalled_ms >= policy.stall_ms:
        _forgive(state, stalled_ms, policy, out)
    if abs(event.wall_step_ms) >= policy.wall_jump_ms:
        warn_of_step(event.wall_step_ms, out)
    state.ticked_at_ms = state.now_ms
    out.writes.extend(Put(outage) for outage in state.undone_outages)
    state.undone_outages = []
    for orphan in state.orphans:
        end_orphan(orphan, out)
    state.orphans = []
    for provider in state.due() if not state.stopping else ():
        _review(state, provider, policy, out)
    if not state.stopping:
        on_time(state, policy, out)
    if state.alive_at_ms is None or state.now_ms - state.alive_at_ms >= policy.alive_every_ms:
        say_alive(state, out)
    if state.now_ms - state.beats_saved_ms >= policy.beat_save_every_ms:
        save_beats(state, out)
    fit_interval(state, policy, out)


def _stalled_ms(state: ClusterState, event: Tick, policy: Policy) -> Ms:
    """How long we were not looking before this tick: what it reports, or what its distance from the last one shows
    (the tick that reported the stall may have been one too many). Never more than that distance: a stall that was
    seen by the ticks themselves (one waited while we stood still) is not counted again when it is reported."""
    gap_ms = state.now_ms - state.ticked_at_ms
    return max(min(event.stalled_ms, gap_ms), gap_ms - policy.tick_ms)


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
    forgive(state, stalled_ms)
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
            end_awaited(state, provider, out)
            silence(state, provider, policy, out)
        else:
            state.review_at(provider, state.rejoin_by_ms)
    elif session.conn_id is None:
        end_session(state, provider, EndReason.READ_ERROR, policy, out)
        silence(state, provider, policy, out)
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
    drop_challenger(state, provider)
    same = hello.process_id == session.row.process_id
    supersede(state, provider, hello, policy, out, EndReason.SUPERSEDED if same else EndReason.AGENT_RESTART)


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
    """Pinged and suspected by the tick before; lost never too soon: who comes back after that begins another stay."""
    assert session.conn_id is not None
    silent_ms = state.now_ms - session.quiet_from_ms
    quiet_ms = silent_ms + policy.tick_ms - 1  # by the time of the next tick
    ping_ms = int(policy.ping_after_intervals * session.interval_ms)
    suspect_ms = int(policy.suspect_after_intervals * session.interval_ms)
    lost_ms = policy.lost_ms(session.interval_ms)
    if silent_ms >= lost_ms:
        out.sends.append(
            Send(session.conn_id, CloseLink(code=CloseCode.LOST, reason=f"no sign of life for {lost_ms / 1000:.0f} s"))
        )
        end_session(state, provider, EndReason.STALE_HEARTBEAT, policy, out)
        silence(state, provider, policy, out)
        admit_challenger(state, provider, policy, out)
        return
    if quiet_ms + LATE_MS >= suspect_ms and provider.phase is Liveness.ONLINE:
        provider.phase = Liveness.SUSPECT
        silence(state, provider, policy, out)
        changed(out, provider)
    if quiet_ms + LATE_MS >= ping_ms and not session.pinged:
        session.pinged = True
        out.sends.append(Send(session.conn_id, PingAgent()))
    soon_ms = next((limit for limit in (ping_ms - LATE_MS, suspect_ms - LATE_MS) if limit > quiet_ms), None)
    state.review_at(provider, session.quiet_from_ms + (lost_ms if soon_ms is None else soon_ms - policy.tick_ms))
