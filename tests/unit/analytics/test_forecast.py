"""The forecast: its formula, its interval, what it learns, and that it never looks ahead."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from analytics.reliability import gamma
from analytics.reliability.backtest import backtest, cuts_between
from analytics.reliability.columns import WINDOW_MS, Fleet, as_of
from analytics.reliability.features import window_of
from analytics.reliability.forecast import SIGNALS, Blend, evidence_of, expit, forecast, logit, rate, signals
from analytics.reliability.learning import Past, fit, learnt
from tests.unit.analytics.histories import T0, D, H, Row, every, fleet

NOW = T0 + 20 * D


def gamma_cdf(shape: float, x: float) -> float:
    """P(Gamma(shape) <= x), by Simpson's rule in 20,000 steps."""
    grid = np.linspace(1e-12, x, 20_001)
    density = np.exp((shape - 1) * np.log(grid) - grid - math.lgamma(shape))
    weights = np.ones(20_001)
    weights[1:-1:2], weights[2:-1:2] = 4, 2
    return float((density * weights).sum() * (x - 1e-12) / 20_000 / 3)


@pytest.mark.parametrize(("shape", "error"), [(2.0, 0.03), (3.0, 0.02), (8.0, 0.005), (50.0, 0.001)])
def test_gamma_quantiles_are_as_near_as_said(shape: float, error: float) -> None:
    """Both ends of a 90 % interval, against the integral, with the error that the docstring states."""
    for z, p in ((-1.6448536, 0.05), (1.6448536, 0.95)):
        low, high = 0.0, shape * 10 + 20
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if gamma_cdf(shape, middle) < p else (low, middle)
        assert gamma.quantile(np.array([shape]), z)[0] == pytest.approx(low, rel=error)


def test_rate_by_hand() -> None:
    """l0 from the fleet's curve, two leavings' weight, own leavings and own time: the semantics' formula."""
    history = [
        *every(0, 5 * H, H, NOW - 10 * D, NOW - H),
        *every(1, 40 * H, H, NOW - 10 * D, NOW - H),
        Row(2, NOW - 2 * H),
    ]
    window = window_of(as_of(fleet(history), NOW), NOW)
    e = evidence_of(window)
    i = e.provider.tolist().index(2)
    s = np.exp(window.curve.at(np.array([2 * 3600, 10 * 3600])))
    l0 = -math.log(s[1] / s[0]) / 8
    expected = math.exp(-8 * (2 + 0) / (2 / l0 + 2))
    found = rate(e, 8 * H)
    assert expected == pytest.approx(found.p[i], abs=1e-4)  # a kind of its own: one in a thousand
    assert found.low[i] < found.p[i] < found.high[i]
    assert l0 == pytest.approx(found.hazard[i])


def test_own_record_moves_the_rate() -> None:
    """Of two of the same age, the one that left often is less likely to stay."""
    flaky = [*every(0, H, H, NOW - 10 * D, NOW - 3 * H), Row(0, NOW - 2 * H)]
    steady = [Row(1, NOW - 10 * D, NOW - 3 * H), Row(1, NOW - 2 * H)]
    e = evidence_of(window_of(as_of(fleet([*flaky, *steady]), NOW), NOW))
    assert [0, 1] == e.provider.tolist()
    p = rate(e, 4 * H).p
    assert p[0] < p[1]


def test_record_that_contradicts_the_fleet_is_heard() -> None:
    """Eighty leavings, no stay over four hours, now five hours old, among machines that hardly ever leave."""
    odd = [*every(0, 3 * H, H, NOW - 13 * D - 15 * H, NOW - 5 * H), Row(0, NOW - 5 * H)]
    steady = [Row(i, NOW - 40 * D + i * H) for i in range(1, 60)] + [
        Row(60 + i, NOW - 9 * D, NOW - i * D) for i in range(5)
    ]
    e = evidence_of(window_of(as_of(fleet([*odd, *steady]), NOW), NOW))
    assert 80 == e.departures[0]
    found = rate(e, 8 * H)
    own = math.exp(-8 * 82 / e.online_h[0])
    assert own == pytest.approx(found.p[0], rel=0.3)
    assert found.low[0] < found.p[0] < found.high[0] < 0.2
    assert found.p[1:].min() > 0.97


def test_fleet_that_nobody_left_is_not_immortal() -> None:
    """Three newcomers of three hours: the chance of a day is well below 1, because a day was never seen."""
    e = evidence_of(window_of(as_of(fleet([Row(i, NOW - 3 * H) for i in range(3)]), NOW), NOW))
    found = rate(e, 24 * H)
    assert 0.2 < found.p[0] < 0.8
    assert found.high[0] - found.low[0] > 0.3


