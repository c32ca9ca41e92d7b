"""`coord simulate --seed N`: tells what happened in one world, and says whether the core was right."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from coordinator.core.ids import Ms
from coordinator.simulator.violation import Violation
from coordinator.simulator.world import World


class Outcome(Struct, frozen=True, kw_only=True):
    """How one seed went. `violation` is empty when the core was right throughout."""

    seed: int
    events: int
    elapsed_ms: Ms
    ends: dict[str, int]
    suspected_after_ms: Ms
    violation: str = ""


def simulate(seed: int, steps: int, say: Callable[[str], None] = lambda line: None) -> Outcome:
    """Run the world of `seed` for `steps` events of the core."""
    world = World(seed, say)
    violation = ""
    try:
        world.run(steps)
    except Violation as error:
        violation = str(error)
    return Outcome(
        seed=seed,
        events=world.witness.steps,
        elapsed_ms=world.elapsed_ms,
        ends=world.witness.sessions.ends,
        suspected_after_ms=world.witness.judgements.suspected_after_ms,
        violation=violation,
    )


def run(seed: int, steps: int, say: Callable[[str], None]) -> int:
    """Tell the story line by line. 0 when every invariant held, 1 when one was violated."""
    outcome = simulate(seed, steps, say)
    ends = ", ".join(f"{count} {reason}" for reason, count in sorted(outcome.ends.items())) or "none"
    hours = outcome.elapsed_ms / 3_600_000
    say(f"{outcome.events} events in {hours:.1f} simulated hours; sessions ended: {ends}")
    if outcome.violation:
        say(f"VIOLATED {outcome.violation}")
        say(f"replay it: coord simulate --seed {seed} --steps {steps}")
        return 1
    say("every invariant held")
    return 0
