"""`coord simulate`: the core on a virtual clock, in a seeded world where everything fails now and then."""

from __future__ import annotations

import click

from cli import exits, terminal


@click.command(short_help="Run the core through a seeded world of failures.")
@click.option("--seed", type=click.IntRange(0), required=True, help="The world: the same seed, the same story.")
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True, help="Things that happen.")
@click.option("--quiet", is_flag=True, help="Only how it ended.")
def simulate(seed: int, steps: int, quiet: bool) -> int:
    """Let agents come, go, crash and lie on a virtual clock, and check every promise after every step.

    Prints who came, went and was judged, and why. Exit status 1 when a promise was broken: the same
    command shows it again.

    \b
    coord simulate --seed 7
    coord simulate --seed 7 --steps 20000 --quiet
    """
    from coordinator.simulator import story

    last = [""]

    def say(line: str) -> None:
        last[0] = line
        if not quiet:
            click.echo(terminal.safe(line))

    broken = story.run(seed, steps, say)
    if quiet:
        click.echo(terminal.safe(last[0]))
    return exits.FOUND_PROBLEMS if broken else exits.OK
