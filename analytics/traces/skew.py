"""Clocks that differ: what causes tell of them. No task starts before the data that it was made from was there.

Each edge between two providers bounds how far one clock is ahead of the other: ahead(child's) - ahead(parent's) <=
start(child) - ready(parent). Such constraints form a graph; the shortest ways in it are the tightest bounds that follow
(R. Bellman, "On a routing problem", 1958), and the middle of each pair of bounds satisfies them all, because the
solutions are convex. Only where an edge is violated are times moved, and that is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import UNFINISHED, Trace
from analytics.traces.graph import Edges
from analytics.traces.units import NEVER, Work
from coordinator.api_types.trace import ClockOffset, Skew

ROUNDS_MAX = 200
"""Of relaxing all constraints; a longer way than that is not looked for."""
ALIKE = Skew(corrected=False, bound_ns=0, violations=0, worst_ns=0)


def skew_of(trace: Trace, work: Work, edges: Edges) -> Skew:
    """What the causes in these times tell of their clocks. O(rounds x pairs of providers)."""
    child, parent, gap = _gaps(work, edges)
    negative = gap < 0
    if not negative.any():
        return ALIKE
    worst = int(-gap.min())
    providers = len(trace.providers)
    told = Skew(corrected=False, bound_ns=worst, violations=int(negative.sum()), worst_ns=worst, consistent=False)
    apart = child != parent
    if (negative & ~apart).any():
        return told
    pairs, inverse = np.unique(parent[apart].astype(np.int64) * providers + child[apart], return_inverse=True)
    weight = np.full(len(pairs), 2**62)
    np.minimum.at(weight, inverse, gap[apart])
    source, target = np.divmod(pairs, providers)
    # All is told against the clock with most bounds. How far one may be from it that has none is not told by causes:
    # twice the greatest difference that is seen, and more where that does not explain it.
    by = int(np.argmax(np.bincount(np.concatenate((source, target)), minlength=providers)))
    for reach in (2 * worst, 4 * worst, 16 * worst):
        high = _shortest(source, target, weight, providers, by, reach)
        low = _shortest(target, source, weight, providers, by, reach)
        if high is not None and low is not None:
            break
    else:
        return told
    low = -low
    middle = (high + low) // 2
    seen = np.unique(np.concatenate((child, parent))).tolist()
    offsets = tuple(
        ClockOffset(
            provider=trace.providers[code],
            offset_ns=int(middle[code]),
            low_ns=int(low[code]),
            high_ns=int(high[code]),
            basis="causes",
        )
        for code in seen
    )
    return Skew(
        corrected=True,
        bound_ns=max((one.high_ns - one.low_ns + 1) // 2 for one in offsets),
        violations=told.violations,
        worst_ns=worst,
        offsets=offsets,
    )


def measured(clocks: Sequence[str], recorded: Sequence[ClockOffset]) -> Skew:
    """What agents measured of their clocks against the coordinator's, by heartbeats. Nothing is moved: where there is a
    coordinator the times of attempts are its own."""
    known = {one.provider: one for one in recorded}
    for text in clocks:
        provider, offset, bound = text.rsplit("\t", 2)
        # A provider's clock is ahead by what the coordinator's is less.
        ahead, off = -int(offset), int(bound)
        known[provider] = ClockOffset(
            provider=provider, offset_ns=ahead, low_ns=ahead - off, high_ns=ahead + off, basis="heartbeats"
        )
    offsets = tuple(known[provider] for provider in sorted(known))
    farthest = max((max(abs(one.low_ns), abs(one.high_ns)) for one in offsets), default=0)
    return Skew(corrected=False, bound_ns=farthest, violations=0, worst_ns=0, offsets=offsets)


def _gaps(work: Work, edges: Edges) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int64]]:
    """Per edge whose ends are both known: the child's provider, the parent's, and from ready to start."""
    units, tasks = work.units, work.tasks
    child, parent = tasks.first[edges.child], tasks.unit[edges.parent]
    known = (child >= 0) & (parent >= 0) & (child != parent) & (tasks.ready[edges.parent] != NEVER)
    if tasks.exact.any():
        known &= tasks.exact[edges.parent]
    child, parent, ready = child[known], parent[known], tasks.ready[edges.parent[known]]
    named = (units.provider[child] >= 0) & (units.provider[parent] >= 0)
    child, parent, ready = child[named], parent[named], ready[named]
    return units.provider[child], units.provider[parent], units.start[child] - ready


def _shortest(
    source: NDArray[np.int64], target: NDArray[np.int64], weight: NDArray[np.int64], count: int, by: int, reach: int
) -> NDArray[np.int64] | None:
    """Shortest ways from node `by`, which is no farther than `reach` from each other one, both ways; None: there is a
    ring of negative length, or too long a way."""
    away = np.full(count, reach)
    away[by] = 0
    for _ in range(min(count + 1, ROUNDS_MAX)):
        nearer = away.copy()
        np.minimum.at(nearer, target, away[source] + weight)
        if (nearer == away).all():
            return away if away[by] == 0 and (away >= -reach).all() else None
        away = nearer
    return None


def moved(trace: Trace, skew: Skew) -> Trace:
    """The trace with each provider's times moved by its offset; columns are copied, and no longer canonical in
    order."""
    spans = trace.spans
    ahead = np.zeros(len(trace.providers) + 1, np.int64)
    index = {name: code for code, name in enumerate(trace.providers)}
    for one in skew.offsets:
        if one.provider in index:
            ahead[index[one.provider]] = one.offset_ns
    by = ahead[spans.provider]
    if len(by):
        # Nothing begins before 1970: what all clocks have in common may be chosen.
        by = by - max(int((by - spans.start).max()), 0)
    start = spans.start - by
    end = np.where(spans.end == UNFINISHED, UNFINISHED, spans.end - by)
    order = np.lexsort((spans.span, spans.trace, end, start))
    columns = {name: getattr(spans, name)[order] for name in spans.__slots__ if name not in ("start", "end")}
    return replace(trace, spans=type(spans)(start=start[order], end=end[order], **columns), details=None)
