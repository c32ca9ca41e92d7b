"""P(the stay goes on unbroken to now + h | online for a, this provider's history, the fleet's).

Two models. `rate`: this provider's constant rate of leaving, shrunk towards the fleet's hazard at its age.
`blend`: the same on the logit scale, moved by a ridge regression that was fitted on the fleet's own past
(learning.py). Which one is served is decided there, never here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from analytics.reliability import gamma
from analytics.reliability.columns import DAY_MS, HOUR_MS, Codes, Floats, Ints
from analytics.reliability.features import Window
from analytics.reliability.survival import Z90
from coordinator.core.ids import Ms

WEIGHT = 2.0
"""Leavings of the fleet that stand beside a provider's own in its rate (1 to 3 do equally well)."""
RECORD_WEIGHT = 4.0
"""Stays that the rate is worth beside a provider's own stays that reached this age."""
RECENT_MS = 2 * DAY_MS
RECENT_MAX = 5
HAZARD_FLOOR_H = 24.0
"""The fleet's hazard is never less than one leaving in all its hours online and these: where nobody left yet,
that is what is not known, not that nobody ever will."""
SIGNALS = ("level", "age", "record", "recent", "fleet_recent", "hour_cos", "hour_sin")
"""The columns that the blend weighs."""


class Evidence(NamedTuple):
    """What is known of every provider online at a moment; columns have one row per provider online."""

    at_ms: Ms
    provider: Codes
    age_s: Floats
    departures: Floats
    online_h: Floats
    recent: Floats
    """Its leavings in the last two days, at most RECENT_MAX."""
    fleet_recent: float
    """log of the fleet's leavings per hour online in the last day, against the window's."""
    window: Window


def evidence_of(window: Window) -> Evidence:
    """What the forecast rests on, for every provider online at the window's end. O(stays)."""
    stays, n, at = window.stays, window.fleet.providers, window.at_ms
    row = np.flatnonzero(stays.open)
    provider = stays.provider[row]
    left = stays.left & (stays.end > window.from_ms)
    departures = np.bincount(stays.provider[left], minlength=n)
    fresh = left & (stays.end > at - RECENT_MS)
    recent = np.minimum(np.bincount(stays.provider[fresh], minlength=n), RECENT_MAX)
    day_h = float(np.maximum(window.online.end - np.maximum(window.online.begin, at - DAY_MS), 0).sum()) / HOUR_MS
    all_h = float(window.online_ms.sum()) / HOUR_MS
    day_rate = float((left & (stays.end > at - DAY_MS)).sum()) / max(day_h, 1.0)
    all_rate = float(left.sum()) / max(all_h, 1.0)
    return Evidence(
        at,
        provider,
        (at - stays.start[row]) / 1000.0,
        departures[provider].astype(np.float64),
        window.online_ms[provider] / HOUR_MS,
        recent[provider].astype(np.float64),
        float(np.log((day_rate + 1e-4) / (all_rate + 1e-4))),
        window,
    )


class Rate(NamedTuple):
    """The rate model at one horizon: by provider online."""

    p: Floats
    low: Floats
    high: Floats
    """90 % interval of the posterior."""
    fleet: Floats
    """What the fleet's curve alone says at this age."""
    hazard: Floats
    """Leavings an hour: the fleet's at this age, over this horizon."""


def rate(e: Evidence, horizon_ms: Ms) -> Rate:
    """exp(-l h) with l = (2 + d) / (2 / l0 + T): d leavings in T hours online, l0 the fleet's hazard at this age.

    l0 = -ln(S(a + h) / S(a)) / h from the fleet's Kaplan-Meier curve. Gamma-Poisson shrinkage (Gelman et
    al., Bayesian Data Analysis, 2.6): the prior is worth two leavings at the fleet's rate, the posterior is
    Gamma(2 + d, 2 / l0 + T), and the interval is exp(-h x) at its 5 % and 95 % quantiles.
    """
    h = horizon_ms / HOUR_MS
    curve = e.window.curve
    least = 1.0 / (float(e.window.online_ms.sum()) / HOUR_MS + HAZARD_FLOOR_H)
    l0 = np.maximum((curve.at(e.age_s) - curve.at(e.age_s + horizon_ms / 1000)) / h, least)
    shape, scale = WEIGHT + e.departures, WEIGHT / l0 + e.online_h
    return Rate(
        np.exp(-h * shape / scale),
        np.exp(-h * gamma.quantile(shape, Z90) / scale),
        np.exp(-h * gamma.quantile(shape, -Z90) / scale),
        np.exp(-l0 * h),
        l0,
    )


