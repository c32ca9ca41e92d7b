"""What the parts of a world are to each other, so that none of them needs to know how another is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from coordinator.core import commands, events
from coordinator.core.amounts import Share
from coordinator.core.commands import Decision
from coordinator.core.ids import AttemptId, ConnId, Ms, ProviderId, RequestId
from coordinator.core.policy import Policy
from coordinator.core.rows import ExitInfo, LeaseToken, Resources, Row
from coordinator.core.state import ClusterState
from coordinator.simulator.frames import Down, Up
from coordinator.simulator.network import Link


class Enrolling(Protocol):
    """A machine as far as it asks for an identity."""

    provider_id: ProviderId
    machine_id: str
    credential: str


class Agent(Protocol):
    """The other end of a link, as the coordinator's model needs it."""

    process_id: str
    link: Link | None
    welcomed: bool
    interval_ms: Ms

    @property
    def box(self) -> Box: ...

    def take(self, link: Link, frame: Down) -> None:
        """Something arrived on `link`."""
        ...


class Box(Enrolling, Protocol):
    """A machine, as the coordinator's model needs it."""

    up_cut: bool
    down_cut: bool


class Door(Protocol):
    """The coordinator, as agents need it."""

    policy: Policy
    unit_ms: Ms

    def accept(self, agent: Agent) -> Link | None:
        """A new socket; None while nobody listens."""
        ...

    def take(self, link: Link, agent: Agent, frame: Up) -> None: ...

    def enrol_again(self, machine: Enrolling) -> None:
        """Somebody gives the machine a join token: it asks for its identity anew."""
        ...


class Watched(Protocol):
    """The coordinator, as the witness may look at it: its clock, its slowness, its sockets."""

    @property
    def state(self) -> ClusterState: ...

    @property
    def lag_high_ms(self) -> Ms: ...

    def now_ms(self) -> Ms: ...

    def awake_ms(self) -> Ms:
        """How long the process has been running, stalls left out."""
        ...

    def awake_at(self, observed_ms: Ms) -> Ms:
        """The same at a moment of this run on the observed clock."""
        ...

    def told_interval_ms(self, conn_id: ConnId) -> Ms:
        """The heartbeat interval that the agent on this connection goes by; 0 when nobody is there."""
        ...

    def agent_on(self, conn_id: ConnId) -> tuple[str, Ms] | None:
        """Its process and when its socket was opened."""
        ...


class Durable(Protocol):
    """The disk, as the witness may look at it."""

    rows: dict[tuple[str, object], Row]


class Watcher(Protocol):
    """The witness, as the coordinator's model tells it what happens."""

    def expect(self, holds: bool, otherwise: str) -> None: ...

    def started(self, state: ClusterState) -> None: ...

    def decided(self, event: events.AnyEvent, decision: Decision, state: ClusterState) -> None: ...

    def received(self, conn_id: ConnId, at_ms: Ms) -> None:
        """A heartbeat arrived, whether the core ever learns of it or not."""
        ...

    def durable(self, writes: Sequence[commands.Write]) -> None:
        """One commit."""
        ...

    def replied(self, reply: commands.Reply) -> None:
        """A reply leaves."""
        ...

    def sent(self, send: commands.Send) -> None:
        """A message leaves, its writes are durable."""
        ...

    def noted(self, note: commands.Note) -> None: ...

    def rolled_back(
        self, old: ClusterState, fresh: ClusterState, undone: Iterable[Decision], decision: Decision
    ) -> None:
        """The disk was full: the core goes on from what is durable, by `decision`."""
        ...

    def enrols(self, request_id: RequestId, machine: Enrolling, credential: str) -> None: ...


class RunningBox(Enrolling, Protocol):
    """A machine, as the witness may look at what it offers and holds."""

    resources: Resources

    def occupied(self) -> Iterable[tuple[AttemptId, int, Share]]:
        """Everything that has processes there, frozen or not."""
        ...


class RunBooks(Protocol):
    """The witness, as machines tell it what really runs."""

    def runs(self, machine: RunningBox, attempt_id: AttemptId, rank: int, token: LeaseToken) -> None:
        """Processes of it can run from now on: they were started, or thawed."""
        ...

    def stands(self, machine: RunningBox, attempt_id: AttemptId, rank: int) -> None:
        """They were frozen, or everything on the machine stands still."""
        ...

    def is_gone(self, machine: RunningBox, attempt_id: AttemptId, rank: int, exit: ExitInfo | None) -> None:
        """No process of it is left; `exit` as its keeper saw it."""
        ...

    def freezes(self, machine: RunningBox, attempt_id: AttemptId) -> None:
        """A lease was not renewed in time."""
        ...

    def orphaned(self, machine: RunningBox) -> None:
        """Nobody is left who could freeze what runs there."""
        ...

    def copied(self, provider_id: ProviderId) -> None:
        """Two machines use this identity."""
        ...

    def troubled(self, machine: RunningBox) -> None:
        """Something befell it or its network: its leases may have been renewed late."""
        ...
