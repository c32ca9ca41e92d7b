"""Planned starts: who stands ahead and has no room is kept room for, and who passes it does not delay it."""

from __future__ import annotations

from random import Random

import pytest
from msgspec.structs import replace

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import JobId
from coordinator.core.policy import Policy
from coordinator.core.queue.freeing import SLACK_MS
from coordinator.core.rows import AttemptRow, Resources
from coordinator.core.work.jobspec import Arrangement
from tests.site import Site, a_job
from tests.unit.core.shop import PATIENT, Shop, an_ask, cpus

MINUTE = 60_000
TWO = Resources(cpus=2.0, memory_gb=8.0)


def exactly(lasts: dict[JobId, int]) -> Shop:
    """Two providers of two CPUs; each job's tasks run as long as is said, else a minute."""
    return Shop({"t": 1}, {"a": cpus(2), "b": cpus(2)}, lambda job, tenant: lasts.get(job, 1))


def began(shop: Shop, job: JobId) -> list[int]:
    return [minute for minute, other, _ in shop.begun if other == job]


def test_a_large_job_is_not_starved_by_small_ones_that_come_all_the_time() -> None:
    """Two whole providers are never free at once by themselves; they are kept, and both are, in time."""
    lasts: dict[JobId, int] = {}
    shop = exactly(lasts)
    for _ in range(4):
        lasts[shop.submit("t", a_job(time_limit_ms=30 * MINUTE))] = 30 - _ * 5
    shop.run_to(1)
    large = shop.submit("t", a_job(nodes=2, asks=an_ask(2), time_limit_ms=30 * MINUTE))
    lasts[large] = 10

    def each(minute: int) -> None:
        lasts[shop.submit("t", a_job(time_limit_ms=60 * MINUTE))] = 60

    shop.run_to(40, each)
    assert began(shop, large) and began(shop, large)[0] <= 31


def test_who_ends_before_the_planned_start_passes_and_who_may_not_does_not() -> None:
    lasts: dict[JobId, int] = {}
    shop = exactly(lasts)
    for _ in range(2):
        lasts[shop.submit("t", a_job(asks=an_ask(1), time_limit_ms=60 * MINUTE))] = 60
        shop.run_to(shop.minute + 1)
    head = shop.submit("t", a_job(nodes=2, asks=an_ask(2), time_limit_ms=MINUTE))
    shop.run_to(3)
    long, short = (shop.submit("t", a_job(time_limit_ms=limit * MINUTE)) for limit in (120, 20))
    endless = shop.submit("t", a_job())
    shop.run_to(5)
    assert (1, 0, 0) == tuple(len(began(shop, job)) for job in (short, long, endless))
    shop.run_to(70)
    assert began(shop, head)[0] <= 62
    assert began(shop, long) and began(shop, endless)


def test_who_fits_beside_the_planned_one_passes_whatever_its_length() -> None:
    """The head waits for one GPU; whoever needs none is not held up by it (a provider with CPUs to spare)."""
    site = Site("a", offer=Resources(cpus=4.0, memory_gb=8.0, gpus=("gpu",)))
    gpu = (Ask(cpus=UNIT, gpus=UNIT),)
    site.submit(a_job(asks=gpu))
    site.submit(a_job(asks=gpu))
    site.submit(a_job(tasks=4))
    assert ["1.0.0.1", "3.0.0.1", "3.0.1.1", "3.0.2.1"] == site.running("a")
    site.exits("3.0.0.1")
    assert "3.0.3.1" in site.running("a"), "three CPUs are for them, one for whoever has the GPU"
    site.exits("1.0.0.1")
    assert "2.0.0.1" in site.running("a")
    choices = [r.choice for r in site.rows.values() if isinstance(r, AttemptRow) and r.job_id == 3]
    assert all(choice is not None and choice.backfilled for choice in choices)


def test_a_head_that_nobody_can_ever_run_holds_up_nobody() -> None:
    site = Site("a")
    site.submit(a_job(asks=(Ask(cpus=3 * UNIT),), priority=5))
    site.submit(a_job(nodes=2, priority=5))
    site.submit(a_job(tasks=2))
    assert ["3.0.0.1", "3.0.1.1"] == site.running("a") and not site.state.work.plans


