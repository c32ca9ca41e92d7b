"""P(the stay goes on unbroken to now + h | online for a, this provider's history, the fleet's).

Two models. `rate`: this provider's constant rate of leaving, shrunk towards the fleet's hazard at its age.
`blend`: the same on the logit scale, moved by a ridge regression that was fitted on the fleet's own past
(learning.py). Which one is served is decided there, never here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from analytics.reliability import gamma
from analytics.reliability.columns import DAY_MS, HOUR_MS, Codes, Floats, Ints
from analytics.reliability.features import Window
from analytics.reliability.survival import Z90
from coordinator.core.ids import Ms

WEIGHT = 2.0
"""Leavings of the fleet that stand beside a provider's own in its rate (1 to 3 do equally well)."""
RECORD_WEIGHT = 4.0
"""Stays that the rate is worth beside a provider's own stays that reached this age."""
OWN_KIND = 0.001
"""Before its record is looked at: how likely a provider is of a kind of its own, of which the fleet's curve says
nothing (.0001 to .01 do equally well)."""
OWN_H = 24.0
"""The hours in which such a one is taken to leave WEIGHT times: so thin that a record of days outweighs it."""
OWN_HEARD = 0.01
"""The interval spans both kinds while each is likelier than this."""
EDGE = 1.01
"""The rate at the interval's ends differs from that at p by this factor at least."""
DAYS = 14
"""How many earlier days are looked at for what a provider did at this hour."""
DAYS_WEIGHT, WEEKS_WEIGHT = 4.0, 1.0
"""Days, and same days of earlier weeks, that the rate is worth beside a provider's own on which it was there at this
hour. On made-up fleets runs of 4 and 8 h lost an eighth less where people go home, a quarter less where machines are
patched by week; on volunteers as much as before (their Brier score at 4 h: .0546, was .0563)."""
LONG_LEFT, LONG_H = 2.0, 40.0
"""Leavings and hours online that stand beside a provider's own in its longer record: on a volunteer fleet, ranked by
the forecast, 0.215 of the work that a random choice wastes on runs of 24 h instead of 0.236, 0.141 for 0.161 at 8 h."""
RECENT_MS = 2 * DAY_MS
RECENT_MAX = 5
HAZARD_FLOOR_H = 24.0
"""The fleet's hazard is never less than one leaving in all its hours online and these: where nobody left yet,
that is what is not known, not that nobody ever will."""
SIGNALS = ("level", "age", "record", "daily", "weekly", "long", "recent", "fleet_recent", "hour_cos", "hour_sin")
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
    long_left: Floats
    """Its leavings in the window and before it, and the hours online of the same time."""
    long_h: Floats
    fleet_recent: float
    """log of the fleet's leavings per hour online in the last day, against the window's."""
    window: Window
    daily_s: npt.NDArray[np.float32]
    """[DAYS, provider online]: at this hour so many days ago, for how many seconds the stay of that time still went on;
    less than 0 where nobody saw its end, nan where it was not there."""


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
        window.long_left[provider].astype(np.float64),
        window.long_ms[provider] / HOUR_MS,
        float(np.log((day_rate + 1e-4) / (all_rate + 1e-4))),
        window,
        _daily(window, provider),
    )


def _daily(window: Window, provider: Codes) -> npt.NDArray[np.float32]:
    """`Evidence.daily_s` of these providers, in the order of their numbers. O(DAYS x providers)."""
    stays, at = window.stays, window.at_ms
    found = np.full((DAYS, len(provider)), np.nan, np.float32)
    if len(provider) == 0:
        return found
    base = int(stays.start.min())
    key = stays.provider.astype(np.int64) << 42 | (stays.start - base)
    for day in range(DAYS):
        then = at - (day + 1) * DAY_MS
        if then < max(base, window.from_ms):
            break
        i = np.searchsorted(key, provider.astype(np.int64) << 42 | (then - base), side="right") - 1
        j = np.maximum(i, 0)
        there = (i >= 0) & (stays.provider[j] == provider) & (stays.end[j] > then)
        rest = (stays.end[j] - then) / 1000.0
        found[day] = np.where(there, np.where(stays.left[j], rest, -rest), np.nan)
    return found


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
    faster: Floats
    """How many times the leaving rate at `low` is the one at `p`; more than 1."""
    slower: Floats
    """The same at `high`; less than 1."""


