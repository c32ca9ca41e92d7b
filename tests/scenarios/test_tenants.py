"""Tenants at work: what they may hold, what is set aside for them, and what they are charged."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.amounts import UNIT, Ask, Price
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import ProviderId, TenantName, TokenId
from coordinator.core.image import image_of, state_of
from coordinator.core.rows import AccountRow, OnFull, Promises, Resources, Role
from coordinator.core.tenants.months import ends_ms, month_of
from coordinator.core.work.jobspec import Estimate, Isolation, OnLost
from tests.builders import START_MS, refusal
from tests.site import Site, a_job, a_step
from tests.treasury import CPU_HOUR, HOUR_S, PHYSICS, Book, Treasury, answered, refused

BIG = Resources(cpus=64.0, memory_gb=256.0, gpus=("g0", "g1"))


APART = Promises(work=True, isolation=Isolation.SANDBOX)


def a_site(**quota: Any) -> Treasury:
    """One big provider in a pool where a CPU costs 1 an hour, and the tenant physics."""
    site = Treasury("a", offer=BIG, promises=APART)
    site.price()
    site.tenant(**quota)
    return site


# ---- who there is


def test_a_job_of_a_tenant_that_was_not_made_is_refused() -> None:
    """NOT_FOUND, with the command that makes it; the default tenant is there from the start."""
    site = Treasury("a")
    error = refusal(site.asks(a_job()))
    assert (Code.NOT_FOUND, "coord tenant create physics") == (error.code, error.hint)
    assert "default" == answered(site.asks(a_job(), "default")).tenant
    site.tenant()
    assert "physics" == answered(site.asks(a_job())).tenant


def test_a_token_speaks_only_for_a_tenant_that_was_made() -> None:
    """A tenant's token and a reader of one tenant name a tenant that exists; an admin's names none."""

    def create(site: Site, role: Role, tenant: str | None) -> object:
        event = events.TokenCreate(
            at_ms=site.now_ms,
            request_id=site.request(),
            token_id=TokenId(f"t{site.request()}"),
            digest=f"d{site.request()}",
            role=role,
            tenant=tenant,
        )
        result = site.decide(event).replies[0].result
        return result.code if isinstance(result, CoordError) else result

    site = a_site()
    assert Code.NOT_FOUND is create(site, Role.TENANT, "chemistry")
    assert Code.NOT_FOUND is create(site, Role.READ_ONLY, "chemistry")
    assert Code.BAD_REQUEST is create(site, Role.TENANT, None)
    assert Code.BAD_REQUEST is create(site, Role.ADMIN, "physics")
    for role, tenant in ((Role.TENANT, "physics"), (Role.READ_ONLY, "physics"), (Role.READ_ONLY, None)):
        assert not isinstance(create(site, role, tenant), Code)


def test_a_tenant_with_work_or_with_tokens_is_not_deleted() -> None:
    """Live jobs and valid tokens keep it; when both are gone it goes, and its name is free."""
    site = a_site()

    def delete() -> object:
        event = events.TenantDelete(at_ms=site.now_ms, request_id=site.request(), name=PHYSICS)
        result = site.decide(event).replies[0].result
        return result.message if isinstance(result, CoordError) else result

    site.asks(a_job())
    assert "tenant physics has a job that has not ended" == delete()
    site.exits("1.0.0.1")
    site.decide(
        events.TokenCreate(
            at_ms=site.now_ms,
            request_id=site.request(),
            token_id=TokenId("t"),
            digest="d",
            role=Role.TENANT,
            tenant=PHYSICS,
        )
    )
    assert "token t speaks for tenant physics" == delete()
    site.decide(events.TokenRevoke(at_ms=site.now_ms, request_id=site.request(), token_id=TokenId("t")))
    assert delete() is None
    assert ("tenant", "physics") not in site.rows
    assert Code.NOT_FOUND is refusal(site.asks(a_job())).code


def test_what_was_charged_stays_when_a_tenant_is_made_again_within_the_month() -> None:
    """The ledger of this month is still its own: the account and the sum of its rows never part."""
    site = a_site()
    site.asks(a_job())
    site.run_to(60)
    site.exits("1.0.0.1", ran_ms=60_000)
    before = site.account().cost
    assert before > 0
    site.decide(events.TenantDelete(at_ms=site.now_ms, request_id=site.request(), name=PHYSICS))
    site.tenant()
    assert (before, 0) == site.used("budget")


def test_a_tenant_asks_no_higher_priority_than_its_own_bound() -> None:
    """An admin may ask any."""
    site = a_site(priority_max=5)
    high = replace(a_job(), priority=6)
    assert Code.FORBIDDEN is refusal(site.asks(high)).code
    assert 5 == answered(site.asks(replace(high, priority=5))).priority
    assert 6 == answered(site.asks(high, any_priority=True)).priority


def test_a_retry_asks_no_higher_priority_than_the_bound_of_now() -> None:
    """What was submitted before the bound was lowered is not run again above it; an admin may."""
    site = a_site(priority_max=5)
    site.asks(replace(a_job(), priority=5))
    site.exits("1.0.0.1", code=126)
    site.tenant(create=False, priority_max=4)
    assert Code.FORBIDDEN is refusal(site.retry(1, PHYSICS)).code
    assert 5 == answered(site.retry(1)).priority


# ---- what is held


def test_a_concurrent_quota_is_filled_to_its_guardrail_and_not_beyond() -> None:
    """Of 10 CPUs 9 are held: a tenth task waits, and starts when one of them has ended."""
    site = a_site(cpus=10 * UNIT)
    site.asks(a_job(tasks=20))
    assert 9 == len(site.running("a"))
    assert (9 * UNIT, 0) == site.used("cpus")
    site.exits("1.0.0.1")
    assert 9 == len(site.running("a"))


def test_a_quota_of_one_tenant_holds_up_no_other() -> None:
    site = Treasury("a", offer=BIG, promises=APART)
    site.tenant(cpus=2 * UNIT)
    site.asks(a_job(tasks=5))
    site.asks(a_job(tasks=5), "default")
    assert 1 + 5 == len(site.running("a"))


def test_a_job_that_could_never_fit_is_refused_and_the_rest_waits() -> None:
    """By all its ranks, and by the alternative that asks least; every dimension is named at once."""
    site = a_site(cpus=4 * UNIT, gpus=UNIT, memory=10**9)
    never = a_job(a_step(asks=(Ask(cpus=4 * UNIT, gpus=UNIT, memory=10**9),)))
    error = refusal(site.asks(never))
    assert Code.QUOTA is error.code
    assert ["cpus", "gpus", "memory"] == [r.dimension for r in error.refusals]
    (cpus, _, _) = error.refusals
    assert (0, 0, 4 * UNIT, 4 * UNIT, 3_600_000) == (
        cpus.used,
        cpus.reserved,
        cpus.request,
        cpus.limit,
        cpus.guardrail,
    )
    assert ["cpus"] == refused(site.asks(a_job(a_step(asks=(Ask(cpus=2 * UNIT),), nodes=2))))
    small = Ask(cpus=3 * UNIT)
    assert [] == refused(site.asks(a_job(a_step(asks=(Ask(cpus=4 * UNIT), small)))))
    assert [] == refused(site.asks(a_job(a_step(asks=(small,)))))
    assert 1 == len(site.running("a"))


def test_a_tenant_that_would_rather_be_refused_than_wait_is() -> None:
    """on_full=refuse: what does not fit now is refused, with what is held."""
    site = a_site(cpus=4 * UNIT, on_full=OnFull.REFUSE)
    assert [] == refused(site.asks(a_job(a_step(asks=(Ask(cpus=3 * UNIT),)))))
    error = refusal(site.asks(a_job()))
    assert [("cpus", 3 * UNIT)] == [(r.dimension, r.used) for r in error.refusals]


def test_a_refusal_proposes_only_what_would_help() -> None:
    """To wait is no advice to who could never fit; to say how long it runs is, where a guess takes the budget."""
    site = a_site(cpus=4 * UNIT)
    assert "wait" not in refusal(site.asks(a_job(a_step(asks=(Ask(cpus=4 * UNIT),))))).hint
    site = a_site(cpus=4 * UNIT, on_full=OnFull.REFUSE)
    assert [] == refused(site.asks(a_job(a_step(asks=(Ask(cpus=3 * UNIT),)))))
    assert "wait for others to end" in refusal(site.asks(a_job())).hint
    site = a_site(budget=UNIT // 2)
    assert "--expected" in refusal(site.asks(a_job())).hint
    told = a_job(a_step(expected_ms=3_600_000))
    assert "--expected" not in refusal(site.asks(told)).hint
    site = a_site(budget=UNIT)
    site.asks(a_job(a_step(expected_ms=60_000)))
    site.run_to(HOUR_S)
    hint = refusal(site.asks(a_job())).hint
    assert "next month" in hint and "ask for less" not in hint
    site = a_site(queued=0)
    assert refusal(site.asks(a_job())).hint.startswith("have its limits raised")


def test_jobs_that_run_and_jobs_that_wait_are_counted_exactly() -> None:
    """running: jobs that hold something; queued: jobs that never had a lease. No guardrail for these."""
    site = a_site(running=2, queued=1)
    for _ in range(3):
        assert [] == refused(site.asks(a_job(tasks=2)))
    assert 4 == len(site.running("a"))
    assert ((2, 0), (1, 0)) == (site.used("running"), site.used("queued"))
    assert ["queued"] == refused(site.asks(a_job()))
    for task in ("1.0.0.1", "1.0.1.1"):
        site.exits(task)
    assert 4 == len(site.running("a"))
    assert (0, 0) == site.used("queued")


def test_a_quota_that_is_lowered_takes_nothing_away_and_lets_nothing_more_in() -> None:
    site = a_site()
    site.asks(a_job(tasks=10))
    assert 10 == len(site.running("a"))
    site.tenant(create=False, cpus=5 * UNIT)
    site.asks(a_job())
    assert 10 == len(site.running("a"))
    for task in range(6):
        site.exits(f"1.0.{task}.1")
    assert 4 == len(site.running("a"))
    site.tenant(create=False, cpus=None)
    assert 5 == len(site.running("a"))


def test_what_waits_for_its_tenants_limit_is_told_from_what_it_will_never_let_start() -> None:
    """Full: wait, others end. Lowered below what one task asks: never, until the limit is raised."""
    site = a_site(cpus=10 * UNIT)
    site.asks(a_job(a_step(asks=(Ask(cpus=9 * UNIT),))))
    site.asks(a_job(a_step(asks=(Ask(cpus=4 * UNIT),))))
    (step,) = site.explain(2).steps
    assert ("wait", [("quota:cpus", True)]) == (step.verdict, [(o.constraint, o.ever) for o in step.obstacles])
    site.tenant(create=False, cpus=4 * UNIT)
    (step,) = site.explain(2).steps
    assert ("never", [("quota:cpus", False)]) == (step.verdict, [(o.constraint, o.ever) for o in step.obstacles])
    assert "its tenant's limit of cpus is below what it asks" in step.text
    assert "limit" in step.hint


def test_a_provider_that_is_gone_for_good_does_not_keep_its_tenants_quota() -> None:
    """Its lease is over: it cannot be running. Its task is placed anew though nobody ever said that it ended."""
    site = Treasury("a", "b", offer=BIG)
    site.tenant(cpus=2 * UNIT)
    site.asks(a_job())
    (first,) = [name for name in ("a", "b") if site.running(name)]
    site.falls_silent(first)
    site.run_to(120)
    (other,) = {"a", "b"} - {first}
    assert ["1.0.0.2"] == site.running(other)
    assert (UNIT, 0) == site.used("cpus")


# ---- what is set aside and charged


def test_a_job_sets_aside_what_it_is_expected_to_cost_and_a_task_that_ends_gives_its_part_back() -> None:
    """Two tasks of an hour at 1: 2 are reserved. One ends after half an hour: 0.5 is used, 1 is reserved."""
    site = a_site(budget=100 * UNIT)
    site.asks(a_job(tasks=2, expected_ms=HOUR_S * 1_000))
    assert (0, 2 * UNIT) == site.used("budget")
    site.run_to(HOUR_S / 2)
    used, reserved = site.used("budget")
    assert (UNIT, UNIT) == (used, reserved), "what is accrued is used, within what was reserved"
    site.exits("1.0.0.1", ran_ms=HOUR_S * 500)
    assert UNIT // 2 == site.job().cost == site.account().cost == sum(row.cost for row in site.ledger())
    assert (UNIT, UNIT // 2) == site.used("budget"), "0.5 charged and 0.5 accrued; half of the other task is open"
    site.exits("1.0.1.1", ran_ms=HOUR_S * 500)
    assert (UNIT, 0) == site.used("budget")
    assert 2 * UNIT == site.job().estimate


def test_what_runs_longer_than_expected_is_used_at_once() -> None:
    """Overrun: beyond its own reservation each further minute narrows the budget."""
    site = a_site(budget=100 * UNIT)
    site.asks(a_job(expected_ms=60_000))
    site.run_to(HOUR_S)
    assert (UNIT, 0) == site.used("budget")
    site.exits("1.0.0.1", ran_ms=HOUR_S * 1_000)
    assert ["physics"] == site.warned("usage_drift")


def test_the_agent_is_not_believed_more_than_was_seen() -> None:
    """It says ten hours, a minute was seen: a minute is charged. It says a second: a second is."""
    site = a_site()
    site.asks(a_job(tasks=2))
    site.run_to(60)
    site.exits("1.0.0.1", ran_ms=36_000_000)
    site.exits("1.0.1.1", ran_ms=1_000)
    assert [60_000, 1_000] == [row.ran_ms for row in site.ledger()]


def test_one_that_was_lost_is_charged_to_its_last_renewal_and_once() -> None:
    """And one that comes back is charged from there on."""
    site = a_site()
    site.asks(a_job())
    site.run_to(100)
    site.falls_silent("a")
    site.run_to(200)
    (lost,) = site.ledger()
    assert 100_000 == lost.ran_ms
    site.back("a")
    assert ["1.0.0.1"] == site.running("a")
    site.run_to(300)
    site.exits("1.0.0.1", ran_ms=300_000)
    assert [100_000, 200_000] == [row.ran_ms for row in site.ledger()]
    assert site.job().cost == sum(row.cost for row in site.ledger())


def test_nobody_pays_for_the_time_in_which_the_coordinator_was_away() -> None:
    """A provider that booted anew meanwhile: its sign of life then is none of what was lost with it."""
    site = a_site()
    site.asks(a_job())
    site.run_to(100)
    site.restart(5_000)
    site.back("a", rebooted=True, process="p2")
    site.run_to(5_050)
    (lost,) = site.ledger()
    assert 0 < lost.ran_ms <= 100_000


def test_nobody_pays_for_it_either_where_the_provider_is_forgotten_and_the_coordinator_away_again() -> None:
    """What was heard of it last stands in the attempt's row then: nothing else has it."""
    site = a_site()
    site.asks(a_job())
    site.run_to(100)
    site.restart(5_000)
    site.decide(events.ProviderForget(at_ms=site.now_ms, request_id=site.request(), provider_id=ProviderId("a")))
    site.run_to(5_002)
    site.restart(9_000)
    site.run_to(9_100)
    (lost,) = site.ledger()
    assert 0 < lost.ran_ms <= 100_000


