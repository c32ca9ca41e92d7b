"""What a quota's dimensions are called, and their amounts as people write and read them.

Inside and in JSON they are whole numbers (core.rows.Quota); here alone they become decimals and sizes, exactly.
"""

from __future__ import annotations

from typing import NamedTuple

from cli import humane
from coordinator.core.amounts import decimal_text, millionths
from coordinator.core.errors import Code, CoordError

AMOUNT_MAX = 2**53
"""The API takes no more: beyond it JSON's numbers are not exact everywhere."""
NONE = "none"
"""How a limit is lifted."""


class Dimension(NamedTuple):
    """One of a quota. `kind`: `units` and `money` are millionths, `bytes` are bytes, `jobs` are jobs."""

    name: str
    kind: str
    words: str


DIMENSIONS = {
    one.name: one
    for one in (
        Dimension("cpus", "units", "CPUs held at a time"),
        Dimension("gpus", "units", "GPUs held at a time"),
        Dimension("memory", "bytes", "memory held at a time"),
        Dimension("running", "jobs", "jobs that run"),
        Dimension("queued", "jobs", "jobs that wait"),
        Dimension("storage", "bytes", "bytes kept"),
        Dimension("ingress", "bytes", "bytes in, a month"),
        Dimension("egress", "bytes", "bytes out, a month"),
        Dimension("budget", "money", "units of account, a month"),
    )
}


def amount_text(name: str, amount: int | None) -> str:
    """An amount of this dimension: `64`, `0.5`, `512 GiB`, `12.5`; `-` for None."""
    if amount is None:
        return "-"
    known = DIMENSIONS.get(name)
    match known.kind if known is not None else "jobs":
        case "units" | "money":
            return decimal_text(amount)
        case "bytes":
            return humane.size_text(amount)
        case _:
            return str(amount)


def limit_of(name: str, text: str, option: str) -> int | None:
    """The limit that somebody wrote; None for `none`. CoordError(BAD_REQUEST) when it is no amount of this kind."""
    if text == NONE:
        return None
    match DIMENSIONS[name].kind:
        case "bytes":
            return _bounded(humane.size(text), text, option)
        case "jobs":
            return _whole(text, option)
        case kind:
            return exact(text, option, "12.5" if kind == "money" else "64 or 0.5")


def exact(text: str, option: str, like: str) -> int:
    """A decimal as millionths. CoordError(BAD_REQUEST) when it is none, or finer than a millionth."""
    amount = millionths(text)
    if amount is None:
        raise CoordError(
            Code.BAD_REQUEST, f"{option} {text!a} is no amount", f"write it like {like}, not finer than a millionth"
        )
    return _bounded(amount, text, option)


def _bounded(amount: int, text: str, option: str) -> int:
    if amount > AMOUNT_MAX:
        raise CoordError(
            Code.BAD_REQUEST, f"{option} {text!a} is more than is counted", "leave it away, or say none: no limit"
        )
    return amount


def _whole(text: str, option: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 12):
        raise CoordError(Code.BAD_REQUEST, f"{option} {text!a} is no number of jobs", "write it like 200, or none")
    return int(text)
