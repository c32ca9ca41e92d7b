"""The same figures by plain loops over one provider after another: slow, and as near to the definitions as can be."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from analytics.reliability.columns import CENSORS, FAILURES, NONE, REASONS
from tests.unit.analytics.histories import Row

LOST = 30_000


@dataclass
class Stay:
    provider: int
    start: int
    end: int
    open: bool
    reason: int
    left: bool = False
    failed: bool = False
    ours: bool = False
    sessions: int = 1
    clipped: bool = False


@dataclass
class Exposure:
    provider: int
    enter: int
    exit: int
    event: bool


def unseen(begin: int, end: int, outages: list[tuple[int, int]]) -> int:
    """Unobserved ms in [begin, end): second by second would be right too, this adds up disjoint outages."""
    return sum(max(0, min(end, b) - max(begin, a)) for a, b in disjoint(outages))


def disjoint(outages: list[tuple[int, int]]) -> list[tuple[int, int]]:
    out: list[tuple[int, int]] = []
    for a, b in sorted(outages):
        if out and a <= out[-1][1]:
            out[-1] = (out[-1][0], max(out[-1][1], b))
        else:
            out.append((a, b))
    return out


def known(rows: list[Row], at: int) -> list[Row]:
    """As of `at`, in the order that is defined for equal starts."""

    def key(row: Row) -> tuple[int, ...]:
        reason = NONE if row.end < 0 else REASONS.index(row.reason)
        return (row.provider, row.start, row.end, row.beat, reason, row.boot, row.ours)

    return [row._replace(end=-1) if row.end > at else row for row in sorted(rows, key=key) if row.start <= at]


def stays(rows: list[Row], at: int, outages: list[tuple[int, int]]) -> list[Stay]:
    cuts = [(a, min(b, at)) for a, b in outages if a < at]
    out: list[Stay] = []
    for provider in sorted({row.provider for row in rows}):
        current: Stay | None = None
        lived = reach = 0
        boot = 0
        for row in [row for row in known(rows, at) if row.provider == provider]:
            end = at if row.end < 0 else row.end
            last = end if row.end < 0 or row.beat < 0 else min(max(row.beat, row.start), end)
            goes_on = False
            if current is not None:
                gap = row.start - lived - (unseen(lived, max(row.start, lived), cuts) if row.ours else 0)
                goes_on = (row.start < reach or gap < LOST) and not (boot and row.boot and boot != row.boot)
            if current is not None and goes_on:
                current.sessions += 1
                current.ours |= row.ours
                current.open |= row.end < 0
                if end >= current.end:
                    current.end = end
                    current.reason = NONE if row.end < 0 else REASONS.index(row.reason)
            else:
                if current is not None and row.start < current.end:
                    current.end, current.open, current.clipped = row.start, False, True
                reason = NONE if row.end < 0 else REASONS.index(row.reason)
                current = Stay(provider, row.start, end, row.end < 0, reason, ours=row.ours)
                out.append(current)
            reach, lived, boot = max(reach, end), max(lived, last), row.boot
    return out


def settle(found: list[Stay], at: int, outages: list[tuple[int, int]]) -> list[Stay]:
    """Whether each stay was left, and whether that was a failure."""
    cuts = disjoint([(a, min(b, at)) for a, b in outages if a < at])
    for stay in found:
        hidden = stay.ours and any(a < stay.end <= b for a, b in cuts)
        censored = stay.reason != NONE and bool(CENSORS[stay.reason])
        unknown = stay.clipped and stay.reason == NONE
        stay.left = not stay.open and not hidden and not censored and not unknown
        stay.failed = stay.left and stay.reason != NONE and bool(FAILURES[stay.reason])
    return found


def exposures(found: list[Stay], at: int, window: int, outages: list[tuple[int, int]]) -> list[Exposure]:
    cuts = disjoint([(a, min(b, at)) for a, b in outages if a < at])
    out = []
    for stay in found:
        begin, end = max(stay.start, at - window), stay.end
        if not (stay.open or stay.end > at - window or stay.start == stay.end == at - window):
            continue
        pieces = [(begin, end, True)]
        if stay.ours:
            touching = [(a, b) for a, b in cuts if a < end and b > begin]
            if touching:
                edges = [begin, *[edge for pair in touching for edge in pair], end]
                last = len(edges) - 2
                pieces = [(edges[i], edges[i + 1], i == last) for i in range(0, len(edges), 2)]
                pieces = [piece for piece in pieces if piece[1] > piece[0]]
        for a, b, whole in pieces:
            enter = (a - stay.start) // 1000
            leave = max(math.ceil((b - stay.start) / 1000), enter + 1)
            out.append(Exposure(stay.provider, enter, leave, stay.left and whole))
    return out


def survival(rows: list[Exposure], age: int, hazard: dict[int, float] | None = None) -> float:
    """The product over leavings up to `age`. With `hazard`, shrunk towards the fleet's with weight 2."""
    s = 1.0
    for t in sorted({row.exit for row in rows if row.event and row.exit <= age}):
        r = sum(row.enter < t <= row.exit for row in rows)
        k = sum(row.exit == t and row.event for row in rows)
        if hazard is None:
            s *= 1 - k / r
        else:
            s *= 1 - (k + 2 * hazard[t]) / (r + 2)
    return s


def hazards(rows: list[Exposure]) -> dict[int, float]:
    out = {}
    for t in {row.exit for row in rows if row.event}:
        out[t] = sum(row.exit == t and row.event for row in rows) / sum(row.enter < t <= row.exit for row in rows)
    return out


def p_stays(rows: list[Exposure], provider: int, age: int) -> float:
    """With the fleet's curve behind the provider's own longest observation."""
    mine = [row for row in rows if row.provider == provider]
    longest = max((row.exit for row in mine), default=0)
    s = survival(mine, min(age, longest), hazards(rows))
    if age <= longest:
        return s
    if max((row.exit for row in rows), default=0) < age:
        return 0.0
    before = survival(rows, longest)
    return s * survival(rows, age) / before if before > 0 else 0.0


def online_ms(rows: list[Row], provider: int, at: int, window: int, outages: list[tuple[int, int]]) -> int:
    """The length of the union of its sessions inside the window, by a sweep over every edge."""
    cuts = disjoint([(a, min(b, at)) for a, b in outages if a < at])
    mine = [row for row in known(rows, at) if row.provider == provider]
    spans = [(max(row.start, at - window), at if row.end < 0 else row.end, row.ours) for row in mine]
    edges = sorted({edge for a, b, _ in spans for edge in (a, b)} | {edge for pair in cuts for edge in pair})
    total = 0
    for a, b in itertools.pairwise(edges):
        covering = [ours for begin, end, ours in spans if begin <= a and b <= end]
        hidden = any(x <= a and b <= y for x, y in cuts)
        if covering and not (hidden and covering[0]):
            total += b - a
    return total