def rate(e: Evidence, horizon_ms: Ms) -> Rate:
    """exp(-l h) with l = (2 + d) / (2 / l0 + T): d leavings in T hours online, l0 the fleet's hazard at this age.

    l0 = -ln(S(a + h) / S(a)) / h from the fleet's Kaplan-Meier curve. Gamma-Poisson shrinkage (Gelman et
    al., Bayesian Data Analysis, 2.6): the prior is worth two leavings at the fleet's rate, the posterior is
    Gamma(2 + d, 2 / l0 + T), and the interval is exp(-h x) at its 5 % and 95 % quantiles.

    Where l0 is small those two leavings are worth months, and no record could be heard against them: eighty
    leavings in a week, beside a fleet that hardly ever leaves at this age. So the prior is a mixture (the same, 2.4
    and 22): with OWN_KIND the provider is of a kind of its own, that leaves as often as twice in OWN_H. Each kind has
    the share that makes the record likely; the second has one only where the record contradicts l0.
    """
    h = horizon_ms / HOUR_MS
    curve = e.window.curve
    hours = float(e.window.online_ms.sum()) / HOUR_MS + HAZARD_FLOOR_H
    l0 = np.maximum((curve.at(e.age_s) - curve.at(e.age_s + horizon_ms / 1000)) / h, 1.0 / hours)
    usual = _kind(e, WEIGHT / l0, h)
    own = _kind(e, np.minimum(WEIGHT / l0, OWN_H), h)
    share = expit(np.log(OWN_KIND / (1.0 - OWN_KIND)) + own.evidence - usual.evidence)
    with np.errstate(divide="ignore"):
        log_p = np.logaddexp(np.log1p(-share) + usual.log_p, np.log(share) + own.log_p)
    heard, alone = share > OWN_HEARD, share > 1.0 - OWN_HEARD
    low = np.where(alone, own.log_low, np.where(heard, np.minimum(usual.log_low, own.log_low), usual.log_low))
    high = np.where(alone, own.log_high, np.where(heard, np.maximum(usual.log_high, own.log_high), usual.log_high))
    # A kind that is hardly heard may still move p to the edge of the other one's interval.
    low, high = np.minimum(low, log_p * EDGE), np.maximum(high, log_p / EDGE)
    return Rate(np.exp(log_p), np.exp(low), np.exp(high), np.exp(-l0 * h), l0, low / log_p, high / log_p)


class _Kind(NamedTuple):
    """What follows if a provider is of one kind."""

    log_p: Floats
    log_low: Floats
    log_high: Floats
    evidence: Floats
    """log of how likely its record is then, but for what is the same of all kinds."""


