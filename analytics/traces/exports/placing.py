"""Where each span is drawn: on which provider, and in which of its slots."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from analytics.traces.columns import NONE, Ints, Trace
from analytics.traces.exports.rows import Rows, named
from coordinator.api_trace import AttemptEntry, Profile

NOWHERE = "(no provider)"


@dataclass(slots=True)
class Places:
    """`of[i]` is the place of span i, an index into `table`."""

    of: list[int]
    table: list[tuple[str, int]]
    """Provider and slot, in the order to draw them."""


def roots(parents: Ints) -> Ints:
    """The outermost span above each; of a ring of parents any of it. O(n log depth)."""
    above = np.where(parents < 0, np.arange(len(parents)), parents)
    for _ in range(max(1, len(parents).bit_length())):
        further = above[above]
        if np.array_equal(further, above):
            break
        above = further
    return above


def places(trace: Trace, rows: Rows, profile: Profile) -> Places:
    """A span is drawn where its outermost one is, which is where the analysis puts that attempt; one with a provider of
    its own is drawn there."""
    spans = trace.spans
    by_task = _by_task(profile.attempts)
    top = roots(np.asarray(rows.parent, dtype=np.int64)).tolist()
    slots, providers, attempts = spans.slot.tolist(), spans.provider.tolist(), spans.attempt.tolist()
    batches, data = spans.batch.tolist(), spans.data.tolist()
    of_root: dict[int, tuple[str, int]] = {}
    found: dict[tuple[str, int], int] = {}
    numbers: list[int] = []
    for at, root in enumerate(top):
        place = of_root.get(root)
        if place is None:
            task = named(trace.data_ids, batches[root] if batches[root] != NONE else data[root])
            entry = _attempt(by_task.get(task), attempts[root], rows.start[root])
            provider = named(trace.providers, providers[root]) or (entry.provider if entry else "") or NOWHERE
            slot = slots[root] if slots[root] != NONE else entry.slot if entry else 0
            place = of_root[root] = (provider, slot)
        if providers[at] != NONE and trace.providers[providers[at]] != place[0]:
            place = (trace.providers[providers[at]], max(0, slots[at]))
        numbers.append(found.setdefault(place, len(found)))
    table = sorted(found)
    rank = {place: number for number, place in enumerate(table)}
    to = [rank[place] for place in found]
    return Places([to[number] for number in numbers], table)


def _by_task(attempts: tuple[AttemptEntry, ...]) -> dict[str, list[AttemptEntry]]:
    found: dict[str, list[AttemptEntry]] = {}
    for one in attempts:
        for task in (one.task, *one.merged):
            found.setdefault(task, []).append(one)
    return found


def _attempt(those: list[AttemptEntry] | None, number: int, start_ns: int) -> AttemptEntry | None:
    """The attempt of that number, else the last that had begun by then."""
    if not those:
        return None
    if number:
        for one in those:
            if one.attempt == number:
                return one
    return those[max(0, bisect_right(those, start_ns, key=lambda one: one.start_ns) - 1)]