def test_nobody_pays_for_a_stall_of_the_coordinator() -> None:
    """It moves every lease by its length; what a lost one is charged for it does not."""
    site = a_site()
    site.asks(a_job())
    site.run_to(100)
    site.falls_silent("a")
    site.at(120)
    site.tick(stalled_s=18)
    site.run_to(300)
    (lost,) = site.ledger()
    assert 100_000 == lost.ran_ms


def test_a_word_that_waited_for_us_is_a_sign_of_life_of_when_it_was_said() -> None:
    """A hello that came while the coordinator stood still is read after it: the lease counts from then on, and what one
    that is lost right behind it is charged does not."""
    site = a_site()
    site.asks(a_job())
    site.run_to(100)
    site.breaks("a")
    site.decide(events.Tick(at_ms=site.now_ms + 15_000))
    site.at(102)
    site.back("a")
    site.breaks("a")
    site.back("a", empty=True, process="p2")
    (lost,) = site.ledger()
    assert 102_000 == lost.ran_ms


def test_what_never_ran_costs_nothing_and_free_pools_write_no_ledger() -> None:
    site = a_site()
    site.agents["a"].grants = "refuses"
    site.asks(a_job())
    site.cancel(1)
    site.agents["a"].grants = "answers"
    site.price(Price())
    site.asks(a_job())
    site.run_to(10)
    site.exits("2.0.0.1")
    assert [] == site.ledger()


