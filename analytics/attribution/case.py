"""What is known of an attempt when it is judged: the seam between reading its lines and choosing what it died of.

Everything here is made from bytes alone. `primary.choose` picks, `actions.decide` says what to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec import Struct

from analytics.attribution.rules import Row
from analytics.attribution.times import Clock
from coordinator.core.rows import EndCause
from coordinator.core.verdict.rows import Cause, Fault, PastVerdict, Recommendation, Seen

SEARCHED = "not in PATH ("
"""Behind it the agent lists where it looked, which is said once, in the reason of the attempt."""


class End(Struct, frozen=True, gc=False, kw_only=True):
    """How the process ended. None: unknown, or it still runs."""

    cause: EndCause | None = None
    code: int | None = None
    signal: int | None = None
    text: str = ""

    @property
    def words(self) -> str:
        """For people; empty where nothing is known of it."""
        if self.text or self.signal is not None:
            return self._text or f"signal {self.signal}"
        return f"exit code {self.code}" if self.code is not None else ""

    @property
    def _text(self) -> str:
        head, found, _ = self.text.partition(SEARCHED)
        return f"{head}{SEARCHED[:-2]}" if found and self.cause is EndCause.START else self.text


class Place(Struct, frozen=True, gc=False, array_like=True):
    """Where a line stands."""

    order: int
    """Among all lines of all streams of its source, from 0."""
    offset: int
    number: int
    """From 1, within its stream."""
    stream: int
    steps: int
    """Lines that told of progress before it, and with it."""
    own_steps: int
    """Of these the ones of its own stream."""
    apart: int
    """Bytes that had come of the other streams."""


class Line(Place, frozen=True, gc=False, array_like=True):
    """One line that is kept, without its prefixes."""

    text: bytes
    """At most KEPT_BYTES of it."""
    rank: int | None
    host: bytes
    """What its prefix or the named group `node` of its signature says."""
    clock: Clock
    at_ms: int | None
    """The time that it names, else the last one before it; of two times of one clock the difference has a meaning."""
    episode: int
    """The traceback (chained ones are one) that it belongs to, counted from 1; 0: none."""
    frames: bytes
    """Of its traceback, `file:function`, one a line: the outermost, and the innermost few."""
    mild: bool = False
    """Its logger calls it a warning or less."""


def line_at(
    place: Place,
    *,
    text: bytes,
    rank: int | None,
    host: bytes = b"",
    clock: Clock = Clock.NONE,
    at_ms: int | None = None,
    episode: int = 0,
    frames: bytes = b"",
    mild: bool = False,
) -> Line:
    """The line that stands there."""
    where = (place.order, place.offset, place.number, place.stream, place.steps, place.own_steps, place.apart)
    return Line(*where, text, rank, host, clock, at_ms, episode, frames, mild)


@dataclass(frozen=True, slots=True)
class Happening:
    """The same event: one signature and class of exception, however many lines and ranks told of it."""

    row: Row
    exception: str
    """Class of the exception, where the line ends a traceback."""
    usual: bool
    """Runs of this job that went well have the same line."""
    summary: bool
    """A launcher tells it of somebody else."""
    count: int
    first: Place
    open: Line
    """The first since the program last went on working: what counts for the primary."""
    last: Place
    ranks: tuple[int, ...]
    ranks_more: bool
    """There are more ranks than can be kept."""
    steps_after: int
    """Lines that told of progress after the last of it."""
    lines_after: int
    refuted: bool
    """The program went on working after the last of it."""
    source: int
    """Which of the sources (nodes, files)."""
    moment: int = 0
    """The place of `open` among all happenings of all sources: by line within a source, over sources by the times that
    lines name, where all of them do by one clock."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that is known. `happenings` are in the order of their moments."""

    happenings: tuple[Happening, ...]
    seen: Seen
    end: End | None
    history: tuple[PastVerdict, ...]
    where: tuple[str, ...]
    """Provider ids by rank of the attempt (by source)."""
    ranks: tuple[int, ...]
    """That any looked-at line named, sorted."""
    world: int | None
    """How many ranks there are, where the log says so."""
    sources: int
    suspected: tuple[str, ...] = ()
    """Those of its providers that verdicts on other jobs blame, or that get no new work for their failures."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What it died of. `primary` None: an exit code or a signal alone, or nothing."""

    cause: Cause
    primary: Happening | None
    evidence: tuple[Happening, ...] = ()
    """Others that the choice rests on, the most telling first."""
    confidence: float = 0.5
    silent: tuple[int, ...] = ()
    """Ranks that did not report a collective's timeout."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do about it."""

    fault: Fault
    recommendation: Recommendation
    confidence: float
    summary: str
    advice: str
    avoid: tuple[str, ...] = ()


KEPT_BYTES = 400
