"""Where each span is drawn: on which provider, and in which of its slots."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

import numpy as np

from analytics.traces.columns import NONE, TASK_SPAN, Ints, Trace
from analytics.traces.exports.rows import Rows, named, plain
from coordinator.api_types.trace import AttemptEntry, Profile

NOWHERE = "(on no slot)"
"""Where spans are drawn that hold none: a job's own, waiting, what came after an attempt's end."""
Place = tuple[str, int]


@dataclass(slots=True)
class Places:
    """`of[i]` is the place of span i, an index into `table`."""

    of: list[int]
    table: list[Place]
    """Provider and slot, in the order to draw them."""


def places(trace: Trace, rows: Rows, profile: Profile) -> Places:
    """A span within an attempt's own one, or that began while an attempt of its task ran, is drawn where the analysis
    puts that attempt; spans of tasks without attempts where they say."""
    spans = trace.spans
    parents = np.asarray(rows.parent, dtype=np.int64)
    task_name = trace.names.index(TASK_SPAN) if TASK_SPAN in trace.names else NONE - 1
    outer = roots(parents, spans.name == task_name)
    columns = (spans.slot, spans.provider, spans.attempt, spans.name, spans.batch, spans.data)
    slots, providers, numbers, names, batches, data = map(plain, columns)
    attempts = _Attempts(profile.attempts)
    of_outer: dict[int, Place] = {}
    found: dict[Place, int] = {}
    of: list[int] = []

    def told(at: int) -> Place:
        return named(trace.providers, providers[at]) or NOWHERE, max(0, slots[at])

    def of_attempt(at: int) -> Place:
        task = named(trace.data_ids, batches[at] if batches[at] != NONE else data[at])
        entry = attempts.nearest(task, numbers[at], rows.start[at])
        return (entry.provider or NOWHERE, entry.slot) if entry is not None else told(at)

    def by_time(at: int) -> Place:
        task = named(trace.data_ids, data[at])
        entry = attempts.nearest(task, numbers[at], rows.start[at])
        if entry is None:
            return told(at)
        within = entry.start_ns <= rows.start[at] < max(entry.end_ns, entry.start_ns + 1)
        return (entry.provider or NOWHERE, entry.slot) if within else (NOWHERE, 0)

    for at, above in enumerate(plain(outer)):
        if names[above] == task_name:
            place = of_outer.get(above)
            if place is None:
                place = of_outer[above] = of_attempt(above)
        else:
            place = by_time(at)
        of.append(found.setdefault(place, len(found)))
    table = sorted(found, key=lambda place: (place[0] != NOWHERE, place))
    rank = {place: number for number, place in enumerate(table)}
    to = [rank[place] for place in found]
    return Places([to[number] for number in of], table)


def roots(parents: Ints, ends: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Ints:
    """The nearest span above each, or itself, of which `ends` is true; else the outermost; of a ring of parents any of
    it. O(n log depth)."""
    above = np.where((parents < 0) | ends, np.arange(len(parents)), parents)
    for _ in range(len(parents).bit_length() + 1):
        further = above[above]
        if np.array_equal(further, above):
            break
        above = further
    return above


class _Attempts:
    """Attempts by their tasks, merged ones too."""

    def __init__(self, attempts: tuple[AttemptEntry, ...]) -> None:
        self._of: dict[str, list[AttemptEntry]] = {}
        self._numbered: dict[tuple[str, int], AttemptEntry] = {}
        for one in attempts:  # by their starts, as a profile has them
            for task in (one.task, *one.merged):
                self._of.setdefault(task, []).append(one)
            self._numbered.setdefault((one.task, one.attempt), one)

    def nearest(self, task: str, number: int, start_ns: int) -> AttemptEntry | None:
        """That of this number, else the last that had begun by then. O(log n): a task may have had many."""
        those = self._of.get(task)
        if not those:
            return None
        if number and (numbered := self._numbered.get((task, number))) is not None:
            return numbered
        return those[max(0, bisect_right(those, start_ns, key=lambda one: one.start_ns) - 1)]