def record(e: Evidence, horizon_ms: Ms, p: Floats) -> Floats:
    """Of this provider's other stays that reached its present age, the share that went on for h more.

    Beta-binomial: `p` stands for RECORD_WEIGHT such stays, so that nobody is judged by one.
    """
    stays, n = e.window.stays, e.window.fleet.providers
    age = np.full(n, np.inf)
    age[e.provider] = e.age_s * 1000.0
    length = stays.end - stays.start
    enough = ~stays.open & (length >= age[stays.provider] + horizon_ms)
    ended = stays.left & (length >= age[stays.provider])
    went_on = np.bincount(stays.provider[enough], minlength=n)[e.provider]
    reached = np.bincount(stays.provider[enough | ended], minlength=n)[e.provider]
    share: Floats = (RECORD_WEIGHT * p + went_on) / (RECORD_WEIGHT + reached)
    return share


def logit(p: Floats) -> Floats:
    """ln(p / (1 - p)), with p kept 0.005 away from 0 and 1: no signal says more than that."""
    q = np.clip(p, 0.005, 0.995)
    return np.asarray(np.log(q / (1.0 - q)), np.float64)


def expit(x: Floats) -> Floats:
    """1 / (1 + exp(-x))."""
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(x, -500.0, 500.0))), np.float64)


def signals(e: Evidence, horizon_ms: Ms, r: Rate) -> Floats:
    """[provider online, SIGNALS]: how else one might see it, as differences from the rate's logit.

    All are 0 where there is nothing to say, so that a coefficient of 0 means the rate. The hour of the day
    is that of the forecast, in UTC; its phase is fitted.
    """
    offset = logit(r.p)
    turn = 2.0 * np.pi * (e.at_ms % DAY_MS) / DAY_MS
    ones = np.ones(len(e.provider))
    return np.stack(
        (
            ones,
            logit(r.fleet) - offset,
            logit(record(e, horizon_ms, r.p)) - offset,
            e.recent,
            e.fleet_recent * ones,
            np.cos(turn) * ones,
            np.sin(turn) * ones,
        ),
        axis=1,
    )


class Chance(NamedTuple):
    """A forecast by provider online, at one horizon."""

    p: Floats
    low: Floats
    high: Floats
    hazard: Floats
    """The fleet's, an hour, at this age."""


def forecast(e: Evidence, horizon_ms: Ms, weights: Floats | None = None) -> Chance:
    """The served forecast: the rate, moved on the logit scale by `weights` (of SIGNALS) when there are any.

    The interval moves along: it is that of the rate's posterior, and does not know how well the weights fit.
    """
    r = rate(e, horizon_ms)
    if weights is None:
        return Chance(r.p, r.low, r.high, r.hazard)
    shift = signals(e, horizon_ms, r) @ weights
    return Chance(expit(logit(r.p) + shift), expit(logit(r.low) + shift), expit(logit(r.high) + shift), r.hazard)


def outcomes(truth: Window, e: Evidence, horizon_ms: Ms) -> Ints:
    """By provider online then: 1 it stayed, 0 it left, -1 nobody knows. `truth` is a later view of the fleet."""
    stays = truth.stays
    key = stays.provider.astype(np.int64) << 42 | (stays.start - truth.from_ms + (1 << 40))
    wanted = e.provider.astype(np.int64) << 42 | (e.at_ms - truth.from_ms + (1 << 40))
    i = np.maximum(np.searchsorted(key, wanted, side="right") - 1, 0)
    until = e.at_ms + horizon_ms
    stayed = stays.end[i] >= until
    return np.where(stayed, 1, np.where(stays.left[i], 0, -1))
