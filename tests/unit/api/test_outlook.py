"""What is shown of work that runs: how far it is, when it should end, and how much of it a loss would not take."""

from __future__ import annotations

from coordinator.core.data import events as data
from coordinator.core.ids import ConnId, JobId
from coordinator.core.work.jobspec import CheckpointRule, OnLost
from coordinator.service.api.outlook import Outlook, of_attempt, of_job
from tests.depot import Depot
from tests.site import a_job

RULE = CheckpointRule(every_ms=60_000)


def says(depot: Depot, attempt: str, fraction: float) -> None:
    claim = depot.claim(attempt)
    conn = ConnId(depot.conn(claim.provider_id))
    depot.decide(
        data.AttemptProgress(
            at_ms=depot.now_ms, attempt_id=claim.attempt_id, fraction=fraction, conn_id=conn, rank=0, token=claim.token
        )
    )


def test_a_job_ends_when_its_last_task_does_if_all_of_them_run_and_tell() -> None:
    """A quarter in 100 s leaves 300, half of it 100; one that says nothing, or waits, may take any time."""
    depot = Depot("a", "b")
    depot.submit(a_job(tasks=2))
    job = JobId(1)
    assert Outlook() == of_job(depot.state, job)
    depot.at(100)
    says(depot, "1.0.0.1", 0.5)
    assert Outlook(0.25) == of_job(depot.state, job)
    says(depot, "1.0.1.1", 0.25)
    assert Outlook(0.375, depot.now_ms + 300_000) == of_job(depot.state, job)
    assert depot.now_ms + 100_000 == of_attempt(depot.state, depot.attempt("1.0.0.1")).ends_ms
    depot.exits("1.0.0.1")
    assert Outlook(0.625, depot.now_ms + 300_000) == of_job(depot.state, job)
    depot.exits("1.0.1.1")
    assert Outlook() == of_job(depot.state, job)


def test_a_job_of_which_tasks_wait_has_no_end_yet() -> None:
    depot = Depot("a")
    depot.submit(a_job(tasks=100))
    depot.at(100)
    says(depot, "1.0.0.1", 0.5)
    assert of_job(depot.state, JobId(1)).ends_ms is None


def test_what_a_checkpoint_saves_is_told_while_it_runs_and_when_it_is_lost() -> None:
    """Up to when its files were as they are in it; of one that ended without a result all but what was lost."""
    depot = Depot("a")
    depot.submit(a_job(checkpoint=RULE, on_lost=OnLost(mode="retry")))
    assert of_attempt(depot.state, depot.attempt("1.0.0.1")).saved_ms is None
    depot.at(100)
    depot.save("1.0.0.1", "v1")
    depot.at(130).tick()
    row = depot.attempt("1.0.0.1")
    assert row.started_at_ms is not None
    saved = of_attempt(depot.state, row).saved_ms
    assert saved is not None and 95_000 <= saved <= 100_000
    depot.exits("1.0.0.1", code=1, ran_ms=130_000)
    row = depot.attempt("1.0.0.1")
    assert row.lost_ms is not None and saved == of_attempt(depot.state, row).saved_ms


def test_without_a_checkpoint_nothing_is_saved_however_late_its_end_is_told() -> None:
    """The coordinator was away when the program failed, and heard of it ten seconds later."""
    depot = Depot("a")
    depot.submit(a_job())
    depot.at(100)
    depot.exits("1.0.0.1", code=1, ran_ms=90_000)
    row = depot.attempt("1.0.0.1")
    assert 90_000 == row.lost_ms
    assert of_attempt(depot.state, row).saved_ms is None
