"""A run as its spans tell it, ready for whoever asks about it: the analysis and what-if see the same tasks at the same
times."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analytics.traces import skew as skews
from analytics.traces.columns import Trace
from analytics.traces.model import Model, model_of
from analytics.traces.record import RunRecord
from analytics.traces.tree import Tree, tree_of, with_lineage, with_tasks
from coordinator.api_types.trace import Skew


class Seen(NamedTuple):
    """`trace`: with tasks and lineage where it said none, and by one clock where causes say that there were several."""

    trace: Trace
    tree: Tree
    model: Model
    skew: Skew
    read: bool
    """Its lineage is what tasks read: there was none."""


def seen_of(trace: Trace, record: RunRecord | None) -> Seen:
    """Where there is a record of the run, by the coordinator's clock, its spans are left as they are; what runs lasts
    until it was looked at."""
    named = with_tasks(trace)
    if record is not None:
        tree = tree_of(named)
        until_ns = record.looked_at_ns if record.ended_ns is None else 0
        return Seen(named, tree, model_of(named, tree, until_ns), skews.ALIKE, False)
    whole = with_lineage(named)
    read = whole is not named
    tree = tree_of(whole)
    model = model_of(whole, tree)
    skew = skews.skew_of(whole, model.work, model.edges)
    if skew.corrected:
        whole = skews.moved(whole, skew)
        tree = tree_of(whole)
        model = model_of(whole, tree)
    return Seen(whole, tree, model, skew, read)


def limits(seen: Seen, submitted_ns: int | None) -> tuple[int, int]:
    """From when to when the run went: with its tasks, or as long as a span without a task that lies around all of them.
    `submitted_ns`: when it was submitted, where that is known."""
    units, spans, tree = seen.model.work.units, seen.trace.spans, seen.tree
    if not len(units):
        return 0, 0
    start_ns, end_ns = int(units.start.min()), int(units.end.max())
    around = np.flatnonzero((tree.parent < 0) & (tree.data < 0) & (spans.start <= start_ns))
    # A Jaeger file has whole microseconds: its outermost span may end that much early.
    around = around[spans.end[around] >= end_ns - 2_000]
    if submitted_ns is not None:
        start_ns = min(submitted_ns, start_ns)
    elif len(around) == 1:
        start_ns = int(spans.start[around[0]])
        end_ns = max(end_ns, int(spans.end[around[0]]))
    return start_ns, end_ns
