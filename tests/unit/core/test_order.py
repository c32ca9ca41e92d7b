"""The order of the queue: priority, shares by weight over a window, aging, submission. On a virtual clock."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random

import pytest
from msgspec.structs import replace

from coordinator.core.ids import JobId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue import order
from coordinator.core.queue.fair_share import Standings
from coordinator.core.tenants.account import Accounts
from tests.site import a_job
from tests.unit.core.shop import PATIENT, Shop, an_ask, cpus


def five(job: JobId, tenant: str) -> int:
    return 5


def test_the_higher_priority_goes_first_and_equal_ones_in_the_order_of_their_submission() -> None:
    shop = Shop({"t": 1}, {"a": cpus(1)}, five)
    first, second = shop.submit("t", a_job()), shop.submit("t", a_job())
    urgent = shop.submit("t", a_job(priority=5))
    shop.run_to(16)
    assert [urgent, first, second] == [job for _, job, _ in shop.begun]


def test_whoever_waits_alone_is_compared_with_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where tenants stand is worked out when two of them wait, not for each lone job."""
    compared: list[list[TenantName]] = []

    class Counted(Standings):
        def __init__(self, accounts: Accounts, wanting: Iterable[TenantName], policy: Policy) -> None:
            compared.append(list(wanting))
            super().__init__(accounts, compared[-1], policy)

    monkeypatch.setattr(order, "Standings", Counted)
    shop = Shop({"t": 1, "other": 1}, {"a": cpus(1)}, five)
    alone = shop.submit("t", a_job())
    shop.run_to(2)
    assert not compared and [alone] == [job for _, job, _ in shop.begun]
    for tenant in ("t", "other"):
        shop.submit(tenant, a_job())
    shop.run_to(20)
    assert ["t", "other"] in compared and 3 == len(shop.begun)


def test_two_tenants_of_3_to_1_that_always_ask_get_three_quarters_and_one_quarter() -> None:
    shop = Shop({"big": 3, "small": 1}, {"a": cpus(8)}, five)
    for tenant in ("small", "big"):
        shop.submit(tenant, a_job(tasks=100_000))
    shop.run_to(600)
    assert shop.served["big"] / sum(shop.served.values()) == pytest.approx(0.75, abs=0.02)


@pytest.mark.parametrize("bursty", ["big", "small"])
def test_a_tenant_that_comes_in_bursts_gets_its_share_of_the_window(bursty: str) -> None:
    """3 to 1; one always asks, the other one hands in a day's fair share in bursts of every other hour."""
    weights = {"big": 3, "small": 1}
    shop = Shop(weights, {"a": cpus(8)}, five)
    steady = "small" if bursty == "big" else "big"
    a_burst = 8 * 120 // 5 * weights[bursty] // 4
    shop.submit(steady, a_job(tasks=100_000))

    def each(minute: int) -> None:
        if minute % 120 == 0:
            shop.submit(bursty, a_job(tasks=a_burst))

    shop.run_to(24 * 60, each)
    fair = weights[bursty] / 4
    assert shop.served[bursty] / sum(shop.served.values()) == pytest.approx(fair, abs=0.05 * fair + 0.005)


def test_twenty_tenants_of_many_weights_and_lengths_get_their_shares() -> None:
    """Whoever runs long tasks and whoever runs short ones, one CPU or two at a time: what counts is what is held."""
    dice = Random(4)
    weights = {f"t{number}": 1 + number % 4 for number in range(20)}
    lasts = {name: dice.choice((10, 20, 30)) for name in weights}
    shop = Shop(weights, {"a": cpus(40), "b": cpus(40)}, lambda job, tenant: lasts[tenant])
    size = {name: dice.choice((1, 2)) for name in weights}
    for name in weights:
        shop.submit(name, a_job(tasks=100_000, asks=an_ask(size[name])))
    shop.run_to(60 * 60)
    given = {name: shop.served[name] * size[name] for name in weights}
    for name, weight in weights.items():
        fair = weight / sum(weights.values())
        assert given[name] / sum(given.values()) == pytest.approx(fair, rel=0.05), name


def test_what_a_tenant_had_long_ago_is_forgotten() -> None:
    """A tenant that had everything for hours shares alike again some half-lives later."""
    policy = replace(PATIENT, share_half_life_ms=3_600_000)
    shop = Shop({"early": 1, "late": 1}, {"a": cpus(8)}, five, policy)
    shop.submit("early", a_job(tasks=100_000))
    shop.run_to(300)
    shop.submit("late", a_job(tasks=100_000))
    shop.run_to(900)
    shop.served.clear()
    shop.run_to(1_200)
    assert shop.served["late"] / sum(shop.served.values()) == pytest.approx(0.5, abs=0.02)


