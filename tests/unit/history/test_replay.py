"""The replay through the real scheduler: what dies with its machine is lost, begun anew, and counted once."""

from __future__ import annotations

from coordinator.core.amounts import UNIT
from coordinator.core.ids import ProviderId
from coordinator.core.rows import EndReason, Resources
from coordinator.simulator.history.books import Books
from coordinator.simulator.history.compare import compare
from coordinator.simulator.history.fleet import Session, alike, of_sessions
from coordinator.simulator.history.replay import SUSPECT_MS, Replay, policy_of
from coordinator.simulator.history.saving import Saving
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


def test_machines_that_were_gone_for_long_before_the_first_job_cost_nothing() -> None:
    """A hundred short stays of the time before change no decision, and none is made for them: what a replay takes grows
    with what it replays, not with its warm-up."""
    there = [
        Session(provider_id=ProviderId("a"), began_ms=0, ended_ms=102 * HOUR_MS, reason=EndReason.READ_ERROR),
        Session(provider_id=ProviderId("b"), began_ms=HOUR_MS, ended_ms=110 * HOUR_MS),
    ]
    gone = [
        Session(provider_id=ProviderId(f"old-{n}"), began_ms=n * HOUR_MS, ended_ms=n * HOUR_MS + MINUTE_MS)
        for n in range(99)
    ]
    jobs = [Job(at_ms=at * HOUR_MS, run_ms=3 * HOUR_MS) for at in (100, 101)]
    runs = []
    for sessions in (there, there + gone):
        fleet = of_sessions(sessions, Resources(cpus=1.0))
        run = Replay(fleet, jobs, policy_of("fit", HOUR_MS), 110 * HOUR_MS)
        run.advance(110 * HOUR_MS)
        runs.append((run.decisions, [(r.started_ms, r.ended_ms, r.wasted_ms) for r in run.books.records.values()]))
    assert runs[0] == runs[1]
    assert 2 == sum(ended is not None for _, ended, _ in runs[0][1])


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


def test_what_was_saved_is_not_lost_and_what_saving_took_is_counted() -> None:
    """Saved every half hour for a minute each; the machine goes 90 minutes in: it goes on elsewhere from the second
    checkpoint. What was held is what was useful, lost and spent on checkpoints, to the millisecond."""
    sessions = [
        Session(provider_id=ProviderId("a"), began_ms=0, ended_ms=90 * MINUTE_MS, reason=EndReason.READ_ERROR),
        Session(provider_id=ProviderId("b"), began_ms=HOUR_MS, ended_ms=20 * HOUR_MS),
    ]
    fleet = of_sessions(sessions, Resources(cpus=1.0))
    saving = Saving(every_ms=30 * MINUTE_MS, cost_ms=MINUTE_MS, name="30m")
    job = Job(at_ms=0, run_ms=3 * HOUR_MS)
    runs = compare(fleet, [job], ["fit"], None, HOUR_MS, savings=[None, saving])
    (bare, _), (saved, books) = runs
    [record] = books.records.values()
    assert ("none", "30m") == (bare.checkpoint, saved.checkpoint)
    assert 1.5 == bare.lost_h == bare.wasted_h
    assert (90 - 62) * MINUTE_MS == record.wasted_ms
    assert (2 + 1 + 3) * MINUTE_MS == record.saving_ms, "two there, laid out once, three here: none at the very end"
    assert abs(saved.wasted_h - 34 / 60) < 1e-9
    assert held_ms(books) == job.run_ms + record.wasted_ms + record.saving_ms


def test_ranks_of_one_job_save_together_and_a_lost_one_ends_what_was_not_saved() -> None:
    """Two ranks; one of their machines goes: both lose what they did since, both go on from it, both end."""
    sessions = [
        Session(provider_id=ProviderId("a"), began_ms=0, ended_ms=HOUR_MS, reason=EndReason.READ_ERROR),
        Session(provider_id=ProviderId("b"), began_ms=0, ended_ms=20 * HOUR_MS),
        Session(provider_id=ProviderId("c"), began_ms=2 * HOUR_MS, ended_ms=20 * HOUR_MS),
    ]
    fleet = of_sessions(sessions, Resources(cpus=1.0))
    saving = Saving(every_ms=25 * MINUTE_MS, cost_ms=MINUTE_MS, name="25m")
    job = Job(at_ms=0, run_ms=6 * HOUR_MS, nodes=2)
    [(found, books)] = compare(fleet, [job], ["fit"], None, HOUR_MS, savings=[saving])
    [record] = books.records.values()
    assert (1, 2) == (found.completed, found.starts)
    assert 16 * MINUTE_MS <= record.wasted_ms <= 16 * MINUTE_MS + 31_000, "the second checkpoint is 52 minutes in"
    assert record.saving_ms == (2 + 1 + 12) * 2 * MINUTE_MS
    assert held_ms(books) == job.nodes * job.run_ms + record.wasted_ms + record.saving_ms


def held_ms(books: Books) -> int:
    """Of one CPU a rank: for how long ranks were held, all together."""
    return -sum(step.at_ms * step.cpus for step in books.steps) // UNIT
