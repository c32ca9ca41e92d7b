"""Which span lies in which: parents by row, and what is odd about them. No recursion; rings and orphans end nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import NONE, TASK_SPAN, UNFINISHED, Codes, Lineage, Spans, Trace

Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(slots=True)
class Tree:
    """Per span. A span whose parent is missing, or that lies in a ring of parents, is a root."""

    parent: Rows
    """Row of its parent; -1: none."""
    orphan: Mask
    """It names a parent that is not here, or that lies within itself."""
    late: Mask
    """It ended after its parent."""
    data: Codes
    """Its task: its own, else that of the nearest span above it that names one."""
    above: Rows
    """Row of the nearest span named `task` above it, or its own; -1: none."""


def tree_of(trace: Trace) -> Tree:
    """O(n log n)."""
    spans = trace.spans
    parent = _parents(spans)
    orphan = (parent < 0) & (spans.parent != 0)
    ring = _rings(parent)
    orphan |= ring
    parent[ring] = -1
    is_task = spans.name == _code(trace.names, TASK_SPAN)
    named = np.where(spans.data >= 0, np.arange(len(spans)), -1)
    telling = np.where(named >= 0, named, nearest(parent, spans.data >= 0))
    data = np.where(telling >= 0, spans.data[telling], NONE).astype(np.int32) if len(spans) else spans.data
    above = nearest(parent, is_task)
    held = parent >= 0
    over = spans.end[parent]
    late = held & (over != UNFINISHED) & (spans.end > over) if len(spans) else held
    return Tree(parent, orphan, late, data, above)


def _code(table: list[str], text: str) -> int:
    """The number of a string in a sorted table; -2 where it is not, which no row has."""
    try:
        return table.index(text)
    except ValueError:
        return -2


def _parents(spans: Spans) -> Rows:
    ids, wanted = spans.span, spans.parent
    if len(spans) and spans.trace[0] != spans.trace.max():
        # Span ids are unique within a trace alone: the trace's number is mixed in, 64 bits of it.
        salt = (spans.trace.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        ids, wanted = ids ^ salt, np.where(wanted != 0, wanted ^ salt, 0)
    order = np.argsort(ids)
    ordered = ids[order]
    rows = np.full(len(spans), -1, np.int64)
    asks = np.flatnonzero(spans.parent != 0)
    if not len(asks):
        return rows
    at = np.searchsorted(ordered, wanted[asks])
    at[at == len(ordered)] = 0
    found = ordered[at] == wanted[asks]
    rows[asks[found]] = order[at[found]]
    return rows


def _rings(parent: Rows) -> Mask:
    """Those that are among their own ancestors."""
    count = len(parent)
    out = np.zeros(count, bool)
    up = parent.copy()
    rounds = 1
    while (up >= 0).any() and rounds < 2 * max(count, 1):
        up = np.where(up >= 0, up[up], -1)
        rounds *= 2
    stuck = np.unique(up[up >= 0])
    # `up` of what never ends is within a ring; the whole ring is what follows from there.
    ahead = stuck
    while len(ahead := ahead[~out[ahead]]):
        out[ahead] = True
        ahead = parent[ahead]
    return out


def nearest(parent: Rows, marked: Mask) -> Rows:
    """The nearest marked row at or above each row; -1: none. Pointers are doubled: log(depth) rounds."""
    own = np.arange(len(parent))
    jump = np.where(marked, own, parent)
    while True:
        further = np.where(jump >= 0, jump[jump], -1)
        if (further == jump).all():
            break
        jump = further
    return np.where((jump >= 0) & marked[jump], jump, -1) if len(parent) else jump


def with_tasks(trace: Trace) -> Trace:
    """The trace itself where a span names a task; else one in which each root is a task, named as the span is: of
    several of one name the later ones have a number behind."""
    spans = trace.spans
    if not len(spans) or (spans.data >= 0).any():
        return trace
    roots = np.flatnonzero(tree_of(trace).parent < 0)
    taken = set(trace.data_ids)
    count: dict[str, int] = {}
    ids = []
    for code in spans.name[roots].tolist():
        name = trace.names[code]
        while True:
            count[name] = count.get(name, 0) + 1
            text = name if count[name] == 1 else f"{name}#{count[name]}"
            if text not in taken:
                break
        taken.add(text)
        ids.append(text)
    table = sorted(taken)
    place = {text: code for code, text in enumerate(table)}
    moved = np.array([place[text] for text in trace.data_ids], np.int32)
    data = np.full(len(spans), NONE, np.int32)
    data[roots] = [place[text] for text in ids]
    assets, lineage = trace.assets, trace.lineage
    return replace(
        trace,
        data_ids=table,
        spans=replace(spans, data=data),
        assets=replace(assets, data=moved[assets.data]) if len(assets) else assets,
        lineage=replace(lineage, data=moved[lineage.data], source=moved[lineage.source]) if len(lineage) else lineage,
    )


def with_lineage(trace: Trace) -> Trace:
    """The trace itself where it has lineage, or no read says whose data it brought; else one whose lineage is what was
    read."""
    spans = trace.spans
    if len(trace.lineage):
        return trace
    reads = np.flatnonzero((spans.source >= 0) & (spans.data >= 0) & (spans.source != spans.data))
    if not len(reads):
        return trace
    edges, first = np.unique(np.column_stack((spans.data[reads], spans.source[reads])), axis=0, return_index=True)
    lineage = Lineage(edges[:, 0].copy(), edges[:, 1].copy(), spans.start[reads[first]])
    return replace(trace, lineage=lineage)
