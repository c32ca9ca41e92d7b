"""Hour-of-week availability: how much of each of 168 hours was online.

Difference arrays in blocks of providers that fit a core's cache: an interval costs two endpoints whatever
its length, where unnesting it into hours costs a row per hour (measured: bench/reliability.py).
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np

from analytics.reliability.columns import HOUR_MS, Codes, Floats, Ints
from coordinator.core.ids import Ms

CELLS = 168
_MONDAY_MS = 4 * 24 * HOUR_MS
"""1970-01-05, a Monday, in UTC."""
_BLOCK = 256
"""Providers at a time: 256 x 337 hours x 8 bytes = 0.7 MB, inside a core's L2."""


def offsets(zone: str, from_ms: Ms, to_ms: Ms) -> list[tuple[Ms, Ms, Ms]]:
    """[from, to) as pieces of constant UTC offset: (begin, end, offset), all in ms. ValueError: no such zone.

    Transitions are found by bisection to the second between hourly looks, so that a zone whose clock changes
    at any instant, by any amount, comes out right.
    """
    try:
        info = UTC if zone == "UTC" else ZoneInfo(zone)
    except (KeyError, OSError, ValueError) as error:
        raise ValueError(f"no time zone is called {zone!r}") from error

    def offset(at_ms: Ms) -> Ms:
        delta = datetime.fromtimestamp(at_ms / 1000, tz=info).utcoffset()
        return int((delta or timedelta(0)).total_seconds() * 1000)

    pieces: list[tuple[Ms, Ms, Ms]] = []
    begin, current = from_ms, offset(from_ms)
    look = from_ms
    while look < to_ms:
        ahead = min(look + 6 * HOUR_MS, to_ms)
        if offset(ahead) != current:
            low, high = look, ahead
            while high - low > 1000:
                middle = (low + high) // 2
                low, high = (middle, high) if offset(middle) == current else (low, middle)
            high -= high % 1000
            if high > begin:
                pieces.append((begin, high, current))
            begin, current, ahead = high, offset(high), high
        look = ahead if ahead > look else look + 1000
    pieces.append((begin, to_ms, current))
    return pieces


def fold(row: Codes, begin: Ints, end: Ints, rows: int, from_ms: Ms, to_ms: Ms, zone: str = "UTC") -> Floats:
    """Seconds of the intervals of each row that fall into each hour of the week: float64 [rows, 168].

    Cell 24 * weekday + hour on the clock of `zone`, Monday first. Parts outside [from, to) do not count.
    `row` must be sorted. O(intervals + rows x hours), once per change of the clock in between.
    """
    total = np.zeros((rows, CELLS))
    for piece_from, piece_to, offset in offsets(zone, from_ms, to_ms):
        a, b = np.clip(begin, piece_from, piece_to), np.clip(end, piece_from, piece_to)
        _add(total, row, a + offset, b + offset, piece_from + offset, piece_to + offset)
    total /= 1000.0
    return total


def _add(total: Floats, row: Codes, begin: Ints, end: Ints, from_ms: Ms, to_ms: Ms) -> None:
    """Add the milliseconds of intervals inside [from, to) (local time) to the cells of their rows."""
    origin = from_ms // HOUR_MS * HOUR_MS
    width = (to_ms - origin) // HOUR_MS + 2
    monday = (origin - _MONDAY_MS) // HOUR_MS % CELLS
    first = np.searchsorted(row, np.arange(0, len(total) + _BLOCK, _BLOCK))
    for block in range(len(first) - 1):
        at, to = int(first[block]), int(first[block + 1])
        if at == to:
            continue
        base = block * _BLOCK
        count = min(_BLOCK, len(total) - base)
        line = (row[at:to] - base) * np.int64(width)
        a, b = begin[at:to] - origin, end[at:to] - origin
        ah, bh = a // HOUR_MS, b // HOUR_MS
        cell = np.concatenate((line + ah, line + bh))
        rest = np.concatenate(((ah + 1) * HOUR_MS - a, b - (bh + 1) * HOUR_MS))
        part = np.bincount(cell, weights=rest, minlength=count * width).reshape(count, width)
        begun = np.bincount(cell[: to - at], minlength=count * width)
        whole = (begun - np.bincount(cell[to - at :], minlength=count * width)).reshape(count, width)
        np.cumsum(whole, axis=1, out=whole)
        part[:, 1:] += whole[:, :-1] * HOUR_MS
        for week in range(0, width, CELLS):
            cells = part[:, week : week + CELLS]
            turn = CELLS - monday
            total[base : base + count, monday : monday + cells.shape[1]] += cells[:, :turn]
            total[base : base + count, : max(cells.shape[1] - turn, 0)] += cells[:, turn:]
