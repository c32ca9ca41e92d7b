"""Slots of providers: each attempt in a lane of its own while it runs, as few lanes as there ever were at once.

Where a span says its slot that is its lane; where the said slots overlap nevertheless, the later one gets another lane.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import NONE, Codes, Ints


@dataclass(slots=True)
class Lanes:
    """Per attempt."""

    lane: Codes
    """From 0, per provider."""
    previous: Codes
    """The attempt that had its lane before; NONE."""
    count: int
    """Lanes of all providers together."""


def lanes_of(provider: Codes, slot: Codes, start: Ints, end: Ints) -> Lanes:
    """Attempts come in the order of (start, end). An attempt gets, of the lanes that are free, the one that became so
    last. O(n log n)."""
    count = len(start)
    lane, previous = np.zeros(count, np.int32), np.full(count, NONE, np.int32)
    if not count:
        return Lanes(lane, previous, 0)
    order = np.lexsort((np.arange(count), slot, provider))
    host, place = provider[order], slot[order]
    groups = np.flatnonzero(np.append(True, (host[1:] != host[:-1]) | (place[1:] != place[:-1]))).tolist()
    taken: dict[int, int] = {}
    total = 0
    for begin, stop in zip(groups, [*groups[1:], count], strict=True):
        rows = order[begin:stop]
        owner = int(provider[rows[0]])
        base = taken.get(owner, 0)
        if (start[rows][1:] >= end[rows][:-1]).all():
            used = 1
            lane[rows] = base
            previous[rows[1:]] = rows[:-1]
        else:
            used = _spread(rows, start, end, lane, previous, base)
        taken[owner] = base + used
        total += used
    return Lanes(lane, previous, total)


def _spread(rows: NDArray[Any], start: Ints, end: Ints, lane: Codes, previous: Codes, base: int) -> int:
    busy: list[tuple[int, int]] = []
    free: list[tuple[int, int]] = []
    """(When it became free, its number), sorted."""
    holder: list[int] = []
    numbers, lanes, befores = rows.tolist(), [], []
    for row, begin, stop in zip(numbers, start[rows].tolist(), end[rows].tolist(), strict=True):
        while busy and busy[0][0] <= begin:
            insort(free, heappop(busy))
        if free:
            _, number = free.pop(bisect_right(free, (begin, 2**31)) - 1)
            befores.append(holder[number])
            holder[number] = row
        else:
            number = len(holder)
            befores.append(NONE)
            holder.append(row)
        lanes.append(base + number)
        heappush(busy, (stop, number))
    lane[rows], previous[rows] = lanes, befores
    return len(holder)
