"""Reads the figures that analytics published: will this provider still be here, will it come back.

The core never computes statistics. It interpolates the published curves, and falls back to the fleet's
curve at the session's age when a provider's own figures are missing or stale.
"""

from __future__ import annotations

import math
from bisect import bisect_left

from msgspec import Struct

from coordinator.core.events import FiguresPublished
from coordinator.core.ids import Ms
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState, Figures, Provider


class Stays(Struct, frozen=True, gc=False, kw_only=True):
    """P(the stay goes on unbroken to now + horizon), and what it rests on."""

    probability: float
    basis: str
    """`provider`: its own figures; `age`: the fleet's curve at its age; `none`: no history at all."""


def on_figures(state: ClusterState, event: FiguresPublished) -> None:
    """Newer figures replace the older as a whole."""
    if state.figures is None or event.computed_at_ms >= state.figures.published.computed_at_ms:
        if state.figures is not None and event.computed_at_ms == state.figures.published.computed_at_ms:
            state.work.candidates.clear()  # they know which figures they rest on by that time alone
        state.figures = Figures(published=event, by_provider={f.provider_id: f for f in event.providers})


def survival_at(at_ms: tuple[Ms, ...], p: tuple[float, ...], when_ms: float) -> float:
    """S(`when_ms`) of a curve with S(0) = 1: log-linear between the points, the last hazard goes on behind them."""
    if when_ms <= 0 or not at_ms:
        return 1.0
    i = min(bisect_left(at_ms, when_ms), len(at_ms) - 1)
    t0, s0 = (at_ms[i - 1], p[i - 1]) if i else (0, 1.0)
    t1, s1 = at_ms[i], p[i]
    if s0 <= 0.0 or s1 <= 0.0:
        return 0.0 if when_ms >= t1 else s0
    return s0 * math.exp(math.log(s1 / s0) * (when_ms - t0) / (t1 - t0))


class Curves(Struct, frozen=True, gc=False, kw_only=True):
    """Which curve tells how long a connected provider stays, and from where on it."""

    at_ms: tuple[Ms, ...]
    p: tuple[float, ...]
    from_ms: Ms
    """Of the curve: this moment."""
    basis: str


NO_CURVE = Curves(at_ms=(), p=(), from_ms=0, basis="none")
WITHOUT_HISTORY = 0.5
"""P(a stay goes on) where nothing at all is known: as likely as not."""


def curve_of(state: ClusterState, provider: Provider, policy: Policy, at_ms: Ms | None = None) -> Curves | None:
    """The provider's own curve while it is fresh, else the fleet's at its age; None for one that is not connected.

    As of `at_ms`, or of now.
    """
    session = provider.session
    if session is None or session.conn_id is None:
        return None
    figures = state.figures
    if figures is None:
        return NO_CURVE
    published = figures.published
    at_ms = state.now_ms if at_ms is None else at_ms
    ahead_ms = at_ms - published.computed_at_ms
    own = figures.by_provider.get(provider.row.provider_id)
    began_ms = provider.row.stay_began_ms or session.row.connected_at_ms
    if own is not None and own.stays and ahead_ms <= policy.forecast_stale_ms and began_ms <= published.computed_at_ms:
        return Curves(at_ms=published.horizons_ms, p=own.stays, from_ms=ahead_ms, basis="provider")
    fleet = published.fleet_stays
    if not fleet.at_ms:
        return NO_CURVE
    return Curves(at_ms=fleet.at_ms, p=fleet.p, from_ms=at_ms - began_ms, basis="age")


def stays(state: ClusterState, provider: Provider, horizon_ms: Ms, policy: Policy) -> Stays | None:
    """The forecast for a connected provider; None for one that is not."""
    curve = curve_of(state, provider, policy)
    return stays_on(curve, horizon_ms) if curve is not None else None


def stays_on(curve: Curves, horizon_ms: Ms) -> Stays:
    if not curve.at_ms:
        return Stays(probability=WITHOUT_HISTORY, basis="none")
    now = survival_at(curve.at_ms, curve.p, curve.from_ms)
    then = survival_at(curve.at_ms, curve.p, curve.from_ms + horizon_ms)
    return Stays(probability=then / now if now > 0 else 0.0, basis=curve.basis)


def expected_loss(curve: Curves, run_ms: Ms) -> float:
    """Work, in ms, that is expected to be lost with the provider, of a run of `run_ms` that begins now and saves none:
    E[T; T < run] of the rest T of the stay = integral of S over the run - run x S(run), S given that it is here.

    The integral is exact: between two points the hazard is constant. O(points of the curve).
    """
    if not curve.at_ms:
        return run_ms * (1 - WITHOUT_HISTORY) / 2
    begin, end = max(0, curve.from_ms), max(0, curve.from_ms) + run_ms
    s0 = survival_at(curve.at_ms, curve.p, begin)
    if s0 <= 0.0:
        return float(run_ms)
    area, t, s = 0.0, begin, s0
    first = bisect_left(curve.at_ms, begin + 1)
    for point in (*curve.at_ms[first:], end):
        if point >= end:
            point = end
        then = survival_at(curve.at_ms, curve.p, point)
        if then <= 0.0:
            area += s * (point - t) if s > 0.0 else 0.0
        else:
            fall = math.log(s / then)
            area += (s - then) / fall * (point - t) if fall > 1e-12 else s * (point - t)
        t, s = point, then
        if point == end or s <= 0.0:
            break
    return max(0.0, area - run_ms * s) / s0


def stays_once_back(state: ClusterState, provider: Provider, run_ms: Ms) -> float:
    """P(a provider that is silent now stays for `run_ms` if it returns), by what was last published of it, else by the
    fleet's stays from their beginning. Without any history 1: nothing speaks against it."""
    figures = state.figures
    if figures is None:
        return 1.0
    own = figures.by_provider.get(provider.row.provider_id)
    if own is not None and own.stays:
        return survival_at(figures.published.horizons_ms, own.stays, run_ms)
    fleet = figures.published.fleet_stays
    return survival_at(fleet.at_ms, fleet.p, run_ms)


def returns(state: ClusterState, provider: Provider, gone_ms: Ms, within_ms: Ms, policy: Policy) -> float:
    """P(a provider that has been gone for `gone_ms` is back within `within_ms`), by its own absences or the fleet's.

    Without any history 0.5: as likely as not.
    """
    figures = state.figures
    if figures is None:
        return 0.5
    published = figures.published
    own = figures.by_provider.get(provider.row.provider_id)
    curve = (published.delays_ms, own.returns) if own is not None and own.returns else None
    at_ms, p = curve or (published.fleet_returns.at_ms, published.fleet_returns.p)
    if not at_ms:
        return 0.5
    before, then = back_by(at_ms, p, gone_ms), back_by(at_ms, p, gone_ms + within_ms)
    return (then - before) / (1 - before) if before < 1 else 1.0


def back_by(at_ms: tuple[Ms, ...], p: tuple[float, ...], when_ms: Ms) -> float:
    """P(back by `when_ms`) of a rising curve: linear between its points, the last one goes on."""
    if when_ms <= 0:
        return 0.0
    i = bisect_left(at_ms, when_ms)
    if i == len(at_ms):
        return p[-1]
    t0, p0 = (at_ms[i - 1], p[i - 1]) if i else (0, 0.0)
    return p0 + (p[i] - p0) * (when_ms - t0) / (at_ms[i] - t0)
