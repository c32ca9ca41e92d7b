"""Where somebody stands in the queue: who is before them, and how many tasks that is."""

from __future__ import annotations

from coordinator.core.queue.lines import head
from coordinator.core.queue.waiting import AHEAD_MAX, Ahead, ahead_of
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
