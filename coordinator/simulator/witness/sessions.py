"""Truth about sessions: who was connected, when each was heard, how each may end. Judged by books of its own."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from coordinator.core import commands, events
from coordinator.core.ids import ConnId, Ms, ProviderId, SessionId
from coordinator.core.rows import EndReason, SessionRow
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState
from coordinator.simulator.witness.ground import Ground


class SessionTruth(Struct, kw_only=True):
    """What really happened to one session."""

    provider_id: ProviderId
    process_id: str
    boot_id: str
    connected_ms: Ms
    last_beat_ms: Ms | None = None
    bound: bool = True
    """Its agent has been connected in this run of the coordinator."""
    exact: bool = True
    """The core knows all that we know: no rollback and no kill since the last heartbeat."""


class Heard(Struct, frozen=True):
    """A sign of life: by our waking time, and from which process and boot."""

    awake_ms: Ms
    boot_id: str


class Sessions:
    """Books of sessions, and the checks."""

    def __init__(self, ground: Ground) -> None:
        self.ends: dict[str, int] = {}
        self._ground, self._policy, self._unit_ms = ground, ground.policy, ground.unit_ms
        self._sessions: dict[SessionId, SessionTruth] = {}
        self._by_conn: dict[ConnId, SessionId] = {}
        self._closed_by_us: set[ConnId] = set()
        self._ever_by_conn: dict[ConnId, SessionId] = {}
        """Also of sessions that were ended: until that is durable, what is heard there still counts."""
        self.heard: dict[ProviderId, Heard] = {}
        self.challenged: dict[ConnId, Ms] = {}
        self._keys: dict[ProviderId, tuple[str, str]] = {}
        """Per provider the resume digests that must be honoured: confirmed, and of the last welcome."""
        self.interval_high_ms: Ms = ground.policy.heartbeat_interval_ms
        self.rejoin_from_ms: Ms = 0
        self._first_ends: dict[SessionId, SessionRow] = {}
        self._undone: dict[SessionId, SessionRow | None] = {}
        self._stays: dict[ProviderId, Ms | None] = {}
        # what is durable
        self._open: dict[ProviderId, SessionId] = {}
        self._rows: dict[SessionId, SessionRow] = {}
        self._last_end_ms: dict[ProviderId, Ms] = {}

    def _expect(self, holds: bool, otherwise: str) -> None:
        self._ground.expect(holds, otherwise)

    # ---- runs of the coordinator

    def started(self, state: ClusterState) -> None:
        """A run begins from durable rows."""
        self._by_conn.clear()
        self.heard.clear()
        self.challenged.clear()
        self._undone.clear()
        self.interval_high_ms = self._policy.heartbeat_interval_ms
        self.rejoin_from_ms = self._ground.head.awake_ms()
        for truth in self._sessions.values():
            truth.bound = truth.exact = False
        self._take_keys(state)

    def rolled_back(self, old: ClusterState, fresh: ClusterState) -> None:
        """The disk was full: the core goes on from what is durable."""
        for provider_id, provider in fresh.providers.items():
            session = provider.session
            before = old.providers.get(provider_id)
            if session is not None and session.conn_id is None and provider.phase is Liveness.AWAITED:
                self._sessions[session.row.session_id].bound = False
            if session is None:
                continue
            lived = before.session if before is not None else None
            if lived is None or lived.row.session_id != session.row.session_id:
                self._undone[session.row.session_id] = self._first_ends.get(session.row.session_id)
        self._by_conn = {
            conn_id: session.row.session_id
            for conn_id, provider_id in fresh.conns.items()
            if (session := fresh.providers[provider_id].session) is not None
        }
        self.heard = {p: heard for p, heard in self.heard.items() if p in set(fresh.conns.values())}
        self.challenged.clear()
        self.rejoin_from_ms = self._ground.head.awake_ms()
        for truth in self._sessions.values():
            truth.exact = False
        self._take_keys(fresh)

    def _take_keys(self, state: ClusterState) -> None:
        self._keys = {
            p: (provider.row.resume_digest, provider.row.resume_digest_unconfirmed)
            for p, provider in state.providers.items()
        }
        self._stays = {p: provider.row.stay_began_ms for p, provider in state.providers.items()}

    # ---- every decision

    def decided(self, event: events.AnyEvent, decision: commands.Decision, state: ClusterState) -> None:
        """The core took one event."""
        must_bind = isinstance(event, events.AgentHello) and self._holds_key(event, state)
        match event:
            case events.Heartbeats():
                self._hear_beats(event)
            case events.AgentPong() if event.conn_id in self._by_conn:
                self._hear(self._by_conn[event.conn_id], self._ground.taken_ms())
            case events.LinkClosed():
                self.challenged.pop(event.conn_id, None)
            case _:
                pass
        for note in decision.notes:
            match note:
                case commands.SessionEnded(row=row, reason=reason):
                    self._check_end(row, reason, event, state)
                case commands.SessionOpened(row=row, resumed=resumed):
                    self._check_begin(row, resumed, state)
                case commands.LinkBound(conn_id=conn_id, view=view):
                    assert view.session_id is not None
                    self._bind(conn_id, view.session_id, event)
                case commands.ProviderForgotten(provider_id=provider_id):
                    self.heard.pop(provider_id, None)
                    self._keys.pop(provider_id, None)
                case _:
                    pass
        self.heed(decision.sends)
        if isinstance(event, events.AgentHello):
            self._check_answered(event, decision, state, must_bind)

    def heed(self, sends: Sequence[commands.Send]) -> None:
        """What will be told to agents: whom we close, and how long they may be silent."""
        for send in sends:
            if isinstance(send.message, commands.CloseLink) and send.message.code is not commands.CloseCode.BAD_FRAME:
                self._closed_by_us.add(send.conn_id)
            elif isinstance(send.message, commands.TellInterval):
                self.interval_high_ms = max(self.interval_high_ms, send.message.heartbeat_interval_ms)

    def received(self, conn_id: ConnId, at_ms: Ms) -> None:
        """A heartbeat arrived, whether the core ever learns of it or not."""
        session_id = self._ever_by_conn.get(conn_id)
        if session_id is not None:
            self._sessions[session_id].last_beat_ms = at_ms

    def _hear(self, session_id: SessionId, awake_ms: Ms) -> None:
        truth = self._sessions[session_id]
        before = self.heard.get(truth.provider_id)
        if before is None or before.awake_ms <= awake_ms:
            self.heard[truth.provider_id] = Heard(awake_ms, truth.boot_id)

    def _hear_beats(self, event: events.Heartbeats) -> None:
        for beat in event.beats:
            session_id = self._by_conn.get(beat.conn_id)
            if session_id is None:
                continue
            truth = self._sessions[session_id]
            truth.exact = session_id not in self._undone
            self._hear(session_id, self._ground.head.awake_at(beat.received_ms))
            _, unconfirmed = self._keys[truth.provider_id]
            if unconfirmed:
                self._keys[truth.provider_id] = (unconfirmed, "")

    def _holds_key(self, event: events.AgentHello, state: ClusterState) -> bool:
        provider = state.providers.get(event.provider_id)
        return (
            provider is not None
            and provider.row.machine_id == event.machine_id
            and not state.stopping
            and bool(event.resume_digest)
            and event.resume_digest in self._keys.get(event.provider_id, ())
        )

    def _check_answered(
        self, event: events.AgentHello, decision: commands.Decision, state: ClusterState, must_bind: bool
    ) -> None:
        conn_id = event.conn_id
        if must_bind:
            self._expect(conn_id in state.conns, f"{event.provider_id} held the resume key and was not let in")
        closed = any(s.conn_id == conn_id and isinstance(s.message, commands.CloseLink) for s in decision.sends)
        waits = conn_id in state.challengers
        if waits:
            self.challenged.setdefault(conn_id, self._ground.taken_ms())
        self._expect(closed or waits or conn_id in state.conns, f"the hello on {conn_id} was not answered")

    # ---- begins and ends

    def _bind(self, conn_id: ConnId, session_id: SessionId, event: events.AnyEvent) -> None:
        truth = self._sessions[session_id]
        agent = self._ground.head.agent_on(conn_id)
        if agent is not None:
            process_id, opened_ms = agent
            self._expect(process_id == truth.process_id, f"session {session_id} went to another process")
            self._expect(truth.connected_ms >= opened_ms or not truth.bound, f"session {session_id} begins early")
        truth.bound = True
        self._by_conn[conn_id] = self._ever_by_conn[conn_id] = session_id
        self.challenged.pop(conn_id, None)
        self.heard[truth.provider_id] = Heard(self._ground.taken_ms(), truth.boot_id)
        fresh = f"digest of key-{conn_id}"
        confirmed, unconfirmed = self._keys.get(truth.provider_id, ("", ""))
        presented = event.resume_digest if isinstance(event, events.AgentHello) else ""
        kept = presented if presented and presented in (confirmed, unconfirmed) else confirmed
        self._keys[truth.provider_id] = (kept, fresh)

    def _check_begin(self, row: SessionRow, resumed: bool, state: ClusterState) -> None:
        truth = self._sessions.get(row.session_id)
        now_awake = self._ground.taken_ms()
        stay_ms = state.providers[row.provider_id].row.stay_began_ms
        if resumed:
            self._expect(truth is not None and not truth.bound, f"session {row.session_id} was resumed while bound")
            self._expect(
                stay_ms == self._stays.get(row.provider_id), f"{row.provider_id}: a resumed session moved its stay"
            )
            return
        self._expect(
            truth is None or row.session_id not in self._rows, f"session id {row.session_id} is used a second time"
        )
        heard = self.heard.get(row.provider_id)
        if heard is not None and heard.boot_id:
            gap_ms = now_awake - heard.awake_ms
            low = self._policy.lost_after_ms - slack_ms(self._ground)
            high = self._policy.lost_ms(self.interval_high_ms) + slack_ms(self._ground)
            if heard.boot_id == row.boot_id and gap_ms < low:
                self._expect(stay_ms == self._stays.get(row.provider_id), f"{row.provider_id}: a blip cut its stay")
            elif heard.boot_id != row.boot_id or gap_ms > high:
                self._expect(stay_ms == row.connected_at_ms, f"{row.provider_id}: two stays were joined")
        self._stays[row.provider_id] = stay_ms
        self._sessions[row.session_id] = SessionTruth(
            provider_id=row.provider_id,
            process_id=row.process_id,
            boot_id=row.boot_id,
            connected_ms=row.connected_at_ms,
        )

    def _check_end(self, row: SessionRow, reason: EndReason, event: events.AnyEvent, state: ClusterState) -> None:
        session_id, who = row.session_id, f"session {row.session_id} of {row.provider_id}"
        truth = self._sessions[session_id]
        end_ms = row.disconnected_at_ms
        assert end_ms is not None
        self.ends[reason.value] = self.ends.get(reason.value, 0) + 1
        last_ms = truth.last_beat_ms if truth.last_beat_ms is not None else row.connected_at_ms
        undone = session_id in self._undone
        if undone:
            first = self._undone.pop(session_id)
            self._expect(first in (None, row), f"{who} had ended as {first} and ends again as {row}")
        self._first_ends[session_id] = row
        limit_ms = last_ms + (self.interval_high_ms if truth.bound or reason is EndReason.SUPERSEDED else 0)
        self._expect(
            end_ms <= max(limit_ms, row.connected_at_ms), f"{who} ends {end_ms - limit_ms} ms after it could have"
        )
        self._expect(
            row.connected_at_ms <= end_ms <= max(state.now_ms, row.connected_at_ms), f"{who} ends out of order"
        )
        if truth.exact and truth.bound:
            self._expect(end_ms >= min(state.now_ms, last_ms), f"{who} ends before its last heartbeat")
            self._expect(row.last_heartbeat_at_ms == truth.last_beat_ms, f"{who} forgot a heartbeat")
        if not undone:
            self._check_reason(who, truth, reason, event)
        for conn_id in [c for c, s in self._by_conn.items() if s == session_id]:
            del self._by_conn[conn_id]

    def _check_reason(self, who: str, truth: SessionTruth, reason: EndReason, event: events.AnyEvent) -> None:
        if not truth.bound:
            fine = reason is EndReason.COORDINATOR_RESTART or isinstance(
                event, events.ProviderForget | events.TokenRevoke
            )
            self._expect(fine, f"{who} was cut by our outage and is charged with {reason}")
            return
        heard = self.heard.get(truth.provider_id)
        quiet_ms = self._ground.taken_ms() - heard.awake_ms if heard is not None else None
        match reason:
            case EndReason.COORDINATOR_RESTART:
                self._expect(False, f"{who} had come back and ends as {reason}")
            case EndReason.STALE_HEARTBEAT:
                least_ms = self._policy.lost_after_ms - self._policy.tick_ms - self._ground.head.lag_high_ms
                enough = quiet_ms is None or quiet_ms >= least_ms
                self._expect(enough, f"{who} is judged stale after {quiet_ms} ms of silence")
            case EndReason.READ_ERROR:
                self._expect(isinstance(event, events.LinkClosed), f"{who} ends as {reason} by {type(event).__name__}")
                ours = isinstance(event, events.LinkClosed) and event.conn_id in self._closed_by_us
                self._expect(not ours, f"{who} is charged with a connection that we closed")
            case EndReason.CLEAN_CLOSE | EndReason.DRAINING:
                self._expect(isinstance(event, events.AgentBye), f"{who} ends as {reason} by {type(event).__name__}")
            case EndReason.SUPERSEDED | EndReason.AGENT_RESTART:
                self._check_takeover(who, quiet_ms, event)

    def _check_takeover(self, who: str, quiet_ms: Ms | None, event: events.AnyEvent) -> None:
        """A live connection gives way to its key, to its own end, or after five silent seconds."""
        if isinstance(event, events.LinkClosed | events.ProviderForget | events.TokenRevoke):
            return
        if isinstance(event, events.AgentHello):
            pair = self._keys.get(event.provider_id, ())
            self._expect(
                bool(event.resume_digest) and event.resume_digest in pair,
                f"{who} gave way at once to a hello without key",
            )
            return
        self._expect(
            quiet_ms is None
            or quiet_ms >= self._policy.challenge_ms - self._policy.tick_ms - self._ground.head.lag_high_ms,
            f"{who} gave way {quiet_ms} ms after it was heard",
        )

    # ---- what became durable

    def durable(self, writes: Sequence[commands.Write]) -> None:
        """One commit: sessions are never doubled, never open twice, never changed after their end."""
        for write in writes:
            if isinstance(write, commands.Put) and isinstance(write.row, SessionRow):
                self._check_row(write.row)

    def _check_row(self, row: SessionRow) -> None:
        session_id, who = row.session_id, f"session {row.session_id} of {row.provider_id}"
        before = self._rows.get(session_id)
        if before is None:
            self._expect(session_id > max(self._rows, default=0), f"{who}: ids do not rise")
            opened = self._open.get(row.provider_id)
            self._expect(opened is None, f"{who} opens while session {opened} is open")
            begun = self._last_end_ms.get(row.provider_id, row.connected_at_ms)
            self._expect(row.connected_at_ms >= begun, f"{who} begins before the one before it ended")
        else:
            same = (before.provider_id, before.connected_at_ms, before.process_id, before.coordinator_id)
            self._expect(
                same == (row.provider_id, row.connected_at_ms, row.process_id, row.coordinator_id), f"{who} changed"
            )
            self._expect(before.disconnected_at_ms is None or before == row, f"{who} was changed after its end")
        self._rows[session_id] = row
        if row.disconnected_at_ms is None:
            self._open[row.provider_id] = session_id
        elif before is None or before.disconnected_at_ms is None:
            self._open.pop(row.provider_id, None)
            self._last_end_ms[row.provider_id] = row.disconnected_at_ms


def slack_ms(ground: Ground) -> Ms:
    """How late a tick's judgement may be: what our own slowness adds, and the tick that it may miss."""
    slow_ms = 2 * ground.head.lag_high_ms + ground.unit_ms if ground.head.lag_high_ms > 1 else 0
    return slow_ms + ground.policy.tick_ms
