"""The replay through the real scheduler: what dies with its machine is lost, begun anew, and counted once."""

from __future__ import annotations

from coordinator.core.ids import ProviderId
from coordinator.core.rows import EndReason, Resources
from coordinator.simulator.history.compare import compare
from coordinator.simulator.history.fleet import Session, alike, of_sessions
from coordinator.simulator.history.replay import SUSPECT_MS
from coordinator.simulator.history.workload import HOUR_MS, Job

MINUTE_MS = 60_000


def test_work_that_dies_with_its_machine_is_begun_anew_elsewhere() -> None:
    """One machine leaves after an hour with a job on it: that hour is wasted, and the job runs whole on the other."""
    sessions = [
        Session(provider_id=ProviderId("a"), began_ms=0, ended_ms=HOUR_MS, reason=EndReason.READ_ERROR),
        Session(provider_id=ProviderId("b"), began_ms=HOUR_MS // 2, ended_ms=10 * HOUR_MS),
    ]
    fleet = of_sessions(sessions, Resources(cpus=1.0))
    [(found, books)] = compare(fleet, [Job(at_ms=1_000, run_ms=2 * HOUR_MS)], ["fit"], None, HOUR_MS)
    [record] = books.records.values()
    assert (1, 1, 2, 1) == (found.jobs, found.completed, found.starts, found.lost)
    assert record.wasted_ms == HOUR_MS - 1_000
    assert record.ended_ms is not None
    assert SUSPECT_MS <= record.ended_ms - 3 * HOUR_MS <= 31_000


def test_nodes_that_never_leave_lose_nothing_and_queue_what_does_not_fit() -> None:
    """Three jobs of an hour on two CPUs: the third waits for one of the others."""
    fleet = alike("2x1")
    assert fleet is not None
    jobs = [Job(at_ms=at, run_ms=HOUR_MS) for at in (0, 0, 30 * MINUTE_MS)]
    [(found, _)] = compare(fleet, jobs, ["fit"], None, HOUR_MS)
    assert (3, 0.0, 0) == (found.completed, found.wasted_h, found.lost)
    assert found.waits.max_s == 30 * 60
    assert abs(found.utilisation - 3 / 4) < 0.01


def test_a_job_of_two_ranks_loses_both_when_one_machine_goes() -> None:
    """The loss of one rank ends the attempt: what the other one did is wasted too."""
    sessions = [
        Session(provider_id=ProviderId("a"), began_ms=0, ended_ms=HOUR_MS),
        Session(provider_id=ProviderId("b"), began_ms=0, ended_ms=20 * HOUR_MS),
        Session(provider_id=ProviderId("c"), began_ms=2 * HOUR_MS, ended_ms=20 * HOUR_MS),
    ]
    fleet = of_sessions(sessions, Resources(cpus=1.0))
    [(found, books)] = compare(fleet, [Job(at_ms=0, run_ms=3 * HOUR_MS, nodes=2)], ["fit"], None, HOUR_MS)
    [record] = books.records.values()
    assert 1 == found.completed
    assert 2 * HOUR_MS <= record.wasted_ms <= 2 * HOUR_MS + 31_000
