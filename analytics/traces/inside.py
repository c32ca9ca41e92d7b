"""What programs did while they were on the real path: each moment belongs to the innermost span that was open then."""

from __future__ import annotations

import numpy as np

from analytics.traces.columns import KINDS, MARKER, UNFINISHED, Codes, Trace
from analytics.traces.tree import Tree
from coordinator.api_trace import InnerTime, RealCriticalPath, SegmentKind

RUNNING = (
    SegmentKind.RUN,
    SegmentKind.FAILED_RUN,
    SegmentKind.LOST_RUN,
    SegmentKind.CANCELLED_RUN,
    SegmentKind.STAGING,
    SegmentKind.UPLOAD,
)
"""Kinds of segments in which an attempt was at work."""


def path_inside(
    trace: Trace, tree: Tree, path: RealCriticalPath, spans_of: dict[tuple[str, int], Codes]
) -> tuple[InnerTime, ...]:
    """The greatest first; they sum to the path's running segments. `spans_of` has the rows of each attempt's spans."""
    spans = trace.spans
    depth = _depth(tree)
    total: dict[tuple[int, int], int] = {}
    count: dict[tuple[int, int], int] = {}
    bare = 0
    stretches: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for segment in path.segments:
        if segment.kind in RUNNING:
            owner = segment.cause.removeprefix("merged ") if segment.cause.startswith("merged ") else segment.task
            stretches.setdefault((owner, segment.attempt), []).append((segment.start_ns, segment.end_ns))
    for attempt, pieces in stretches.items():
        low, high = min(start for start, _ in pieces), max(end for _, end in pieces)
        rows = spans_of.get(attempt)
        if rows is None or not len(rows):
            bare += high - low
            continue
        rows = rows[spans.kind[rows] != MARKER]
        start = np.clip(spans.start[rows], low, high)
        end = np.clip(np.where(spans.end[rows] == UNFINISHED, high, spans.end[rows]), low, high)
        order = np.lexsort((rows, depth[rows]))
        edges = np.unique(np.concatenate((start, end, [low, high])))
        owner_row = np.full(len(edges) - 1, -1, np.int64)
        first, last = np.searchsorted(edges, start), np.searchsorted(edges, end)
        for one in order.tolist():
            owner_row[first[one] : last[one]] = rows[one]
        lengths = np.diff(edges)
        for row, length in zip(owner_row.tolist(), lengths.tolist(), strict=True):
            if row < 0:
                bare += length
                continue
            key = (int(spans.name[row]), int(spans.kind[row]))
            total[key] = total.get(key, 0) + length
        for row in np.unique(owner_row[owner_row >= 0]).tolist():
            key = (int(spans.name[row]), int(spans.kind[row]))
            count[key] = count.get(key, 0) + 1
    out = [
        InnerTime(name=trace.names[name], kind=KINDS[kind], count=count[name, kind], self_ns=ns)
        for (name, kind), ns in total.items()
        if ns
    ]
    if bare:
        out.append(InnerTime(name="", kind="", count=0, self_ns=bare))
    return tuple(sorted(out, key=lambda one: (-one.self_ns, one.name, one.kind)))


def _depth(tree: Tree) -> Codes:
    """How many spans lie around each, by doubling pointers: log(depth) rounds."""
    depth = (tree.parent >= 0).astype(np.int32)
    up = tree.parent.copy()
    while len(up) and (up >= 0).any():
        depth = depth + np.where(up >= 0, depth[up], 0).astype(np.int32)
        up = np.where(up >= 0, up[up], -1)
    return depth