def test_a_lower_priority_is_served_within_its_bound_beside_work_that_never_ends() -> None:
    """Priorities above it + 1, times the aging, and the time that what runs then goes on."""
    policy = replace(PATIENT, aging_ms=10 * 60_000)
    shop = Shop({"t": 1, "other": 1}, {"a": cpus(2)}, five, policy)
    shop.submit("t", a_job(tasks=100_000, priority=4))
    low = shop.submit("other", a_job())
    shop.run_to((4 + 1) * 10 + 10)
    (began,) = [minute for minute, job, _ in shop.begun if job == low]
    assert 4 * 10 <= began <= (4 + 1) * 10 + 5, "not before it has aged, and not after its bound"


def test_who_is_served_does_not_age_and_an_old_backlog_does_not_undo_the_shares() -> None:
    """A backlog of one tenant that has stood for days gives it no more than its share."""
    policy = replace(PATIENT, aging_ms=60 * 60_000)
    shop = Shop({"old": 1, "new": 1}, {"a": cpus(4)}, five, policy)
    shop.submit("old", a_job(tasks=100_000))
    shop.run_to(24 * 60)
    shop.submit("new", a_job(tasks=100_000))
    shop.run_to(26 * 60)
    assert shop.served["new"] >= 4 * 110, "what it had before counts against the old one"


def test_on_few_cpus_aging_does_not_undo_the_shares() -> None:
    """A small share of three CPUs is one task in hours: longer than the aging, and no reason to be served before one
    that is owed three times as much."""
    shop = Shop({"big": 3, "small": 1}, {"a": cpus(3)}, lambda job, tenant: 70)
    for tenant in ("big", "small"):
        shop.submit(tenant, a_job(tasks=10_000))
    shop.run_to(96 * 60)
    share = shop.served["big"] / sum(shop.served.values())
    assert 0.72 <= share <= 0.78


def test_whoever_had_far_too_much_is_served_now_and_then_all_the_same() -> None:
    """Shares alone would let it wait for days: without a least, after 16 times the aging it gets one."""
    policy = replace(PATIENT, share_least=0.0)
    shop = Shop({"heir": 1, "old": 1}, {"a": cpus(2)}, lambda job, tenant: 30, policy)
    old = shop.submit("old", a_job(tasks=10_000))
    came = 3 * 24 * 60
    shop.run_to(came)
    shop.submit("heir", a_job(tasks=10_000))
    shop.run_to(came + 9 * 60)
    later = [minute - came for minute, job, _ in shop.begun if job == old and minute > came + 30]
    assert later and 16 * 30 <= later[0] <= 16 * 30 + 60


@pytest.mark.parametrize(("weights", "least"), [((1, 1), 0.25), ((1, 3), 0.125), ((3, 1), 0.375)])
def test_who_pays_back_has_half_of_what_its_weight_is_due_meanwhile(weights: tuple[int, int], least: float) -> None:
    """Whatever it had before: from the third hour on, and no more than that until it has paid."""
    shop = Shop(dict(zip(("old", "new"), weights, strict=True)), {"a": cpus(4)}, lambda job, tenant: 10)
    shop.submit("old", a_job(tasks=100_000))
    came = 3 * 24 * 60
    shop.run_to(came)
    shop.submit("new", a_job(tasks=100_000))
    shop.run_to(came + 3 * 60)
    before = shop.served["old"]
    shop.run_to(came + 9 * 60)
    assert least == pytest.approx((shop.served["old"] - before) / (4 * 6 * 60), abs=0.04)


def test_what_nobody_can_run_does_not_age() -> None:
    """A job that asks for what is not there has not become the first of all when it can be placed at last."""
    policy = replace(PATIENT, aging_ms=10 * 60_000)
    shop = Shop({"t": 1, "other": 1}, {"a": cpus(2)}, five, policy)
    shop.submit("other", a_job(asks=an_ask(3)))
    shop.submit("t", a_job(tasks=100_000, priority=1))
    shop.run_to(200)
    fits = shop.submit("other", a_job())
    shop.run_to(206)
    assert fits not in [job for _, job, _ in shop.begun], "it waits for its own aging"
    shop.run_to(230)
    assert fits in [job for _, job, _ in shop.begun]
