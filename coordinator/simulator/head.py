"""The coordinator's edges as a model: a door, sockets, starts, kills, planned stops and stalls."""

from __future__ import annotations

from functools import partial
from random import Random

from coordinator.core import commands, events
from coordinator.core.data import events as data_events
from coordinator.core.ids import ConnId, Ms, ProviderId, RequestId, TokenId
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.simulator.agenda import Agenda
from coordinator.simulator.clock import HeadClock
from coordinator.simulator.durable import TELEMETRY_LAG, Disk
from coordinator.simulator.engine import Engine
from coordinator.simulator.frames import (
    Acks,
    Beats,
    Closes,
    Down,
    HasExited,
    HasGranted,
    HasRefused,
    IsIn,
    IsSoFar,
    OfWork,
    Pongs,
    Says,
    SaysBye,
    SaysHello,
    Up,
)
from coordinator.simulator.network import Link
from coordinator.simulator.parts import Agent, Enrolling, Watcher

COORDINATOR_ID = "head"
JOIN_DIGEST = "digest of join"


class Head:
    """One coordinator over all its runs."""

    def __init__(self, policy: Policy, unit_ms: Ms, agenda: Agenda, dice: Random, disk: Disk, watcher: Watcher) -> None:
        self.policy = policy
        self.unit_ms = unit_ms
        """Milliseconds of a "second": a slow world has longer ones, to cover months."""
        self.disk = disk
        self.up = False
        self.clock = HeadClock(agenda, unit_ms)
        self.slow_disk = False
        self._links: dict[ConnId, tuple[Link, Agent]] = {}
        self._agenda, self._dice, self._watcher = agenda, dice, watcher
        self._run = 0
        self._kernel: list[tuple[Link, Agent, Up]] = []
        self._beats: dict[ConnId, events.Beat] = {}
        self._bound: dict[ConnId, ProviderId] = {}
        self._fresh_keys: dict[ConnId, str] = {}
        self._conns_made = 0
        self._requests_made = 0
        self._stepped_ms: Ms = 0
        self.engine = self._engine(ClusterState(COORDINATOR_ID))

    # ---- what the witness may look at

    @property
    def state(self) -> ClusterState:
        return self.engine.state

    @property
    def runs(self) -> int:
        """How often it was started."""
        return self._run

    @property
    def lag_high_ms(self) -> Ms:
        return self.clock.lag_high_ms

    def now_ms(self) -> Ms:
        """The observed clock."""
        return self.clock.now_ms()

    def awake_ms(self) -> Ms:
        return self.clock.awake_ms()

    def awake_at(self, observed_ms: Ms) -> Ms:
        return self.clock.awake_at(observed_ms)

    def told_interval_ms(self, conn_id: ConnId) -> Ms:
        """The heartbeat interval that the agent on this connection goes by; 0 when nobody is there."""
        link, agent = self._links.get(conn_id, (None, None))
        return agent.interval_ms if agent is not None and agent.link is link and agent.welcomed else 0

    def agent_on(self, conn_id: ConnId) -> tuple[str, Ms] | None:
        link, agent = self._links.get(conn_id, (None, None))
        return (agent.process_id, link.opened_ms) if agent is not None and link is not None else None

    # ---- start and end

    def _engine(self, state: ClusterState) -> Engine:
        return Engine(
            self.policy,
            self.unit_ms,
            self._agenda,
            self._dice,
            self.disk,
            self.clock,
            self._watcher,
            state,
            self._take_beats,
            self._carry_out,
        )

    def start(self, torn: bool = False) -> None:
        """Serve from what is durable. `torn`: the last seconds of telemetry are gone."""
        self._run += 1
        self.up = True
        state = self.disk.load(COORDINATOR_ID)
        self.clock.begin(state.alive_at_ms or 0)
        self.engine = self._engine(state)
        self.engine.slow_disk = self.slow_disk
        self._watcher.started(state)
        self.post(events.Boot(at_ms=self.now_ms(), last_beats=self.disk.last_beats(state, torn)))
        self._tick_later(self._run)

    def kill(self) -> None:
        """kill -9: what is in flight is durable or not, everything else undurable is gone, sockets are reset."""
        self.engine.kill()
        self.up = False
        self.clock.wake()
        self._kernel.clear()
        self._beats.clear()
        self._bound.clear()
        self._fresh_keys.clear()
        for link, agent in self._links.values():
            link.head_open = False
            link.send("down", partial(agent.take, link, Closes()))
        self._links.clear()

    def stop(self) -> None:
        """A planned stop: agents are told first. The process ends a little later."""
        run = self._run
        self.post(events.Stopping(at_ms=self.now_ms()))
        self._agenda.after(self.unit_ms, lambda: self._end_run(run))

    def _end_run(self, run: int) -> None:
        """Its last writes and words are out: it ends. What has not left by then waits a little longer."""
        if not self.up or self._run != run:
            return
        if self.engine.busy and self.clock.asleep_since_ms is None and not self.disk.full:
            self._agenda.after(self.unit_ms // 2, lambda: self._end_run(run))
        else:
            self.kill()

    def sleep(self, length_ms: Ms) -> None:
        """The process stands still; the kernel keeps what arrives."""
        self.clock.sleep()
        run = self._run
        self._agenda.after(length_ms, lambda: self._wake(run))

    def _wake(self, run: int) -> None:
        if not self.up or run != self._run or self.clock.asleep_since_ms is None:
            return
        stalled_ms = self.clock.wake()
        # The tick at waking comes out of step: an appointment of the same second waits for the next one's tick.
        self.clock.was_late(self.unit_ms // 2)
        kernel, self._kernel = self._kernel, []
        for link, agent, frame in kernel:
            self.take(link, agent, frame)
        judged_by = stalled_ms if stalled_ms >= self.policy.stall_ms else 0
        self.post(events.Tick(at_ms=self.now_ms(), stalled_ms=judged_by))

    def _tick_later(self, run: int) -> None:
        self._agenda.after(self.policy.tick_ms, lambda: self._tick(run))

    def _tick(self, run: int) -> None:
        if not self.up or run != self._run:
            return
        if self.clock.asleep_since_ms is None and not self.engine.tick_waits:
            self.post(events.Tick(at_ms=self.now_ms(), wall_step_ms=self._stepped_ms))
            self._stepped_ms = 0
        self._tick_later(run)

    def step_wall_clock(self, by_ms: Ms) -> None:
        self.clock.wall_offset_ms += by_ms
        self._stepped_ms += by_ms

    def slow_the_disk(self, slow: bool) -> None:
        self.slow_disk = self.engine.slow_disk = slow

    # ---- the door and the sockets

    def post(self, event: events.AnyEvent) -> None:
        self.engine.post(event)

    def request(self) -> RequestId:
        self._requests_made += 1
        return RequestId(self._requests_made)

    def accept(self, agent: Agent) -> Link | None:
        """A new socket; None while nobody listens."""
        if not self.up:
            return None
        self._conns_made += 1
        link = Link(ConnId(self._conns_made), agent.box, self._agenda, self._dice, self.now_ms())
        self._links[link.conn_id] = (link, agent)
        return link

    def enrol_again(self, machine: Enrolling) -> None:
        """Somebody gives the machine a join token: it asks for its identity anew."""
        if self.up:
            credential = f"credential-{machine.provider_id}-{self._dice.randrange(10**9)}"
            request_id = self.request()
            self._watcher.enrols(request_id, machine, credential)
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

    def take(self, link: Link, agent: Agent, frame: Up) -> None:
        """Something arrived from an agent."""
        if not self.up or not link.head_open:
            return
        if self.clock.asleep_since_ms is not None:
            self._kernel.append((link, agent, frame))
            return
        conn_id, now = link.conn_id, self.now_ms()
        match frame:
            case SaysHello():
                self._greet(link, agent, frame)
            case Beats():
                self._hear(link, agent, frame)
            case Pongs():
                self.post(events.AgentPong(at_ms=now, conn_id=conn_id))
            case SaysBye(draining=draining, away_until_ms=until_ms):
                self.post(events.AgentBye(at_ms=now, conn_id=conn_id, draining=draining, away_until_ms=until_ms))
            case Closes():
                self._forget_link(conn_id)
            case _:
                if conn_id in self._bound:
                    told = _told(frame, now, conn_id)
                    if isinstance(told, events.LeasesHeld | events.AttemptsEnded):
                        self.engine.post_together(told)
                    else:
                        self.post(told)
        if isinstance(frame, Pongs | SaysBye | OfWork) and self._dice.random() < 0.05:
            self.engine.post_last_again()

    def _hear(self, link: Link, agent: Agent, frame: Beats) -> None:
        conn_id, now = link.conn_id, self.now_ms()
        if conn_id not in self._bound:
            return
        self._beats[conn_id] = events.Beat(
            conn_id=conn_id,
            received_ms=now,
            seq=frame.seq,
            renewed_seq=frame.renewed_seq,
            attempts=frame.attempts,
        )
        self._watcher.received(conn_id, now)
        self.disk.beat(self._bound[conn_id], now, TELEMETRY_LAG * self.unit_ms)
        self._say(link, agent, Acks(frame.seq))
        self.engine.wake()

    def _take_beats(self) -> tuple[events.Beat, ...]:
        beats = tuple(self._beats.values())
        self._beats.clear()
        return beats

    def _greet(self, link: Link, agent: Agent, hello: SaysHello) -> None:
        if self.state.valid_token(f"digest of {hello.credential}") is None:
            said = commands.CloseLink(code=commands.CloseCode.UNAUTHENTICATED, reason="unknown credential")
            self._say(link, agent, Says(said))
            self._forget_link(link.conn_id)
            return
        key = f"key-{link.conn_id}"
        self._fresh_keys[link.conn_id] = key
        self.post(
            events.AgentHello(
                at_ms=self.now_ms(),
                conn_id=link.conn_id,
                provider_id=agent.box.provider_id,
                machine_id=hello.machine_id,
                boot_id=hello.boot_id,
                process_id=hello.process_id,
                agent_version="1",
                peer=f"{hello.machine_id}:{link.conn_id}",
                fresh_resume_digest=f"digest of {key}",
                resume_digest=f"digest of {hello.resume_key}" if hello.resume_key else "",
                resources=hello.resources,
                labels=hello.labels,
                promises=hello.promises,
                attempts=hello.attempts,
            )
        )

    def _forget_link(self, conn_id: ConnId) -> None:
        self._links[conn_id][0].head_open = False
        del self._links[conn_id]
        self._bound.pop(conn_id, None)
        self._fresh_keys.pop(conn_id, None)
        self.post(events.LinkClosed(at_ms=self.now_ms(), conn_id=conn_id))
        if self._dice.random() < 0.1:
            self.post(events.LinkClosed(at_ms=self.now_ms(), conn_id=conn_id))

    def _say(self, link: Link, agent: Agent, frame: Down) -> None:
        link.send("down", partial(agent.take, link, frame))

    # ---- what leaves

    def _carry_out(self, decision: commands.Decision) -> None:
        for reply in decision.replies:
            self._watcher.replied(reply)
        for send in decision.sends:
            self._send(send)
        for note in decision.notes:
            if isinstance(note, commands.LinkBound) and note.conn_id in self._links:
                self._bound[note.conn_id] = note.view.provider_id
            self._watcher.noted(note)

    def _send(self, send: commands.Send) -> None:
        self._watcher.sent(send)
        if send.conn_id not in self._links:
            return
        link, agent = self._links[send.conn_id]
        key = self._fresh_keys.get(send.conn_id, "") if isinstance(send.message, commands.Welcome) else ""
        self._say(link, agent, Says(send.message, key))
        if isinstance(send.message, commands.CloseLink):
            self._forget_link(send.conn_id)


def _told(frame: OfWork, now: Ms, conn_id: ConnId) -> events.AnyEvent:
    attempt_id, rank, token = frame.attempt_id, frame.rank, frame.token
    match frame:
        case HasGranted() if attempt_id[0] % 2:  # of every other job as a frame of them says it
            return events.LeasesHeld(at_ms=now, conn_id=conn_id, held=((attempt_id, rank, token),))
        case HasGranted():
            return events.AgentGranted(at_ms=now, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token)
        case HasRefused(why=why):
            return events.AgentRefused(
                at_ms=now, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, why=why
            )
        case IsIn(phase=phase):
            return events.AttemptPhase(
                at_ms=now, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, phase=phase
            )
        case IsSoFar(fraction=fraction):
            return data_events.AttemptProgress(
                at_ms=now, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, fraction=fraction
            )
        case HasExited(exit=exit) if attempt_id[0] % 2:
            return events.AttemptsEnded(at_ms=now, conn_id=conn_id, ended=((attempt_id, rank, token, exit),))
        case HasExited(exit=exit):
            return events.AttemptExited(
                at_ms=now, conn_id=conn_id, attempt_id=attempt_id, rank=rank, token=token, exit=exit
            )
