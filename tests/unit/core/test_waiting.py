"""Where somebody stands in the queue: who is before them, and how many tasks that is."""

from __future__ import annotations

from coordinator.core.queue.lines import head
from coordinator.core.queue.waiting import AHEAD_MAX, Ahead, ahead_of, starts_at_ms
from coordinator.core.work.jobspec import JobSpec, StepSpec
from tests.unit.core.shop import Shop, an_ask, cpus


def a_shop(*submitted: tuple[str, int, int]) -> Shop:
    """One CPU that somebody holds, and behind it jobs of (tenant, priority, tasks), each of a kind of its own."""
    shop = Shop({"ours": 1, "theirs": 1}, {"a": cpus(1)}, lambda job, tenant: 60)
    shop.submit("ours", a_job(0, 1, 0.5))
    shop.submit("theirs", a_job(0, 1, 0.5))
    shop.run_to(1)
    for number, (tenant, priority, tasks) in enumerate(submitted):
        shop.submit(tenant, a_job(priority, tasks, 0.6 + number / 100))
    return shop


def a_job(priority: int, tasks: int, ask: float) -> JobSpec:
    step = StepSpec(name="main", command=("true",), tasks=tasks, asks=an_ask(ask))
    return JobSpec(name="j", priority=priority, steps=(step,))


def test_before_a_place_are_higher_priorities_and_what_came_earlier_at_its_own() -> None:
    """Lower priorities and later jobs are not, though they may be of a tenant that stands level with this one."""
    shop = a_shop(("theirs", 1, 5), ("ours", 0, 7), ("ours", 0, 1), ("theirs", 0, 9), ("theirs", -1, 3))
    want = next(want for want in shop.state.work.queue if want.shape.asks == an_ask(0.62))
    place = head(shop.state.work, want)
    assert place is not None
    assert ahead_of(shop.state, want, place, shop.policy) == Ahead(places=2, tasks=5 + 7)
    assert ahead_of(shop.state, want, place, shop.policy, tasks_alone=True).tasks == 5 + 7


def test_who_asks_for_tasks_alone_looks_at_no_more_lines_than_it_takes() -> None:
    shop = a_shop(*(("ours", 0, AHEAD_MAX) for _ in range(3)), ("ours", 0, 1))
    want = next(want for want in shop.state.work.queue if want.shape.asks == an_ask(0.63))
    place = head(shop.state.work, want)
    assert place is not None
    assert ahead_of(shop.state, want, place, shop.policy) == Ahead(places=3, tasks=AHEAD_MAX)
    assert ahead_of(shop.state, want, place, shop.policy, tasks_alone=True) == Ahead(places=1, tasks=AHEAD_MAX)


def minutes_until(shop: Shop, step: StepSpec, ahead_tasks: int = 0) -> int | None:
    """Until a task of this step should start."""
    shop.submit("ours", JobSpec(name="asks", steps=(step,)))
    want = next(want for want in shop.state.work.queue if want.shape.asks == step.asks)
    start_ms = starts_at_ms(shop.state, want, ahead_tasks, shop.policy)
    return (start_ms - shop.now_ms) // 60_000 if start_ms is not None else None


def two_busy() -> Shop:
    """Of two providers with two CPUs, one whose tasks end in 30 minutes and one whose task ends in 60."""
    shop = Shop({"ours": 1}, {"a": cpus(2), "b": cpus(2)}, lambda job, tenant: 600)
    for minutes, ask, tasks in ((30, 1.0, 2), (60, 2.0, 1)):
        step = StepSpec(name="main", command=("true",), tasks=tasks, asks=an_ask(ask), expected_ms=minutes * 60_000)
        shop.submit("ours", JobSpec(name="j", steps=(step,)))
        shop.run_to(shop.minute + 1)
    return shop


def test_who_waits_starts_when_the_first_that_makes_room_should_end_and_later_by_those_ahead() -> None:
    """Two rooms of one CPU after half an hour, two more after an hour; each is used again by whoever is ahead."""
    asked = StepSpec(name="main", command=("true",), asks=an_ask(0.9), expected_ms=3 * 3_600_000)
    shop = two_busy()
    assert [28, 28, 59, 59] == [minutes_until(shop, asked, ahead) for ahead in range(4)]
    assert 28 + 180 <= (minutes_until(shop, asked, 4) or 0) <= 28 + 180 * 1.25, "run times are kept in classes"


def test_each_node_is_another_provider() -> None:
    """Though one of them will have room twice before the other has any."""
    asked = StepSpec(name="main", command=("true",), nodes=2, asks=an_ask(0.9))
    assert 59 == minutes_until(two_busy(), asked)


def test_of_its_alternatives_the_one_counts_that_finds_room_first() -> None:
    """One that no provider offers is no reason to have no time; too few providers are."""
    shop = two_busy()
    asks = (*an_ask(8), *an_ask(0.8))
    assert 28 == minutes_until(shop, StepSpec(name="main", command=("true",), asks=asks))
    assert minutes_until(shop, StepSpec(name="main", command=("true",), nodes=3, asks=an_ask(0.7))) is None
