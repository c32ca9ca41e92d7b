"""Every provider's record in the window, as columns by provider. "Features" of the semantics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np

from analytics.reliability import grid, score, survival
from analytics.reliability.columns import (
    DAY_MS,
    NONE,
    REASONS,
    WINDOW_MS,
    Codes,
    Flags,
    Fleet,
    Floats,
    Ints,
    Sessions,
)
from analytics.reliability.intervals import Outages, cut
from analytics.reliability.stays import Online, Stays, join
from coordinator.core.ids import Ms

THIN_LEAVINGS = 3
THIN_ONLINE_MS = 3 * DAY_MS
"""A provider with fewer leavings than that, and less time online, is flagged `thin`."""
NEWCOMER_MS = DAY_MS
LONG_MS: Ms = 14 * DAY_MS
"""How far before the window a provider's record is read for the forecast: as far as sessions are read at all."""
BLOCK_SESSIONS = 1 << 17
"""A column of so many is 1 MB: a few of them fit into a core's cache."""


class Window(NamedTuple):
    """A fleet's history as of `at_ms`, cut to the window [from_ms, at_ms): what every figure is made of."""

    at_ms: Ms
    from_ms: Ms
    fleet: Fleet
    """As of `at_ms`."""
    stays: Stays
    """That touch the window."""
    exposures: survival.Exposures
    curve: survival.Curve
    """The fleet's."""
    online: Online
    """Observed, inside the window, by session; disjoint."""
    observed_began: Ints
    """By provider: the window, or since it was first seen; `at_ms` when it never was."""
    observed_ms: Ints
    """By provider: that time minus what we did not observe."""
    online_ms: Ints
    """By provider."""
    ours: Flags
    """By provider: our outages concern it."""
    long_left: Ints
    """By provider: leavings in the window and the LONG_MS before it."""
    long_ms: Ints
    """By provider: time online then."""

    @property
    def outages(self) -> Outages:
        """What our coordinator did not observe."""
        return Outages(self.fleet.outages_began, self.fleet.outages_ended)


NO_CURVE = survival.Curve(np.zeros(0, np.int64), np.zeros(0), np.zeros(0), np.zeros(0), 0, 0)


def window_of(fleet: Fleet, at_ms: Ms, window_ms: Ms = WINDOW_MS) -> Window:
    """The window that ends at `at_ms`. `fleet` is as `columns.as_of` gives it for that moment."""
    window = _unpooled(fleet, at_ms, window_ms)
    return window._replace(curve=survival.pooled(window.exposures))


