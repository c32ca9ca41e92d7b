"""Lengths of intervals: their sum (work) and their union (wall)."""

from __future__ import annotations

import numpy as np

from analytics.traces.columns import Ints


def union_ns(start: Ints, end: Ints) -> int:
    """How long at least one of them lasted. O(n log n)."""
    if not len(start):
        return 0
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    covered = np.empty_like(end)
    covered[0] = start[0]
    covered[1:] = np.maximum(start[1:], end[:-1])
    return int(np.maximum(end - covered, 0).sum())
