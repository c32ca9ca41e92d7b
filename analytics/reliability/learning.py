"""Learning the blend's weights from the fleet's own past, and whether they may be served.

Cases are forecasts that could have been made at past moments, five hours apart so that every hour of the
day is met, with what came of them. Twice a day the weights are fitted anew on the cases known by then; the
forecasts of the following twelve hours judge them. So the judgement is of what would have been served, and
nothing later than the moment in question is ever used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analytics.reliability import metrics
from analytics.reliability.columns import DAY_MS, HOUR_MS, WINDOW_MS, Fleet, Floats, as_of
from analytics.reliability.features import window_of
from analytics.reliability.forecast import SIGNALS, Blend, Evidence, evidence_of, expit, logit, outcomes, rate, signals
from coordinator.core.ids import Ms

STEP_MS: Ms = 5 * HOUR_MS
"""Between past moments; has no common factor with a day."""
PAST_MS: Ms = 14 * DAY_MS
"""How far back a fit looks."""
FIT_MS: Ms = 12 * HOUR_MS
"""Weights are fitted at multiples of this, and serve until the next."""
TRIAL_MS: Ms = 14 * DAY_MS
"""How much of the newest past compares the two models. With 7 days the choice is noisier: at 24 h on a volunteer
fleet the Brier score of what was served was .1345 instead of .1339, on one that changed character .181 for .178."""
WARM_UP_MS: Ms = 3 * DAY_MS
"""A fleet is watched for so long before its past teaches anything."""
RIDGE = 30.0
"""Cases that pull every weight towards 0, the rate model (10 to 100 do equally well)."""
CASES_MIN = 500
TRIAL_MIN = 250
PROVIDERS_MAX = 5_000
"""Providers that are learnt from; of a larger fleet an even sample."""
CASES_MAX = 600
"""Of one moment; of more an even sample: weights of ten signals need no more."""
ROWS = 2_048
"""Cases that are multiplied at a time."""
LOOKBACK_MS: Ms = 14 * DAY_MS
"""How far before a window sessions are read, so that a stay that reaches into it keeps its age."""


class Cases(NamedTuple):
    """Forecasts that could have been made at one past moment, at one horizon."""

    signals: Floats
    offset: Floats
    """The rate's logit."""
    rate: Floats
    came: Floats
    """1 it stayed, 0 it left."""


class Lesson(NamedTuple):
    """What the past taught at one horizon. `blend` None: serve the rate."""

    blend: Blend | None
    trial_rate: float
    """Brier score of the rate on the newest past; nan where there was too little to compare."""
    trial_blend: float
    cases: int


