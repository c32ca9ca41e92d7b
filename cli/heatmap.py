"""The 7x24 availability grid in a terminal: colour where there is colour, digits where there is none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TextIO

from cli import terminal

DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_PALETTE = (52, 88, 124, 166, 178, 142, 106, 70, 34, 28)
"""256-colour codes from red (never there) to green (always): one for each tenth."""
_MARKS = "0123456789"
Grid = Sequence[Sequence[float | None]]


def draw(grid: Grid, out: TextIO) -> None:
    """Print the grid: a row a day, a cell an hour, a legend below."""
    colourful = terminal.has_colour(out)
    margin = "     " if colourful else "      "
    out.write(margin + "".join(f"{hour:<6d}" for hour in range(0, 24, 3)).rstrip() + "\n")
    for day, row in zip(DAYS, grid, strict=True):
        out.write(f"{day}  " + "".join(_cell(value, colourful) for value in row).rstrip() + "\n")
    out.write("\n" + _legend(colourful) + "\n")


def tenth(value: float) -> int:
    """0 for under 10 %, ... 9 for 90 % and more."""
    return min(9, max(0, int(value * 10 + 1e-9)))


def _cell(value: float | None, colourful: bool) -> str:
    if value is None:
        return " ·" if colourful else " ."
    full = value >= 0.9995
    if colourful:
        return f"\x1b[48;5;{_PALETTE[tenth(value)]}m  \x1b[0m"
    return " #" if full else f" {_MARKS[tenth(value)]}"


def _legend(colourful: bool) -> str:
    if colourful:
        ramp = "".join(f"\x1b[48;5;{code}m  \x1b[0m" for code in _PALETTE)
        return f"     0 % {ramp} 100 % of the observed time online;  · never observed"
    return "     # always online, 9 from 90 %, 8 from 80 %, ...; . never observed"