def _unpooled(fleet: Fleet, at_ms: Ms, window_ms: Ms) -> Window:
    """The window without the fleet's curve: everything that is a matter of each provider alone."""
    n = fleet.providers
    from_ms = at_ms - window_ms
    outages = Outages(fleet.outages_began, fleet.outages_ended)
    stays, online = join(fleet, at_ms)
    long_from = from_ms - LONG_MS
    long_left = np.bincount(stays.provider[stays.left & (stays.end > long_from)], minlength=n)
    known = cut(np.maximum(stays.start, long_from), stays.end, stays.ours, outages)
    length = np.maximum(known.end - known.begin, 0).astype(np.float64)
    long_ms = np.rint(np.bincount(stays.provider[known.row], weights=length, minlength=n)).astype(np.int64)
    touches = (stays.end > from_ms) | stays.open | ((stays.end == from_ms) & (stays.start == from_ms))
    if not bool(np.all(touches)):
        stays = Stays(*(column[touches] for column in stays))
    ours = np.zeros(n, np.bool_)
    ours[fleet.sessions.provider[fleet.sessions.ours]] = True

    watched = cut(np.maximum(stays.start, from_ms), stays.end, stays.ours, outages)
    start = stays.start[watched.row]
    enter = ((watched.begin - start) // 1000).astype(np.int32)
    exposures = survival.Exposures(
        stays.provider[watched.row],
        enter,
        np.maximum(-((start - watched.end) // 1000), enter + 1).astype(np.int32),
        stays.left[watched.row] & watched.last,
    )

    seen = fleet.first_seen >= 0
    began = np.where(seen, np.clip(fleet.first_seen, from_ms, at_ms), at_ms)
    unseen = np.where(ours, outages.within(began, np.full(n, at_ms)), 0)
    begin, end = np.clip(online.begin, from_ms, at_ms), np.clip(online.end, from_ms, at_ms)
    inside = cut(begin, end, online.ours, outages)
    online = Online(online.provider[inside.row], inside.begin, inside.end, online.ours[inside.row])
    length = (online.end - online.begin).astype(np.float64)
    online_ms = np.rint(np.bincount(online.provider, weights=length, minlength=n)).astype(np.int64)
    return Window(
        at_ms, from_ms, fleet, stays, exposures, NO_CURVE, online,
        began, at_ms - began - unseen, online_ms, ours, long_left, long_ms,
    )  # fmt: skip


class Features(NamedTuple):
    """By provider. Times in ms, -1 or nan where there is none; shares 0..1."""

    seen: Flags
    """It was observed in the window."""
    present: Flags
    """A session of it touches the window."""
    online: Flags
    observed_ms: Ints
    online_ms: Ints
    uptime: Floats
    sessions: Ints
    stays: Ints
    departures: Ints
    failures: Ints
    mtbf_s: Floats
    mttr_s: Floats
    mttr_n: Ints
    p10_s: Floats
    p50_s: Floats
    p90_s: Floats
    stays_4h: survival.Chances
    stays_8h: survival.Chances
    reasons: Ints
    """[provider, reason]: sessions that ended in the window."""
    last_disconnect: Ints
    last_failure: Ints
    last_session_ms: Ints
    terms: score.Terms
    score: Floats
    thin: Flags
    newcomer: Flags
    stay_began: Ints
    """Of the stay that goes on; -1 for a provider that is not online."""


def features_of(window: Window) -> Features:
    """The record of every provider, in O(sessions) and three sorts."""
    fleet, stays, n = window.fleet, window.stays, window.fleet.providers
    count = _counter(n)
    left, failed = stays.left & (stays.end > window.from_ms), stays.failed & (stays.end > window.from_ms)
    departures, failures = count(stays.provider[left]), count(stays.provider[failed])
    mine = survival.own(window.exposures, window.curve, n)
    p_4h = survival.chances(mine, window.curve, n, 4 * 3600)
    p_8h = survival.chances(mine, window.curve, n, 8 * 3600)
    present = count(stays.provider) > 0
    seen = present & (window.observed_ms > 0)

    uptime = np.clip(window.online_ms / np.maximum(window.observed_ms, 1), 0.0, 1.0)
    mtbf_s = window.online_ms / 1000.0 / np.maximum(failures, 1)
    mttr_s, mttr_n = _repair(window, failed)
    last_failure = _latest(stays.provider[failed], stays.end[failed], n)
    failure_age = np.where(last_failure >= 0, (window.at_ms - last_failure).astype(np.float64), np.nan)
    parts = score.terms(uptime, p_4h.p, p_8h.p, mtbf_s, failure_age, seen)

    rows = fleet.sessions
    inside = (rows.end < 0) | (rows.end > window.from_ms)
    over = inside & (rows.end >= 0)
    known = over & (rows.reason != NONE)
    reasons = np.bincount(
        rows.provider[known] * np.int64(len(REASONS)) + rows.reason[known], minlength=n * len(REASONS)
    ).reshape(n, len(REASONS))
    began = np.full(n, -1, np.int64)
    began[stays.provider[stays.open]] = stays.start[stays.open]
    last, lasted = _last_ended(rows.provider[over], rows.start[over], rows.end[over], n)
    return Features(
        seen=seen,
        present=present,
        online=began >= 0,
        observed_ms=window.observed_ms,
        online_ms=window.online_ms,
        uptime=np.where(seen, uptime, 0.0),
        sessions=count(rows.provider[inside]),
        stays=count(stays.provider),
        departures=departures,
        failures=failures,
        mtbf_s=mtbf_s,
        mttr_s=mttr_s,
        mttr_n=mttr_n,
        p10_s=np.where(seen, survival.quantile(mine, window.curve, n, 0.9), np.nan),
        p50_s=np.where(seen, survival.quantile(mine, window.curve, n, 0.5), np.nan),
        p90_s=np.where(seen, survival.quantile(mine, window.curve, n, 0.1), np.nan),
        stays_4h=_where_seen(p_4h, seen),
        stays_8h=_where_seen(p_8h, seen),
        reasons=reasons,
        last_disconnect=last,
        last_failure=last_failure,
        last_session_ms=lasted,
        terms=parts,
        score=parts.score(),
        thin=(departures < THIN_LEAVINGS) & (window.online_ms < THIN_ONLINE_MS),
        newcomer=(fleet.first_seen >= 0) & (window.at_ms - fleet.first_seen < NEWCOMER_MS),
        stay_began=began,
    )


def records_of(fleet: Fleet, at_ms: Ms, window_ms: Ms = WINDOW_MS) -> tuple[Window, Features]:
    """The window and every provider's record: window_of and features_of, a large fleet in blocks.

    Columns of a block stay in the processor's cache from one operation to the next.
    """
    blocks = _blocks(fleet)
    if len(blocks) == 1:
        window = window_of(fleet, at_ms, window_ms)
        return window, features_of(window)
    parts = [_unpooled(block, at_ms, window_ms) for _, block in blocks]
    placed = [(first, part) for (first, _), part in zip(blocks, parts, strict=True)]
    exposures = _joined([part.exposures._replace(provider=part.exposures.provider + first) for first, part in placed])
    curve = survival.pooled(exposures)
    features = _joined([features_of(part._replace(curve=curve)) for part in parts])
    window = parts[0]._replace(
        fleet=fleet,
        stays=_joined([part.stays._replace(provider=part.stays.provider + first) for first, part in placed]),
        exposures=exposures,
        curve=curve,
        online=_joined([part.online._replace(provider=part.online.provider + first) for first, part in placed]),
        observed_began=np.concatenate([part.observed_began for part in parts]),
        observed_ms=np.concatenate([part.observed_ms for part in parts]),
        online_ms=np.concatenate([part.online_ms for part in parts]),
        ours=np.concatenate([part.ours for part in parts]),
        long_left=np.concatenate([part.long_left for part in parts]),
        long_ms=np.concatenate([part.long_ms for part in parts]),
    )
    return window, features


def _blocks(fleet: Fleet) -> list[tuple[np.int32, Fleet]]:
    """The fleet as parts of about BLOCK_SESSIONS, each with the number of its first provider. No column is copied."""
    rows, n = fleet.sessions, fleet.providers
    step = max(n * BLOCK_SESSIONS // max(len(rows.provider), 1), 1)
    firsts = range(0, max(n, 1), step)
    edges = np.searchsorted(rows.provider, np.append(np.array(firsts), n))
    blocks = []
    for first, a, b in zip(firsts, edges[:-1], edges[1:], strict=True):
        some = Sessions(
            rows.provider[a:b] - np.int32(first),
            *(rows.start[a:b], rows.end[a:b], rows.beat[a:b], rows.reason[a:b], rows.boot[a:b], rows.ours[a:b]),
        )
        seen = fleet.first_seen[first : first + step]
        blocks.append((np.int32(first), fleet._replace(sessions=some, providers=len(seen), first_seen=seen)))
    return blocks


_Columns = TypeVar("_Columns", bound=tuple[Any, ...])


def _joined(parts: Sequence[_Columns]) -> _Columns:
    """Columns one behind the other, in tuples of columns too."""

    def join_up(columns: Sequence[Any]) -> Any:
        if isinstance(columns[0], tuple):
            return type(columns[0])(*(join_up(column) for column in zip(*columns, strict=True)))
        return np.concatenate(columns)

    joined: _Columns = join_up(parts)
    return joined


def hourly(window: Window, zone: str = "UTC", providers: Ints | None = None) -> tuple[Floats, Floats]:
    """Seconds (online, observed) of each provider in each hour of the week on `zone`'s clock, [n, 168] each.

    `providers`: only these (sorted); otherwise all. ValueError: there is no such zone.
    """
    n, online, began, ours = window.fleet.providers, window.online, window.observed_began, window.ours
    row, begin, end = online.provider, online.begin, online.end
    if providers is not None:
        place = np.full(n, -1, np.int32)
        place[providers] = np.arange(len(providers))
        keep = place[row] >= 0
        row, begin, end = place[row[keep]], begin[keep], end[keep]
        n, began, ours = len(providers), began[providers], ours[providers]
    up = grid.fold(row, begin, end, n, window.from_ms, window.at_ms, zone)
    watched = cut(began, np.full(n, window.at_ms), ours, window.outages)
    seen = grid.fold(watched.row.astype(np.int32), watched.begin, watched.end, n, window.from_ms, window.at_ms, zone)
    return up, seen


def _counter(n: int) -> Callable[[Codes], Ints]:
    return lambda codes: np.bincount(codes, minlength=n)


def _where_seen(chances: survival.Chances, seen: Flags) -> survival.Chances:
    """Of a provider that nobody saw nothing is known: 0, between 0 and 1."""
    return survival.Chances(
        np.where(seen, chances.p, 0.0),
        np.where(seen, chances.low, 0.0),
        np.where(seen, chances.high, 1.0),
        chances.borrowed,
    )


def _latest(provider: Codes, when: Ints, n: int) -> Ints:
    """By provider: the greatest `when`; -1 where there is none. `provider` is sorted."""
    latest = np.full(n, -1, np.int64)
    if len(provider):
        head = np.flatnonzero(np.diff(provider, prepend=np.int32(-1)))
        latest[provider[head]] = np.maximum.reduceat(when, head)
    return latest


def _last_ended(provider: Codes, start: Ints, end: Ints, n: int) -> tuple[Ints, Ints]:
    """By provider: when its last session that is over ended, and how long that lasted (the longest of equals)."""
    last, lasted = _latest(provider, end, n), np.full(n, -1, np.int64)
    ends_it = end == last[provider]
    return last, np.where(last >= 0, np.maximum(lasted, _latest(provider[ends_it], (end - start)[ends_it], n)), -1)


def _repair(window: Window, failed: Flags) -> tuple[Floats, Ints]:
    """By provider: mean seconds from a failure to the next connect, not counting what we did not observe."""
    stays, n = window.stays, window.fleet.providers
    back = np.append(stays.provider[1:] == stays.provider[:-1], False) & failed
    i = np.flatnonzero(back)
    gone_from, back_at = stays.end[i], stays.start[np.minimum(i + 1, max(len(stays.start) - 1, 0))]
    unseen = np.where(stays.ours[i], window.outages.within(gone_from, back_at), 0)
    times = np.bincount(stays.provider[i], minlength=n)
    total = np.bincount(stays.provider[i], weights=(back_at - gone_from - unseen) / 1000.0, minlength=n)
    return np.where(times > 0, total / np.maximum(times, 1), np.nan), times
