"""`coord simulate`: the core on a virtual clock: in a seeded world of failures, or over a real fleet's past."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli import exits, terminal
from cli.options import FiniteRange, output_option
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from coordinator.core.commands import Decision
    from coordinator.core.events import AnyEvent

POLICIES = ("forecast", "fit", "score", "random")


@click.command(short_help="Replay a fleet's past under a policy; or a world of failures.")
@click.option("--fleet", help="A history (CSV of `coord import sessions`), a list of nodes (CSV), or 128x1.")
@click.option("--workload", help="A log (SWF), pods (CSV), or made up: 8h@30%, 1h+24h@50%.")
@click.option(
    "--policy", "policies", type=click.Choice(POLICIES), multiple=True, help="How providers are ranked; repeatable."
)
@click.option(
    "--checkpoint",
    "checkpoints",
    metavar="none|auto|DURATION",
    multiple=True,
    help="How often jobs save their state; repeatable.  [default: none]",
)
@click.option("--checkpoint-cost", default="30s", show_default=True, help="How long a job stands still for one.")
@click.option("--load", type=FiniteRange(0.0, 10.0, min_open=True), help="Submit so much of what the fleet has.")
@click.option("--told", type=FiniteRange(1.0, 1_000.0), help="Time limits: so many times the true run time.")
@click.option(
    "--tenants",
    type=click.Choice(("user", "group", "one")),
    default="user",
    show_default=True,
    help="Whose the jobs of a log are.",
)
@click.option("--weight", "weights", multiple=True, metavar="TENANT=N", help="Of its fair share; repeatable.")
@click.option(
    "--cpus", type=FiniteRange(1.0, 4096.0), default=1.0, show_default=True, help="Of each machine of a history."
)
@click.option("--warm-up", help="History before the first job.  [default: 14d, at most a third]")
@click.option("--figures-every", default="1h", show_default=True, help="How often the forecast is computed anew.")
@click.option("--days", type=FiniteRange(0.0, min_open=True), help="Only the first days of a history.")
@click.option("--jobs", "first", type=click.IntRange(1), help="Only the first N.")
@click.option("--picture", type=click.Path(path_type=Path, dir_okay=False), help="Also draw it: FILE.svg or FILE.html.")
@click.option("--seed", type=click.IntRange(0), help="The same seed, the same story.")
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True, help="Things that happen.")
@click.option("--replay", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="A recording instead.")
@click.option("--quiet", is_flag=True, help="Only how it ended.")
@output_option
def simulate(
    seed: int | None,
    steps: int,
    replay: Path | None,
    quiet: bool,
    fleet: str | None,
    workload: str | None,
    **asked: Any,
) -> int:
    """What would this policy have lost on my fleet? And: is the core right when everything fails?

    With --fleet and --workload, replays the comings and goings of real machines and a workload through the scheduler
    itself, on a virtual clock, and says for each --policy what was wasted (work that died with its machine), how long
    jobs waited, how busy the machines were and how fair it was. What is lost is begun anew, or goes on from its newest
    --checkpoint; what those cost is waste too. docs/explanation/placement.md says what the replay assumes.

    With --seed alone, lets agents come, go and crash with jobs on them and checks every promise after every step. Exit
    status 1 when a promise was broken: the same command shows it again. With --replay, decides the events of a
    recording (SIGUSR2 to coord serve, or a crash, leaves one in DATA/recorder) again, and compares every decision.

    \b
    coord simulate --fleet history.csv.xz --workload 8h@30% --policy forecast --policy random
    coord simulate --fleet history.csv.xz --workload 24h@30% --policy forecast --checkpoint none --checkpoint auto
    coord simulate --fleet 128x1 --workload log.swf.gz --load 0.9 --told 1 --picture waits.svg
    coord simulate --seed 7
    coord simulate --replay ~/.local/share/coord/recorder/20261122T120000-4242-now.rec
    """
    if fleet is not None or workload is not None:
        if fleet is None or workload is None or replay is not None:
            raise CoordError(Code.BAD_REQUEST, "a fleet's past needs a workload", "give both --fleet and --workload")
        from cli import replay_report

        return replay_report.run(fleet, workload, seed or 0, quiet, **asked)
    if (seed is None) == (replay is None):
        hint = "give --fleet and --workload, --seed N or --replay FILE"
        raise CoordError(Code.BAD_REQUEST, "a simulation has one world", hint)
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
