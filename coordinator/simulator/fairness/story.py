"""One seed of the light worlds: which one it is follows from the seed."""

from __future__ import annotations

from msgspec import Struct

from coordinator.simulator.fairness.backfill import Backfill
from coordinator.simulator.fairness.floods import Floods
from coordinator.simulator.fairness.incumbents import Incumbents
from coordinator.simulator.fairness.shares import Shares
from coordinator.simulator.violation import Violation


class Fair(Struct, frozen=True, kw_only=True):
    """How one seed went. `violation` is empty when the queue was fair throughout."""

    seed: int
    world: str
    events: int
    off: float = 0.0
    """How far a share was from what it should be, as a part of the whole."""
    violation: str = ""


def world_of(seed: int) -> type[Shares | Incumbents | Floods | Backfill]:
    """Of ten seeds five are of shares, one of a newcomer, two of floods, two of planned starts."""
    return Shares if seed % 10 < 5 else Incumbents if seed % 10 < 6 else Floods if seed % 10 < 8 else Backfill


def be_fair(seed: int) -> Fair:
    world = world_of(seed)(seed)
    off, violation = 0.0, ""
    try:
        off = world.run() or 0.0
    except Violation as error:
        violation = str(error)
    return Fair(
        seed=seed,
        world=type(world).__name__.lower(),
        events=world.site.events,
        off=off,
        violation=violation,
    )
