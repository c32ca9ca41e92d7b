"""Times, lengths of time, sizes and shares as people read them in tables; exact values belong to JSON."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime

from coordinator.core.amounts import UNIT, millionths
from coordinator.core.errors import Code, CoordError
from coordinator.core.plural import count as count
from coordinator.lengths import two_units

_SIZE = r"(\d+(?:\.\d+)?)\s*(B|kB|KB|MB|GB|TB|KiB|MiB|GiB|TiB)?"
_UNIT_B = {
    None: 1, "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip
EXACT_MAX = 100_000
"""A number with more digits says nothing to people: a larger unit with a fraction does."""


def size(text: str) -> int:
    """`512`, `64MB`, `1.5GiB` in bytes. CoordError(BAD_REQUEST) for anything else."""
    found = re.fullmatch(_SIZE, text.strip())
    amount = millionths(found[1]) if found is not None else None
    if found is None or amount is None:
        raise CoordError(Code.BAD_REQUEST, f"{text!a} is not a size", "write it like 512, 64MB or 1.5GiB")
    return amount * _UNIT_B[found[2]] // UNIT


def size_text(size_bytes: int) -> str:
    """Bytes in the unit that shows them exactly where there is one: `512 GiB`, `5 GB`; else to four digits."""
    exact = [
        (size_bytes // one, unit)
        for unit, one in _UNIT_B.items()
        if unit not in (None, "B", "KB") and size_bytes % one == 0
        if size_bytes // one < EXACT_MAX or unit in ("TB", "TiB")
    ]
    if size_bytes and exact:
        number, unit = min(exact)
        return f"{number} {unit}"
    for power, binary in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if size_bytes >= 1024**power:
            value = size_bytes / 1024**power
            return f"{value:.0f} {binary}" if value >= 1000 else f"{value:.4g} {binary}"
    return f"{size_bytes} B"


def length(value_s: float | None) -> str:
    """A length of time in its two largest units: `3d 4h`, `5m 12s`, `0.4s`."""
    if value_s is None:
        return "-"
    if value_s < 0:
        return "-" + length(-value_s)
    if value_s < 10:
        return f"{value_s:.1f}s" if value_s % 1 else f"{value_s:.0f}s"
    return two_units(round(value_s))


def moment(text: str) -> datetime:
    """An RFC 3339 time of an answer."""
    return datetime.fromisoformat(text)


def ago(text: str | None, now: datetime | None = None) -> str:
    """How long ago a time of an answer was: `12s ago`, `in 3h`, `-` for none."""
    if text is None:
        return "-"
    away_s = ((now or datetime.now(UTC)) - moment(text)).total_seconds()
    if away_s < 0:
        return f"in {length(-away_s)}" if away_s < -1 else "now"
    return f"{length(away_s).split()[0] if away_s >= 60 else f'{away_s:.0f}s'} ago"


def left(text: str | None, now: datetime | None = None) -> str:
    """When something ends: `in 3h 5m`, `in 1s` in its last second, `12s ago` once it has ended, `-` for never."""
    if text is None:
        return "-"
    left_s = (moment(text) - (now or datetime.now(UTC))).total_seconds()
    return f"in {length(math.ceil(left_s))}" if left_s > 0 else ago(text, now)


def between(start: str | None, end: str | None, now: datetime | None = None) -> str:
    """How long something took, or takes so far; `-` when it has not begun."""
    if start is None:
        return "-"
    until = moment(end) if end is not None else (now or datetime.now(UTC))
    return length(max(0.0, (until - moment(start)).total_seconds()))


def clock(text: str | None) -> str:
    """A time of an answer to the second, in UTC: `2026-11-22 04:31:05`."""
    return "-" if text is None else moment(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def when(text: str | None) -> str:
    """A time of an answer and how long ago it was; `-` for none."""
    return "-" if text is None else f"{clock(text)} UTC ({ago(text)})"


def share(value: float | None, digits: int = 1) -> str:
    """0..1 as percent."""
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def number(value: float | None, digits: int = 3) -> str:
    """A figure with so many decimals; `-` when it is not known."""
    return "-" if value is None else f"{value:.{digits}f}"
