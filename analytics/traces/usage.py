"""Utilisation and waste: every nanosecond of wall x slots is useful, failed, lost, cancelled, staging, unfinished or
idle."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import Codes, Ints
from analytics.traces.lanes import lanes_of
from analytics.traces.units import DONE, FAILED, NEVER, OPEN, WAS_CANCELLED, WAS_LOST
from coordinator.api_types.trace import Usage


@dataclass(slots=True)
class Held:
    """Columns, a row a slot that an attempt held, in the order of (start, end)."""

    provider: Codes
    slot: Codes
    start: Ints
    end: Ints
    staged: Ints
    outcome: NDArray[np.int8]
    ready: Ints
    """When the attempt could have begun, had there been a slot; NEVER: at any time."""
    before: Ints
    """When its own task's last attempt had ended; NEVER: it is the first."""
    before_lost: NDArray[np.bool_]
    """That one ended because its provider was lost."""
    again: Ints
    """When it had backed off after that; NEVER: only when it began."""


def usage_of(held: Held, start_ns: int, end_ns: int, slots: int) -> Usage:
    """`slots` as recorded; 0, or fewer than were ever busy at once: as many as that."""
    lanes = lanes_of(held.provider, held.slot, held.start, held.end)
    begin, stop = np.clip(held.start, start_ns, end_ns), np.clip(held.end, start_ns, end_ns)
    staged = np.clip(held.staged, begin, stop)
    wall = end_ns - start_ns
    count = max(slots, lanes.count)
    ran = stop - staged
    by_outcome = {code: int(ran[held.outcome == code].sum()) for code in (DONE, FAILED, WAS_LOST, WAS_CANCELLED, OPEN)}
    staging = int((staged - begin).sum())
    busy = int((stop - begin).sum())
    first = lanes.previous < 0
    since = np.where(first, start_ns, stop[lanes.previous]) if len(begin) else begin
    gap = begin - since
    turn = np.clip(np.where(held.ready == NEVER, since, held.ready), since, begin)
    later, retry = ~first & (held.before == NEVER), ~first & (held.before != NEVER)
    freed = np.clip(held.before, since, begin)
    again = np.clip(np.where(held.again == NEVER, begin, held.again), freed, begin)
    last = np.ones(len(begin), bool)
    last[lanes.previous[~first]] = False
    why = {
        "before_first": int(gap[first].sum()),
        "no_ready_task": int((turn - since)[later].sum() + (freed - since)[retry & ~held.before_lost].sum()),
        "lost": int((freed - since)[retry & held.before_lost].sum()),
        "backoff": int((again - freed)[retry].sum()),
        "dispatch": int((begin - turn)[later].sum() + (begin - again)[retry].sum()),
        "after_last": int((end_ns - stop[last]).sum()),
        "never_used": wall * (count - lanes.count),
    }
    capacity = wall * count
    return Usage(
        slots=count,
        slots_basis="recorded" if slots >= lanes.count and slots else "seen",
        wall_ns=wall,
        capacity_ns=capacity,
        useful_ns=by_outcome[DONE],
        failed_ns=by_outcome[FAILED],
        lost_ns=by_outcome[WAS_LOST],
        cancelled_ns=by_outcome[WAS_CANCELLED],
        staging_ns=staging,
        unfinished_ns=by_outcome[OPEN],
        idle_ns=capacity - busy,
        idle_why=why,
        useful_fraction=by_outcome[DONE] / capacity if capacity else 0.0,
    )
