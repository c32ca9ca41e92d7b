"""What an attempt had waited for last is recorded at dispatch: on the virtual clock, each thing that may hold one."""

from __future__ import annotations

from typing import Any

import pytest

from coordinator.core import events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.rows import Promises
from coordinator.core.work.jobspec import Overlap, RetryRule
from tests.site import Site, a_job, a_step
from tests.treasury import Treasury

ALL = (Ask(cpus=2 * UNIT),)
"""Both CPUs of a provider."""


def cause(site: Site, attempt: str) -> str:
    return site.attempt(attempt).unblocked_by


def test_a_slot_is_one_of_the_provider_that_got_it() -> None:
    """Others that came free elsewhere, also later, gave it nothing."""
    site = Site("a", "b")
    site.submit(a_job(asks=ALL, tasks=2))
    where = {site.attempt(f"1.0.{n}.1").ranks[0].provider_id: f"1.0.{n}.1" for n in range(2)}
    site.submit(a_job(asks=ALL))
    on_a = where[site.provider("a").row.provider_id]
    site.run_to(5)
    site.exits(on_a)
    assert f"slot {on_a}" == cause(site, "2.0.0.1")
    assert "submit" == cause(site, "1.0.0.1")


def test_who_found_room_at_once_waited_for_nobody() -> None:
    """What came free before it was submitted is no cause, though others wait in its line."""
    site = Site("a", "b")
    site.submit(a_job(asks=ALL, tasks=2))
    site.submit(a_job(asks=ALL))
    site.run_to(5)
    site.exits("1.0.0.1")
    site.run_to(6)
    site.exits("1.0.1.1")
    site.run_to(8)
    site.submit(a_job(asks=ALL))
    assert ("slot 1.0.0.1", "submit") == (cause(site, "2.0.0.1"), cause(site, "3.0.0.1"))


def test_a_dependency_or_the_slot_behind_it_whichever_was_last() -> None:
    """A step that is ready and finds no room waits for the room."""
    site = Site("a")
    site.submit(a_job(a_step("x", asks=ALL), a_step("y", asks=ALL, needs=(0,))))
    site.run_to(2)
    site.exits("1.0.0.1")
    assert "step 1.0" == cause(site, "1.1.0.1")
    site.submit(a_job(a_step("x", asks=ALL), a_step("y", asks=ALL, needs=(0,)), priority=9))
    site.submit(a_job(asks=ALL, priority=20))
    site.run_to(4)
    site.exits("1.1.0.1")
    site.run_to(6)
    site.exits("3.0.0.1")
    assert ("slot 1.1.0.1", "slot 3.0.0.1") == (cause(site, "3.0.0.1"), cause(site, "2.0.0.1"))


def test_a_backoff_or_the_slot_that_came_after_it() -> None:
    """A retry whose time has come finds room, or waits for it."""
    site = Site("a")
    rule = RetryRule(delay_ms=10_000)
    site.submit(a_job(asks=ALL, retry=rule))
    site.exits("1.0.0.1", 1)
    site.run_to(20)
    assert "backoff" == cause(site, "1.0.0.2")
    site.exits("1.0.0.2", 1)
    site.submit(a_job(asks=ALL))
    site.run_to(60)
    assert ["failed", "failed"] == site.states()
    site.exits("2.0.0.1")
    assert "slot 2.0.0.1" == cause(site, "1.0.0.3")


def test_a_loss_and_its_reservation() -> None:
    """A replacement waits for the lease of the one in doubt; where nobody has room, for room."""
    site = Site("a", "b")
    site.submit(a_job(asks=ALL))
    first = site.attempt("1.0.0.1").ranks[0].provider_id
    name = next(n for n in ("a", "b") if site.provider(n).row.provider_id == first)
    site.run_to(5)
    site.breaks(name)
    site.run_to(60, [1, 2])
    assert "lease 1.0.0.1" == cause(site, "1.0.0.2")


def test_a_lost_one_that_finds_no_room_waits_for_the_provider_that_comes() -> None:
    site = Site("a")
    site.submit(a_job(asks=ALL))
    site.breaks("a")
    site.run_to(100)
    assert ["lost"] == site.states()
    site.back("a", rebooted=True)
    site.run_to(101)
    assert "provider a" == cause(site, "1.0.0.2")


def test_a_provider_that_is_drained_holds_and_its_return_is_the_cause() -> None:
    site = Site("a")
    who = site.provider("a").row.provider_id
    site.decide(events.ProviderDrain(at_ms=site.now_ms, request_id=site.request(), provider_id=who))
    site.submit(a_job())
    site.run_to(3)
    site.decide(events.ProviderResume(at_ms=site.now_ms, request_id=site.request(), provider_id=who))
    assert f"provider {who}" == cause(site, "1.0.0.1")


def test_a_limit_of_the_step_holds_a_retry_too() -> None:
    """Its backoff is over long before one of its siblings ends."""
    site = Site("a")
    site.submit(a_job(tasks=2, max_running=1, retry=RetryRule(delay_ms=1_000)))
    site.exits("1.0.0.1", 1)
    assert "limit max_running" == cause(site, "1.0.1.1")
    site.run_to(30)
    site.exits("1.0.1.1")
    assert "limit max_running" == cause(site, "1.0.0.2")


@pytest.mark.parametrize(
    ("quota", "what"),
    [({"cpus": 2 * UNIT}, "cpus"), ({"running": 1}, "running"), ({"cpus": 2 * UNIT, "running": 1}, "cpus,running")],
)
def test_a_quota_that_is_full_is_a_limit(quota: dict[str, int], what: str) -> None:
    """There is room on the provider all the time; what is waited for is the tenant's own, and said is which of it."""
    site = Treasury("a")
    site.tenant("default", create=False, **quota)
    site.submit(a_job())
    site.submit(a_job())
    assert ["1.0.0.1"] == site.running("a")
    site.run_to(3)
    site.exits("1.0.0.1")
    assert f"limit quota {what}" == cause(site, "2.0.0.1")


def test_one_that_was_granted_ahead_waited_for_whoever_ended_before_its_turn() -> None:
    """At its grant that was not known: its row says so from its beginning on."""
    short: dict[str, Any] = {"expected_ms": 100}
    site = Site("a", promises=Promises(work=True, prefetch=8))
    site.submit(a_job(tasks=5, **short))
    assert ["1.0.0.1", "1.0.1.1"] == site.running("a")
    site.run_to(1)
    site.exits("1.0.1.1", ran_ms=100)
    site.exits("1.0.0.1", ran_ms=100)
    assert ["slot 1.0.1.1", "slot 1.0.0.1"] == [cause(site, f"1.0.{task}.1") for task in (2, 3)]


def test_overlap_starts_at_once_after_the_doubt() -> None:
    site = Site("a", "b")
    site.submit(a_job(asks=ALL, overlap=Overlap.ALLOW))
    first = site.attempt("1.0.0.1").ranks[0].provider_id
    site.run_to(5)
    site.breaks(next(n for n in ("a", "b") if site.provider(n).row.provider_id == first))
    site.run_to(20)
    assert "lease 1.0.0.1" == cause(site, "1.0.0.2")
