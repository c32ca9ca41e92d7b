"""All that is known of a source at some byte of it: what is saved, and what a verdict is made from."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable

from msgspec import Struct

from analytics.attribution.case import KEPT_BYTES, Place
from analytics.attribution.episodes import Episodes
from analytics.attribution.incidents import Incidents, Now
from analytics.attribution.lines import Partial
from analytics.attribution.progress import Progress
from analytics.attribution.times import Clock
from coordinator.core.verdict.rows import Seen

_NUMBERS = re.compile(rb"0x[0-9a-fA-F]+|[0-9a-f]{8,64}|\d+")


class State(Struct, array_like=True):
    """All that an analysis knows: what is saved."""

    partials: list[Partial]
    numbers: list[int]
    """Lines by stream."""
    steps: list[int]
    """Lines that told of progress, by stream."""
    incidents: Incidents
    episodes: Episodes
    progress: Progress
    order: int = 0
    """Lines of all streams."""
    clock: Clock = Clock.NONE
    at_ms: int = 0
    checkpoints: int = 0
    restored: bool = False
    finished: Place | None = None
    """Where it last said that it was through."""
    ranks: bytes = b""
    """That any line named which was looked at."""
    world: int = 0
    fingerprints: list[str] = []


def now_of(state: State) -> Now:
    """How far its streams have come, in whole lines."""
    return Now(tuple(state.steps), tuple(partial.begin for partial in state.partials))


def fingerprint_of(row: str, text: bytes) -> str:
    """The same for the same line with other numbers."""
    plain = _NUMBERS.sub(b"#", text[:KEPT_BYTES])
    return hashlib.blake2b(row.encode() + b"\x1f" + plain, digest_size=8).hexdigest()


def seen_of(states: Iterable[State]) -> Seen:
    """How far the program came, over all of its sources."""
    told = tuple(states)
    firsts = [state.progress.first for state in told if state.progress.first is not None]
    lasts = [state.progress.last for state in told if state.progress.last is not None]
    return Seen(
        lines=sum(state.order for state in told),
        steps=max((state.progress.parts for state in told), default=0),
        first_step=min(firsts, default=None),
        last_step=max(lasts, default=None),
        checkpoints=max((state.checkpoints for state in told), default=0),
        restored=any(state.restored for state in told),
        finished=any(state.finished is not None for state in told),
    )
