"""The witness: it sees every event and every row, knows what really happened, and says when the core is wrong.

It judges by its own books (who was heard when, by the time that we were awake), never by the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from coordinator.core import commands, events
from coordinator.core.errors import CoordError
from coordinator.core.ids import ConnId, Ms, ProviderId, ProviderKey, RequestId, SessionId
from coordinator.core.policy import Policy
from coordinator.core.rows import EndReason, PoolRow, SessionRow, TokenRow
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState
from coordinator.simulator.durable import Disk
from coordinator.simulator.machines import Machine
from coordinator.simulator.violation import Violation

if TYPE_CHECKING:
    from coordinator.simulator.head import Head


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


class Witness:
    """Books of the truth, and the checks."""

    def __init__(self, policy: Policy, unit_ms: Ms, tell: Callable[[commands.Note], None]) -> None:
        self.head: Head
        self.steps = 0
        self.ends: dict[str, int] = {}
        self.suspected_after_ms: Ms = 0
        """The longest silence after which a provider became suspect, while we were quick and the interval plain."""
        self._suspects: set[ProviderId] = set()
        self._policy, self._unit_ms, self._tell = policy, unit_ms, tell
        self._sessions: dict[SessionId, SessionTruth] = {}
        self._by_conn: dict[ConnId, SessionId] = {}
        self._closed_by_us: set[ConnId] = set()
        self._ever_by_conn: dict[ConnId, SessionId] = {}
        """Also of sessions that were ended: until that is durable, what is heard there still counts."""
        self._heard: dict[ProviderId, Heard] = {}
        self._challenged: dict[ConnId, Ms] = {}
        self._keys: dict[ProviderId, tuple[str, str]] = {}
        """Per provider the resume digests that must be honoured: confirmed, and of the last welcome."""
        self._interval_high_ms: Ms = policy.heartbeat_interval_ms
        self._rejoin_from_ms: Ms = 0
        self._first_ends: dict[SessionId, SessionRow] = {}
        self._undone: dict[SessionId, SessionRow | None] = {}
        self._stays: dict[ProviderId, Ms | None] = {}
        # what is durable
        self._open: dict[ProviderId, SessionId] = {}
        self._rows: dict[SessionId, SessionRow] = {}
        self._last_end_ms: dict[ProviderId, Ms] = {}
        # what was acknowledged
        self._enrolling: dict[RequestId, tuple[Machine, str]] = {}
        self._granted: dict[ProviderId, ProviderKey] = {}
        self._acked: dict[tuple[str, str], object] = {}

    def expect(self, holds: bool, otherwise: str) -> None:
        if not holds:
            raise Violation(f"at {self.head.now_ms() / 1_000:.3f} s, event {self.steps}: {otherwise}")

    # ---- runs of the coordinator

    def started(self, state: ClusterState) -> None:
        """A run begins from durable rows."""
        self._by_conn.clear()
        self._heard.clear()
        self._challenged.clear()
        self._undone.clear()
        self._interval_high_ms = self._policy.heartbeat_interval_ms
        self._rejoin_from_ms = self.head.awake_ms()
        for truth in self._sessions.values():
            truth.bound = truth.exact = False
        self._take_keys(state)
        for provider_id, key in self._granted.items():
            provider = state.providers.get(provider_id)
            self.expect(provider is not None, f"{provider_id} was enrolled, acknowledged, and is gone")
            self.expect(provider is not None and provider.row.key == key, f"{provider_id} has another key")
        for (kind, name), row in self._acked.items():
            kept: object = state.tokens.get(row.token_id) if isinstance(row, TokenRow) else None
            kept = next((p for p in state.pools.values() if p.name == name), None) if kind == "pool" else kept
            self.expect(kept == row, f"{kind} {name} was acknowledged as {row} and is {kept}")

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
        self._heard = {p: heard for p, heard in self._heard.items() if p in set(fresh.conns.values())}
        self._challenged.clear()
        self._rejoin_from_ms = self.head.awake_ms()
        for truth in self._sessions.values():
            truth.exact = False
        self._take_keys(fresh)
        fresh.check_invariants()

    def _take_keys(self, state: ClusterState) -> None:
        self._keys = {
            p: (provider.row.resume_digest, provider.row.resume_digest_unconfirmed)
            for p, provider in state.providers.items()
        }
        self._stays = {p: provider.row.stay_began_ms for p, provider in state.providers.items()}

    # ---- every decision

    def decided(self, event: events.AnyEvent, decision: commands.Decision, state: ClusterState) -> None:
        """The core took one event."""
        self.steps += 1
        try:
            state.check_invariants()
        except AssertionError as error:
            raise Violation(f"at event {self.steps} ({type(event).__name__}): {error}") from error
        roomy = 16 + 12 * len(state.providers)
        self.expect(state.appointments() <= roomy, f"the wheel holds {state.appointments()} appointments")
        must_bind = isinstance(event, events.AgentHello) and self._holds_key(event, state)
        match event:
            case events.Heartbeats():
                self._hear_beats(event, state)
            case events.AgentPong() if event.conn_id in self._by_conn:
                self._hear(self._by_conn[event.conn_id])
            case events.LinkClosed():
                self._challenged.pop(event.conn_id, None)
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
                    self._heard.pop(provider_id, None)
                    self._keys.pop(provider_id, None)
                    self._granted.pop(provider_id, None)
                case commands.TokenChanged(row=token):
                    self._acked.pop(("token", token.token_id), None)
                case commands.PoolChanged(name=name):
                    self._acked.pop(("pool", name), None)
                case _:
                    pass
        for send in decision.sends:
            if isinstance(send.message, commands.CloseLink) and send.message.code is not commands.CloseCode.BAD_FRAME:
                self._closed_by_us.add(send.conn_id)
            elif isinstance(send.message, commands.TellInterval):
                self._interval_high_ms = max(self._interval_high_ms, send.message.heartbeat_interval_ms)
        if isinstance(event, events.AgentHello):
            self._check_answered(event, decision, state, must_bind)
        self._check_phases(event, state)

    def received(self, conn_id: ConnId, at_ms: Ms) -> None:
        """A heartbeat arrived, whether the core ever learns of it or not."""
        session_id = self._ever_by_conn.get(conn_id)
        if session_id is not None:
            self._sessions[session_id].last_beat_ms = at_ms

    def _hear(self, session_id: SessionId) -> None:
        truth = self._sessions[session_id]
        self._heard[truth.provider_id] = Heard(self.head.awake_ms(), truth.boot_id)

    def _hear_beats(self, event: events.Heartbeats, state: ClusterState) -> None:
        for beat in event.beats:
            session_id = self._by_conn.get(beat.conn_id)
            if session_id is None:
                continue
            truth = self._sessions[session_id]
            truth.exact = session_id not in self._undone
            self._hear(session_id)
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
            self.expect(conn_id in state.conns, f"{event.provider_id} held the resume key and was not let in")
        closed = any(s.conn_id == conn_id and isinstance(s.message, commands.CloseLink) for s in decision.sends)
        waits = conn_id in state.challengers
        if waits:
            self._challenged.setdefault(conn_id, self.head.awake_ms())
        self.expect(closed or waits or conn_id in state.conns, f"the hello on {conn_id} was not answered")

    # ---- begins and ends

    def _bind(self, conn_id: ConnId, session_id: SessionId, event: events.AnyEvent) -> None:
        truth = self._sessions[session_id]
        link, process = self.head.links.get(conn_id, (None, None))
        if process is not None and link is not None:
            self.expect(process.process_id == truth.process_id, f"session {session_id} went to another process")
            self.expect(truth.connected_ms >= link.opened_ms or not truth.bound, f"session {session_id} begins early")
        truth.bound = True
        self._by_conn[conn_id] = self._ever_by_conn[conn_id] = session_id
        self._challenged.pop(conn_id, None)
        self._heard[truth.provider_id] = Heard(self.head.awake_ms(), truth.boot_id)
        fresh = f"digest of key-{conn_id}"
        confirmed, unconfirmed = self._keys.get(truth.provider_id, ("", ""))
        presented = event.resume_digest if isinstance(event, events.AgentHello) else ""
        kept = presented if presented and presented in (confirmed, unconfirmed) else confirmed
        self._keys[truth.provider_id] = (kept, fresh)

    def _check_begin(self, row: SessionRow, resumed: bool, state: ClusterState) -> None:
        truth = self._sessions.get(row.session_id)
        now_awake = self.head.awake_ms()
        stay_ms = state.providers[row.provider_id].row.stay_began_ms
        if resumed:
            self.expect(truth is not None and not truth.bound, f"session {row.session_id} was resumed while bound")
            self.expect(
                stay_ms == self._stays.get(row.provider_id), f"{row.provider_id}: a resumed session moved its stay"
            )
            return
        self.expect(
            truth is None or row.session_id not in self._rows, f"session id {row.session_id} is used a second time"
        )
        heard = self._heard.get(row.provider_id)
        if heard is not None and heard.boot_id:
            gap_ms = now_awake - heard.awake_ms
            low = self._policy.lost_after_ms - self._slack_ms()
            high = self._policy.lost_ms(self._interval_high_ms) + self._slack_ms()
            if heard.boot_id == row.boot_id and gap_ms < low:
                self.expect(stay_ms == self._stays.get(row.provider_id), f"{row.provider_id}: a blip cut its stay")
            elif heard.boot_id != row.boot_id or gap_ms > high:
                self.expect(stay_ms == row.connected_at_ms, f"{row.provider_id}: two stays were joined")
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
            self.expect(first in (None, row), f"{who} had ended as {first} and ends again as {row}")
        self._first_ends[session_id] = row
        limit_ms = last_ms + (self._interval_high_ms if truth.bound or reason is EndReason.SUPERSEDED else 0)
        self.expect(
            end_ms <= max(limit_ms, row.connected_at_ms), f"{who} ends {end_ms - limit_ms} ms after it could have"
        )
        self.expect(row.connected_at_ms <= end_ms <= max(state.now_ms, row.connected_at_ms), f"{who} ends out of order")
        if truth.exact and truth.bound:
            self.expect(end_ms >= min(state.now_ms, last_ms), f"{who} ends before its last heartbeat")
            self.expect(row.last_heartbeat_at_ms == truth.last_beat_ms, f"{who} forgot a heartbeat")
        if not undone:
            self._check_reason(who, truth, reason, event)
        for conn_id in [c for c, s in self._by_conn.items() if s == session_id]:
            del self._by_conn[conn_id]

    def _check_reason(self, who: str, truth: SessionTruth, reason: EndReason, event: events.AnyEvent) -> None:
        if not truth.bound:
            fine = reason is EndReason.COORDINATOR_RESTART or isinstance(
                event, events.ProviderForget | events.TokenRevoke
            )
            self.expect(fine, f"{who} was cut by our outage and is charged with {reason}")
            return
        heard = self._heard.get(truth.provider_id)
        quiet_ms = self.head.awake_ms() - heard.awake_ms if heard is not None else None
        match reason:
            case EndReason.COORDINATOR_RESTART:
                self.expect(False, f"{who} had come back and ends as {reason}")
            case EndReason.STALE_HEARTBEAT:
                enough = quiet_ms is None or quiet_ms >= self._policy.lost_after_ms - self.head.lag_high_ms
                self.expect(enough, f"{who} is judged stale after {quiet_ms} ms of silence")
            case EndReason.READ_ERROR:
                self.expect(isinstance(event, events.LinkClosed), f"{who} ends as {reason} by {type(event).__name__}")
                ours = isinstance(event, events.LinkClosed) and event.conn_id in self._closed_by_us
                self.expect(not ours, f"{who} is charged with a connection that we closed")
            case EndReason.CLEAN_CLOSE | EndReason.DRAINING:
                self.expect(isinstance(event, events.AgentBye), f"{who} ends as {reason} by {type(event).__name__}")
            case EndReason.SUPERSEDED | EndReason.AGENT_RESTART:
                self._check_takeover(who, quiet_ms, event)

    def _check_takeover(self, who: str, quiet_ms: Ms | None, event: events.AnyEvent) -> None:
        """A live connection gives way to its key, to its own end, or after five silent seconds."""
        if isinstance(event, events.LinkClosed | events.ProviderForget | events.TokenRevoke):
            return
        if isinstance(event, events.AgentHello):
            pair = self._keys.get(event.provider_id, ())
            self.expect(
                bool(event.resume_digest) and event.resume_digest in pair,
                f"{who} gave way at once to a hello without key",
            )
            return
        self.expect(
            quiet_ms is None or quiet_ms >= self._policy.challenge_ms - self.head.lag_high_ms,
            f"{who} gave way {quiet_ms} ms after it was heard",
        )

    # ---- judgements

    def _slack_ms(self) -> Ms:
        """How late a tick's judgement may be: what our own slowness adds, and the tick that it may miss."""
        slow_ms = 2 * self.head.lag_high_ms + self._unit_ms if self.head.lag_high_ms > 1 else 0
        return slow_ms + self._unit_ms // 20

    def _check_phases(self, event: events.AnyEvent, state: ClusterState) -> None:
        awake_ms = self.head.awake_ms()
        policy = self._policy
        ticks = isinstance(event, events.Tick) and not state.stopping
        slack_ms = self._slack_ms()
        longer_ms = self._interval_high_ms - policy.heartbeat_interval_ms
        suspect_ms = int(policy.suspect_after_intervals * self._interval_high_ms)
        lost_ms = policy.lost_ms(self._interval_high_ms)
        for provider_id, provider in state.providers.items():
            heard = self._heard.get(provider_id)
            session = provider.session
            if provider.phase is Liveness.AWAITED and ticks:
                waited = awake_ms - self._rejoin_from_ms
                self.expect(waited <= policy.rejoin_ms + slack_ms, f"{provider_id} is awaited for {waited} ms")
            if provider.phase is not Liveness.SUSPECT:
                self._suspects.discard(provider_id)
            if heard is None:
                continue
            quiet_ms = awake_ms - heard.awake_ms
            # An event counts from when it was posted: by so much less than from when it was taken.
            sooner_ms = self.head.lag_high_ms
            if provider.phase is Liveness.LOST:
                # A stall shorter than the policy's is none, and may hide behind a tick that waits: not forgiven.
                least = policy.lost_after_ms - sooner_ms - policy.stall_ms
                self.expect(quiet_ms >= least, f"{provider_id} is lost, heard {quiet_ms} ms ago")
            elif provider.phase is Liveness.SUSPECT and session is not None and session.conn_id is not None:
                least = max(
                    int(policy.suspect_after_intervals * policy.heartbeat_interval_ms),
                    self.head.told_interval_ms(session.conn_id),
                )
                if provider_id not in self._suspects and longer_ms == 0 and self.head.lag_high_ms == 1:
                    self.suspected_after_ms = max(self.suspected_after_ms, quiet_ms)
                self.expect(quiet_ms >= least - sooner_ms, f"{provider_id} is suspect, heard {quiet_ms} ms ago")
            if provider.phase is Liveness.SUSPECT:
                self._suspects.add(provider_id)
            if ticks and provider.phase is Liveness.ONLINE:
                late_ms = quiet_ms - suspect_ms - longer_ms
                self.expect(late_ms <= slack_ms, f"{provider_id} is online, unheard for {quiet_ms} ms")
            elif ticks and provider.phase is Liveness.SUSPECT:
                late_ms = quiet_ms - lost_ms - longer_ms
                self.expect(late_ms <= slack_ms, f"{provider_id} is not lost, unheard for {quiet_ms} ms")
        if ticks:
            self._challenged = {c: since for c, since in self._challenged.items() if c in state.challengers}
            for conn_id, since_ms in self._challenged.items():
                waited = awake_ms - since_ms
                self.expect(waited <= policy.challenge_ms + slack_ms, f"challenger {conn_id} waits for {waited} ms")

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
            self.expect(session_id > max(self._rows, default=0), f"{who}: ids do not rise")
            opened = self._open.get(row.provider_id)
            self.expect(opened is None, f"{who} opens while session {opened} is open")
            begun = self._last_end_ms.get(row.provider_id, row.connected_at_ms)
            self.expect(row.connected_at_ms >= begun, f"{who} begins before the one before it ended")
        else:
            same = (before.provider_id, before.connected_at_ms, before.process_id, before.coordinator_id)
            self.expect(
                same == (row.provider_id, row.connected_at_ms, row.process_id, row.coordinator_id), f"{who} changed"
            )
            self.expect(before.disconnected_at_ms is None or before == row, f"{who} was changed after its end")
        self._rows[session_id] = row
        if row.disconnected_at_ms is None:
            self._open[row.provider_id] = session_id
        elif before is None or before.disconnected_at_ms is None:
            self._open.pop(row.provider_id, None)
            self._last_end_ms[row.provider_id] = row.disconnected_at_ms

    # ---- replies

    def enrols(self, request_id: RequestId, machine: Machine, credential: str) -> None:
        """A machine waits for its identity."""
        self._enrolling[request_id] = (machine, credential)

    def refused(self, request_id: RequestId) -> None:
        """Its request was undone by a full disk, and it was told so."""
        self._enrolling.pop(request_id, None)

    def replied(self, reply: commands.Reply, disk: Disk) -> None:
        """A reply leaves: what it says must be on the disk."""
        asked = self._enrolling.pop(reply.request_id, None)
        match reply.result:
            case CoordError() | None:
                pass
            case commands.Enrolled(provider=row):
                self.expect(
                    ("provider", row.provider_id) in disk.rows, f"{row.provider_id} is acknowledged, not durable"
                )
                self._granted[row.provider_id] = row.key
                if asked is not None:
                    asked[0].credential = asked[1]
            case TokenRow() as token:
                self.expect(disk.rows.get(("token", token.token_id)) == token, f"{token.token_id} is not durable")
                self._acked["token", token.token_id] = token
            case PoolRow() as pool:
                self.expect(disk.rows.get(("pool", pool.name)) == pool, f"pool {pool.name} is not durable")
                self._acked["pool", pool.name] = pool
            case view:
                self.expect(("provider", view.provider_id) in disk.rows, f"{view.provider_id} is not durable")

    def noted(self, note: commands.Note) -> None:
        """For the story: this is durable now."""
        self._tell(note)
