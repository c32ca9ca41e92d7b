"""Turns: first leases that are given several at a time are those that would have been given one by one."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.commands import Decision, notes_one_by_one, one_by_one, sends_one_by_one
from coordinator.core.decide import decide
from coordinator.core.ids import JobId, RequestId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue import placement
from coordinator.core.queue.plans import free_at
from coordinator.core.rows import Resources
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import Arrangement, JobSpec, StepSpec
from tests.unit.core import shop
from tests.unit.core.shop import PATIENT, Shop, cpus

ONE_BY_ONE = replace(PATIENT, turn_max=1)
IN_TURNS = replace(PATIENT, turn_max=16, turn_share=1.0)
FLEET = {
    f"p{number}": Resources(cpus=4.0 + number, memory_gb=16.0, gpus=("gpu",) * (number % 3)) for number in range(6)
}


class Office(Shop):
    """A shop that takes more than jobs."""

    def cancel(self, job_id: JobId, task: int) -> None:
        self._tell(
            events.JobCancel(
                at_ms=self.now_ms,
                request_id=RequestId(1),
                tenant=None,
                by="token:t",
                job_id=job_id,
                task=(0, task),
            )
        )

    def limit(self, tenant: str, count: int) -> None:
        """So many CPUs at a time."""
        quota = (("cpus", count * UNIT),)
        self._tell(events.TenantSet(at_ms=self.now_ms, request_id=RequestId(1), name=TenantName(tenant), quota=quota))


def half_an_hour(job: JobId, tenant: str) -> int:
    return 30


def some_job(dice: Random, number: int) -> JobSpec:
    ask = Ask(cpus=dice.choice((1, 2, 4)) * UNIT // 2, memory=dice.choice((0, 10**9)), gpus=dice.choice((0, 0, UNIT)))
    step = StepSpec(
        name="work",
        command=("true",),
        tasks=dice.randrange(1, 30),
        asks=(ask, Ask(cpus=UNIT // 2)) if dice.random() < 0.3 else (ask,),
        max_running=dice.choice((None, None, 3)),
        arrangement=dice.choice(tuple(Arrangement)),
        time_limit_ms=dice.choice((None, 3_600_000)),
    )
    return JobSpec(name=f"job-{number}", priority=dice.choice((0, 0, 1)), steps=(step,))


def day_of(seed: int, tenants: tuple[str, ...], policy: Policy, monkeypatch: pytest.MonkeyPatch) -> list[Decision]:
    """Everything that is decided over five hours."""
    told: list[Decision] = []

    def heard(state: ClusterState, event: events.AnyEvent, policy: Policy) -> Decision:
        decision = decide(state, event, policy)
        state.check_invariants()
        decision.writes[:] = one_by_one(decision.writes)
        decision.sends[:] = sends_one_by_one(decision.sends)
        decision.notes[:] = notes_one_by_one(decision.notes)
        told.append(decision)
        return decision

    dice = Random(seed)
    with monkeypatch.context() as patched:
        patched.setattr(shop, "decide", heard)
        it = Office(dict.fromkeys(tenants, 1), FLEET, half_an_hour, policy)
        for number in range(8):
            job_id = it.submit(dice.choice(tenants), some_job(dice, number))
            if dice.random() < 0.3:
                task = dice.randrange(it.state.work.jobs[job_id].steps[0].spec.tasks)
                it.cancel(job_id, task)
        it.run_to(300)
    return told


def test_both_ways_of_granting_write_and_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The short way of a first lease and the way of all others are one."""
    for seed in range(4):
        short = day_of(seed, ("ant", "bee"), ONE_BY_ONE, monkeypatch)
        with monkeypatch.context() as patched:
            patched.setattr(placement, "FRESH", None)  # no place in a line is one of a task that was never launched
            long = day_of(seed, ("ant", "bee"), ONE_BY_ONE, monkeypatch)
        assert [(it.writes, it.sends, it.notes) for it in short] == [(it.writes, it.sends, it.notes) for it in long]
        assert sum(len(it.sends) for it in short) > 50


def test_a_tenant_alone_is_given_in_turns_what_it_would_be_given_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(4):
        turns = day_of(seed, ("ant",), IN_TURNS, monkeypatch)
        single = day_of(seed, ("ant",), ONE_BY_ONE, monkeypatch)
        assert [(it.writes, it.sends) for it in turns] == [(it.writes, it.sends) for it in single]


def begun(it: Shop) -> Counter[str]:
    return Counter(it.state.work.jobs[job].row.tenant for _, job, _ in it.begun)


def an_array(tasks: int, **named: Any) -> JobSpec:
    return JobSpec(name="array", steps=(StepSpec(name="work", command=("true",), tasks=tasks, **named),))


def test_no_tenant_gets_more_than_one_turn_beyond_its_due() -> None:
    """Nor in a small fleet, where a turn is a task."""
    for policy, most in ((IN_TURNS, 16), (replace(IN_TURNS, turn_share=0.001), 1)):
        it = Office({"ant": 1, "bee": 1}, {"p": cpus(30), "q": cpus(31)}, half_an_hour, policy)
        for tenant in ("ant", "bee"):
            it.submit(tenant, an_array(100))
        it.run_to(1)
        got = begun(it)
        assert sum(got.values()) == 61
        assert abs(got["ant"] - got["bee"]) <= most


def test_a_turn_ends_where_the_step_or_the_quota_does() -> None:
    it = Office({"ant": 1}, {"p": cpus(64)}, half_an_hour, IN_TURNS)
    limited = it.submit("ant", an_array(50, max_running=5))
    it.run_to(1)
    assert len(it.state.work.jobs[limited].steps[0].tasks) == 5
    it.limit("ant", 20)
    it.submit("ant", an_array(50))
    it.run_to(2)
    assert it.state.work.accounts.by_tenant[TenantName("ant")].cpus == 18 * UNIT  # its guardrail


def test_what_was_cancelled_before_its_turn_ends_behind_the_one_before_it() -> None:
    it = Office({"ant": 1}, {"p": cpus(64)}, half_an_hour, IN_TURNS)
    job_id = it.submit("ant", an_array(10))
    for task in (0, 3, 4):
        it.cancel(job_id, task)
    it.run_to(1)
    step = it.state.work.jobs[job_id].steps[0]
    assert sorted(step.tasks) == [1, 2, 5, 6, 7, 8, 9]
    assert step.row.cancelled == 3
    assert step.row.cursor == 10


def test_a_look_for_a_planned_start_that_ends_early_misses_nobody() -> None:
    """Who is free by then is found at the same time; who is not is later in both."""
    it = Office({"ant": 1, "bee": 1}, FLEET, lambda job, tenant: 5 + 7 * job % 60, replace(PATIENT, prefetch_ms=0))
    dice = Random(4)
    for number in range(9):
        it.submit(dice.choice(("ant", "bee")), some_job(dice, number))
    it.run_to(4)
    looked = 0
    for provider in it.state.providers.values():
        for count in (1, 3, 6):
            ask = Ask(cpus=count * UNIT)
            when_ms = free_at(it.state, provider, TenantName("ant"), ask)
            for by_ms in (it.now_ms, when_ms - 1, when_ms, when_ms + 1):
                early_ms = free_at(it.state, provider, TenantName("ant"), ask, by_ms)
                if when_ms <= by_ms:
                    assert early_ms == when_ms
                else:
                    assert early_ms > by_ms
                looked += 1
    assert looked