def test_a_lease_keeps_the_price_of_its_grant() -> None:
    site = a_site()
    site.asks(a_job())
    site.price(Price(cpu=99 * UNIT))
    site.run_to(HOUR_S)
    site.exits("1.0.0.1", ran_ms=HOUR_S * 1_000)
    assert UNIT == site.account().cost


def test_every_rank_is_charged_and_rounded_up_once() -> None:
    """Three nodes for 7 ms: 7 / 3.6 millionths each, 2 when rounded up."""
    site = Treasury("a", "b", "c", offer=BIG)
    site.price()
    site.tenant()
    site.asks(a_job(nodes=3))
    site.run_to(1)
    for rank in range(3):
        site.exits("1.0.0.1", rank=rank, ran_ms=7)
    assert [2, 2, 2] == [row.cost for row in site.ledger()]
    assert 6 == site.account().cost == site.job().cost


def test_what_a_job_declares_is_set_aside_instead_of_what_is_made_out() -> None:
    """And a cumulative quota refuses what would reach 90 % of it, every dimension at once."""
    site = a_site(budget=100 * UNIT, storage=1_000, egress=1_000)
    declared = replace(a_job(tasks=3), estimate=Estimate(cost=80 * UNIT, storage=899, egress=10))
    assert [] == refused(site.asks(declared))
    assert ((0, 80 * UNIT), (0, 899)) == (site.used("budget"), site.used("storage"))
    error = refusal(site.asks(replace(declared, estimate=Estimate(cost=10 * UNIT, storage=1))))
    assert [("storage", 899, 1, 900), ("budget", 80 * UNIT, 10 * UNIT, 90 * UNIT)] == [
        (r.dimension, r.reserved, r.request, r.guardrail) for r in error.refusals
    ]
    assert "budget: 0 used, 80 reserved, 10 asked for; together they must stay below 90 of its limit of 100" in str(
        error
    )
    assert [] == refused(site.asks(replace(declared, estimate=Estimate(cost=10 * UNIT - 1))))
    for task in range(3):
        site.exits(f"1.0.{task}.1")
    assert (0, 0) == site.used("storage")