def test_the_alternative_that_can_start_first_is_planned() -> None:
    shop = Shop({"t": 1}, {"a": cpus(4), "b": cpus(2)}, lambda job, tenant: {1: 60, 2: 20}.get(job, 5))
    shop.submit("t", a_job(asks=an_ask(4), time_limit_ms=60 * MINUTE))
    shop.submit("t", a_job(asks=an_ask(2), time_limit_ms=20 * MINUTE))
    shop.run_to(1)
    either = shop.submit("t", a_job(asks=(*an_ask(4), *an_ask(2))))
    shop.run_to(2)
    (plan,) = shop.state.work.plans.values()
    assert (("b",), an_ask(2)[0]) == (plan.providers, plan.ask)
    shop.run_to(30)
    assert began(shop, either)[0] <= 21


def test_a_plan_goes_elsewhere_when_its_provider_goes() -> None:
    site = Site("a", "b", offer=TWO)
    site.submit(a_job(asks=(Ask(cpus=UNIT),), time_limit_ms=60 * MINUTE))
    site.submit(a_job(asks=(Ask(cpus=2 * UNIT),), time_limit_ms=120 * MINUTE))
    site.submit(a_job(asks=(Ask(cpus=2 * UNIT),)))
    (plan,) = site.state.work.plans.values()
    site.breaks(plan.providers[0])
    site.run_to(20)
    (other,) = site.state.work.plans.values()
    assert other.providers != plan.providers


def test_what_is_packed_and_what_is_spread() -> None:
    for arrangement, expected in ((Arrangement.PACK, 1), (Arrangement.SPREAD, 2)):
        site = Site("a", "b", offer=TWO)
        site.submit(a_job(tasks=2, arrangement=arrangement))
        assert expected == len([name for name in "ab" if site.running(name)])


def test_the_promise_is_made_once_and_compared_when_it_starts() -> None:
    site = Site("a")
    site.submit(a_job(asks=(Ask(cpus=2 * UNIT),), time_limit_ms=60_000))
    site.submit(a_job())
    promised = site.job(2).promised_at_ms
    assert promised is not None and site.now_ms < promised <= site.now_ms + 60_000 + SLACK_MS
    site.at(30)
    site.exits("1.0.0.1")
    assert promised == site.job(2).promised_at_ms
    notes = [note for decision in site.decisions for note in decision.notes if type(note).__name__ == "Promised"]
    assert [(2, promised, site.now_ms)] == [(n.job_id, n.promised_at_ms, n.started_at_ms) for n in notes]  # type: ignore[union-attr]


def test_a_job_whose_first_task_found_room_at_once_is_promised_nothing() -> None:
    """A promise is of a job's start: what the rest of its tasks waits for is none, and no error of one is measured."""
    site = Site("a", offer=TWO)
    site.submit(a_job(tasks=10))
    assert 2 == len(site.running("a"))
    assert site.job(1).promised_at_ms is None
    assert not [note for decision in site.decisions for note in decision.notes if type(note).__name__ == "Promised"]


@pytest.mark.parametrize("seed", range(6))
def test_nobody_who_is_let_past_delays_the_planned_start_of_the_head(seed: int) -> None:
    """Random sizes, nodes and lengths, all with a limit that they use up, in one band: whenever the first in the queue
    has a plan, it starts by then."""
    dice = Random(seed)
    lasts: dict[JobId, int] = {}
    names = {name: cpus(dice.choice((2, 4, 8))) for name in "abcd"}
    policy = replace(PATIENT, plan_every_ms=0)
    shop = Shop({"t": 1}, names, lambda job, tenant: lasts[job], policy)
    sizes: dict[JobId, int] = {}
    planned: dict[JobId, int] = {}

    def each(minute: int) -> None:
        if minute < 200 and dice.random() < 0.7:
            limit = dice.choice((3, 10, 40))
            nodes = dice.choice((1, 1, 2, 4))
            size = dice.choice((1, 2))
            job = shop.submit("t", a_job(nodes=nodes, asks=an_ask(size), time_limit_ms=limit * MINUTE))
            lasts[job], sizes[job] = limit, nodes
        for want, plan in shop.state.work.plans.items():
            line = shop.state.work.queue[want]
            first = min(place for other in shop.state.work.queue.values() for place in other.heap)
            if line.first == first:
                job = JobId(first[0])
                planned[job] = min(planned.get(job, 2**60), plan.start_ms)

    shop.run_to(1_500, each)
    assert planned, "the walk never made the head of the queue wait"
    start = shop.now_ms - shop.minute * 60_000
    for job, by_ms in planned.items():
        minutes = began(shop, job)
        assert minutes and start + minutes[0] * 60_000 <= by_ms + 60_000, f"job {job} was delayed"


