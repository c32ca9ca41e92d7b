"""`coord simulate --seed N`: tells what happened in one world, and says whether the core was right."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from coordinator.core.ids import Ms
from coordinator.simulator.replay import Stays
from coordinator.simulator.violation import Violation
from coordinator.simulator.world import World


class Outcome(Struct, frozen=True, kw_only=True):
    """How one seed went. `violation` is empty when the core was right throughout."""

    seed: int
    events: int
    elapsed_ms: Ms
    ends: dict[str, int]
    suspected_after_ms: Ms
    settled: dict[str, int]
    """Jobs that ended, by state."""
    starts: int
    """How often processes of an attempt began to run, thawed ones included."""
    frozen: int
    """How often a lease ran out on its agent's clock."""
    violation: str = ""


def simulate(
    seed: int, steps: int, say: Callable[[str], None] = lambda line: None, recorded: list[Stays] | None = None
) -> Outcome:
    """Run the world of `seed` for `steps` events of the core, idle ticks apart, and until its work has ended.

    With `recorded` stays some of its machines come and go as those did.
    """
    world = World(seed, say, recorded)
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
        settled=world.witness.results.settled,
        starts=world.witness.runs.starts,
        frozen=world.witness.runs.frozen,
        violation=violation,
    )


def run(seed: int, steps: int, say: Callable[[str], None]) -> int:
    """Tell the story line by line. 0 when every invariant held, 1 when one was violated."""
    outcome = simulate(seed, steps, say)
    ends = ", ".join(f"{count} {reason}" for reason, count in sorted(outcome.ends.items())) or "none"
    hours = outcome.elapsed_ms / 3_600_000
    say(f"{outcome.events} events in {hours:.1f} simulated hours; sessions ended: {ends}")
    jobs = ", ".join(f"{count} {state}" for state, count in sorted(outcome.settled.items())) or "none"
    say(f"jobs ended: {jobs}; attempts started or thawed {outcome.starts} times, frozen {outcome.frozen} times")
    if outcome.violation:
        say(f"VIOLATED {outcome.violation}")
        say(f"replay it: coord simulate --seed {seed} --steps {steps}")
        return 1
    say("every invariant held")
    return 0
