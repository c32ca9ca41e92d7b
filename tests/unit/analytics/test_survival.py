"""Survival with delayed entry, the fleet's weight behind thin data, and honest intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from analytics.reliability import survival
from analytics.reliability.survival import Exposures
from tests.unit.analytics import naive

Risk = tuple[int, int, int, bool]


def exposures(risks: list[Risk]) -> Exposures:
    """Columns from (provider, enter, exit, event)."""
    ordered = sorted(risks, key=lambda risk: risk[0])
    return Exposures(
        np.array([r[0] for r in ordered], np.int32),
        np.array([r[1] for r in ordered], np.int32),
        np.array([r[2] for r in ordered], np.int32),
        np.array([r[3] for r in ordered], np.bool_),
    )


def curve(*risks: tuple[int, int, bool]) -> survival.Curve:
    """The pooled curve of one provider's risks."""
    return survival.pooled(exposures([(0, *risk) for risk in risks]))


def s(c: survival.Curve, age: int) -> float:
    """S at an age."""
    return float(np.exp(c.at(np.array([age])))[0])


def test_product_limit_by_hand() -> None:
    """Leavings at 2 and 5 of 4, one censored at 3: 3/4, then 3/4 x 1/2."""
    c = curve((0, 2, True), (0, 3, False), (0, 5, True), (0, 9, False))
    assert [1.0, 0.75, 0.75, 0.375, 0.375] == pytest.approx([s(c, age) for age in (1, 2, 4, 5, 99)])
    assert (9, 2) == (c.longest, c.events)


def test_ties_leave_together() -> None:
    """Two of three leave at one age: the factor is 1 - 2/3, and one censored at that age was still at risk."""
    c = curve((0, 4, True), (0, 4, True), (0, 4, False))
    assert 1 / 3 == pytest.approx(s(c, 4))


def test_late_entry_is_at_risk_only_after_it() -> None:
    """Who is watched from age 3 on does not weigh at age 2, nor at 3 itself, but at 4."""
    c = curve((0, 2, True), (3, 9, False), (0, 3, True), (3, 4, True), (0, 9, False))
    assert [2 / 3, 2 / 3 * 1 / 2, 1 / 3 * 2 / 3] == pytest.approx([s(c, age) for age in (2, 3, 4)])


def test_all_censored_never_falls() -> None:
    """Nobody left: S stays 1 with no leavings, as long as anybody was watched."""
    c = curve((0, 5, False), (2, 7, False))
    assert (1.0, 0, 7) == (s(c, 100), c.events, c.longest)


def test_empty_fleet_knows_nothing() -> None:
    """Without a row there is a curve all the same, and no provider's chance beyond 0."""
    none = exposures([])
    fleet = survival.pooled(none)
    mine = survival.own(none, fleet, 2)
    found = survival.chances(mine, fleet, 2, 10)
    assert ([0.0, 0.0], [True, True]) == (found.p.tolist(), found.borrowed.tolist())
    assert [0.0, 0.0] == found.low.tolist() and [1.0, 1.0] == found.high.tolist()
    assert bool(np.all(np.isnan(survival.quantile(mine, fleet, 2, 0.5))))


def test_own_curve_borrows_at_each_leaving() -> None:
    """A fleet of one: its only leaving of one at risk has the fleet's hazard 1 behind it: 1 - (1 + 2) / (1 + 2)."""
    alone = exposures([(0, 0, 5, True)])
    fleet = survival.pooled(alone)
    assert [0.0] == survival.chances(survival.own(alone, fleet, 1), fleet, 1, 5).p.tolist()
    pair = exposures([(0, 0, 5, True), (1, 0, 9, False)])
    fleet = survival.pooled(pair)
    assert [1 - (1 + 2 * 0.5) / (1 + 2), 1.0] == pytest.approx(
        survival.chances(survival.own(pair, fleet, 2), fleet, 2, 5).p.tolist()
    )


