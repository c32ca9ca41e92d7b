"""What a program that coord started says from inside its job: `coord progress`, `coord checkpoint`."""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import click

from cli.moving import round_size

_VALUE = re.compile(r"([A-Za-z_][A-Za-z0-9_.%/-]{0,63})=(\S{1,64})")
VALUES_MAX = 16


class Said(NamedTuple):
    """How far it is, in parts."""

    fraction: float | None
    values: dict[str, str]
    text: str


@click.command(short_help="Say how far the job is that this runs in.")
@click.argument("words", nargs=-1, required=True, metavar="[FRACTION] [NAME=VALUE]... [TEXT]")
def progress(words: tuple[str, ...]) -> None:
    """Say how far the job is that this runs in: a share from 0 to 1 (or 40%), values by name, words; the newest one
    counts. It is shown, the end is estimated by it, and it is a sign of life for stall_after.

    A line `coord-progress 0.4 step=1200` on stdout, or that text in the file COORD_PROGRESS_FILE, say the same without
    this command.

    \b
    coord progress 0.4 step=1200 loss=0.31
    coord progress 40%
    coord progress "reading the data"
    """
    from coordinator.client.attempt import Attempt

    said = said_by(words)
    with Attempt() as attempt:
        attempt.progress(said.fraction, said.values, said.text)


def said_by(words: tuple[str, ...]) -> Said:
    """The parts of what was typed. UsageError for a number that is no share, and for too many values."""
    rest = [word for text in words for word in text.split()]
    fraction = None
    if rest and (number := _number(rest[0])) is not None:
        if not 0 <= number <= 1:
            raise click.UsageError(f"{rest[0]} is no share: write 0 to 1, or 0% to 100%")
        fraction = number
        rest = rest[1:]
    values: dict[str, str] = {}
    text: list[str] = []
    for word in rest:
        found = _VALUE.fullmatch(word)
        if found is None:
            text.append(word)
        else:
            values[found[1]] = found[2]
    if len(values) > VALUES_MAX:
        raise click.UsageError(f"{len(values)} values: at most {VALUES_MAX} are kept")
    return Said(fraction, values, " ".join(text))


def _number(word: str) -> float | None:
    try:
        value = float(word.removesuffix("%")) / (100 if word.endswith("%") else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) else -1.0


@click.command(short_help="Have the state of the job saved that this runs in.")
@click.option("--label", default="", help="Shown with it, like step=1200.")
@click.option("--wait", is_flag=True, help="Until it is stored; print what it became.")
def checkpoint(label: str, wait: bool) -> None:
    """Have the checkpoint directory (checkpoint.path, else COORD_CHECKPOINT_DIR) of the job that this runs in saved as
    it is now. Its files have to be complete: when this returns they are copied, and may be written again.

    Without this command a program makes the file .ready in that directory, with the label in it.

    \b
    coord checkpoint --label step=1200
    coord checkpoint --wait
    """
    from coordinator.client.attempt import Attempt

    with Attempt() as attempt:
        taken = attempt.checkpoint(label, wait=wait)
    if taken is not None:
        click.echo(f"checkpoint {taken.number}: {round_size(taken.size)}, {round_size(taken.sent)} sent")
