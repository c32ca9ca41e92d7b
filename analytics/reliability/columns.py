"""The columns that everything here is computed from, and how they look as of a past moment.

Times are Unix milliseconds (int64). A fleet is one row per session, sorted by (provider, start). Nothing
here knows a file, a database or the clock.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from coordinator.api_types.reliability import WINDOW_DAYS
from coordinator.core.ids import Ms
from coordinator.core.rows import EndReason

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.int32]
Small = npt.NDArray[np.int8]
Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

REASONS: tuple[str, ...] = tuple(reason.value for reason in EndReason)
"""`reason` columns hold indexes into this; NONE where none is known."""
NONE = -1
FAILURES = np.isin(REASONS, (EndReason.READ_ERROR, EndReason.STALE_HEARTBEAT, EndReason.AGENT_RESTART))
"""By reason: the ending counts as a failure of the provider."""
CENSORS = np.isin(REASONS, (EndReason.COORDINATOR_RESTART, EndReason.SUPERSEDED))
"""By reason: we do not know how long the stay would have gone on."""

HOUR_MS: Ms = 3_600_000
DAY_MS: Ms = 24 * HOUR_MS
WINDOW_MS: Ms = int(WINDOW_DAYS * DAY_MS)
LOST_AFTER_MS: Ms = 30_000
"""The gap that ends a stay, where the coordinator's policy says nothing else."""


class Sessions(NamedTuple):
    """One row per session, sorted by (provider, start). Columns of equal length."""

    provider: Codes
    """Position of the provider in the fleet's list of ids."""
    start: Ints
    end: Ints
    """-1 while open."""
    beat: Ints
    """The last heartbeat; -1 where none is known (imported rows)."""
    reason: Small
    boot: Codes
    """0: unknown (imported rows); equal numbers are the same boot of the same machine."""
    ours: Flags
    """Seen by this coordinator, so that its outages matter; False for imported rows."""

    def take(self, which: npt.NDArray[np.intp] | Flags) -> Sessions:
        """The rows that `which` selects, in its order."""
        return Sessions(
            self.provider[which],
            self.start[which],
            self.end[which],
            self.beat[which],
            self.reason[which],
            self.boot[which],
            self.ours[which],
        )


def sessions_of(
    provider: npt.ArrayLike,
    start: npt.ArrayLike,
    end: npt.ArrayLike,
    beat: npt.ArrayLike | None = None,
    reason: npt.ArrayLike | None = None,
    boot: npt.ArrayLike | None = None,
    ours: npt.ArrayLike | None = None,
) -> Sessions:
    """Sessions from columns in any order. What is not given is unknown. O(n log n), O(n) when already sorted."""
    codes = np.asarray(provider, np.int32)
    n = len(codes)
    rows = Sessions(
        codes,
        np.asarray(start, np.int64),
        np.asarray(end, np.int64),
        np.full(n, -1, np.int64) if beat is None else np.asarray(beat, np.int64),
        np.full(n, NONE, np.int8) if reason is None else np.asarray(reason, np.int8),
        np.zeros(n, np.int32) if boot is None else np.asarray(boot, np.int32),
        np.zeros(n, np.bool_) if ours is None else np.asarray(ours, np.bool_),
    )
    if n < 2:
        return rows
    base = int(rows.start.min())
    if int(codes.max()) < 1 << 21 and int(rows.start.max()) - base < 1 << 42:
        key = codes.astype(np.int64) << 42 | (rows.start - base)
        if bool(np.all(key[1:] > key[:-1])):
            return rows
        order = np.argsort(key, kind="stable")
        lined = key[order]
        if bool(np.all(lined[1:] > lined[:-1])):  # else the order of rows in the source would matter
            return rows.take(order)
    return rows.take(np.lexsort((rows.boot, rows.reason, rows.beat, rows.end, rows.start, codes)))


class Fleet(NamedTuple):
    """What is known of a fleet: its sessions, and when each provider was seen first."""

    sessions: Sessions
    providers: int
    first_seen: Ints
    """By provider, over all its history; -1: never."""
    outages_began: Ints
    """Times that our coordinator did not observe; sorted, disjoint."""
    outages_ended: Ints
    lost_after_ms: Ms = LOST_AFTER_MS
    """The gap that ends a stay."""


def fleet_of(
    sessions: Sessions,
    providers: int,
    outages: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    first_seen: npt.ArrayLike | None = None,
    lost_after_ms: Ms = LOST_AFTER_MS,
) -> Fleet:
    """A fleet from sorted sessions; outages in any order, united here. `first_seen` when older rows were left out."""
    if first_seen is None:
        seen = np.full(providers, -1, np.int64)
        if len(sessions.provider):
            head = np.flatnonzero(np.diff(sessions.provider, prepend=np.int32(-1)))
            seen[sessions.provider[head]] = sessions.start[head]
    else:
        seen = np.asarray(first_seen, np.int64)
    began, ended = united(*(outages if outages is not None else ((), ())))
    return Fleet(sessions, providers, seen, began, ended, lost_after_ms)


def united(began: npt.ArrayLike, ended: npt.ArrayLike) -> tuple[Ints, Ints]:
    """The same set of moments as disjoint intervals in order; empty ones are left out."""
    a, b = np.asarray(began, np.int64), np.asarray(ended, np.int64)
    keep = b > a
    order = np.argsort(a[keep], kind="stable")
    a, b = a[keep][order], b[keep][order]
    if len(a) == 0:
        return a, b
    reach = np.maximum.accumulate(b)
    head = np.flatnonzero(np.concatenate(([True], a[1:] > reach[:-1])))
    return a[head], np.maximum.reduceat(b, head)


def as_of(fleet: Fleet, at_ms: Ms, since_ms: Ms | None = None) -> Fleet:
    """What was known at `at_ms`: later sessions do not exist, later ends are not known.

    With `since_ms`, sessions that ended before it are left out too.
    """
    rows = fleet.sessions
    keep = rows.start <= at_ms
    if since_ms is not None:
        keep &= (rows.end < 0) | (rows.end >= since_ms)
    if not bool(np.all(keep)):
        rows = rows.take(keep)
    late = rows.end > at_ms
    if bool(np.any(late)):
        rows = rows._replace(
            end=np.where(late, -1, rows.end), reason=np.where(late, np.int8(NONE), rows.reason).astype(np.int8)
        )
    seen = np.where(fleet.first_seen > at_ms, -1, fleet.first_seen)
    known = fleet.outages_began < at_ms
    ended = np.minimum(fleet.outages_ended[known], at_ms)
    return fleet._replace(sessions=rows, first_seen=seen, outages_began=fleet.outages_began[known], outages_ended=ended)