def volatile(days: int = 40, providers: int = 60, seed: int = 5) -> Fleet:
    """Machines whose short stays are mostly very short: own record and age say more than a constant rate."""
    rng = np.random.default_rng(seed)
    rows: list[Row] = []
    for i in range(providers):
        at = T0 + int(rng.uniform(0, D))
        mean = math.exp(rng.normal(math.log(4), 0.8))
        while at < T0 + days * D:
            length = int(rng.weibull(0.55) * mean * H) + 60_000
            rows.append(Row(i, at, at + length))
            at += length + int(rng.exponential(3) * H) + 60_000
    return fleet(rows, providers=providers)


def test_weights_of_nothing_are_the_rate() -> None:
    """Weights of 0 change no forecast; no data leaves them at 0."""
    e = evidence_of(window_of(as_of(volatile(), NOW), NOW))
    nothing = Blend(np.zeros(len(SIGNALS)), np.zeros((len(SIGNALS), len(SIGNALS))), 0.0, 0.0)
    plain, moved = forecast(e, 8 * H), forecast(e, 8 * H, nothing)
    for a, b in ((plain.p, moved.p), (plain.low, moved.low), (plain.high, moved.high)):
        assert logit(a).tolist() == pytest.approx(logit(b).tolist(), abs=1e-3)
    assert [0.0] * 7 == fit(np.zeros((0, 7)), np.zeros(0), np.zeros(0)).tolist()


@pytest.mark.parametrize("horizon", [1, 8, 48])
def test_interval_of_the_blend_holds_it_and_is_never_a_point(horizon: int) -> None:
    """Also for those whose rate is so near 0 or 1 that the logit is cut off there."""
    e = evidence_of(window_of(as_of(volatile(), NOW), NOW))
    e = e._replace(departures=e.departures * 40.0)
    x = signals(e, horizon * H, rate(e, horizon * H))
    came = (np.arange(len(x)) % 3 > 0).astype(float)
    found = forecast(e, horizon * H, learnt(x, np.zeros(len(x)), came))
    assert rate(e, 48 * H).p.min() < 1e-6
    assert bool(np.all((0 < found.low) & (found.low < found.p) & (found.p < found.high) & (found.high < 1)))
    assert float((found.high - found.low).min()) > 1e-5


def test_blend_says_no_more_than_it_saw_and_doubts_what_it_did_not() -> None:
    """Far from what it learnt on: the correction stays within those that were met, the interval is wider."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2000, 7))
    came = (rng.random(2000) < expit(2 * x[:, 0])).astype(float)
    blend = learnt(x, np.zeros(2000), came)
    met, far = x @ blend.weights, np.eye(7) * 50
    assert (met.min(), met.max()) == (blend.least, blend.most)
    assert met.max() == blend.shift(far)[0] and met.min() == blend.shift(-far)[0]
    assert met.tolist() == pytest.approx(blend.shift(x).tolist())
    assert blend.doubt(far).min() > 5 * blend.doubt(x).max()


def test_fit_finds_the_one_maximum() -> None:
    """From anywhere the same weights, with no slope left; more data, less pull to 0."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4000, 7))
    true = np.array([0.5, -0.3, 0.0, 0.8, 0.0, 0.1, -0.6])
    came = (rng.random(4000) < expit(x @ true)).astype(float)
    offset = np.zeros(4000)
    found = fit(x, offset, came)
    assert found.tolist() == pytest.approx(fit(x, offset, came, np.full(7, 2.0)).tolist(), abs=1e-5)
    assert found.tolist() == pytest.approx(true.tolist(), abs=0.15)
    few = fit(x[:50], offset[:50], came[:50])
    assert np.linalg.norm(few) < np.linalg.norm(found)


def test_nothing_learnt_without_enough_past() -> None:
    """A fleet of four days serves the rate."""
    young = as_of(volatile(), T0 + 4 * D)
    assert Past(young, T0 + 4 * D).lesson(T0 + 4 * D, 8 * H).blend is None


def test_blend_is_served_where_it_did_better() -> None:
    """On a fleet whose hazard falls steeply with age the past shows it, and the backtest confirms it."""
    f = volatile()
    lesson = Past(as_of(f, NOW + 20 * D), NOW + 20 * D).lesson(NOW + 20 * D, 8 * H)
    assert lesson.blend is not None
    assert lesson.trial_blend < lesson.trial_rate


def test_learning_and_forecast_do_not_look_ahead() -> None:
    """What is said at a moment is the same whether or not the future is in the columns."""
    f, at = volatile(), T0 + 30 * D
    said = []
    for known in (f, as_of(f, at)):
        past = Past(known, at if known is not f else T0 + 40 * D, since_ms=T0)
        lesson = past.lesson(at, 8 * H)
        assert lesson.blend is not None
        e = evidence_of(window_of(as_of(known, at), at))
        said.append(forecast(e, 8 * H, lesson.blend).p.tolist())
    assert said[0] == pytest.approx(said[1], abs=1e-9)


