"""What is seen of a launch: states (the fast path) and what its log says (the slow path). Times are Unix milliseconds.

A source says only what it knows by the launch's own id; `key` makes a sighting that comes twice count once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from coordinator.core.ids import Ms
from coordinator.core.verdict.rows import Verdict


class Phase(IntEnum):
    """How far a launch is. Each comes behind the one before; some systems tell only of a few."""

    SUBMITTED = 1
    QUEUED = 2
    LEASED = 3
    """Nodes are its own."""
    STAGING = 4
    STARTING = 5
    RUNNING = 6
    """Every rank is up."""
    PROGRESS = 7
    """It said that it gets on."""

    @property
    def word(self) -> str:
        return _WORDS[self]


_WORDS = {
    Phase.SUBMITTED: "submitted",
    Phase.QUEUED: "queued",
    Phase.LEASED: "placed",
    Phase.STAGING: "staging",
    Phase.STARTING: "starting",
    Phase.RUNNING: "running",
    Phase.PROGRESS: "first progress",
}


@dataclass(frozen=True, kw_only=True)
class StateSeen:
    """It is in this phase, since `at_ms`."""

    phase: Phase
    at_ms: Ms
    where: str = ""
    words: str = ""
    """The system's own, like `PENDING (Resources)`."""
    waits: str = ""
    """Why it does not get on, where that passes by itself: no room yet, a machine type sold out."""
    hopeless: str = ""
    """Why it never will by itself: the system says that it cannot run like this."""
    hint: str = ""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class TryFailed:
    """One attempt of it failed or was lost, and the system tries again by itself: it begins anew."""

    at_ms: Ms
    why: str
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """The system's own word on its end: the truth, whatever was said before."""

    at_ms: Ms
    ok: bool
    words: str
    exit_code: int | None = None
    """As a shell would give it; None: the system does not know one."""
    key: str = ""


@dataclass(frozen=True, kw_only=True)
class LogRead:
    """What its log amounts to so far."""

    at_ms: Ms
    verdict: Verdict
    run: str = ""
    """Whose log: that of a try which is over says nothing of the next one."""


@dataclass(frozen=True, kw_only=True)
class Unheard:
    """The system did not answer; it is asked again."""

    at_ms: Ms
    why: str


Sighting = StateSeen | TryFailed | Ended | LogRead | Unheard


@dataclass(frozen=True, kw_only=True)
class Past:
    """How long phases took in earlier launches of the same job, in milliseconds."""

    took_ms: dict[Phase, list[Ms]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Piece:
    """New bytes of a log. Those of another `run` (a further try) begin a log of their own."""

    run: str
    stream: int
    data: bytes


class Source(Protocol):
    """A launch in some system. Each of `look`, `record` and `read` is called by a thread of its own, again and again,
    and may wait for news as long as it likes. None: nothing will come any more.

    CoordError: for good (no such launch, not allowed). OSError and TimeoutError: no answer, it is asked again.
    """

    @property
    def name(self) -> str:
        """For people: `slurm job 12`."""
        ...

    @property
    def pace(self) -> Pace: ...

    @property
    def ended_ms(self) -> Ms | None:
        """When it ended, as far as that is known yet."""
        ...

    def past(self) -> Past:
        """Called once, before everything else."""
        ...

    def look(self) -> Sequence[Sighting] | None:
        """The fast path: what is new of its states."""
        ...

    def record(self) -> Sequence[Sighting] | None:
        """What the system keeps of it: why it waits, how it ended."""
        ...

    def read(self) -> Sequence[Piece] | None:
        """The slow path: new bytes of its log, each once; nothing where there is no log yet."""
        ...

    def next_steps(self, running: bool) -> Sequence[str]:
        """Commands that a person may want now."""
        ...


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds between two calls; 0: the call itself waits for news."""

    look_s: float = 5.0
    record_s: float = 3.0
    read_s: float = 1.0
