"""The witness: it sees every event and every row, knows what really happened, and says when the core is wrong.

It judges by its own books (who was heard when, what really runs where), never by the core's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from coordinator.core import commands, events
from coordinator.core.ids import ConnId, Ms, RequestId
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.simulator.parts import Durable, Enrolling, Watched
from coordinator.simulator.violation import Violation
from coordinator.simulator.witness.doors import Doors
from coordinator.simulator.witness.goods import Goods
from coordinator.simulator.witness.ground import Ground
from coordinator.simulator.witness.judgements import Judgements
from coordinator.simulator.witness.leases import Leases
from coordinator.simulator.witness.results import Results
from coordinator.simulator.witness.runs import Runs
from coordinator.simulator.witness.sessions import Sessions
from coordinator.simulator.witness.tenancy import Tenancy
from coordinator.simulator.witness.terms import Terms
from coordinator.simulator.witness.unsaved import Unsaved
from coordinator.simulator.witness.verdicts import Verdicts

CHECKED_EVERY = 8
"""So many decisions from one look at all of the core's own invariants to the next: what breaks one stays broken. What a
look costs grows with all that there is; every start and every full disk is followed by one too."""
MESSAGE_MAX = 300


class Witness:
    """All books of one world."""

    def __init__(self, policy: Policy, unit_ms: Ms, disk: Durable, tell: Callable[[commands.Note], None]) -> None:
        self.ground = Ground(policy, unit_ms, disk)
        self.sessions = Sessions(self.ground)
        self.judgements = Judgements(self.ground, self.sessions)
        self.doors = Doors(self.ground)
        self.runs = Runs(self.ground, self.sessions)
        self.results = Results(self.ground, self.runs)
        self.leases = Leases(self.ground, self.sessions)
        self.terms = Terms(self.ground)
        self.tenancy = Tenancy(self.ground, self.runs, self.sessions)
        self.goods = Goods(self.ground)
        self.unsaved = Unsaved(self.ground)
        self.verdicts = Verdicts(self.ground)
        self.runs.tell_running(self.tenancy.runs)
        self._listeners: list[Callable[[commands.Reply], None]] = []
        self._tell = tell
        self._decisions = 0

    def look_at(self, head: Watched) -> None:
        self.ground.head = head

    @property
    def steps(self) -> int:
        return self.ground.steps

    def expect(self, holds: bool, otherwise: str) -> None:
        self.ground.expect(holds, otherwise)

    def started(self, state: ClusterState) -> None:
        """A run begins from durable rows."""
        self._decisions = -1  # the boot itself is looked at
        self.sessions.started(state)
        self.doors.started(state)
        self.results.started(state)
        self.verdicts.load(state)
        self.leases.load(state)
        self.tenancy.load()
        self.terms.started()
        self.leases.booted_awake_ms = self.ground.head.awake_ms()

    def decided(self, event: events.AnyEvent, decision: commands.Decision, state: ClusterState) -> None:
        """The core took one event."""
        idle = isinstance(event, events.Tick) and not (decision.writes or decision.sends or decision.notes)
        self.ground.steps += not idle
        self._decisions += 1
        if self._decisions % CHECKED_EVERY == 0:
            self._check_invariants(state, type(event).__name__)
        roomy = 16 + 12 * len(state.providers)
        self.expect(state.appointments() <= roomy, f"the wheel holds {state.appointments()} appointments")
        self.sessions.decided(event, decision, state)
        for note in decision.notes:
            self.doors.noted_in(note)
            if isinstance(note, commands.ProviderForgotten):
                self.runs.forgotten(note.provider_id)
            elif isinstance(note, commands.TokenChanged) and note.row.provider_id is not None:
                self.runs.locked_out(note.row.provider_id)
        self.leases.decided(event, decision, state)
        self.terms.decided(event, decision, state)
        self.judgements.decided(event, state)
        self.tenancy.decided(event, decision, state)
        self.verdicts.decided(event, decision, state)

    def received(self, conn_id: ConnId, at_ms: Ms) -> None:
        self.sessions.received(conn_id, at_ms)
        self.tenancy.received(conn_id, at_ms)

    def durable(self, writes: Sequence[commands.Write]) -> None:
        self.sessions.durable(writes)
        self.results.durable(writes)
        self.tenancy.durable(writes)
        self.goods.durable(writes)
        self.unsaved.durable(writes)

    def enrols(self, request_id: RequestId, machine: Enrolling, credential: str) -> None:
        self.doors.enrols(request_id, machine, credential)

    def replied(self, reply: commands.Reply) -> None:
        self.doors.replied(reply)
        self.results.replied(reply)
        for listener in self._listeners:
            listener(reply)

    def tell_replies(self, listener: Callable[[commands.Reply], None]) -> None:
        """Have `listener` hear every reply that leaves."""
        self._listeners.append(listener)

    def sent(self, send: commands.Send) -> None:
        """A message leaves."""
        self.terms.sent(send, self.ground.head.state)
        self.unsaved.sent(send)

    def noted(self, note: commands.Note) -> None:
        """For the story: this is durable now."""
        self._tell(note)

    def rolled_back(
        self,
        old: ClusterState,
        fresh: ClusterState,
        undone: Iterable[commands.Decision],
        decision: commands.Decision,
    ) -> None:
        self.sessions.rolled_back(old, fresh)
        self.sessions.heed(decision.sends)
        self.leases.load(fresh)
        self.verdicts.load(fresh)
        self.tenancy.load()
        self.leases.heed(decision.sends, fresh)
        self._check_invariants(fresh, "a full disk")

    def _check_invariants(self, state: ClusterState, after: str) -> None:
        try:
            state.check_invariants()
        except AssertionError as error:
            raise Violation(f"at event {self.steps} ({after}): {str(error)[:MESSAGE_MAX]}") from error