def test_signals_are_nothing_where_there_is_nothing_to_say() -> None:
    """A lone newcomer: every signal but the constant and the hour is 0."""
    e = evidence_of(window_of(as_of(fleet([Row(0, NOW - H)]), NOW), NOW))
    found = dict(zip(SIGNALS, signals(e, 8 * H, rate(e, 8 * H))[0].tolist(), strict=True))
    assert (1.0, 0.0, 0.0) == (found["level"], found["record"], found["recent"])
    assert 0.0 == pytest.approx(found["fleet_recent"])


def by_signal(rows: list[Row], at: int, horizon: int, outages: list[tuple[int, int]] | None = None) -> dict[str, float]:
    """The signals of the first provider."""
    e = evidence_of(window_of(as_of(fleet(rows, outages), at), at))
    return dict(zip(SIGNALS, signals(e, horizon, rate(e, horizon))[0].tolist(), strict=True))


@pytest.mark.parametrize(("asked_at", "stays"), [(12 * H, True), (15 * H, False)])
def test_what_it_did_at_this_hour_on_other_days_is_heard(asked_at: int, stays: bool) -> None:
    """It comes at eight and goes at six. At noon it has always stayed for four hours more, at three it never has."""
    rows = [Row(0, T0 + day * D + 8 * H, T0 + day * D + 18 * H) for day in range(10)]
    rows += every(1, 3 * H, H, T0, T0 + 11 * D)
    found = by_signal([*rows, Row(0, T0 + 10 * D + 8 * H)], T0 + 10 * D + asked_at, 4 * H)
    assert stays == (found["daily"] > 0.1) and stays != (found["daily"] < -0.1)


def test_what_it_did_on_this_day_of_the_week_is_heard() -> None:
    """Each seventh night it is switched off at two: then the week says more of it than the days do."""
    nights = [T0 - 5 * D + 2 * H, T0 + 2 * D + 2 * H, T0 + 9 * D + 2 * H]
    rows = [Row(0, begin + H, end) for begin, end in itertools.pairwise(nights)]
    rows += [Row(0, nights[-1] + H), *every(1, 30 * H, H, T0 - 5 * D, T0 + 16 * D)]
    patched = by_signal(rows, nights[-1] + 7 * D - H, 4 * H)
    assert patched["weekly"] < min(patched["daily"], 0.0)
    usual = by_signal(rows, nights[-1] + 6 * D - H, 4 * H)
    assert usual["weekly"] > 0.0


def test_days_that_nobody_saw_say_nothing() -> None:
    """On each day before our outage hid how its stay went on: nothing is heard of these days."""
    rows = [Row(0, T0 + day * D + 8 * H, T0 + day * D + 13 * H, ours=True) for day in range(5)]
    dark = [(T0 + day * D + 12 * H + 1, T0 + day * D + 14 * H) for day in range(5)]
    found = by_signal([*rows, Row(0, T0 + 5 * D + 8 * H, ours=True)], T0 + 5 * D + 12 * H, 4 * H, dark)
    assert found["daily"] == found["weekly"] == 0.0


def test_backtest_counts_only_what_came() -> None:
    """Cases at the end and cases cut by an outage are left out; cuts begin a window after the start."""
    f = volatile(days=20)
    to = T0 + 20 * D
    cuts = cuts_between(T0, to, WINDOW_MS, 12 * H, 4 * H)
    assert (T0 + 14 * D, T0 + 19 * D + 12 * H) == (cuts[0], cuts[-1])
    told: list[tuple[int, int]] = []
    report = backtest(f, cuts, to, (4 * H, 48 * H), WINDOW_MS, lambda done, of: told.append((done, of)))
    assert [(i + 1, len(cuts)) for i in range(len(cuts))] == told
    assert 0 < report.trials[1].n < report.trials[0].n
    assert report.trials[0].n == sum(b.n for b in report.trials[0].calibration)
    assert 0.5 < report.trials[0].auc < 1.0
    assert report.trials[0].brier < report.trials[0].brier_base_rate


def test_backtest_of_too_little_says_nothing() -> None:
    """No cut, no figures, and no failure."""
    report = backtest(volatile(days=3), [], T0 + 3 * D, (4 * H,), WINDOW_MS)
    assert (0, 0) == (len(report.cuts), report.trials[0].n)
    assert math.isnan(report.trials[0].auc) and math.isnan(report.trials[0].brier)
