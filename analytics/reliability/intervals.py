"""Arithmetic of times that nobody observed: how long, and what they cut."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from analytics.reliability.columns import Flags, Ints

_FEW = 8
"""So many boundaries are counted one by one: cheaper than a binary search for each moment."""


def _rank(bounds: Ints, when: Ints, side: Literal["left", "right"]) -> Ints:
    """How many of the sorted bounds are before each moment (`left`), or not after it (`right`)."""
    if len(bounds) > _FEW:
        return np.searchsorted(bounds, when, side=side)
    count = np.zeros(len(when), np.int64)
    for bound in bounds:
        count += when > bound if side == "left" else when >= bound
    return count


class Outages:
    """Disjoint, sorted times that our coordinator did not observe."""

    def __init__(self, began: Ints, ended: Ints) -> None:
        self.began, self.ended = began, ended
        self._before = np.concatenate(([0], np.cumsum(ended - began))).astype(np.int64)

    def __bool__(self) -> bool:
        return len(self.began) > 0

    def until(self, when: Ints) -> Ints:
        """Unobserved milliseconds before each moment."""
        i = _rank(self.began, when, "right")
        inside = np.minimum(when, self.ended[np.maximum(i - 1, 0)]) - self.began[np.maximum(i - 1, 0)]
        return np.where(i > 0, self._before[np.maximum(i - 1, 0)] + inside, 0)

    def within(self, begin: Ints, end: Ints) -> Ints:
        """Unobserved milliseconds of each [begin, end)."""
        if not self:
            return np.zeros(len(begin), np.int64)
        return self.until(end) - self.until(begin)

    def hide(self, when: Ints) -> Flags:
        """Whether each moment was not seen: began < when <= ended."""
        if not self:
            return np.zeros(len(when), np.bool_)
        i = _rank(self.began, when, "left") - 1
        return (i >= 0) & (when <= self.ended[np.maximum(i, 0)])


class Pieces(NamedTuple):
    """What is left of intervals when outages are cut out of them."""

    row: Ints
    """The interval that this is a piece of."""
    begin: Ints
    end: Ints
    last: Flags
    """It ends where the interval ended."""


def cut(begin: Ints, end: Ints, subject: Flags, outages: Outages) -> Pieces:
    """Cut the outages out of the intervals that are `subject` to them; empty pieces of those are dropped.

    An interval that no outage touches comes back as it is, even when it is empty. O(n + pieces).
    """
    n = len(begin)
    rows = np.arange(n, dtype=np.int64)
    whole = np.ones(n, np.bool_)
    if not outages:
        return Pieces(rows, begin, end, whole)
    first = _rank(outages.ended, begin, "right")
    touched = _rank(outages.began, end, "left") - first
    hit = np.flatnonzero((touched > 0) & subject)
    if len(hit) == 0:
        return Pieces(rows, begin, end, whole)
    # Few intervals are hit: the others are moved over as they are, only the pieces of these are worked out.
    extra, first = touched[hit], first[hit]
    count = np.ones(n, np.int64)
    count[hit] += extra
    row = np.repeat(rows, count)
    a, b, last = begin[row], end[row], np.ones(len(row), np.bool_)
    behind = np.cumsum(extra + 1)
    step = np.arange(behind[-1]) - np.repeat(behind - extra - 1, extra + 1)
    place = np.repeat(hit + behind - extra - 1 - np.arange(len(hit)), extra + 1) + step
    which, tail = np.repeat(first, extra + 1) + step, step == np.repeat(extra, extra + 1)
    inner = step > 0
    a[place[inner]] = outages.ended[which[inner] - 1]
    b[place[~tail]] = outages.began[which[~tail]]
    last[place] = tail
    empty = place[b[place] <= a[place]]
    if len(empty) == 0:
        return Pieces(row, a, b, last)
    keep = np.ones(len(row), np.bool_)
    keep[empty] = False
    return Pieces(row[keep], a[keep], b[keep], last[keep])