def _kind(e: Evidence, scale: Floats, h: float) -> _Kind:
    """The posterior of the prior Gamma(WEIGHT, scale), and the record's negative binomial likelihood."""
    d, after = e.departures, scale + e.online_h
    shape = WEIGHT + d
    return _Kind(
        -h * shape / after,
        -h * gamma.quantile(shape, Z90) / after,
        -h * gamma.quantile(shape, -Z90) / after,
        WEIGHT * np.log(scale / after) - d * np.log(after),
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


def daily(e: Evidence, horizon_ms: Ms, p: Floats) -> Floats:
    """Of the earlier days on which this provider was there at this hour, the share on which it stayed for h more.

    Beta-binomial: `p` stands for DAYS_WEIGHT such days. Who goes home at six is told from who does at eight.
    """
    return _went_on(e.daily_s, horizon_ms, p, DAYS_WEIGHT)


def weekly(e: Evidence, horizon_ms: Ms, p: Floats) -> Floats:
    """The same of this very day in earlier weeks: a Friday, or the night on which machines are patched."""
    return _went_on(e.daily_s[6::7], horizon_ms, p, WEEKS_WEIGHT)


def _went_on(rest_s: npt.NDArray[np.float32], horizon_ms: Ms, p: Floats, weight: float) -> Floats:
    h = horizon_ms / 1000.0
    stayed = (np.abs(rest_s) >= h).sum(axis=0)
    known = stayed + ((rest_s >= 0.0) & (rest_s < h)).sum(axis=0)
    return np.asarray((weight * p + stayed) / (weight + known), np.float64)


def long_run(e: Evidence, horizon_ms: Ms) -> Floats:
    """What the longer record alone says, at whatever age: a constant rate, LONG_LEFT leavings in LONG_H beside it."""
    return np.asarray(np.exp(-(horizon_ms / HOUR_MS) * (LONG_LEFT + e.long_left) / (LONG_H + e.long_h)), np.float64)


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
            logit(daily(e, horizon_ms, r.p)) - offset,
            logit(weekly(e, horizon_ms, r.p)) - offset,
            logit(long_run(e, horizon_ms)) - offset,
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


class Blend(NamedTuple):
    """What the past taught: how far to move the rate on the logit scale, and how sure that is."""

    weights: Floats
    """Of SIGNALS."""
    spread: Floats
    """Their covariance."""
    least: float
    most: float
    """The corrections of the cases that it was learnt on: beyond them nobody knows."""

    def shift(self, x: Floats) -> Floats:
        """The correction for each row of signals."""
        return np.asarray(np.clip(x @ self.weights, self.least, self.most), np.float64)

    def doubt(self, x: Floats) -> Floats:
        """Half of a 90 % interval of the correction: it grows with the distance from what was learnt on."""
        return np.asarray(Z90 * np.sqrt(np.maximum(((x @ self.spread) * x).sum(axis=1), 0.0)), np.float64)


def forecast(e: Evidence, horizon_ms: Ms, blend: Blend | None = None) -> Chance:
    """The served forecast: the rate, moved on the logit scale by `blend` when there is one.

    The interval moves along, with the width of the rate's posterior and the doubt about the correction in square.
    """
    r = rate(e, horizon_ms)
    if blend is None:
        return Chance(r.p, r.low, r.high, r.hazard)
    x = signals(e, horizon_ms, r)
    centre, shift, doubt = logit(r.p), blend.shift(x), blend.doubt(x)
    # The rate's own bounds, about the probability that the logit keeps away from 0 and 1.
    kept = np.log(expit(centre))
    down, up = centre - _logit_of_log(kept * r.faster), _logit_of_log(kept * r.slower) - centre
    return Chance(
        expit(centre + shift),
        expit(centre + shift - np.hypot(down, doubt)),
        expit(centre + shift + np.hypot(up, doubt)),
        r.hazard,
    )


def _logit_of_log(log_p: Floats) -> Floats:
    """logit(p) from log p < 0, without rounding p to 0 or 1."""
    return np.asarray(log_p - np.log(-np.expm1(log_p)), np.float64)


def outcomes(truth: Window, e: Evidence, horizon_ms: Ms) -> Ints:
    """By provider online then: 1 it stayed, 0 it left, -1 nobody knows. `truth` is a later view of the fleet."""
    stays = truth.stays
    key = stays.provider.astype(np.int64) << 42 | (stays.start - truth.from_ms + (1 << 40))
    wanted = e.provider.astype(np.int64) << 42 | (e.at_ms - truth.from_ms + (1 << 40))
    i = np.maximum(np.searchsorted(key, wanted, side="right") - 1, 0)
    until = e.at_ms + horizon_ms
    stayed = stays.end[i] >= until
    return np.where(stayed, 1, np.where(stays.left[i], 0, -1))
