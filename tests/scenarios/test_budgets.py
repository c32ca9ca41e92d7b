"""A budget that is used up, and the month that gives it anew: what starts no more, what is stopped, and once."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.core.amounts import UNIT
from coordinator.core.rows import OnBudget
from coordinator.core.tenants import budgets
from coordinator.core.tenants.months import ends_ms, month_of
from coordinator.core.work.jobspec import Estimate
from tests.builders import START_MS
from tests.scenarios.test_tenants import a_site
from tests.site import a_job
from tests.treasury import HOUR_S, refused


def test_at_its_budget_nothing_new_of_a_tenant_starts_and_what_runs_goes_on() -> None:
    """The moment comes by its burn rate, while nothing else happens; a raise lets the rest start."""
    site = a_site(budget=UNIT)
    site.asks(replace(a_job(tasks=64 + 10), estimate=Estimate(cost=0)))
    assert 64 == len(site.running("a"))
    full_s = HOUR_S / 64
    site.run_to(full_s - 1)
    assert [] == site.warned("budget")
    site.run_to(full_s + 2)
    assert ["physics"] == site.warned("budget")
    for task in range(5):
        site.exits(f"1.0.{task}.1", ran_ms=1_000)
    assert 59 == len(site.running("a"))
    assert ["budget"] == refused(site.asks(a_job()))
    site.tenant(create=False, budget=100 * UNIT)
    assert 64 == len(site.running("a"))
    assert ["physics"] == site.calmed("budget")


def test_a_tenant_whose_work_stops_at_its_budget_is_stopped_and_the_rest_of_its_work_waits() -> None:
    site = a_site(budget=UNIT, on_budget=OnBudget.STOP)
    site.asks(replace(a_job(tasks=70), estimate=Estimate(cost=0)))
    site.asks(a_job(), "default")
    site.run_to(HOUR_S / 64 + 10)
    assert [] == [name for name in site.running("a") if name.startswith("1.")]
    assert "cancelled" == site.task(1, 0, 0).state.value
    assert "the budget of tenant physics is used up" in site.task(1, 0, 0).reason
    assert (64, "running") == (site.job().cancelled, site.job().state.value)
    assert ["2.0.0.1"] == site.running("a"), "another tenant's work is let be, and takes the room"


def test_work_is_stopped_at_a_budget_at_once_and_not_again_at_every_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """What that costs grows with what runs: an end of one of those that stop is not to look at the others."""
    looks: list[Any] = []
    stop_all = budgets._stop_all

    def looked(*args: Any) -> None:
        looks.append(args)
        stop_all(*args)

    monkeypatch.setattr(budgets, "_stop_all", looked)
    site = a_site(budget=UNIT, on_budget=OnBudget.STOP)
    site.asks(replace(a_job(tasks=64), estimate=Estimate(cost=0)))
    site.run_to(HOUR_S / 64 + 10)
    assert 64 == site.job().cancelled
    assert 1 == len(looks)


def test_one_that_comes_back_after_its_tenants_work_was_stopped_is_stopped_too() -> None:
    site = a_site(budget=UNIT, on_budget=OnBudget.STOP)
    site.asks(replace(a_job(), estimate=Estimate(cost=0)))
    site.run_to(100)
    site.falls_silent("a")
    site.run_to(200)
    assert ["lost"] == site.states()
    site.tenant(create=False, budget=1)
    site.back("a")
    site.run_to(230)
    assert [] == site.running("a")
    assert "cancelled" == site.task().state.value


def test_a_month_that_turns_gives_a_budget_anew() -> None:
    site = a_site(budget=UNIT // 100)
    turn_s = (ends_ms(month_of(START_MS)) - START_MS) / 1_000
    site.at(turn_s - 100)
    site.tick(stalled_s=turn_s - 100)
    site.back("a", process="p1")
    site.asks(replace(a_job(tasks=2, max_running=1), estimate=Estimate(cost=0)))
    site.run_to(turn_s - 10)
    site.exits("1.0.0.1", ran_ms=90_000)
    assert [] == site.running("a")
    site.run_to(turn_s + 1)
    assert ["1.0.1.1"] == site.running("a")
    assert ["physics"] == site.calmed("budget")
