"""What each attempt had waited for last, as its times tell it: the later of the last parent's data and the attempt
before it in its slot, or its own task's last attempt; none of them: the submission."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import NONE, Codes, Ints
from analytics.traces.graph import Ready
from analytics.traces.lanes import Lanes
from analytics.traces.units import NEVER, Work

SUBMIT, DEPENDENCY, SLOT, RETRY = range(4)
NAMES = ("submit", "dependency", "slot", "retry")


@dataclass(slots=True)
class Causes:
    """Columns, a row an attempt."""

    kind: NDArray[np.int8]
    """SUBMIT, DEPENDENCY, SLOT or RETRY."""
    unit: Codes
    """The attempt whose end (or data) it was; NONE."""
    via: Codes
    """Of a dependency: the task whose data it was, which may be a member of `unit`; NONE."""
    at: Ints
    """When that was; never behind the attempt's start. Of SUBMIT: NEVER."""
    ready: Ints
    """When the last parent's data was there, of all members; NEVER."""
    parent: Codes
    """Whose data that was."""


def causes_of(work: Work, parents: Ready, lanes: Lanes) -> Causes:
    """O(n log n). A tie goes to the dependency, unless its time is only known to be no later."""
    units, members, tasks = work.units, work.members, work.tasks
    count = len(units)
    ready, parent = np.full(count, NEVER), np.full(count, NONE, np.int32)
    held = np.flatnonzero(parents.parent[members.task] >= 0)
    # What a member of a batch gets from another member of it is no wait of the batch.
    held = held[tasks.unit[parents.parent[members.task[held]]] != members.unit[held]]
    best = held[np.lexsort((parents.parent[members.task[held]], parents.at[members.task[held]], members.unit[held]))]
    ready[members.unit[best]] = parents.at[members.task[best]]
    parent[members.unit[best]] = parents.parent[members.task[best]]

    kind, unit, at = np.full(count, SUBMIT, np.int8), np.full(count, NONE, np.int32), np.full(count, NEVER)
    slot = np.flatnonzero(lanes.previous >= 0)
    kind[slot], unit[slot], at[slot] = SLOT, lanes.previous[slot], units.end[lanes.previous[slot]]
    again = np.flatnonzero(units.before >= 0)
    again = again[(units.end[units.before[again]] <= units.start[again])]
    again = again[units.end[units.before[again]] >= at[again]]
    kind[again], unit[again], at[again] = RETRY, units.before[again], units.end[units.before[again]]
    source = np.where(parent >= 0, tasks.unit[parent], NONE) if count else unit
    when = np.minimum(ready, units.start)
    exact = np.where(parent >= 0, tasks.exact[parent], False) if count else parent >= 0
    depends = (source >= 0) & (kind != RETRY) & ((when > at) | ((when == at) & exact))
    # A parent that began later than its child (clocks that differ) cannot be what it waited for.
    depends &= source < np.arange(count)
    kind[depends], unit[depends], at[depends] = DEPENDENCY, source[depends], when[depends]
    via = np.where(depends, parent, NONE).astype(np.int32)
    return Causes(kind, unit, via, at, ready, parent)
