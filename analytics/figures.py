"""Everything that is known of a fleet as of one moment: computed once, asked many times."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from analytics.reliability import features, forecast, returns
from analytics.reliability.columns import DAY_MS, HOUR_MS, WINDOW_MS, Fleet, Floats, Ints, as_of
from analytics.reliability.features import Features, Window, records_of
from analytics.reliability.learning import LOOKBACK_MS, Lesson
from coordinator.core.events import Curve, FiguresPublished, ProviderFigures
from coordinator.core.ids import Ms, ProviderId

HORIZONS_MS: tuple[Ms, ...] = tuple(h * HOUR_MS for h in (1, 2, 4, 8, 24, 48))
"""Horizons that are learnt and published; between two of them the hazard is constant."""
DELAYS_MS: tuple[Ms, ...] = (60_000, 300_000, 900_000, HOUR_MS, 4 * HOUR_MS, 12 * HOUR_MS, DAY_MS, 3 * DAY_MS)
"""Delays at which the return curve is published."""
CURVE_POINTS = 200
THIN_LEAVINGS = 3
FLEET_THIN_LEAVINGS = 10
HORIZON_MAX_MS: Ms = 14 * DAY_MS
HIGHLY_RELIABLE = 0.95

Lessons = dict[Ms, Lesson]
"""By horizon."""


class Served(NamedTuple):
    """The forecast of everybody online at HORIZONS_MS: columns [provider online, horizon]."""

    evidence: forecast.Evidence
    p: Floats
    low: Floats
    high: Floats
    hazard: Floats
    blend: tuple[bool, ...]
    """By horizon: the blend was served, not the rate."""
    place: Ints
    """By provider: its row; -1 when it is not online."""


class At(NamedTuple):
    """One horizon of one provider's forecast."""

    p: float
    low: float
    high: float
    hazard: float
    model: str


class Figures:
    """A fleet as of `at_ms`. Immutable but for what it computes on demand."""

    def __init__(
        self, ids: list[str], fleet: Fleet, at_ms: Ms, computed_at_ms: Ms, lessons: Callable[[], Lessons]
    ) -> None:
        """`fleet`: sessions from `at_ms - WINDOW_MS - LOOKBACK_MS` on are enough. O(sessions).

        `lessons` is called when a forecast is asked for, once.
        """
        self.ids = ids[: fleet.providers]
        self._codes: dict[str, int] | None = None
        self.at_ms, self.computed_at_ms = at_ms, computed_at_ms
        self.window: Window
        self.features: Features
        self.window, self.features = records_of(as_of(fleet, at_ms, at_ms - WINDOW_MS - LOOKBACK_MS), at_ms)
        self._lessons = lessons
        self._served: Served | None = None
        self._grid: tuple[Floats, Floats] | None = None
        self._order: Ints | None = None

    def code_of(self, provider_id: str) -> int | None:
        """The provider's row in every column; None when no session of it is known."""
        if self._codes is None:
            self._codes = {name: code for code, name in enumerate(self.ids)}
        return self._codes.get(provider_id)

    @property
    def served(self) -> Served:
        """The forecast of everybody online."""
        if self._served is None:
            self._served = _serve(self.window, self._lessons())
        return self._served

    def grid(self) -> tuple[Floats, Floats]:
        """Seconds (online, observed) by provider and hour of the week, UTC."""
        if self._grid is None:
            self._grid = features.hourly(self.window)
        return self._grid

    def order(self) -> Ints:
        """Providers seen in the window by score descending, uptime descending, id ascending."""
        if self._order is None:
            f = self.features
            rows = np.flatnonzero(f.present)
            names = np.array(self.ids, dtype=object)[rows]
            by_name = np.argsort(np.argsort(names.astype(str))) if len(rows) else rows
            self._order = rows[np.lexsort((by_name, -f.uptime[rows], -f.score[rows]))]
        return self._order

    def at_horizon(self, code: int, horizon_ms: Ms) -> At | None:
        """The forecast of one provider; None when it is not online."""
        row = int(self.served.place[code])
        if row < 0:
            return None
        s = self.served
        i = min(int(np.searchsorted(HORIZONS_MS, horizon_ms)), len(HORIZONS_MS) - 1)
        p, low, high = (_between(column[row], horizon_ms) for column in (s.p, s.low, s.high))
        return At(p, low, high, float(s.hazard[row, i]), "blend" if s.blend[i] else "rate")

    def published(self) -> FiguresPublished:
        """What the core is told."""
        back = returns.returns_of(self.window, DELAYS_MS)
        rows = np.flatnonzero(self.features.present).tolist()
        score, p, place = self.features.score.tolist(), self.served.p.tolist(), self.served.place.tolist()
        ways = back.p.tolist()
        return FiguresPublished(
            at_ms=self.computed_at_ms,
            computed_at_ms=self.at_ms,
            horizons_ms=HORIZONS_MS,
            delays_ms=DELAYS_MS,
            providers=tuple(
                ProviderFigures(
                    provider_id=ProviderId(self.ids[i]),
                    score=score[i],
                    stays=tuple(p[place[i]]) if place[i] >= 0 else (),
                    returns=tuple(ways[i]),
                )
                for i in rows
            ),
            fleet_stays=_curve(self.window.curve.age, np.exp(self.window.curve.log_s)),
            fleet_returns=_curve(back.fleet.age, 1.0 - np.exp(back.fleet.log_s)),
        )


def _serve(window: Window, lessons: Lessons) -> Served:
    evidence = forecast.evidence_of(window)
    blends = [lessons[h].blend if h in lessons else None for h in HORIZONS_MS]
    chances = [forecast.forecast(evidence, h, b) for h, b in zip(HORIZONS_MS, blends, strict=True)]
    place = np.full(window.fleet.providers, -1, np.int64)
    place[evidence.provider] = np.arange(len(evidence.provider))

    def falling(columns: list[Floats]) -> Floats:
        """[provider, horizon]; a longer stay is never likelier than a shorter one."""
        return np.minimum.accumulate(np.stack(columns, axis=1), axis=1)

    return Served(
        evidence,
        falling([c.p for c in chances]),
        falling([c.low for c in chances]),
        falling([c.high for c in chances]),
        np.stack([c.hazard for c in chances], axis=1),
        tuple(b is not None for b in blends),
        place,
    )


def _between(p: Floats, horizon_ms: Ms) -> float:
    """P at any horizon from those at HORIZONS_MS: log-linear between, the last hazard goes on behind."""
    at = np.concatenate(([0.0], np.asarray(HORIZONS_MS, np.float64)))
    log_p = np.concatenate(([0.0], np.log(np.maximum(p, 1e-300))))
    if horizon_ms <= at[-1]:
        return float(np.exp(np.interp(float(horizon_ms), at, log_p)))
    slope = (log_p[-1] - log_p[-2]) / (at[-1] - at[-2])
    return float(np.exp(log_p[-1] + slope * (horizon_ms - at[-1])))


def _curve(age: Ints, p: Floats) -> Curve:
    """At most CURVE_POINTS of a step curve, evenly in probability; times in ms."""
    if len(age) == 0:
        return Curve()
    keep = np.arange(len(age))
    if len(age) > CURVE_POINTS:
        wanted = np.linspace(p[0], p[-1], CURVE_POINTS)
        rising = p if p[-1] >= p[0] else -p
        found = np.searchsorted(rising, wanted if p[-1] >= p[0] else -wanted)
        keep = np.unique(np.minimum(found, len(age) - 1))
    return Curve(at_ms=tuple((age[keep] * 1000).tolist()), p=tuple(np.maximum(p[keep], 0.0).tolist()))
