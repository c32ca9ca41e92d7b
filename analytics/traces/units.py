"""Attempts: what occupied a slot from when to when, what became of it, and which tasks' data came out of it.

From spans: each span named `task` is an attempt of its task; a task that has spans but no such one is taken as one
attempt from its first start to its last end. Tasks that were merged into another's batch have no attempt of their own:
they are members of that one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import (
    CANCELLED,
    COMPUTE,
    ERROR,
    LOST,
    MARKER,
    NETWORK,
    NONE,
    READY_SPAN,
    UNFINISHED,
    Codes,
    Ints,
    Trace,
)
from analytics.traces.tree import Tree
from coordinator.api_types.trace import Outcome

OUTCOMES = (Outcome.OK, Outcome.FAILED, Outcome.LOST, Outcome.CANCELLED, Outcome.UNFINISHED)
"""`Units.outcome` numbers these."""
DONE, FAILED, WAS_LOST, WAS_CANCELLED, OPEN = range(5)
NEVER = np.iinfo(np.int64).min


@dataclass(slots=True)
class Units:
    """Columns, a row an attempt, in the order of (start, end, task)."""

    task: Codes
    number: Codes
    """From 1: as it was said, else counted."""
    provider: Codes
    slot: Codes
    """As it was said; NONE."""
    start: Ints
    end: Ints
    """Of an unfinished one: until when the trace goes."""
    staged: Ints
    """Inputs were there; `start` where that is not known."""
    closing: Ints
    """Outputs began to be brought; `end` where that is not known."""
    outcome: NDArray[np.int8]
    before: Codes
    """The attempt of the same task before this one; NONE."""

    def __len__(self) -> int:
        return len(self.start)


@dataclass(slots=True)
class Members:
    """Columns, a row a task of an attempt: the one that it is an attempt of, and those that were merged into it."""

    unit: Codes
    task: Codes
    own: Ints
    """When its own part began: of a merged task what comes behind the common work."""

    def __len__(self) -> int:
        return len(self.unit)


@dataclass(slots=True)
class Tasks:
    """Columns, a row a data id (of `Trace.data_ids`)."""

    start: Ints
    """NEVER where it has no spans."""
    end: Ints
    ready: Ints
    """When its data was there; NEVER where it never was."""
    exact: NDArray[np.bool_]
    """`ready` was recorded; False: it is the end of its last good attempt."""
    unit: Codes
    """The last attempt that it was part of, a good one if there is one; NONE."""
    first: Codes
    """The first attempt that it was part of."""
    open: NDArray[np.bool_]
    """Its last attempt has not ended."""


@dataclass(slots=True)
class Work:
    """All of it, and which attempt each span belongs to."""

    units: Units
    members: Members
    tasks: Tasks
    unit_of: Codes
    """Per span; NONE: of none."""
    until: int
    """The last time that is known of: unfinished ones are drawn until then."""


def work_of(trace: Trace, tree: Tree, until_ns: int = 0) -> Work:
    """What the spans say of attempts; unfinished ones last until `until_ns`, or the last time that the trace knows.
    O(n log n)."""
    spans = trace.spans
    ids = len(trace.data_ids)
    until = max(int(spans.end.max()), int(spans.start.max()), until_ns) if len(spans) else until_ns
    roots = np.flatnonzero((tree.above == np.arange(len(spans))) & (tree.data >= 0))
    owner = np.where(spans.batch >= 0, spans.batch, tree.data)
    merged_root = owner[roots] != tree.data[roots]
    if merged_root.any():
        leads = np.zeros(ids, bool)
        leads[tree.data[roots[~merged_root]]] = True
        roots = roots[~(merged_root & leads[owner[roots]])]
    number_of_root = np.full(len(spans), NONE, np.int32)
    number_of_root[roots] = np.arange(len(roots), dtype=np.int32)
    unit_of = np.where(tree.above >= 0, number_of_root[tree.above], NONE).astype(np.int32) if len(spans) else owner
    task = tree.data[roots]
    start, end = spans.start[roots], spans.end[roots]
    stray = np.flatnonzero((unit_of < 0) & (owner >= 0))
    made = np.zeros(0, np.int64)
    if len(stray):
        unit_of[stray] = _placed(task, start, owner[stray], spans.start[stray])
        lone = stray[unit_of[stray] < 0]
        made, inverse = np.unique(owner[lone], return_inverse=True)
        unit_of[lone] = len(roots) + inverse
        first, last = np.full(len(made), 2**63 - 1), np.full(len(made), UNFINISHED)
        np.minimum.at(first, inverse, spans.start[lone])
        ends = np.where(spans.end[lone] == UNFINISHED, 2**63 - 1, spans.end[lone])
        np.maximum.at(last, inverse, ends)
        last[last == 2**63 - 1] = UNFINISHED
        task = np.concatenate((task, made.astype(np.int32)))
        start, end = np.concatenate((start, first)), np.concatenate((end, last))
    units, unit_of = _sorted_units(trace, roots, task, start, end, unit_of, until)
    members = _members(trace, tree, units, unit_of)
    return Work(units, members, _tasks(trace, tree, units, members, unit_of), unit_of, until)


def _placed(task: Codes, start: Ints, wanted: Codes, at: Ints) -> Codes:
    """Of spans without a parent: the last attempt of their task that had begun by then, else its first."""
    order = np.lexsort((start, task))
    moments = np.unique(np.concatenate((start, at)))
    scale = len(moments) + 1
    keys = task[order].astype(np.int64) * scale + np.searchsorted(moments, start[order])
    asked = wanted.astype(np.int64) * scale + np.searchsorted(moments, at)
    place = np.searchsorted(keys, asked, side="right") - 1
    out = np.full(len(wanted), NONE, np.int32)
    for shift in (1, 0):
        near = np.clip(place + shift, 0, max(len(order) - 1, 0))
        if len(order):
            fits = task[order[near]] == wanted
            out[fits] = order[near[fits]]
    return out


def _sorted_units(
    trace: Trace, roots: NDArray[np.int64], task: Codes, start: Ints, end: Ints, unit_of: Codes, until: int
) -> tuple[Units, Codes]:
    spans = trace.spans
    count = len(task)
    open_ = end == UNFINISHED
    end = np.maximum(np.where(open_, until, end), start)
    order = np.lexsort((task, end, start))
    place = np.empty(count + 1, np.int32)
    place[order] = np.arange(count, dtype=np.int32)
    place[count] = NONE
    unit_of = place[unit_of]
    provider, slot, said = (np.full(count, fill, np.int32) for fill in (NONE, NONE, 0))
    outcome = np.zeros(count, np.int8)
    provider[: len(roots)], slot[: len(roots)] = spans.provider[roots], spans.slot[roots]
    said[: len(roots)] = spans.attempt[roots]
    flags, status = spans.flags[roots], spans.status[roots]
    outcome[: len(roots)][status == ERROR] = FAILED
    outcome[: len(roots)][flags == CANCELLED] = WAS_CANCELLED
    outcome[: len(roots)][flags == LOST] = WAS_LOST
    outcome[open_] = OPEN
    task, start, end, outcome = task[order], start[order], end[order], outcome[order]
    provider, slot, said = provider[order], slot[order], said[order]
    missing = np.flatnonzero(provider < 0)
    if len(missing):
        held = np.flatnonzero((unit_of >= 0) & (spans.provider >= 0))
        lowest = np.full(count, 2**31 - 1, np.int32)
        np.minimum.at(lowest, unit_of[held], spans.provider[held])
        known = missing[lowest[missing] != 2**31 - 1]
        provider[known] = lowest[known]
    by_task = np.lexsort((np.arange(count), task))
    again = np.zeros(count, bool)
    again[1:] = task[by_task[1:]] == task[by_task[:-1]]
    before = np.full(count, NONE, np.int32)
    before[by_task[again]] = by_task[np.flatnonzero(again) - 1]
    first = np.flatnonzero(~again)
    nth = np.arange(count) - np.repeat(first, np.diff(np.append(first, count))) + 1
    number = np.empty(count, np.int32)
    number[by_task] = nth
    number = _numbers(task, np.where(said > 0, said, number).astype(np.int32), number)
    followed = before[before >= 0]
    outcome[followed] = np.where(outcome[followed] == OPEN, WAS_LOST, outcome[followed])
    units = Units(task, number, provider, slot, start, end, start, end, outcome, before)
    _phases(trace, units, unit_of)
    return units, unit_of


def _numbers(task: Codes, said: Codes, counted: Codes) -> Codes:
    """As they were said; counted for a task of which two attempts would have one number."""
    order = np.lexsort((said, task))
    same = (task[order][1:] == task[order][:-1]) & (said[order][1:] == said[order][:-1])
    if not same.any():
        return said
    doubtful = np.isin(task, task[order[1:][same]])
    return np.where(doubtful, counted, said).astype(np.int32)


def _phases(trace: Trace, units: Units, unit_of: Codes) -> None:
    """Reading before the first computing is staging, dumping behind the last is bringing outputs."""
    spans = trace.spans
    inside = unit_of >= 0
    task_code = trace.names.index("task") if "task" in trace.names else -2
    compute = np.flatnonzero(inside & (spans.kind == COMPUTE) & (spans.name != task_code))
    reads = np.flatnonzero(inside & (spans.kind == NETWORK) & (spans.source >= 0) & (spans.end >= 0))
    ready = trace.names.index(READY_SPAN) if READY_SPAN in trace.names else -2
    dumps = np.flatnonzero(inside & (spans.name == ready) & (spans.end >= 0))
    first, last = units.end.copy(), units.start.copy()
    np.minimum.at(first, unit_of[compute], spans.start[compute])
    np.maximum.at(last, unit_of[compute], np.where(spans.end[compute] < 0, 2**62, spans.end[compute]))
    staged = units.start.copy()
    np.maximum.at(staged, unit_of[reads], spans.end[reads])
    units.staged = np.where(staged <= first, np.clip(staged, units.start, units.end), units.start)
    closing = units.end.copy()
    np.minimum.at(closing, unit_of[dumps], spans.start[dumps])
    units.closing = np.where((closing >= last) & (closing >= units.staged), closing, units.end)


def _members(trace: Trace, tree: Tree, units: Units, unit_of: Codes) -> Members:
    spans = trace.spans
    rows = np.flatnonzero((unit_of >= 0) & (tree.data >= 0))
    merged = rows[tree.data[rows] != units.task[unit_of[rows]]]
    # Spans below another task's that say another batch are not merged into it: their own attempt is elsewhere.
    pairs = unit_of[merged].astype(np.int64) * (len(trace.data_ids) + 1) + tree.data[merged]
    unique, inverse = np.unique(pairs, return_inverse=True)
    unit, task = np.divmod(unique, len(trace.data_ids) + 1)
    own = units.end[unit].copy() if len(unique) else np.zeros(0, np.int64)
    active = np.flatnonzero((spans.kind[merged] != MARKER) & (spans.source[merged] < 0))
    np.minimum.at(own, inverse[active], spans.start[merged[active]])
    return Members(
        np.concatenate((np.arange(len(units), dtype=np.int32), unit.astype(np.int32))),
        np.concatenate((units.task, task.astype(np.int32))),
        np.concatenate((units.start, own)),
    )


def _tasks(trace: Trace, tree: Tree, units: Units, members: Members, unit_of: Codes) -> Tasks:
    spans = trace.spans
    ids = len(trace.data_ids)
    start, end, ready = np.full(ids, 2**63 - 1), np.full(ids, NEVER), np.full(ids, NEVER)
    np.minimum.at(start, units.task, units.start)
    np.maximum.at(end, units.task, units.end)
    lone = np.ones(ids, bool)
    lone[units.task] = False
    inside = np.flatnonzero((tree.data >= 0) & (unit_of >= 0) & lone[tree.data])
    np.minimum.at(start, tree.data[inside], spans.start[inside])
    np.maximum.at(
        end, tree.data[inside], np.where(spans.end[inside] < 0, units.end[unit_of[inside]], spans.end[inside])
    )
    start[start == 2**63 - 1] = NEVER
    code = trace.names.index(READY_SPAN) if READY_SPAN in trace.names else -2
    dumps = np.flatnonzero((spans.name == code) & (tree.data >= 0) & (spans.end >= 0) & (spans.status != ERROR))
    np.maximum.at(ready, tree.data[dumps], spans.end[dumps])
    exact = ready != NEVER
    # Attempts are in the order of time, and the last one that is written stays.
    last, first, good = (np.full(ids, NONE, np.int32) for _ in range(3))
    order = np.argsort(members.unit, kind="stable")
    by_time, of_task = members.unit[order], members.task[order]
    last[of_task] = by_time
    first[of_task[::-1]] = by_time[::-1]
    fine = units.outcome[by_time] == DONE
    good[of_task[fine]] = by_time[fine]
    unit = np.where(good >= 0, good, last)
    plain = ~exact & (good >= 0)
    ready[plain] = np.where(lone[plain], end[plain], units.end[good[plain]])
    open_ = np.zeros(ids, bool)
    has = last >= 0
    open_[has] = units.outcome[last[has]] == OPEN
    return Tasks(start, end, ready, exact, unit.astype(np.int32), first, open_)
