"""How good forecasts of yes and no were: AUC, Brier score, log loss, calibration."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analytics.reliability.columns import Floats

_EPS = 1e-6
"""A forecast is taken to be at least so far from 0 and 1 in the log loss, which otherwise is infinite."""


class Bin(NamedTuple):
    """Forecasts in [low, high): how many, their mean, and the share that came true; nan when there are none."""

    low: float
    high: float
    n: int
    mean: float
    came: float


def auc(came: Floats, forecast: Floats) -> float:
    """P(a case that came true was given more than one that did not), ties half; nan with one kind only.

    Mann and Whitney (1947), by ranks: O(n log n).
    """
    _, place, count = np.unique(forecast, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2.0)[place]
    yes = float(came.sum())
    no = len(came) - yes
    if yes == 0 or no == 0:
        return float("nan")
    return float((rank[came > 0.5].sum() - yes * (yes + 1) / 2) / (yes * no))


def brier(came: Floats, forecast: Floats) -> float:
    """Mean squared difference (Brier 1950); nan without cases."""
    return float(np.mean((came - forecast) ** 2)) if len(came) else float("nan")


def log_loss(came: Floats, forecast: Floats) -> float:
    """Mean negative log likelihood in nats; nan without cases."""
    if not len(came):
        return float("nan")
    p = np.clip(forecast, _EPS, 1.0 - _EPS)
    return float(-np.mean(came * np.log(p) + (1.0 - came) * np.log1p(-p)))


def calibration(came: Floats, forecast: Floats, bins: int = 10) -> list[Bin]:
    """Equal slices of 0..1; 1.0 belongs to the last."""
    place = np.minimum((forecast * bins).astype(np.int64), bins - 1)
    n = np.bincount(place, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(place, weights=forecast, minlength=bins) / n
        share = np.bincount(place, weights=came, minlength=bins) / n
    return [Bin(i / bins, (i + 1) / bins, int(n[i]), float(mean[i]), float(share[i])) for i in range(bins)]
