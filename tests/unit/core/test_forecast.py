"""Reading published figures: log-linear between the points, bounded, falling with the horizon, and what stands in."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core import events
from coordinator.core.fleet import forecast
from coordinator.core.fleet.forecast import survival_at
from coordinator.core.ids import ProviderId
from tests.builders import START_MS, Fleet

HOUR = 3_600_000
AT = (HOUR, 4 * HOUR, 8 * HOUR)
P = (0.9, 0.6, 0.3)


def publish(fleet: Fleet, stays: tuple[float, ...] = P, age_ms: int = 0, fleet_p: tuple[float, ...] = P) -> None:
    own = events.ProviderFigures(provider_id=ProviderId("a"), score=0.5, stays=stays)
    fleet.decide(
        events.FiguresPublished(
            at_ms=fleet.now_ms,
            computed_at_ms=fleet.now_ms - age_ms,
            horizons_ms=AT,
            delays_ms=AT,
            providers=(own,),
            fleet_stays=events.Curve(at_ms=AT, p=fleet_p) if fleet_p else events.Curve(),
            fleet_returns=events.Curve(),
        )
    )


def asked(fleet: Fleet, horizon_ms: int = 4 * HOUR) -> forecast.Stays | None:
    return forecast.stays(fleet.state, fleet.provider(), horizon_ms, fleet.policy)


def test_the_published_points_are_met_and_between_them_the_hazard_is_constant() -> None:
    assert [1.0, *P] == pytest.approx([survival_at(AT, P, t) for t in (0, *AT)])
    assert math.sqrt(0.9 * 0.6) == pytest.approx(survival_at(AT, P, 2.5 * HOUR))


def test_behind_the_last_point_the_last_hazard_goes_on() -> None:
    assert 0.3 * 0.5 == pytest.approx(survival_at(AT, P, 12 * HOUR))


def test_an_empty_curve_promises_for_ever_and_a_dead_one_nothing() -> None:
    assert 1.0 == survival_at((), (), 5 * HOUR)
    assert (0.9, 0.0, 0.0) == tuple(survival_at((1, 2), (0.9, 0.0), t) for t in (1, 2, 3))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=6), st.lists(st.integers(0, 10**9), min_size=2, max_size=8))
def test_a_falling_curve_is_read_as_falling_and_within_bounds(points: list[float], whens: list[int]) -> None:
    p = tuple(sorted(points, reverse=True))
    at_ms = tuple(range(1_000_000, 1_000_000 * (len(p) + 1), 1_000_000))
    read = [survival_at(at_ms, p, when) for when in sorted(whens)]
    assert all(0.0 <= value <= 1.0 for value in read)
    assert all(later <= sooner + 1e-12 for sooner, later in itertools.pairwise(read))


def test_a_provider_that_is_not_connected_has_no_forecast() -> None:
    fleet = Fleet("a")
    publish(fleet)
    assert asked(fleet) is None


def test_its_own_fresh_figures_come_first() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    publish(fleet)
    assert forecast.Stays(probability=0.6, basis="provider") == asked(fleet)


def test_figures_are_conditioned_on_having_stayed_since_they_were_computed() -> None:
    """An hour later: P(here at 5 h | here at 1 h)."""
    fleet = Fleet("a")
    fleet.hello(1)
    publish(fleet)
    fleet.at(1_500).tick()
    answer = asked(fleet, 3 * HOUR)
    assert answer is not None and answer.basis == "provider"
    then, now = survival_at(AT, P, 1_500_000 + 3 * HOUR), survival_at(AT, P, 1_500_000)
    assert then / now == pytest.approx(answer.probability)


@pytest.mark.parametrize("reason", ["stale", "none of its own", "a newer stay"])
def test_the_fleet_s_curve_at_its_age_stands_in(reason: str) -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    if reason == "a newer stay":
        fleet.at(60).tick()
        publish(fleet, age_ms=120_000)
    else:
        publish(fleet, stays=() if reason == "none of its own" else P)
        fleet.at(3_600 if reason == "stale" else 60).tick()
    answer = asked(fleet)
    age_ms = fleet.now_ms - START_MS
    assert answer is not None and answer.basis == "age"
    assert survival_at(AT, P, age_ms + 4 * HOUR) / survival_at(AT, P, age_ms) == pytest.approx(answer.probability)


def test_without_any_history_it_says_so() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    unknown = forecast.Stays(probability=0.5, basis="none")
    assert unknown == asked(fleet)
    publish(fleet, stays=(), fleet_p=())
    assert unknown == asked(fleet)


def test_older_figures_never_replace_newer_ones() -> None:
    fleet = Fleet("a")
    fleet.hello(1)
    publish(fleet)
    publish(fleet, stays=(0.1, 0.1, 0.1), age_ms=1)
    assert forecast.Stays(probability=0.6, basis="provider") == asked(fleet)
