"""Stays: a provider's sessions of one boot, joined across short gaps. What people care about.

A two-second blip ends a session, not a stay. See "Nouns" in the semantics.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analytics.reliability.columns import CENSORS, FAILURES, NONE, Codes, Flags, Fleet, Ints, Small
from analytics.reliability.intervals import Outages
from coordinator.core.ids import Ms

_SPAN_BITS = 41
"""Milliseconds of history that fit beside a provider's number in one int64: 69 years."""


class Stays(NamedTuple):
    """One row per stay, sorted by (provider, start)."""

    provider: Codes
    start: Ints
    end: Ints
    """`at_ms` for one that goes on."""
    open: Flags
    reason: Small
    """Of its last session; NONE where none is known."""
    left: Flags
    """It ended by a leaving that was seen; otherwise it is censored."""
    failed: Flags
    """That leaving was a failure."""
    ours: Flags
    sessions: Codes


class Online(NamedTuple):
    """Disjoint times online, in the order of the sessions that brought them; empty ones among them."""

    provider: Codes
    begin: Ints
    end: Ints
    ours: Flags


def _reach(provider: Codes, value: Ints, base: Ms) -> Ints:
    """The running maximum of `value` within each provider. `provider` is sorted."""
    lifted = (provider.astype(np.int64) << _SPAN_BITS) | (value - base)
    return (np.maximum.accumulate(lifted) & ((1 << _SPAN_BITS) - 1)) + base


def join(fleet: Fleet, at_ms: Ms) -> tuple[Stays, Online]:
    """The stays of a fleet as `as_of(fleet, at_ms)` gives it, and its united online time. O(n).

    Sessions of one boot are one stay when the next begins less than `fleet.lost_after_ms` after the last
    heartbeat, not counting what we did not observe; where a boot is not known, the gap alone decides.
    A known change of boot ends a stay even where the rows overlap: the older is cut at the newcomer.
    """
    rows = fleet.sessions
    n = len(rows.provider)
    if n == 0:
        none = np.zeros(0, np.int64)
        no, code, small = none.astype(np.bool_), none.astype(np.int32), none.astype(np.int8)
        return Stays(code, none, none, no, small, no, no, no, code), Online(code, none, none, no)
    outages, lost_after_ms = Outages(fleet.outages_began, fleet.outages_ended), fleet.lost_after_ms
    still = rows.end < 0
    end = np.maximum(np.where(still, at_ms, rows.end), rows.start)
    lived = np.where(still | (rows.beat < 0), end, np.clip(rows.beat, rows.start, end))
    base = int(rows.start.min())
    reach_end = _reach(rows.provider, end, base)
    reach_lived = _reach(rows.provider, lived, base)

    same = rows.provider[1:] == rows.provider[:-1]
    gap = rows.start[1:] - reach_lived[:-1]
    if outages:
        dark_ms = int((outages.ended - outages.began).sum())
        doubt = np.flatnonzero((gap >= lost_after_ms) & (gap - dark_ms < lost_after_ms) & same & rows.ours[1:])
        gap[doubt] -= outages.within(reach_lived[:-1][doubt], rows.start[1:][doubt])
    rebooted = (rows.boot[1:] != rows.boot[:-1]) & (rows.boot[1:] != 0) & (rows.boot[:-1] != 0)
    begins = np.concatenate(([True], ~same | rebooted | ((gap >= lost_after_ms) & (rows.start[1:] >= reach_end[:-1]))))
    head = np.flatnonzero(begins)

    stay_end = np.maximum.reduceat(end, head)
    stay_open = np.logical_or.reduceat(still, head)
    reason = rows.reason[_last_of(head, n, end, stay_end)]
    provider = rows.provider[head]
    start = rows.start[head]
    overlapped = np.concatenate(((provider[1:] == provider[:-1]) & (start[1:] < stay_end[:-1]), [False]))
    if bool(np.any(overlapped)):
        stay_end = np.where(overlapped, np.concatenate((start[1:], [0])), stay_end)
        stay_open &= ~overlapped
    ours = np.logical_or.reduceat(rows.ours, head)
    known = reason != NONE
    left = ~stay_open & ~(known & CENSORS[reason]) & ~(overlapped & ~known)
    left &= ~(ours & outages.hide(stay_end))
    failed = left & known & FAILURES[reason]
    count = np.diff(np.append(head, n)).astype(np.int32)

    begin = rows.start.copy()
    begin[1:] = np.where(same, np.maximum(begin[1:], reach_end[:-1]), begin[1:])
    online = Online(rows.provider, begin, np.maximum(begin, end), rows.ours)
    return Stays(provider, start, stay_end, stay_open, reason, left, failed, ours, count), online


def _last_of(head: Ints, n: int, end: Ints, stay_end: Ints) -> Ints:
    """The row of each stay that ends last, the latest of equals."""
    if len(head) == n:
        return head
    ends_it = end == np.repeat(stay_end, np.diff(np.append(head, n)))
    return np.maximum.reduceat(np.where(ends_it, np.arange(n), -1), head)
