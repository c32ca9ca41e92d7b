"""`coord simulate`: the core on a virtual clock, in a seeded world where everything fails now and then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import exits, terminal
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from coordinator.core.commands import Decision
    from coordinator.core.events import AnyEvent


@click.command(short_help="Run the core through a seeded world of failures.")
@click.option("--seed", type=click.IntRange(0), help="The world: the same seed, the same story.")
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True, help="Things that happen.")
@click.option("--replay", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A recording instead.")
@click.option("--quiet", is_flag=True, help="Only how it ended.")
def simulate(seed: int | None, steps: int, replay: Path | None, quiet: bool) -> int:
    """Let agents come, go and crash with jobs on them, on a virtual clock, and check every promise after every step.

    Prints who came and went, what ran where, and why. Exit status 1 when a promise was broken: the same
    command shows it again. With --replay, decide the events of a recording (SIGUSR2 to coord serve, or a
    crash, leaves one in DATA/recorder) again, and compare every decision.

    \b
    coord simulate --seed 7
    coord simulate --seed 7 --steps 20000 --quiet
    coord simulate --replay ~/.local/share/coord/recorder/20261122T120000-4242-now.rec
    """
    if (seed is None) == (replay is None):
        raise CoordError(Code.BAD_REQUEST, "a simulation has one world", "give either --seed N or --replay FILE")
    last = [""]

    def say(line: str) -> None:
        last[0] = line
        if not quiet:
            click.echo(terminal.safe(line))

    broken = _replay(replay, say) if replay is not None else _simulate(seed or 0, steps, say)
    if quiet:
        click.echo(terminal.safe(last[0]))
    return exits.FOUND_PROBLEMS if broken else exits.OK


def _simulate(seed: int, steps: int, say: Callable[[str], None]) -> bool:
    from coordinator.simulator import story

    return story.run(seed, steps, say) != 0


def _replay(path: Path, say: Callable[[str], None]) -> bool:
    from coordinator.service import recorder
    from coordinator.timetext import to_text

    def tell(event: AnyEvent, decision: Decision) -> None:
        made = ", ".join(type(note).__name__ for note in decision.notes)
        say(f"{to_text(event.at_ms)}  {type(event).__name__:<16} {made}".rstrip())

    ended = recorder.replay(path, tell)
    say(f"{ended.events} events, recorded because: {ended.why}")
    if ended.failed_at is not None:
        say(f"event {ended.failed_at} fails to be decided, as it did when it was recorded")
    elif ended.diverged_at is not None:
        say(f"event {ended.diverged_at} is decided otherwise than it was: this program is another one")
    else:
        say("every decision is the same again")
    return ended.failed_at is not None or ended.diverged_at is not None
