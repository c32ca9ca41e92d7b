"""An imaged work decides as the original, and so does one that was loaded from its rows, as far as rows tell."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.decide import decide
from coordinator.core.ids import ConnId
from coordinator.core.image import StateImage, image_of, state_of
from coordinator.core.rows import LeaseToken
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import OnLost, RetryRule
from tests.site import Site, a_job, a_step
from tests.unit.core.test_decide import plain


def a_busy_site() -> Site:
    """Running, backing off, in doubt with a reservation, waiting, cancelling, doomed, dated, ended."""
    site = Site("a", "b", "c")
    site.submit(a_job(tasks=3, on_lost=OnLost(mode="retry")))
    site.submit(a_job(a_step("x"), a_step("y", needs=(0,), nodes=2), deadline_ms=site.now_ms + 90_000), key="k")
    site.submit(a_job(tasks=9, max_running=1, retry=RetryRule(delay_ms=60_000)))
    site.submit(a_job(), key="ended")
    site.exits("3.0.0.1", 1)
    site.run_to(7)
    first = next(name for name in "abc" if any(r.startswith("1.") for r in site.running(name)))
    site.breaks(first)
    site.cancel(3, (0, 8))
    other = next(name for name in "abc" if name != first and site.running(name))
    site.falls_silent(other)
    site.cancel(2)
    return site


def copy_of(state: ClusterState) -> ClusterState:
    packed = msgspec.msgpack.encode(image_of(state))
    return state_of(msgspec.msgpack.decode(packed, type=StateImage))


def test_an_imaged_work_decides_as_the_original() -> None:
    """Through MessagePack, event by event: the same decisions and the same state, until everything has ended."""
    site = a_busy_site()
    copy = copy_of(site.state)
    copy.check_invariants()
    assert image_of(site.state) == image_of(copy)
    at_ms = site.now_ms
    script: list[events.AnyEvent] = [events.Place(at_ms=at_ms)]
    for second in range(1, 80):
        script.append(events.Tick(at_ms=at_ms + 1_000 * second))
        script.append(events.Place(at_ms=at_ms + 1_000 * second))
    script.append(events.Stopping(at_ms=at_ms + 200_000))
    for event in script:
        assert plain(decide(site.state, event, site.policy)) == plain(decide(copy, event, site.policy))
        assert image_of(site.state) == image_of(copy)


def test_a_load_knows_everything_that_the_rows_tell() -> None:
    """Capacity, the queue, tokens and counts are the same; renewals, silence and the ends of leases begin anew."""
    site = a_busy_site()
    before = site.state
    site.restart(site.now_s + 1)
    after = site.state.work
    held = {p: (load.cpus, load.attempts) for p, load in before.work.loads.items() if load.attempts}
    assert held == {p: (load.cpus, load.attempts) for p, load in after.loads.items() if load.attempts}
    assert {j: job.row for j, job in before.work.jobs.items()} == {j: job.row for j, job in after.jobs.items()}
    rows = {a: replace(x.row, lease_over_ms=None) for a, x in before.work.attempts.items()}
    assert rows == {a: replace(x.row, lease_over_ms=None) for a, x in after.attempts.items()}
    assert (before.work.next_audit, before.work.next_job_id) == (after.next_audit, after.next_job_id)
    assert before.work.by_key == after.by_key


def test_words_of_strangers_about_attempts_change_nothing() -> None:
    """Another provider's attempt, a rank that is not there, an attempt that never was, an unknown connection."""
    site = Site("a", "b")
    site.submit(a_job())
    where = next(name for name in "ab" if site.running(name))
    stranger = ConnId(site.agents["b" if where == "a" else "a"].conn or 0)
    (held,) = site.agents[where].held.values()
    before = image_of(site.state)
    for conn_id in (stranger, ConnId(99)):
        more: dict[str, Any] = {
            "at_ms": site.now_ms,
            "conn_id": conn_id,
            "attempt_id": held.attempt_id,
            "token": held.token,
        }
        for rank in (0, 5):
            site.decide(events.AttemptPhase(**more, rank=rank, phase="frozen"))
            site.decide(events.AgentGranted(**more, rank=rank))
            site.decide(events.AgentRefused(**more, rank=rank, why="no"))
    assert before == image_of(site.state)
    old = events.AttemptPhase(
        at_ms=site.now_ms,
        conn_id=ConnId(site.agents[where].conn or 0),
        attempt_id=held.attempt_id,
        rank=0,
        token=LeaseToken(0, 7),
        phase="frozen",
    )
    decide(site.state, old, site.policy)
    assert before == image_of(site.state)


def test_what_is_shown_of_a_doubt_counts_from_the_start_of_the_coordinator() -> None:
    """Not from before it: the lease of the silent one lives for its whole term again."""
    site = Site("a", "b")
    site.submit(a_job(on_lost=OnLost(mode="retry")))
    site.falls_silent("a")
    site.run_to(15)
    before_ms = site.attempt("1.0.0.1").lease_over_ms
    site.restart(20)
    assert before_ms and site.attempt("1.0.0.1").lease_over_ms == site.now_ms + 30_000
