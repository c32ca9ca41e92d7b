"""Rows of a timeline on which spans nest strictly: two spans of one row are apart, or one lies within the other.

Viewers draw a row as a stack, and throw away what would overlap it in part (trace_processor counts such slices as
`slice_drop_overlapping_complete_event`). So a child that outlives its parent, and whatever else overlaps on a slot,
gets a further row of that slot.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from analytics.traces.exports.rows import plain


class _Slot:
    """The rows of one slot: each a stack of the ends of what is open on it."""

    __slots__ = ("busy", "free", "rows")

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.busy: list[tuple[int, int]] = []  # (end of the outermost span, row)
        self.free: list[int] = []  # every row is in one of the two

    def fits(self, row: int, start: int, end: int) -> bool:
        """Whether something is open on the row at `start`, and the innermost lasts until `end`."""
        stack = self.rows[row]
        while stack and stack[-1] <= start:
            stack.pop()
        return bool(stack) and stack[-1] >= end

    def idle(self, start: int, end: int) -> int:
        """The first row on which nothing is open at `start`; it is taken until `end`."""
        while self.busy and self.busy[0][0] <= start:
            heapq.heappush(self.free, heapq.heappop(self.busy)[1])
        if self.free:
            row = heapq.heappop(self.free)
            self.rows[row].clear()
        else:
            row = len(self.rows)
            self.rows.append([])
        heapq.heappush(self.busy, (end, row))
        return row


def nesting(
    starts: Sequence[int], ends: Sequence[int], slots: Sequence[int], parents: Sequence[int]
) -> tuple[list[int], Sequence[int]]:
    """-> the row of each span within its slot, from 0, and the order to draw them in (by start, the longer first).

    `slots` are any numbers; `parents` are positions, -1 for none. A span is put on its parent's row where it fits, else
    on the slot's first row, else on the first where nothing is open. O(n log n), whatever overlaps.
    """
    begin, stop, inner = (np.asarray(column, np.int64) for column in (starts, ends, parents))
    order: Sequence[int] = plain(np.lexsort((inner >= 0, -stop, begin)))
    rows = [-1] * len(starts)
    by_slot: dict[int, _Slot] = {}
    for i in order:
        slot = by_slot.get(slots[i])
        if slot is None:
            slot = by_slot[slots[i]] = _Slot()
        start, end, parent = starts[i], ends[i], parents[i]
        wanted = rows[parent] if parent >= 0 and slots[parent] == slots[i] else -1
        if wanted >= 0 and slot.fits(wanted, start, end):
            row = wanted
        elif slot.rows and slot.fits(0, start, end):
            row = 0
        else:
            row = slot.idle(start, end)
        rows[i] = row
        slot.rows[row].append(end)
    return rows, order
