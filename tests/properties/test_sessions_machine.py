"""Any interleaving of hellos, heartbeats, broken sockets, farewells, stalls, restarts and full disks.

A hypothesis state machine on the core: it also does what no agent of ours would (beats before hello, two
hellos on a connection, byes of strangers, time that stands still), and what is durable is checked after every step.
"""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from coordinator.core import commands, events
from coordinator.core.commands import CloseCode
from coordinator.core.image import image_of, state_of
from coordinator.core.rows import EndReason, SessionRow
from coordinator.core.snapshot import Liveness
from tests.builders import ADMIN, Fleet, an_enrolment, closes, sent

NAMES = st.sampled_from(("a", "b", "c"))
CONNS = st.integers(1, 8)
PROCESSES = st.sampled_from(("p1", "p2", ""))
FAILURES = (EndReason.READ_ERROR, EndReason.STALE_HEARTBEAT, EndReason.AGENT_RESTART)


class Sessions(RuleBasedStateMachine):
    """Never: two open sessions, a changed end, an overlap, an end in the future, a lost heartbeat."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet("a", "b", "c")
        self.ended: dict[int, SessionRow] = {}
        self.full_from: int | None = None
        self.next_credential = 0

    @property
    def durable(self) -> bool:
        return self.full_from is None

    @rule(conn=CONNS, name=NAMES, process=PROCESSES, boot=st.sampled_from(("b1", "b2")), key=st.integers(0, 8))
    def hello(self, conn: int, name: str, process: str, boot: str, key: int) -> None:
        decision = self.fleet.hello(conn, name, durable=self.durable, process=process, boot=boot, key=f"key-{key}")
        answered = conn in closes(decision) or conn in self.fleet.state.conns or conn in self.fleet.state.challengers
        assert answered, "a hello stays without an answer"

    @rule(conns=st.lists(CONNS, unique=True, max_size=8))
    def beat(self, conns: list[int]) -> None:
        self.fleet.beat(*conns)
        for conn in conns:
            provider_id = self.fleet.state.conns.get(conn)  # type: ignore[call-overload]
            if provider_id is not None:
                assert Liveness.ONLINE is self.fleet.phase(provider_id)

    @rule(conn=CONNS)
    def pong(self, conn: int) -> None:
        self.fleet.pong(conn)

    @rule(conn=CONNS, draining=st.booleans())
    def bye(self, conn: int, draining: bool) -> None:
        self.fleet.bye(conn, draining=draining, durable=self.durable)
        assert conn not in self.fleet.state.conns and conn not in self.fleet.state.challengers

    @rule(conn=CONNS)
    def closed(self, conn: int) -> None:
        self.fleet.closed(conn, durable=self.durable)
        assert self.fleet.state.stopping or conn not in self.fleet.state.conns

    @rule(seconds=st.sampled_from((0.0, 0.4, 1.0, 5.0, 11.0, 31.0)))
    def time_goes_by(self, seconds: float) -> None:
        for _ in range(int(seconds)):
            self.tick_at(self.fleet.now_s + 1)
        self.fleet.at(self.fleet.now_s + seconds % 1)

    def tick_at(self, when_s: float) -> None:
        decision = self.fleet.at(when_s).decide(events.Tick(at_ms=self.fleet.at(when_s).now_ms), self.durable)
        for conn, ping in sent(decision, commands.PingAgent):
            assert conn in self.fleet.state.conns, f"{ping} to nobody"

    @rule(seconds=st.sampled_from((3.0, 40.0, 4_000.0)))
    def stand_still(self, seconds: float) -> None:
        """Nobody becomes suspect, lost or ended by the tick that follows a stall, but where it was so already."""
        before = {name: self.fleet.phase(name) for name in self.fleet.state.providers}
        ended = len(self.fleet.state.ended)
        self.fleet.at(self.fleet.now_s + 1 + seconds)
        decision = self.fleet.decide(
            events.Tick(at_ms=self.fleet.now_ms, stalled_ms=round(seconds * 1_000)), self.durable
        )
        by_silence = [n for n in decision.notes if isinstance(n, commands.SessionEnded) and n.reason in FAILURES]
        judged = [n for n in by_silence if before[n.row.provider_id] is Liveness.ONLINE]
        assert not judged or ended == 0 or all(n.reason is not EndReason.STALE_HEARTBEAT for n in judged)

    @rule(name=NAMES)
    def forget_and_enrol(self, name: str) -> None:
        if not self.durable:
            return
        who = self.fleet.provider(name).row.provider_id
        self.fleet.decide(
            events.ProviderForget(at_ms=self.fleet.now_ms, request_id=self.fleet.request(), provider_id=who)
        )
        self.next_credential += 1
        self.fleet.decide(
            an_enrolment(name, at_ms=self.fleet.now_ms, token=ADMIN.digest, credential=f"c{self.next_credential}")
        )

    @rule(away_s=st.sampled_from((1.0, 20.0, 3_600.0)))
    def kill_and_restart(self, away_s: float) -> None:
        self.full_from = None
        self.fleet.restart(self.fleet.now_s + away_s)

    @rule()
    def the_disk_fills(self) -> None:
        if self.full_from is None:
            self.full_from = len(self.fleet.decisions)

    @rule()
    def the_disk_has_room(self) -> None:
        if self.full_from is not None:
            undone = self.fleet.decisions[self.full_from :]
            self.full_from = None
            decision = self.fleet.disk_was_full(*undone)
            assert {CloseCode.GOING_AWAY} >= set(closes(decision).values())

    @rule()
    def a_copy_is_the_same(self) -> None:
        assert image_of(self.fleet.state) == image_of(state_of(image_of(self.fleet.state)))

    @invariant()
    def what_is_durable_is_right(self) -> None:
        for name in ("a", "b", "c"):
            rows = self.fleet.sessions(name)
            assert len([row for row in rows if row.disconnected_at_ms is None]) <= 1, f"{name} has two open sessions"
            for row in rows:
                self._check_row(row)
            for before, after in itertools.pairwise(rows):
                assert before.disconnected_at_ms is not None
                assert before.disconnected_at_ms <= after.connected_at_ms, f"{name}: sessions overlap"

    def _check_row(self, row: SessionRow) -> None:
        first = self.ended.setdefault(row.session_id, row) if row.disconnected_at_ms is not None else None
        assert first in (None, row), "an ended session was changed"
        if row.disconnected_at_ms is not None:
            latest_ms = max(row.last_heartbeat_at_ms or 0, row.connected_at_ms) + self.fleet.state.interval_ms
            assert row.connected_at_ms <= row.disconnected_at_ms <= min(latest_ms, self.fleet.now_ms)
            assert row.disconnect_reason is not None

    @invariant()
    def the_state_is_whole(self) -> None:
        self.fleet.state.check_invariants()
        assert self.fleet.state.appointments() <= 60


TestSessions = Sessions.TestCase
TestSessions.settings = settings(max_examples=120, stateful_step_count=40, deadline=None, derandomize=True)
