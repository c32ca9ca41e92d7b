"""Forecasts at past moments with only what was known then, against what came. Strictly out of time."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from analytics.reliability import metrics
from analytics.reliability.columns import DAY_MS, Fleet, Floats, as_of
from analytics.reliability.features import window_of
from analytics.reliability.forecast import evidence_of, forecast, outcomes
from analytics.reliability.learning import LOOKBACK_MS, PAST_MS, TRIAL_MS, Past
from coordinator.core.ids import Ms

CUTS_MAX = 400


class Trial(NamedTuple):
    """How the forecasts did at one horizon."""

    horizon_ms: Ms
    n: int
    base_rate: float
    auc: float
    brier: float
    log_loss: float
    brier_base_rate: float
    calibration: list[metrics.Bin]
    blended: int
    """Cuts at which the blend was served rather than the rate."""


class Report(NamedTuple):
    """`cuts`: the moments at which forecasts were made."""

    cuts: list[Ms]
    trials: list[Trial]


def cuts_between(from_ms: Ms, to_ms: Ms, window_ms: Ms, every_ms: Ms, horizon_ms: Ms) -> list[Ms]:
    """The first cut has a whole window of history behind it; the last has its outcome before `to_ms`."""
    return list(range(from_ms + window_ms, to_ms - horizon_ms + 1, every_ms))


def backtest(
    fleet: Fleet,
    cuts: list[Ms],
    to_ms: Ms,
    horizons_ms: tuple[Ms, ...],
    window_ms: Ms,
    told: Callable[[int, int], None] = lambda done, of: None,
) -> Report:
    """Make the forecast that would have been served at each cut, and judge it by what is known at `to_ms`.

    Each cut learns anew from its own past alone. `told(done, of)` is called after each cut. Cases whose
    outcome nobody saw (cut by an outage of ours, or after `to_ms`) are left out.
    """
    first = min(cuts, default=to_ms)
    past = Past(fleet, to_ms, window_ms, since_ms=first - PAST_MS - TRIAL_MS - DAY_MS)
    truth = window_of(as_of(fleet, to_ms, first - LOOKBACK_MS), to_ms, max(to_ms - first, 1))
    said: dict[Ms, list[Floats]] = {h: [] for h in horizons_ms}
    came: dict[Ms, list[Floats]] = {h: [] for h in horizons_ms}
    blended = dict.fromkeys(horizons_ms, 0)
    for done, cut in enumerate(cuts, 1):
        evidence = evidence_of(window_of(as_of(fleet, cut, cut - window_ms - LOOKBACK_MS), cut, window_ms))
        for h in horizons_ms:
            if cut + h > to_ms:
                continue
            blend = past.lesson(cut, h).blend
            blended[h] += blend is not None
            outcome = outcomes(truth, evidence, h)
            said[h].append(forecast(evidence, h, blend).p[outcome >= 0])
            came[h].append(outcome[outcome >= 0].astype(np.float64))
        past.forget_before(cut)
        told(done, len(cuts))
    return Report(cuts, [_trial(h, said[h], came[h], blended[h]) for h in horizons_ms])


def _trial(horizon_ms: Ms, said: list[Floats], came: list[Floats], blended: int) -> Trial:
    p = np.concatenate(said) if said else np.zeros(0)
    y = np.concatenate(came) if came else np.zeros(0)
    base = float(y.mean()) if len(y) else float("nan")
    return Trial(
        horizon_ms,
        len(y),
        base,
        metrics.auc(y, p),
        metrics.brier(y, p),
        metrics.log_loss(y, p),
        base * (1.0 - base),
        metrics.calibration(y, p),
        blended,
    )