def test_an_array_of_a_million_is_set_aside_for_in_one_step() -> None:
    """As many rows as for one task, and an exact sum."""
    site = a_site(budget=10**7 * UNIT)
    decision = site.asks(a_job(tasks=1_000_000, expected_ms=1_000))
    assert 1_000_000 * 278 == answered(decision).estimate  # 1_000_000 / 3600 rounded up
    assert len(decision.writes) < 10


def test_a_manual_retry_is_set_aside_for_and_admitted_again() -> None:
    site = a_site(budget=10 * UNIT)
    site.asks(replace(a_job(tasks=2, expected_ms=HOUR_S * 1_000), estimate=Estimate(storage=5)))
    site.exits("1.0.0.1", code=127)
    site.exits("1.0.1.1")
    before = site.used("budget")[1]
    assert 0 == before
    site.retry(1)
    assert UNIT == site.used("budget")[1]
    assert (0, 5) == site.used("storage")
    assert 3 * UNIT == site.job().estimate
    site.exits("1.0.0.2", code=127)
    site.tenant(create=False, budget=UNIT)
    assert ["budget"] == refused(site.retry(1))
    assert 0 == site.used("budget")[1]


def test_at_the_turn_of_a_month_what_runs_is_charged_up_to_it() -> None:
    """Its ledger row is the old month's, to the millisecond; the new month begins at what runs on."""
    site = a_site(budget=100 * UNIT)
    month = month_of(START_MS)
    turn_s = (ends_ms(month) - START_MS) / 1_000
    site.at(turn_s - 600)
    site.tick(stalled_s=turn_s - 600)
    site.back("a", process="p1")
    site.asks(a_job())
    site.run_to(turn_s + 300)
    (row,) = site.ledger()
    assert (month, 600_000, ends_ms(month)) == (row.month, row.ran_ms, row.at_ms)
    assert (month + 1, 0) == (site.account().month, site.account().cost)
    site.exits("1.0.0.1", ran_ms=900_000)
    assert [(month, 600_000), (month + 1, 300_000)] == [(row.month, row.ran_ms) for row in site.ledger()]
    assert site.account().cost == site.ledger()[1].cost
    assert site.job().cost == sum(row.cost for row in site.ledger())