class Past:
    """The past of one fleet as cases, each made once. Memory: `forget_before` bounds it to what is needed."""

    def __init__(self, fleet: Fleet, known_by_ms: Ms, window_ms: Ms = WINDOW_MS, since_ms: Ms | None = None) -> None:
        """`fleet` as known at `known_by_ms`. Nothing before `since_ms` will be asked for."""
        self._window_ms = window_ms
        self._evidence: dict[Ms, Evidence] = {}
        self._cases: dict[tuple[Ms, Ms], Cases] = {}
        self._fits: dict[tuple[Ms, Ms], Blend | None] = {}
        self.renew(fleet, known_by_ms, since_ms)

    def renew(self, fleet: Fleet, known_by_ms: Ms, since_ms: Ms | None = None) -> None:
        """Later knowledge of the same fleet: what was made of earlier moments stays as it is."""
        self._fleet = sampled(fleet)
        began = self._fleet.sessions.start
        self._first_ms = int(began.min()) if len(began) else known_by_ms
        since = max(self._first_ms, known_by_ms - 3 * PAST_MS if since_ms is None else since_ms)
        window_ms = max(known_by_ms - since, self._window_ms)
        whole = as_of(self._fleet, known_by_ms, known_by_ms - window_ms - LOOKBACK_MS)
        self._truth = window_of(whole, known_by_ms, window_ms)

    def moments(self, since_ms: Ms, at_ms: Ms, horizon_ms: Ms) -> range:
        """The moments from `since_ms` on whose outcome was known at `at_ms`."""
        first = max(since_ms, self._first_ms + WARM_UP_MS)
        return range(-(-first // STEP_MS) * STEP_MS, at_ms - horizon_ms - self._fleet.lost_after_ms + 1, STEP_MS)

    def cases(self, moment: Ms, horizon_ms: Ms) -> Cases:
        """What could have been said at `moment`, and what came. The outcome must be known by now."""
        key = (moment, horizon_ms)
        if key not in self._cases:
            if moment not in self._evidence:
                since = moment - self._window_ms - LOOKBACK_MS
                window = window_of(as_of(self._fleet, moment, since), moment, self._window_ms)
                self._evidence[moment] = evidence_of(window)
            evidence = self._evidence[moment]
            came = outcomes(self._truth, evidence, horizon_ms)
            r = rate(evidence, horizon_ms)
            known = np.flatnonzero(came >= 0)
            known = known[:: len(known) // CASES_MAX + 1]
            self._cases[key] = Cases(
                signals(evidence, horizon_ms, r)[known], logit(r.p)[known], r.p[known], came[known].astype(np.float64)
            )
        return self._cases[key]

    def rest(self) -> None:
        """Drop what was only needed while cases were made; a further horizon makes it anew."""
        self._evidence.clear()

    def blend(self, at_ms: Ms, horizon_ms: Ms) -> Blend | None:
        """The blend as fitted at the last multiple of FIT_MS; None with too few cases."""
        when = at_ms - at_ms % FIT_MS
        key = (when, horizon_ms)
        if key not in self._fits:
            cases = _stack(
                [self.cases(moment, horizon_ms) for moment in self.moments(when - PAST_MS, when, horizon_ms)]
            )
            before = self._fits.get((when - FIT_MS, horizon_ms))
            enough = len(cases.came) >= CASES_MIN
            start = before.weights if before is not None else None
            self._fits[key] = learnt(cases.signals, cases.offset, cases.came, start) if enough else None
        return self._fits[key]

    def lesson(self, at_ms: Ms, horizon_ms: Ms) -> Lesson:
        """What to serve at `at_ms`: the blend only where its Brier score on the newest past is the lower one."""
        judged: list[tuple[Cases, Blend]] = []
        for moment in self.moments(at_ms - horizon_ms - TRIAL_MS, at_ms, horizon_ms):
            blend = self.blend(moment, horizon_ms)
            if blend is not None:
                judged.append((self.cases(moment, horizon_ms), blend))
        n = sum(len(cases.came) for cases, _ in judged)
        if n < TRIAL_MIN:
            return Lesson(None, float("nan"), float("nan"), n)
        came = np.concatenate([cases.came for cases, _ in judged])
        by_rate = metrics.brier(came, np.concatenate([cases.rate for cases, _ in judged]))
        by_blend = metrics.brier(
            came, np.concatenate([expit(c.offset + blend.shift(c.signals)) for c, blend in judged])
        )
        return Lesson(self.blend(at_ms, horizon_ms) if by_blend < by_rate else None, by_rate, by_blend, n)

    def forget_before(self, at_ms: Ms) -> None:
        """Drop what a lesson at `at_ms` or later does not look at."""
        edge = at_ms - PAST_MS - TRIAL_MS - 2 * DAY_MS
        self._evidence = {moment: e for moment, e in self._evidence.items() if moment >= edge}
        self._cases = {key: c for key, c in self._cases.items() if key[0] >= edge}
        self._fits = {key: f for key, f in self._fits.items() if key[0] >= edge}


def sampled(fleet: Fleet) -> Fleet:
    """The fleet, or an even sample of PROVIDERS_MAX of it."""
    if fleet.providers <= PROVIDERS_MAX:
        return fleet
    step = -(-fleet.providers // PROVIDERS_MAX)
    return fleet._replace(sessions=fleet.sessions.take(fleet.sessions.provider % step == 0))


def _stack(parts: list[Cases]) -> Cases:
    if not parts:
        none = np.zeros(0)
        return Cases(np.zeros((0, len(SIGNALS))), none, none, none)
    return Cases(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def learnt(x: Floats, offset: Floats, came: Floats, start: Floats | None = None) -> Blend:
    """The blend of some cases: its weights, their covariance at the maximum (Laplace), the corrections they made."""
    weights = fit(x, offset, came, start)
    moved = x @ weights
    p = expit(offset + moved)
    return Blend(weights, np.asarray(np.linalg.inv(_bend(x, p)), np.float64), float(moved.min()), float(moved.max()))


def fit(x: Floats, offset: Floats, came: Floats, start: Floats | None = None) -> Floats:
    """Weights of a logistic regression with `offset` and a ridge of RIDGE on every weight, by Newton's method.

    Le Cessie and van Houwelingen (1992). The penalised likelihood is concave: it has one maximum, and the
    answer does not depend on `start` (to 1e-6).
    """
    weights = np.zeros(x.shape[1]) if start is None else start.copy()
    height = _height(x, offset, came, weights)
    for _ in range(50):
        p = expit(offset + x @ weights)
        slope = x.T @ (came - p) - RIDGE * weights
        step = np.linalg.solve(_bend(x, p), slope)
        # Far from the maximum a full step may overshoot: halve it until it climbs.
        while (reached := _height(x, offset, came, weights + step)) < height and float(np.abs(step).max()) > 1e-9:
            step /= 2.0
        weights, height = weights + step, reached
        if float(np.abs(step).max()) < 1e-6:
            break
    return np.asarray(weights, np.float64)


def _bend(x: Floats, p: Floats) -> Floats:
    """The curvature of the penalised log likelihood, positive definite. By ROWS: of taller ones BLAS makes work for all
    cores, which wait for each other (ten columns of 40,000 rows: a tenth of the CPU time)."""
    bend = RIDGE * np.eye(x.shape[1])
    weight = (p * (1.0 - p))[:, None]
    for first in range(0, len(x), ROWS):
        some = x[first : first + ROWS]
        bend += (some * weight[first : first + ROWS]).T @ some
    return np.asarray(bend, np.float64)


def _height(x: Floats, offset: Floats, came: Floats, weights: Floats) -> float:
    """The penalised log likelihood."""
    eta = offset + x @ weights
    return float((came * eta - np.logaddexp(0.0, eta)).sum() - RIDGE / 2.0 * (weights @ weights))
