"""A box with an identity: what it offers, what its agent's directory remembers, and what really runs on it."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct, field

from coordinator.core.amounts import Share
from coordinator.core.commands import Launch
from coordinator.core.events import HeldAttempt
from coordinator.core.ids import AttemptId, Ms, ProviderId, TaskId
from coordinator.core.rows import ExitInfo, LeaseToken, Promises, Resources
from coordinator.core.work.jobspec import Isolation, StepSpec
from coordinator.simulator.network import Link
from coordinator.simulator.parts import RunBooks

RankId = tuple[AttemptId, int]


class Held(Struct, kw_only=True):
    """One lease and what became of it, as the agent's directory has it: survives everything but the disk."""

    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    share: Share
    phase: str = "leased"
    """`leased`, `staging`, `running`, `frozen`, `uploading`, `exited`."""
    freeze_at_ms: Ms
    """On the world's clock; the agent computed it by its own."""
    frozen_at_ms: Ms | None = None
    exit: ExitInfo | None = None
    ending: str = ""
    in_line: bool = False
    """Granted ahead: it has no room of its own yet, and is started when it is its turn."""
    wanted: StepSpec | None = None
    """It was ordered to run, and waits for its turn."""
    began_ms: Ms | None = None
    """When its processes were started."""
    order: Launch | None = None
    """It was ordered to run, in a world of data."""
    ran_ms: Ms | None = None
    """How long its program ran, of one that succeeded and has yet to bring its outputs."""
    said_ms: Ms = 0
    """When its daemon last told of it."""

    def as_said(self) -> HeldAttempt:
        return HeldAttempt(
            attempt_id=self.attempt_id, rank=self.rank, token=self.token, phase=self.phase, exit=self.exit
        )


class Run(Struct, kw_only=True):
    """Processes. They need nobody to go on; only a freezer, a kill or the power stops them."""

    token: LeaseToken
    share: Share
    left_ms: Ms
    """Of the program's work, when it last began to run."""
    since_ms: Ms
    going: bool = True
    """Neither frozen nor suspended."""
    ends: ExitInfo
    """How the program ends if nobody stops it."""
    number: int = 0
    """Raised by every stop: a timer of before finds another number."""


class Memory(Struct):
    """The agent's directory."""

    held: dict[RankId, Held] = field(default_factory=dict)
    floors: dict[TaskId, LeaseToken] = field(default_factory=dict)
    """The highest token seen of each task."""
    generation: int = 0


class Machine:
    """A copy of it has the same identity, and another agent."""

    def __init__(
        self,
        provider_id: ProviderId,
        machine_id: str,
        character: str,
        books: RunBooks,
        resources: Resources,
        promises: Promises,
        drift: float,
        credential: str = "",
        boasts: float = 1.0,
    ) -> None:
        self.provider_id = provider_id
        self.machine_id = machine_id
        self.character = character
        self.credential = credential
        self.resources, self.promises = resources, promises
        self.labels = {"kind": character}
        self.drift = drift
        """How much faster its clock runs."""
        self.boasts = boasts
        """How many times as long as they did its agent says that attempts ran."""
        self.boot = 1
        self.up_cut = False
        self.down_cut = False
        self.suspended = False
        """Everything on it stands still, sockets stay open."""
        self.links: list[Link] = []
        self.memory = Memory()
        self.runs: dict[RankId, Run] = {}
        self.books = books

    @property
    def boot_id(self) -> str:
        return f"{self.machine_id}/{self.boot}"

    def measured(self, length_ms: Ms) -> Ms:
        """A length of time as its agent tells it."""
        return int(length_ms * self.drift * self.boasts)

    def occupied(self) -> Iterable[tuple[AttemptId, int, Share]]:
        """Everything that has processes here, frozen or not."""
        return [(attempt_id, rank, run.share) for (attempt_id, rank), run in self.runs.items()]

    def mend(self) -> None:
        """Both directions pass again."""
        self.up_cut = self.down_cut = False
        self.books.troubled(self)
        for link in self.links:
            link.mend()

    def lose_power(self) -> None:
        """Every process is gone, and the next boot has another id."""
        self.boot += 1
        for attempt_id, rank in list(self.runs):
            self.remove(attempt_id, rank, None)

    def remove(self, attempt_id: AttemptId, rank: int, exit: ExitInfo | None) -> None:
        """Its processes are gone; `exit` as a keeper saw it, None when nobody did."""
        if self.runs.pop((attempt_id, rank), None) is not None:
            self.books.is_gone(self, attempt_id, rank, exit)


def plain_promises(kills_all: bool, prefetch: int, data: bool = False) -> Promises:
    return Promises(
        work=True,
        isolation=Isolation.SANDBOX,
        kills_all=kills_all,
        freezes_all=True,
        memory_limit=True,
        prefetch=prefetch,
        data=data,
    )
