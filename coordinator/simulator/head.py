"""The coordinator's edges as a model: a door, sockets, an inbox, one commit in flight, kills, stalls, full disks.

It carries out the core's decisions by the same rules as the real engine: writes before words, outputs in
order, everything undurable rolled back when the disk is full. The witness sees every step.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from random import Random
from typing import TYPE_CHECKING

from coordinator.core import commands, events
from coordinator.core.decide import decide
from coordinator.core.ids import ConnId, Ms, ProviderId, RequestId, TokenId
from coordinator.core.policy import Policy
from coordinator.core.reload import reloaded
from coordinator.core.state import ClusterState
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.durable import TELEMETRY_LAG, Disk
from coordinator.simulator.frames import Acks, Beats, Closes, Down, Pongs, Says, SaysBye, SaysHello, Up
from coordinator.simulator.machines import Machine, Process
from coordinator.simulator.network import Link
from coordinator.simulator.violation import Violation

if TYPE_CHECKING:
    from coordinator.simulator.witness import Witness

FADES = 40
"""Seconds after which a slowness shows in no judgement any more."""

COORDINATOR_ID = "head"
JOIN_DIGEST = "digest of join"
BATCH_MAX = 64
INBOX_MAX = 10_000
"""Events that may wait. A world of this size never has so many; more is a violation, not a policy."""


class Head:
    """One coordinator over all its runs."""

    def __init__(self, policy: Policy, unit_ms: Ms, agenda: Agenda, dice: Random, disk: Disk, witness: Witness) -> None:
        self.policy = policy
        self.unit_ms = unit_ms
        """Milliseconds of a "second": a slow world has longer ones, to cover months."""
        self.disk = disk
        self.run = 0
        self.up = False
        self.asleep_since_ms: Ms | None = None
        self.asleep_ms: Ms = 0
        """How long its process stood still, in all."""
        self.wall_offset_ms: Ms = 0
        self.lag_ms: Ms = 0
        """How long an event waits before it is decided: a slow process, but not a stalled one."""
        self.lag_high_ms: Ms = 1
        """The longest that it has been lately, with the millisecond that a turn takes."""
        self._lagged = 0
        self.slow_disk = False
        self.links: dict[ConnId, tuple[Link, Process]] = {}
        self.state = ClusterState(COORDINATOR_ID)
        self._agenda, self._dice, self._witness = agenda, dice, witness
        self._skew_ms: Ms = 0
        self._kernel: list[tuple[Link, Process, Up]] = []
        self._inbox: deque[events.AnyEvent] = deque()
        self._beats: dict[ConnId, Ms] = {}
        self._bound: dict[ConnId, ProviderId] = {}
        self._fresh_keys: dict[ConnId, str] = {}
        self._turn_due = False
        self._open: list[commands.Decision] = []
        self._in_flight: list[commands.Decision] | None = None
        self._conns_made = 0
        self._requests_made = 0
        self._stepped_ms: Ms = 0

    def now_ms(self) -> Ms:
        """The observed clock."""
        return self._agenda.now_ms + self._skew_ms

    def awake_ms(self) -> Ms:
        """How long the process has been running, stalls left out."""
        asleep = self.asleep_ms
        if self.asleep_since_ms is not None:
            asleep += self._agenda.now_ms - self.asleep_since_ms
        return self._agenda.now_ms - asleep

    # ---- start and end

    def start(self, torn: bool = False) -> None:
        """Serve from what is durable. `torn`: the last seconds of telemetry are gone."""
        self.run += 1
        self.up = True
        self.state = self.disk.load(COORDINATOR_ID)
        wall_ms = self._agenda.now_ms + self.wall_offset_ms
        self._skew_ms = max(wall_ms, self.state.alive_at_ms or 0) - self._agenda.now_ms
        self._witness.started(self.state)
        self.post(events.Boot(at_ms=self.now_ms(), last_beats=self.disk.last_beats(self.state, torn)))
        self._tick_later(self.run)

    def kill(self) -> None:
        """kill -9: what is in flight is durable or not, everything else undurable is gone, sockets are reset."""
        if self._in_flight is not None and not self.disk.full and self._dice.random() < 0.5:
            self._make_durable(self._in_flight)
        self.up = False
        if self.asleep_since_ms is not None:
            self.asleep_ms += self._agenda.now_ms - self.asleep_since_ms
            self.asleep_since_ms = None
        self._in_flight = None
        self._open = []
        self._inbox.clear()
        self._kernel.clear()
        self._beats.clear()
        self._bound.clear()
        self._fresh_keys.clear()
        self._turn_due = False
        for link, process in self.links.values():
            link.head_open = False
            link.send("down", partial(process.take, link, Closes()))
        self.links.clear()

    def stop(self) -> None:
        """A planned stop: agents are told first. The process ends a little later."""
        run = self.run
        self.post(events.Stopping(at_ms=self.now_ms()))
        self._agenda.after(self.unit_ms, lambda: self.kill() if self.up and self.run == run else None)

    def sleep(self, length_ms: Ms) -> None:
        """The process stands still; the kernel keeps what arrives."""
        self.asleep_since_ms = self._agenda.now_ms
        run = self.run
        self._agenda.after(length_ms, lambda: self._wake(run))

    def _wake(self, run: int) -> None:
        if not self.up or run != self.run or self.asleep_since_ms is None:
            return
        stalled_ms = self._agenda.now_ms - self.asleep_since_ms
        self.asleep_ms += stalled_ms
        self.asleep_since_ms = None
        # The tick at waking comes out of step: an appointment of the same second waits for the next one's tick.
        self._was_late(self.unit_ms // 2)
        kernel, self._kernel = self._kernel, []
        for link, process, frame in kernel:
            self.take(link, process, frame)
        judged_by = stalled_ms if stalled_ms >= self.policy.stall_ms else 0
        self.post(events.Tick(at_ms=self.now_ms(), stalled_ms=judged_by))

    def _tick_later(self, run: int) -> None:
        self._agenda.after(self.unit_ms, lambda: self._tick(run))

    def _tick(self, run: int) -> None:
        if not self.up or run != self.run:
            return
        if self.asleep_since_ms is None:
            self.post(events.Tick(at_ms=self.now_ms(), wall_step_ms=self._stepped_ms))
            self._stepped_ms = 0
        self._tick_later(run)

    def slow_down(self, lag_ms: Ms) -> None:
        self.lag_ms = lag_ms
        self._was_late(lag_ms)

    def _was_late(self, by_ms: Ms) -> None:
        self.lag_high_ms = max(self.lag_high_ms, by_ms + 1)
        self._lagged += 1
        lagged = self._lagged
        self._agenda.after(FADES * self.unit_ms, lambda: self._lag_faded(lagged))

    def _lag_faded(self, lagged: int) -> None:
        if lagged == self._lagged:
            self.lag_high_ms = 1 + self.lag_ms

    def told_interval_ms(self, conn_id: ConnId) -> Ms:
        """The heartbeat interval that the agent on this connection goes by; 0 when nobody is there."""
        link, process = self.links.get(conn_id, (None, None))
        return process.interval_ms if process is not None and process.link is link and process.welcomed else 0

    def step_wall_clock(self, by_ms: Ms) -> None:
        self.wall_offset_ms += by_ms
        self._stepped_ms += by_ms

    # ---- the door and the sockets

    def accept(self, process: Process, machine: Machine) -> Link | None:
        """A new socket; None while nobody listens."""
        if not self.up:
            return None
        self._conns_made += 1
        link = Link(ConnId(self._conns_made), machine, self._agenda, self._dice, self.now_ms())
        self.links[link.conn_id] = (link, process)
        return link

    def enrol_again(self, machine: Machine) -> None:
        """Somebody gives the machine a join token: it asks for its identity anew."""
        if self.up:
            credential = f"credential-{machine.provider_id}-{self._dice.randrange(10**9)}"
            request_id = self.request()
            self._witness.enrols(request_id, machine, credential)
            self.post(
                events.ProviderEnrol(
                    at_ms=self.now_ms(),
                    request_id=request_id,
                    provider_id=machine.provider_id,
                    machine_id=machine.machine_id,
                    token_digest=JOIN_DIGEST,
                    credential_digest=f"digest of {credential}",
                    credential_id=TokenId(credential),
                )
            )

    def request(self) -> RequestId:
        self._requests_made += 1
        return RequestId(self._requests_made)

    def take(self, link: Link, process: Process, frame: Up) -> None:
        """Something arrived from an agent."""
        if not self.up or not link.head_open:
            return
        if self.asleep_since_ms is not None:
            self._kernel.append((link, process, frame))
            return
        conn_id, now = link.conn_id, self.now_ms()
        match frame:
            case SaysHello():
                self._greet(link, process, frame)
            case Beats():
                if conn_id in self._bound:
                    self._beats[conn_id] = now
                    self._witness.received(conn_id, now)
                    self.disk.beat(self._bound[conn_id], now, TELEMETRY_LAG * self.unit_ms)
                    self._say(link, process, Acks())
                    self._turn_later()
            case Pongs():
                self.post(events.AgentPong(at_ms=now, conn_id=conn_id))
            case SaysBye(draining=draining, away_until_ms=until_ms):
                self.post(events.AgentBye(at_ms=now, conn_id=conn_id, draining=draining, away_until_ms=until_ms))
            case Closes():
                self._forget_link(conn_id)
        if isinstance(frame, Pongs | SaysBye) and self._dice.random() < 0.05:
            self.post(self._inbox[-1])  # told twice

    def _greet(self, link: Link, process: Process, hello: SaysHello) -> None:
        if self.state.valid_token(f"digest of {hello.credential}") is None:
            said = commands.CloseLink(code=commands.CloseCode.UNAUTHENTICATED, reason="unknown credential")
            self._say(link, process, Says(said))
            self._forget_link(link.conn_id)
            return
        key = f"key-{link.conn_id}"
        self._fresh_keys[link.conn_id] = key
        self.post(
            events.AgentHello(
                at_ms=self.now_ms(),
                conn_id=link.conn_id,
                provider_id=process.machine.provider_id,
                machine_id=hello.machine_id,
                boot_id=hello.boot_id,
                process_id=hello.process_id,
                agent_version="1",
                peer=f"{hello.machine_id}:{link.conn_id}",
                fresh_resume_digest=f"digest of {key}",
                resume_digest=f"digest of {hello.resume_key}" if hello.resume_key else "",
            )
        )

    def _forget_link(self, conn_id: ConnId) -> None:
        self.links[conn_id][0].head_open = False
        del self.links[conn_id]
        self._bound.pop(conn_id, None)
        self._fresh_keys.pop(conn_id, None)
        self.post(events.LinkClosed(at_ms=self.now_ms(), conn_id=conn_id))
        if self._dice.random() < 0.1:
            self.post(events.LinkClosed(at_ms=self.now_ms(), conn_id=conn_id))

    def _say(self, link: Link, process: Process, frame: Down) -> None:
        link.send("down", partial(process.take, link, frame))

    # ---- the engine

    def post(self, event: events.AnyEvent) -> None:
        self._inbox.append(event)
        self._witness.expect(len(self._inbox) <= INBOX_MAX, "the inbox is over its bound")
        self._turn_later()

    def _turn_later(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            run = self.run
            self._agenda.after(1 + self.lag_ms, lambda: self._turn(run))

    def _turn(self, run: int) -> None:
        if not self.up or run != self.run:
            return
        self._turn_due = False
        if self.asleep_since_ms is not None:
            self._turn_due = True
            self._agenda.after(self.unit_ms // 10, lambda: self._turn(run))
            return
        if self._beats:
            beats = tuple(events.Beat(conn_id=c, received_ms=at_ms) for c, at_ms in self._beats.items())
            self._beats.clear()
            self._decide(events.Heartbeats(at_ms=self.now_ms(), beats=beats))
        for _ in range(min(len(self._inbox), BATCH_MAX)):
            self._decide(self._inbox.popleft())
        if self._inbox:
            self._turn_later()
        self._advance()

    def _decide(self, event: events.AnyEvent) -> None:
        try:
            decision = decide(self.state, event, self.policy)
        except Exception as error:
            raise Violation(f"deciding {type(event).__name__} failed: {error!r}") from error
        self._open.append(decision)
        self._witness.decided(event, decision, self.state)

    def _advance(self) -> None:
        """Give the disk the next group, or let go what needs no disk."""
        if self._in_flight is not None or not self._open:
            return
        group, self._open = self._open, []
        if not any(decision.writes for decision in group):
            self._carry_out(group)
            return
        self._in_flight = group
        run = self.run
        took_ms = self._dice.randint(1, 20)
        if self.slow_disk and self._dice.random() < 0.3:
            took_ms = self._dice.randint(self.unit_ms // 2, 4 * self.unit_ms)
        self._agenda.after(took_ms, lambda: self._committed(run))

    def _committed(self, run: int) -> None:
        if not self.up or run != self.run or self._in_flight is None:
            return
        if self.asleep_since_ms is not None:
            self._agenda.after(self.unit_ms // 10, lambda: self._committed(run))
            return
        group, self._in_flight = self._in_flight, None
        if self.disk.full:
            self._roll_back([*group, *self._open])
        else:
            self._make_durable(group)
            self._carry_out(group)
        self._advance()

    def _make_durable(self, group: list[commands.Decision]) -> None:
        writes = [write for decision in group for write in decision.writes]
        self.disk.commit(writes)
        self._witness.durable(writes)

    def _roll_back(self, undone: list[commands.Decision]) -> None:
        self._open = []
        for decision in undone:
            for reply in decision.replies:
                self._witness.refused(reply.request_id)
        old, self.state = self.state, self.disk.load(COORDINATOR_ID)
        decision = reloaded(old, self.state, self.policy, undone)
        self._witness.rolled_back(old, self.state)
        self._carry_out([decision])

    def _carry_out(self, group: list[commands.Decision]) -> None:
        for decision in group:
            for reply in decision.replies:
                self._witness.replied(reply, self.disk)
            for send in decision.sends:
                self._send(send)
            for note in decision.notes:
                if isinstance(note, commands.LinkBound) and note.conn_id in self.links:
                    self._bound[note.conn_id] = note.view.provider_id
                self._witness.noted(note)

    def _send(self, send: commands.Send) -> None:
        if send.conn_id not in self.links:
            return
        link, process = self.links[send.conn_id]
        key = self._fresh_keys.get(send.conn_id, "") if isinstance(send.message, commands.Welcome) else ""
        self._say(link, process, Says(send.message, key))
        if isinstance(send.message, commands.CloseLink):
            self._forget_link(send.conn_id)
