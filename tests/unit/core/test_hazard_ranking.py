"""Which provider a run is given to by its forecast: the near future and the far one have a say each."""

from __future__ import annotations

import math

import pytest

from coordinator.core.events import Curve, FiguresPublished, ProviderFigures
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.queue.ranking import looks
from tests.site import Site, a_job

HOUR_MS: Ms = 3_600_000


def known(site: Site, **stays: tuple[float, float]) -> None:
    """P(still here) after 4 and after 48 hours."""
    site.decide(
        FiguresPublished(
            at_ms=site.now_ms,
            computed_at_ms=site.now_ms,
            horizons_ms=(4 * HOUR_MS, 48 * HOUR_MS),
            delays_ms=(),
            providers=tuple(
                ProviderFigures(provider_id=ProviderId(name), score=0.5, stays=both) for name, both in stays.items()
            ),
            fleet_stays=Curve(),
            fleet_returns=Curve(),
        )
    )


def test_where_everybody_leaves_by_night_it_counts_who_stays_for_the_run() -> None:
    """After 48 h nobody is left of either; one of them is likelier to be there in four hours."""
    site = Site("a", "b")
    known(site, a=(0.4, 1e-9), b=(0.9, 1e-9))
    site.submit(a_job(expected_ms=4 * HOUR_MS))
    assert site.running("b") == ["1.0.0.1"]


def test_where_the_run_tells_nobody_apart_it_counts_who_stays_for_days() -> None:
    site = Site("a", "b")
    known(site, a=(0.99, 0.2), b=(0.99, 0.8))
    site.submit(a_job(expected_ms=4 * HOUR_MS))
    assert site.running("b") == ["1.0.0.1"]


def test_a_run_is_looked_ahead_for_by_doubling_and_what_is_nearer_weighs_more() -> None:
    """From the run on, from an hour at least, up to two days."""
    times, last = looks(3 * HOUR_MS, 48 * HOUR_MS)
    assert [time // HOUR_MS for time, _ in times] == [3, 6, 12, 24]
    assert math.isclose(sum(share for _, share in times) + last, 1.0)
    assert math.isclose(times[0][1], 16.0 * last)
    assert looks(1_000, 48 * HOUR_MS) == looks(HOUR_MS, 48 * HOUR_MS)


@pytest.mark.parametrize(("near", "best"), [(0.978, "b"), (0.9, "a")])
def test_half_the_hazard_later_outweighs_a_little_more_of_it_soon(near: float, best: str) -> None:
    """Over 48 h `b` has half the hazard of `a`; over the run a tenth more, or five times as much."""
    site = Site("a", "b")
    known(site, a=(0.98, 0.6), b=(near, 0.7746))
    site.submit(a_job(expected_ms=4 * HOUR_MS))
    assert site.running(best) == ["1.0.0.1"]


def test_a_forecast_of_certainty_does_not_outweigh_everything() -> None:
    """Nobody was seen to leave within four hours: that is no proof, and says nothing of who is gone tomorrow."""
    site = Site("a", "b")
    known(site, a=(1.0, 0.000_5), b=(0.999, 0.99))
    site.submit(a_job(expected_ms=4 * HOUR_MS))
    assert site.running("b") == ["1.0.0.1"]
