"""What programs did while they were on the real path: each moment belongs to the innermost span that was open then."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np

from analytics.traces.columns import KINDS, MARKER, UNFINISHED, Codes, Trace
from analytics.traces.tree import Tree
from coordinator.api_types.trace import InnerTime, RealCriticalPath, SegmentKind

Item = TypeVar("Item")
RUNNING = (
    SegmentKind.RUN,
    SegmentKind.FAILED_RUN,
    SegmentKind.LOST_RUN,
    SegmentKind.CANCELLED_RUN,
    SegmentKind.STAGING,
    SegmentKind.UPLOAD,
)
"""Kinds of segments in which an attempt was at work."""


ATTEMPTS_AT_ONCE = 1_024
"""Whose spans are taken out of the columns together: the spans of a chain of 100,000 tasks would be 100 MB at once."""


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
    none = np.zeros(0, np.int64)
    for some in batched(stretches.items(), ATTEMPTS_AT_ONCE):
        held = [spans_of.get(attempt, none) for attempt, _ in some]
        rows = np.concatenate(held)
        starts, ends, names, kinds, depths = (
            column[rows].tolist() for column in (spans.start, spans.end, spans.name, spans.kind, depth)
        )
        begin = 0
        for (_, pieces), of in zip(some, held, strict=True):
            low, high = min(start for start, _ in pieces), max(end for _, end in pieces)
            own = [at for at in range(begin, begin + len(of)) if kinds[at] != MARKER]
            begin += len(of)
            covered = 0
            for at, length in _owned(own, starts, ends, depths, low, high):
                key = (names[at], kinds[at])
                total[key] = total.get(key, 0) + length
                count[key] = count.get(key, 0) + 1
                covered += length
            bare += high - low - covered
    out = [
        InnerTime(name=trace.names[name], kind=KINDS[kind], count=count[name, kind], self_ns=ns)
        for (name, kind), ns in total.items()
        if ns
    ]
    if bare:
        out.append(InnerTime(name="", kind="", count=0, self_ns=bare))
    return tuple(sorted(out, key=lambda one: (-one.self_ns, one.name, one.kind)))


def batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    """So many at a time, in their order."""
    rest = iter(items)
    while some := list(islice(rest, size)):
        yield some


def _owned(
    rows: list[int], starts: list[int], ends: list[int], depths: list[int], low: int, high: int
) -> list[tuple[int, int]]:
    """Spans that own a part of [low, high), and how much of it: at each moment the deepest that is open, of equally
    deep ones the last. From the deepest on each span takes the pieces that nobody has, and who comes later jumps over
    them (union-find): O(n log n), however they overlap."""
    parts = []
    for row in rows:
        start = max(starts[row], low)
        end = high if ends[row] == UNFINISHED else min(ends[row], high)
        if start < end:
            parts.append((-depths[row], -row, start, end))
    if len(parts) == 1:
        return [(-row, end - start) for _, row, start, end in parts]
    parts.sort()
    moments = sorted({moment for _, _, start, end in parts for moment in (start, end)})
    place = {moment: number for number, moment in enumerate(moments)}
    following = list(range(len(moments)))
    """Of each piece the next one, itself included, that nobody has."""
    out = []
    for _, row, start, end in parts:
        own, stop = 0, place[end]
        at = _free(following, place[start])
        while at < stop:
            own += moments[at + 1] - moments[at]
            following[at] = at + 1
            at = _free(following, at + 1)
        if own:
            out.append((-row, own))
    return out


def _free(following: list[int], at: int) -> int:
    while following[at] != at:
        following[at] = following[following[at]]
        at = following[at]
    return at


def _depth(tree: Tree) -> Codes:
    """How many spans lie around each, by doubling pointers: log(depth) rounds."""
    depth = (tree.parent >= 0).astype(np.int32)
    up = tree.parent.copy()
    while len(up) and (up >= 0).any():
        depth = depth + np.where(up >= 0, depth[up], 0).astype(np.int32)
        up = np.where(up >= 0, up[up], -1)
    return depth
