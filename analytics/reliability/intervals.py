"""Arithmetic of times that nobody observed: how long, and what they cut."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analytics.reliability.columns import Flags, Ints


class Outages:
    """Disjoint, sorted times that our coordinator did not observe."""

    def __init__(self, began: Ints, ended: Ints) -> None:
        self.began, self.ended = began, ended
        self._before = np.concatenate(([0], np.cumsum(ended - began))).astype(np.int64)

    def __bool__(self) -> bool:
        return len(self.began) > 0

    def until(self, when: Ints) -> Ints:
        """Unobserved milliseconds before each moment."""
        i = np.searchsorted(self.began, when, side="right")
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
        i = np.searchsorted(self.began, when, side="left") - 1
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
    rows = np.arange(len(begin), dtype=np.int64)
    if not outages:
        return Pieces(rows, begin, end, np.ones(len(begin), np.bool_))
    first = np.searchsorted(outages.ended, begin, side="right")
    stop = np.searchsorted(outages.began, end, side="left")
    touched = np.where(subject, np.maximum(stop - first, 0), 0)
    row = np.repeat(rows, touched + 1)
    step = np.arange(len(row)) - np.repeat(np.cumsum(touched + 1) - (touched + 1), touched + 1)
    head, tail = step == 0, step == touched[row]
    n = len(outages.began)
    after = outages.ended[np.clip(first[row] + step - 1, 0, n - 1)]
    before = outages.began[np.clip(first[row] + step, 0, n - 1)]
    a = np.where(head, begin[row], after)
    b = np.where(tail, end[row], before)
    keep = (b > a) | (touched[row] == 0)
    return Pieces(row[keep], a[keep], b[keep], tail[keep])
