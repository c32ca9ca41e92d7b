"""Placement: feasible, then ranked, then chosen; first come first served without holding up those who fit."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.commands import Explanation, StepExplanation
from coordinator.core.events import Curve, FiguresPublished, ProviderFigures
from coordinator.core.ids import PoolName, ProviderId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.rows import JobRow, Promises, Resources
from coordinator.core.work.jobspec import Isolation, JobSpec, OnLost
from tests.builders import ADMIN, an_enrolment
from tests.site import OFFER, Site, a_job, a_step

BIG = Resources(cpus=8.0, memory_gb=64.0, gpus=("gpu0", "gpu1"), named={"licence": 1.0})
TWO = (Ask(cpus=2 * UNIT),)


def joins(site: Site, name: str, offer: Resources = OFFER, pool: str | None = None, **promises: Any) -> None:
    """One more provider, as it is."""
    site.decide(an_enrolment(name, at_ms=site.now_ms, pool=pool, token=ADMIN.digest))
    known = next(iter(site.agents.values()), None)
    agent = type(known)(name, offer, Promises(**{"work": True, **promises})) if known is not None else None
    assert agent is not None
    site.agents[name] = agent
    site.back(name)


def figures(site: Site, stays: dict[str, float]) -> None:
    """P(still here) after an hour, with the same hazard ever after; the score is the same number."""
    site.decide(
        FiguresPublished(
            at_ms=site.now_ms,
            computed_at_ms=site.now_ms,
            horizons_ms=(3_600_000, 36_000_000),
            delays_ms=(),
            providers=tuple(
                ProviderFigures(provider_id=ProviderId(n), score=p, stays=(p, p**10)) for n, p in stays.items()
            ),
            fleet_stays=Curve(),
            fleet_returns=Curve(),
        )
    )


def where(site: Site) -> dict[str, list[str]]:
    return {name: site.running(name) for name in site.agents if site.running(name)}


def why(site: Site, job: int = 1) -> StepExplanation:
    return site.explain(job).steps[0]


def test_first_come_first_served_and_who_fits_nowhere_holds_up_nobody_else() -> None:
    site = Site("a")
    site.submit(a_job(asks=(Ask(cpus=16 * UNIT),)))
    site.submit(a_job(asks=TWO))
    site.submit(a_job(asks=TWO))
    site.submit(a_job(asks=TWO))
    assert {"a": ["2.0.0.1"]} == where(site)
    site.exits("2.0.0.1")
    assert {"a": ["3.0.0.1"]} == where(site)


def test_the_better_forecast_comes_before_the_better_fit() -> None:
    site = Site("a")
    joins(site, "b", BIG)
    figures(site, {"a": 0.5, "b": 0.9})
    site.submit(a_job())
    assert {"b": ["1.0.0.1"]} == where(site)


def test_among_equal_forecasts_the_better_fit_wins_and_gpus_are_kept_for_those_who_need_them() -> None:
    site = Site("a")
    joins(site, "b", BIG)
    figures(site, {"a": 0.89, "b": 0.91})
    site.submit(a_job())
    assert {"a": ["1.0.0.1"]} == where(site)


def test_alternatives_are_tried_in_their_order() -> None:
    site = Site("a")
    site.submit(a_job(asks=(Ask(gpus=UNIT), Ask(cpus=2 * UNIT))))
    assert 2 * UNIT == site.attempt("1.0.0.1").ranks[0].share.ask.cpus
    joins(site, "b", BIG)
    site.submit(a_job(asks=(Ask(gpus=UNIT), Ask(cpus=2 * UNIT))))
    assert ((0, UNIT),) == site.attempt("2.0.0.1").ranks[0].share.gpus


def test_several_nodes_are_several_providers_or_none() -> None:
    site = Site("a")
    site.submit(a_job(nodes=2))
    assert {} == where(site)
    joins(site, "b")
    assert {"a": ["1.0.0.1"], "b": ["1.0.0.1"]} == where(site)


@pytest.mark.parametrize(
    ("asked", "constraint"),
    [
        ({"pools": (PoolName("lab"),)}, "pool"),
        ({"labels": (("kind", "gpu"),)}, "labels"),
        ({"isolation": Isolation.SANDBOX}, "isolation"),
        ({"asks": (Ask(cpus=9 * UNIT),)}, "cpus"),
        ({"asks": (Ask(gpus=UNIT),)}, "gpus"),
        ({"asks": (Ask(memory=9 * 10**9),)}, "memory"),
        ({"asks": (Ask(named=(("licence", UNIT),)),)}, "named:licence"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_no_provider_has_is_never_and_the_constraint_is_named(asked: dict[str, Any], constraint: str) -> None:
    site = Site("a", "b")
    site.submit(a_job(**asked))
    found = why(site)
    assert ("never", 0) == (found.verdict, found.able_ever)
    (obstacle,) = [o for o in found.obstacles if o.constraint == constraint]
    assert (2, False) == (obstacle.providers, obstacle.ever)
    assert found.hint


@pytest.mark.parametrize(("asked", "constraint"), [("min_score", "min_score"), ("min_forecast", "min_forecast")])
def test_a_score_and_a_forecast_are_hard_constraints_that_time_may_meet(asked: str, constraint: str) -> None:
    site = Site("a")
    figures(site, {"a": 0.6})
    bound: dict[str, Any] = {asked: 0.8}
    site.submit(a_job(**bound))
    found = why(site)
    assert ("wait", [constraint]) == (found.verdict, [o.constraint for o in found.obstacles])
    figures(site, {"a": 0.85})
    site.run_to(6)
    assert {"a": ["1.0.0.1"]} == where(site)


def test_a_drained_and_a_silent_provider_get_nothing_new_and_keep_what_they_run() -> None:
    site = Site("a")
    site.submit(a_job())
    who = site.provider("a").row.provider_id
    site.decide(events.ProviderDrain(at_ms=site.now_ms, request_id=site.request(), provider_id=who))
    site.submit(a_job())
    assert {"a": ["1.0.0.1"]} == where(site)
    assert ["drained"] == [o.constraint for o in why(site, 2).obstacles]
    site.decide(events.ProviderResume(at_ms=site.now_ms, request_id=site.request(), provider_id=who))
    assert ["1.0.0.1", "2.0.0.1"] == site.running("a")


def test_an_agent_that_runs_no_attempts_is_given_none() -> None:
    site = Site("a", promises=Promises(work=False))
    site.submit(a_job())
    assert ("never", ["work"]) == (why(site).verdict, [o.constraint for o in why(site).obstacles])


def test_at_isolation_none_a_provider_serves_one_tenant_at_a_time() -> None:
    site = Site("a")
    joins(site, "b", isolation=Isolation.UID)
    site.submit(a_job(nodes=2))

    site.decide(events.TenantSet(at_ms=site.now_ms, request_id=site.request(), name=TenantName("other"), create=True))

    def other(spec: JobSpec) -> JobRow:
        event = events.JobSubmit(
            at_ms=site.now_ms, request_id=site.request(), tenant=TenantName("other"), by="token:o", spec=spec
        )
        (reply,) = site.decide(event).replies
        assert isinstance(reply.result, JobRow)
        return reply.result

    other(a_job())
    other(a_job())
    assert {"a": ["1.0.0.1"], "b": ["1.0.0.1", "2.0.0.1"]} == where(site)
    assert "tenant" in [o.constraint for o in why(site, 3).obstacles]


def test_a_provider_holds_no_more_attempts_than_its_heartbeats_can_name() -> None:
    site = Site("a", policy=Policy(attempts_per_provider_max=1))
    site.submit(a_job(tasks=2))
    assert {"a": ["1.0.0.1"]} == where(site)


def test_one_place_grants_so_many_and_asks_for_another() -> None:
    site = Site("a", policy=Policy(placements_max=1))
    site.submit(a_job(tasks=2))
    places = [d for d in site.decisions if any(type(s.message).__name__ == "Grant" for s in d.sends)]
    assert [1, 1] == [sum(type(s.message).__name__ == "Grant" for s in d.sends) for d in places]


def test_what_freed_the_capacity_is_told() -> None:
    site = Site("a")
    site.submit(a_job(asks=TWO))
    site.submit(a_job(asks=TWO))
    site.exits("1.0.0.1")
    assert ("submit", "slot 1.0.0.1") == (site.attempt("1.0.0.1").unblocked_by, site.attempt("2.0.0.1").unblocked_by)


def test_a_reservation_holds_its_capacity_against_the_queue() -> None:
    site = Site("a", "b")
    site.submit(a_job(asks=TWO, on_lost=OnLost(mode="retry")))
    first = next(iter(where(site)))
    site.breaks(first)
    site.submit(a_job(asks=TWO))
    assert ["in_doubt", "reserved"] == site.states()
    assert [] == site.states(job=2)


def test_waiting_is_told_apart_from_never_and_says_who_has_room() -> None:
    site = Site("a")
    site.submit(a_job(asks=TWO, time_limit_ms=60_000))
    site.submit(a_job(asks=TWO))
    found = why(site, 2)
    assert ("wait", 1, 0, 1) == (found.verdict, found.able_ever, found.able_now, found.waiting)
    assert ["cpus"] == [o.constraint for o in found.obstacles]
    assert found.eta_ms is not None and site.now_ms < found.eta_ms <= site.now_ms + 60_000


def test_who_could_run_it_and_does_not_now_says_so_in_a_word() -> None:
    """A quarantine is no want of room, and ends when it says; nobody knows when a forecast will be better."""
    site = Site("a", "b")
    figures(site, {"a": 0.2, "b": 0.2})
    site.submit(a_job(min_forecast=0.9, expected_ms=8 * 3_600_000))
    found = why(site)
    assert "2 of 2 providers could run it, 0 now: 2 below the forecast" == found.text
    assert found.eta_ms is None
    assert "asked to stay 8h with 90% at least: the best of them has 0%" == found.obstacles[0].text
    site.submit(a_job(min_score=0.8))
    assert "asked for a score of 0.8 at least: the best of them has 0.20" == why(site, 2).obstacles[0].text
    site.cancel(2)
    site.submit(a_job(asks=TWO, time_limit_ms=60_000))
    until_ms = site.now_ms + 600_000
    for name in "ab":
        site.provider(name).row = replace(site.provider(name).row, quarantined_until_ms=until_ms)
        site.state.work.quarantined[ProviderId(name)] = until_ms
    site.submit(a_job(asks=TWO))
    found = why(site, 4)
    assert found.text.startswith("2 of 2 providers could run it, 0 now: 2 quarantined")
    assert until_ms == found.eta_ms


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        ({"asks": (Ask(gpus=8 * UNIT),)}, "asked for 8 GPUs: the most that one has is 0 GPUs: ask for less"),
        (
            {"asks": (Ask(memory=900 << 30),)},
            "asked for 900 GiB of memory: the most that one has is 8 GB: ask for less",
        ),
        ({"asks": (Ask(named=(("licence", UNIT),)),)}, "asked for 1 licence: the most that one has is 0 licence"),
        ({"pools": (PoolName("lab"),)}, "asked for pool lab: name another pool"),
        ({"labels": (("gpu", "a100"),)}, "asked for labels gpu=a100: ask for other labels, or give them to a provider"),
        ({"isolation": Isolation.SANDBOX}, "asked for isolation sandbox: ask for less, or bring a provider that gives"),
    ],
)
def test_a_hint_names_what_would_help_and_how_much_there_is(asked: dict[str, Any], hint: str) -> None:
    site = Site("a")
    site.submit(a_job(**asked))
    assert why(site).hint.startswith(hint)


@pytest.mark.parametrize(
    ("asked", "hint"),
    [
        (
            {"labels": (("rack", "r1"),), "asks": (Ask(memory=16 << 30),)},
            "asked for 16 GiB of memory: the most that one",
        ),
        (
            {"labels": (("rack", "r9"),), "asks": (Ask(cpus=3 * UNIT),)},
            "asked for 3 CPUs: the most that one has is 2 CPUs: ask for less, or bring a provider that has it; and "
            "asked for labels rack=r9: ask for other labels",
        ),
        ({"nodes": 3, "asks": (Ask(cpus=UNIT),)}, "asked for 3 nodes: 2 providers are enrolled: ask for fewer"),
        ({"nodes": 2, "labels": (("rack", "r1"),)}, "asked for labels rack=r1: ask for other labels"),
    ],
)
def test_a_hint_names_as_many_changes_as_it_takes_and_no_more(asked: dict[str, Any], hint: str) -> None:
    """One that leaves it waiting as before is none: the constraint that rules out most may not be the only one."""
    site = Site("a", "b")
    site.provider("a").row = replace(site.provider("a").row, labels={"rack": "r1"})
    site.submit(a_job(**asked))
    assert why(site).hint.startswith(hint)


def test_the_most_that_one_has_is_of_those_that_nothing_else_rules_out() -> None:
    """Told of what the wrong rack has, its reader would ask for as much as before."""
    site = Site("a", "b")
    row = site.provider("b").row
    site.provider("b").row = replace(row, resources=replace(row.resources, cpus=64.0))
    site.provider("a").row = replace(site.provider("a").row, labels={"rack": "r1"})
    site.submit(a_job(labels=(("rack", "r1"),), asks=(Ask(cpus=4 * UNIT),)))
    assert why(site).hint.startswith("asked for 4 CPUs: the most that one has is 2 CPUs: ask for less")


def test_a_preview_says_who_could_run_it_and_changes_nothing() -> None:
    site = Site("a")
    ask = events.JobPreview(
        at_ms=site.now_ms,
        request_id=site.request(),
        tenant=TenantName("default"),
        spec=a_job(a_step("x"), a_step("y", needs=(0,), asks=(Ask(gpus=UNIT),))),
    )
    decision = site.decide(ask)
    (reply,) = decision.replies
    assert not isinstance(reply.result, Exception) and reply.result is not None
    assert [("x", 1), ("y", 0)] == [(step.name, step.able_ever) for step in reply.result.steps]  # type: ignore[union-attr]
    assert [] == decision.writes


def previewed(site: Site, spec: JobSpec) -> StepExplanation:
    ask = events.JobPreview(at_ms=site.now_ms, request_id=site.request(), tenant=TenantName("default"), spec=spec)
    (reply,) = site.decide(ask).replies
    assert isinstance(reply.result, Explanation)
    return reply.result.steps[0]


def test_a_preview_says_when_it_would_start_and_so_does_the_job() -> None:
    """Who waits already is counted, and a provider that is kept for them is not free."""
    site = Site("a")
    free = previewed(site, a_job(asks=TWO))
    assert (None, 0, 1) == (free.eta_ms, free.ahead, free.able_now)
    site.submit(a_job(time_limit_ms=60_000))
    site.submit(a_job(asks=TWO, time_limit_ms=60_000))
    later = a_job(asks=TWO, time_limit_ms=60_000)
    before = previewed(site, later)
    site.submit(later)
    after = why(site, 3)
    assert before.eta_ms is not None and site.now_ms + 60_000 < before.eta_ms
    assert (before.eta_ms, before.ahead, before.able_now) == (after.eta_ms, after.ahead, after.able_now) and after.ahead
    assert ["planned"] == [one.constraint for one in previewed(site, a_job()).obstacles]


def test_what_waits_for_another_step_says_so() -> None:
    site = Site("a")
    site.submit(a_job(a_step("x"), a_step("y", needs=(0,))))
    found = site.explain(1).steps
    assert [("runs", ""), ("wait", "x")] == [(s.verdict, "x" if "waits for x" in s.text else "") for s in found]


def test_equal_wants_stand_in_one_line() -> None:
    """What waits costs a place in a line, and each line is judged once."""
    site = Site("a")
    for _ in range(50):
        site.submit(a_job(asks=(Ask(cpus=9 * UNIT),)))
    assert (1, [50]) == (len(site.state.work.queue), [line.waiting for line in site.state.work.queue.values()])
    for job in range(1, 51):
        site.cancel(job)
    assert {} == site.state.work.queue


def test_an_offer_that_grew_takes_who_waited() -> None:
    site = Site("a")
    site.submit(a_job(asks=(Ask(cpus=4 * UNIT),)))
    site.agents["a"].offer = replace(OFFER, cpus=4.0)
    site.breaks("a")
    site.back("a")
    assert {"a": ["1.0.0.1"]} == where(site)