def test_at_the_turn_of_a_month_what_nobody_hears_of_is_charged_to_its_last_sign_of_life() -> None:
    """It may have ended long ago, and what is charged is never taken back. One that comes back is charged from there
    on; a stop of the coordinator that a month ends in charges nothing that nobody saw."""
    site = a_site()
    month = month_of(START_MS)
    turn_s = (ends_ms(month) - START_MS) / 1_000
    site.at(turn_s - 1_000)
    site.tick(stalled_s=turn_s - 1_000)
    site.back("a", process="p1")
    site.asks(a_job(on_lost=OnLost(mode="wait", wait_ms=HOUR_S * 1_000)))
    site.run_to(turn_s - 600)
    site.falls_silent("a")
    site.run_to(turn_s + 10)
    assert [400_000] == [row.ran_ms for row in site.ledger()]
    site.restart(turn_s + 20)
    site.back("a", process="p1")
    site.run_to(turn_s + 100)
    site.exits("1.0.0.1", ran_ms=1_100_000)
    assert [(month, 400_000), (month + 1, 700_000)] == [(row.month, row.ran_ms) for row in site.ledger()]

    site.asks(a_job())
    site.run_to(turn_s + 200)
    next_turn_s = (ends_ms(month + 1) - START_MS) / 1_000
    site.restart(next_turn_s + 50_000)
    site.run_to(next_turn_s + 51_000)
    (charged_ms,) = [row.ran_ms for row in site.ledger()[2:]]
    assert 0 < charged_ms <= 100_000, "heartbeats are stored now and then"


