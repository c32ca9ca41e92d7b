"""Which provider a run is given to by its forecast: the near future and the far one have a say each."""

from __future__ import annotations

import pytest

from coordinator.core.events import Curve, FiguresPublished, ProviderFigures
from coordinator.core.ids import Ms, ProviderId
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


@pytest.mark.parametrize(("near", "best"), [(0.97, "b"), (0.9, "a")])
def test_half_the_hazard_soon_is_worth_double_the_hazard_later(near: float, best: str) -> None:
    """`a` has twice the hazard of `b` over 48 h; over the run `b` has a half more than `a`, or five times as much."""
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