def test_the_first_of_the_queue_is_planned_at_once_whenever_it_was_looked_at_before() -> None:
    """The second of two heads, looked at and not planned for, is the first a moment later: nobody slips in between."""
    site = Site("a", offer=TWO)
    whole = (Ask(cpus=2 * UNIT),)
    site.submit(a_job(asks=(Ask(cpus=UNIT),), time_limit_ms=60 * MINUTE))
    site.submit(a_job(asks=whole))
    site.submit(a_job(asks=whole, time_limit_ms=30 * MINUTE))
    site.cancel(2)
    site.submit(a_job())
    assert ["1.0.0.1"] == site.running("a"), "one CPU is free, and kept"
    (plan,) = site.state.work.plans.values()
    assert 30 * MINUTE == plan.want.limit_ms


def test_who_comes_to_stand_first_is_planned_anew_though_its_plan_is_young() -> None:
    """A start that was planned around the one before it is no promise: what was kept for that one is its own now, and
    nobody behind gets it."""
    site = Site("a", "b", offer=TWO, policy=Policy(plan_every_ms=10**9))
    site.submit(a_job(asks=(Ask(cpus=UNIT),), time_limit_ms=60 * MINUTE))
    site.submit(a_job(asks=(Ask(cpus=2 * UNIT),), time_limit_ms=100 * MINUTE))
    (early,) = (who for who in "ab" if ["1.0.0.1"] == site.running(who))
    site.submit(a_job(asks=(Ask(cpus=2 * UNIT),), time_limit_ms=10 * MINUTE))
    site.submit(a_job(asks=(Ask(cpus=2 * UNIT),), time_limit_ms=20 * MINUTE))
    site.submit(a_job(asks=(Ask(cpus=UNIT),), time_limit_ms=300 * MINUTE))
    planned = [plan.providers for plan in site.state.work.plans.values()]
    assert (early,) == planned[0] and (early,) != planned[1]
    site.cancel(3)
    site.run_to(1)
    (plan,) = site.state.work.plans.values()
    assert (early,) == plan.providers and ["1.0.0.1"] == site.running(early)


def test_who_is_alone_is_planned_now_and_then_and_at_once_when_somebody_comes() -> None:
    """A start that nobody could delay is worked out anew every `plan_every_ms` and not in each Place; before anybody
    behind is looked at, it is."""
    site = Site("a", "b", offer=TWO, policy=Policy(plan_every_ms=10**9))
    whole = (Ask(cpus=2 * UNIT),)
    site.submit(a_job(asks=whole, expected_ms=30_000))
    site.submit(a_job(asks=(Ask(cpus=UNIT),), time_limit_ms=100 * MINUTE))
    site.submit(a_job(asks=whole))
    (plan,) = site.state.work.plans.values()
    assert 30_000 == plan.start_ms - site.now_ms, "the first time it is planned"
    site.run_to(40)
    site.state.work.place_due = True
    site.run_to(41)
    assert not site.state.work.plans, "its time is over, and nobody is there whom it could bind"
    site.submit(a_job(asks=(Ask(cpus=UNIT),), time_limit_ms=300 * MINUTE))
    (plan,) = site.state.work.plans.values()
    assert JobId(3) == site.state.work.queue[plan.want].heap[0][0]