# ---- a guardrail that is reached, starts, and what is told


def test_reaching_a_guardrail_is_one_alert_that_ends_when_it_stays_below() -> None:
    """Turnover at a full quota says nothing again; a minute below it says that it is over."""
    site = a_site(cpus=4 * UNIT, budget=1_000 * UNIT)
    site.asks(a_job(a_step(asks=(Ask(cpus=3 * UNIT + UNIT * 6 // 10),), tasks=3, max_running=1)))
    for task in range(3):
        assert ["physics"] == site.warned("quota_90")
        site.run_to(site.now_s + 5)
        site.exits(f"1.0.{task}.1")
    assert [] == site.calmed("quota_90")
    site.run_to(site.now_s + 70)
    assert (["physics"], ["physics"]) == (site.warned("quota_90"), site.calmed("quota_90"))


# ---- what survives


def test_all_of_it_survives_a_restart_a_full_disk_and_an_image() -> None:
    """Used, reserved and held are functions of the rows: the same after each, and the ledger goes on numbering."""
    site = a_site(budget=100 * UNIT, cpus=20 * UNIT, storage=10**6)
    site.asks(replace(a_job(tasks=30, expected_ms=HOUR_S * 1_000), estimate=Estimate(storage=77)))
    site.run_to(100)
    site.exits("1.0.0.1", ran_ms=100_000)
    before = site.usage()
    site.state = state_of(image_of(site.state))
    assert before == site.usage()
    site.disk_was_full()
    assert before == site.usage()
    site.restart(site.now_s)
    assert before.dimensions == site.usage().dimensions
    site.back("a", process="p1")
    site.run_to(110)
    site.exits("1.0.1.1", ran_ms=110_000)
    assert [1, 2] == [row.seq for row in site.ledger()]


def test_what_is_held_at_a_start_is_not_remembered_as_held_for_ever() -> None:
    """A data directory of an earlier version has no accounts: their memory begins with the start, and who runs
    something then is not behind everybody for days."""
    site = a_site()
    site.asks(a_job(tasks=64))
    site.run_to(20)
    site.rows = {key: row for key, row in site.rows.items() if not isinstance(row, AccountRow)}
    site.restart(site.now_s)
    site.back("a", process="p1")
    site.run_to(80)
    assert 64 == len(site.running("a")) and 1.0 == site.usage().share
    assert 0.0 < site.usage().share_decayed < 0.01


def test_a_charge_that_a_full_disk_undid_is_made_once() -> None:
    """The end was not durable, nor was its charge: said again, it is charged again, and the sums agree."""
    site = a_site(budget=100 * UNIT)
    site.asks(a_job())
    site.run_to(50)
    site.durable = False
    site.exits("1.0.0.1", ran_ms=50_000)
    site.durable = True
    undone = [d for d in site.decisions if d.writes][-1:]
    site.disk_was_full(*undone)
    assert [] == site.ledger()
    site.run_to(80)
    (row,) = site.ledger()
    assert (1, 50_000, row.cost) == (row.seq, row.ran_ms, site.account().cost)
    assert Book(site, "physics").charged == site.account().cost


def test_a_loss_that_a_full_disk_undid_is_charged_as_it_was() -> None:
    """Its provider is forgotten, so nothing of it is left once it is lost; what is loaded again counts as held from
    then on, and as heard of when it was."""
    site = a_site()
    site.asks(a_job(on_lost=OnLost(mode="wait", wait_ms=60_000)))
    site.run_to(50)
    forget = events.ProviderForget(at_ms=site.now_ms, request_id=site.request(), provider_id=ProviderId("a"))
    site.decide(forget)
    lost_from = len(site.decisions)
    site.durable = False
    site.run_to(site.now_s + 100)
    assert not site.state.work.attempts
    site.durable = True
    site.disk_was_full(*site.decisions[lost_from:])
    assert ["in_doubt"] == site.states()
    site.run_to(site.now_s + 100)
    assert ["lost"] == site.states()
    assert [50_000] == [row.ran_ms for row in site.ledger()]


def test_one_that_was_given_up_does_not_come_back_over_its_tenants_quota() -> None:
    """Others hold meanwhile what it held: it is ended, rather than the quota passed."""
    site = Treasury("a", "b", offer=BIG)
    site.tenant(cpus=2 * UNIT)
    site.asks(a_job())
    (first,) = [name for name in ("a", "b") if site.running(name)]
    (other,) = {"a", "b"} - {first}
    site.breaks(other)
    site.run_to(40)
    site.falls_silent(first)
    site.run_to(200)
    assert ["lost"] == site.states()
    site.asks(a_job())
    site.back(other)
    assert 1 == len(site.running(other))
    site.back(first)
    site.run_to(260)
    assert 1 == len(site.running("a")) + len(site.running("b"))
    assert (UNIT, 0) == site.used("cpus")


def test_usage_of_all_tenants_is_read_at_once() -> None:
    site = a_site()
    site.tenant("chemistry")
    read = events.UsageRead(at_ms=site.now_ms, request_id=site.request())
    (reply,) = site.decide(read).replies
    assert ["chemistry", "default", "physics"] == [usage.tenant.name for usage in reply.result.entries]  # type: ignore[union-attr]
    missing = events.UsageRead(at_ms=site.now_ms, request_id=site.request(), tenant=TenantName("nobody"))
    assert Code.NOT_FOUND is refusal(site.decide(missing)).code


def test_a_price_or_a_limit_that_cannot_be_is_refused() -> None:
    site = a_site()
    assert Code.BAD_REQUEST is refusal(site.price(Price(cpu=-1))).code
    assert Code.NOT_FOUND is refusal(site.price(CPU_HOUR, "attic")).code
    assert Code.BAD_REQUEST is refusal(site.tenant(create=False, discs=3)).code
    assert Code.BAD_REQUEST is refusal(site.tenant(create=False, cpus=-1)).code
    assert Code.BAD_REQUEST is refusal(site.tenant(create=False, weight=0)).code
    assert Code.CONFLICT is refusal(site.tenant("physics")).code
    assert Code.NOT_FOUND is refusal(site.tenant("chemistry", create=False)).code
    assert Code.BAD_JOB is refusal(site.asks(replace(a_job(), estimate=Estimate(cost=10**19)))).code


def test_what_is_promised_to_a_tenant_without_limits_can_still_be_counted() -> None:
    """Declared amounts add up to no more than one account holds, by any number of jobs; what is told fits into what is
    stored and sent. A retry of what was cancelled is no way around it."""
    site = Treasury("a")
    site.tenant()
    most = replace(a_job(), estimate=Estimate(cost=10**18, storage=10**18, ingress=10**18, egress=10**18))
    assert [] == refused(site.asks(most))
    for estimate in (Estimate(cost=1), Estimate(storage=1), Estimate(ingress=1), Estimate(egress=10**18)):
        error = refusal(site.asks(replace(a_job(), estimate=estimate)))
        assert Code.QUOTA is error.code and 10**18 == error.refusals[0].limit
    assert all(one.used + one.reserved <= 10**18 for one in site.usage().dimensions)
    assert [] == refused(site.asks(a_job())), "what declares nothing takes nothing"


def test_memory_beyond_what_can_be_counted_is_refused_before_it_is_multiplied() -> None:
    """Of all ranks together: a refusal and a preview tell of it in 64 bits."""
    site = a_site(memory=10**12)
    error = refusal(site.asks(a_job(nodes=1_024, asks=(Ask(memory=2**60),))))
    assert Code.BAD_JOB is error.code and "memory" in error.message


def test_a_charge_beyond_what_a_month_can_hold_is_cut_there() -> None:
    """The dearest price and the largest provider: the books stay within 64 bits, and add up."""
    site = Treasury("a", offer=Resources(cpus=1e6, memory_gb=1e6), promises=APART)
    site.tenant()
    site.price(Price(cpu=10**12, memory=10**12))
    huge = a_job(tasks=2, asks=(Ask(cpus=4 * 10**11, memory=4 * 10**14),), expected_ms=1)
    site.asks(huge)
    site.run_to(1.5 * HOUR_S)
    assert all(one.used + one.reserved < 2**63 for one in site.usage().dimensions)
    for task in range(2):
        site.exits(f"1.0.{task}.1", ran_ms=2 * HOUR_S * 1_000)
    costs = [row.cost for row in site.ledger()]
    assert 2 == len(costs) and sum(costs) == site.account().cost == 10**18
    assert all(one.used + one.reserved < 2**63 for one in site.usage().dimensions)


def test_who_has_a_limit_of_cpus_or_money_asks_for_some_cpus() -> None:
    """A task that asks for none may use all there are, and would count and cost nothing. Others may ask for none."""
    none = a_job(asks=(Ask(), Ask(cpus=0)))
    for quota in ({"cpus": 4 * UNIT}, {"budget": 4 * UNIT}):
        error = refusal(a_site(**quota).asks(none))
        assert Code.BAD_JOB is error.code and "no CPUs" in error.message
    assert [] == refused(a_site(memory=4 * 10**9).asks(none))