def test_beyond_its_own_watch_the_fleet_goes_on() -> None:
    """Provider 1 was watched to 3, the fleet loses half at 5: its chance at 6 is that half, flagged."""
    rows = exposures([(0, 0, 5, True), (0, 0, 9, False), (1, 0, 3, False)])
    fleet = survival.pooled(rows)
    found = survival.chances(survival.own(rows, fleet, 2), fleet, 2, 6)
    assert 0.5 == pytest.approx(found.p[1])
    assert [False, True] == found.borrowed.tolist()
    assert found.low[1] < 0.5 < found.high[1]


def test_nobody_was_watched_so_long() -> None:
    """Past everybody's longest observation a stay has no evidence; an absence keeps what it had."""
    rows = exposures([(0, 0, 5, False)])
    fleet = survival.pooled(rows)
    mine = survival.own(rows, fleet, 1)
    assert [0.0] == survival.chances(mine, fleet, 1, 6).p.tolist()
    assert [1.0] == survival.chances(mine, fleet, 1, 6, unwatched=0.0).p.tolist()


def test_bounds_at_one_and_zero() -> None:
    """n stays watched through and none left: at least (1/20)^(1/n); the interval shrinks as n grows."""
    few = exposures([(0, 0, 9, False)] * 3)
    fleet = survival.pooled(few)
    found = survival.chances(survival.own(few, fleet, 1), fleet, 1, 5)
    assert (1.0, 1.0) == (found.p[0], found.high[0])
    assert 0.05 ** (1 / 3) == pytest.approx(found.low[0])


def test_quantiles_are_where_the_curve_falls() -> None:
    """The age at which S reaches a level; past the own curve on the fleet's; nan where it never does."""
    rows = exposures([(0, 0, age, True) for age in range(1, 101)] + [(1, 0, 10, False)])
    fleet = survival.pooled(rows)
    mine = survival.own(rows, fleet, 2)
    own_half, borrowed_half = survival.quantile(mine, fleet, 2, 0.5)
    assert 50 <= own_half <= 52
    assert 54 <= borrowed_half <= 56
    quiet = exposures([(0, 0, 9, False)])
    level = survival.pooled(quiet)
    assert math.isnan(survival.quantile(survival.own(quiet, level, 1), level, 1, 0.9)[0])


risks = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 12), st.integers(1, 12), st.booleans()).map(
        lambda t: (t[0], max(t[1] - 6, 0), max(t[1] - 6, 0) + t[2], t[3])
    ),
    max_size=25,
)


@settings(max_examples=300, deadline=None)
@given(risks, st.integers(1, 25))
@example([(0, 0, 1, True), (0, 1, 3, False), (1, 1, 2, False)], 3)
def test_curves_equal_the_slow_reference(found: list[Risk], age: int) -> None:
    """Pooled and own curves, with borrowing, at any age, whatever the risks."""
    plain = [naive.Exposure(*risk) for risk in found]
    rows = exposures(found)
    fleet = survival.pooled(rows)
    assert naive.survival(plain, age) == pytest.approx(s(fleet, age), abs=1e-9)
    mine = survival.chances(survival.own(rows, fleet, 3), fleet, 3, age)
    assert [naive.p_stays(plain, p, age) for p in range(3)] == pytest.approx(mine.p.tolist(), abs=1e-6)
    assert bool(np.all(mine.low <= mine.p + 1e-9)) and bool(np.all(mine.p <= mine.high + 1e-9))


@settings(max_examples=50, deadline=None)
@given(risks)
def test_hazard_by_table_equals_by_search(found: list[Risk]) -> None:
    """Ages too great for a table are looked up by search, with the same answer."""
    fleet = survival.pooled(exposures(found))
    far = fleet._replace(age=fleet.age + survival._TABLE_MAX)
    ages = np.arange(0, 30, dtype=np.int32)
    assert fleet.hazard_of(ages).tolist() == far.hazard_of(ages + np.int32(survival._TABLE_MAX)).tolist()
