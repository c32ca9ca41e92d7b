"""Progress: the newest word counts, is written now and then, and tells how much longer it takes."""

from __future__ import annotations

from typing import Any

from coordinator.core import commands
from coordinator.core.data import events as data
from coordinator.core.data.lasting import left_ms, remaining_ms
from coordinator.core.ids import ConnId, attempt_of
from coordinator.core.image import image_of, state_of
from coordinator.core.rows import LeaseToken
from coordinator.core.work.jobspec import CheckpointRule
from tests.depot import Depot, outcome
from tests.site import a_job, a_step


def says(depot: Depot, attempt: str, fraction: float | None, **more: Any) -> commands.Decision:
    claim = depot.claim(attempt)
    told = {"conn_id": ConnId(depot.conn(claim.provider_id)), "rank": 0, "token": claim.token} | more
    return depot.decide(
        data.AttemptProgress(at_ms=depot.now_ms, attempt_id=claim.attempt_id, fraction=fraction, **told)  # type: ignore[arg-type]
    )


def test_the_newest_word_is_shown_and_written_now_and_then() -> None:
    depot = Depot("a")
    depot.submit(a_job())
    depot.at(40)
    first = says(depot, "1.0.0.1", 0.1, values=(("step", "1"),))
    assert len(first.writes) == 1 and [n for n in first.notes if isinstance(n, commands.AttemptChanged)]
    depot.at(41)
    second = says(depot, "1.0.0.1", 0.2)
    assert second.writes == [] and [n for n in second.notes if isinstance(n, commands.AttemptChanged)]
    depot.at(71)
    assert len(says(depot, "1.0.0.1", 0.5).writes) == 1
    says(depot, "1.0.0.1", None, text="epoch 3")
    depot.exits("1.0.0.1")
    progress = depot.attempt("1.0.0.1").progress
    assert progress is not None and (progress.fraction, progress.text) == (0.5, "epoch 3")


def test_only_whoever_holds_it_tells_of_it() -> None:
    depot = Depot("a", "b")
    depot.submit(a_job())
    other = ({"a", "b"} - {depot.attempt("1.0.0.1").ranks[0].provider_id}).pop()
    for lie in ({"token": LeaseToken(1, 99)}, {"conn_id": ConnId(depot.conn(other))}, {"rank": 7}):
        assert says(depot, "1.0.0.1", 0.9, **lie).writes == []
    assert depot.state.work.attempts[depot.attempt("1.0.0.1").attempt_id].row.progress is None


def test_what_was_not_launched_tells_nothing() -> None:
    """Its row would no longer be like those that were leased with it: these are stored as one."""
    depot = Depot("a")
    depot.agents["a"].grants = "ignores"
    depot.submit(a_job())
    row = depot.state.work.attempts[attempt_of("1.0.0.1")].row
    told = {"attempt_id": row.attempt_id, "rank": 0, "token": row.token, "fraction": 0.9}
    decision = depot.decide(data.AttemptProgress(at_ms=depot.now_ms, conn_id=ConnId(depot.conn("a")), **told))  # type: ignore[arg-type]
    assert not row.ranks[0].launched and decision.writes == [] and decision.notes == []
    assert depot.state.work.attempts[row.attempt_id].row.progress is None


def test_it_tells_how_much_longer_it_takes() -> None:
    """As fast as until now: a quarter in 100 s leaves 300; one that resumed is as fast as since its first word."""
    depot = Depot("a")
    spec = a_step(checkpoint=CheckpointRule(every_ms=60_000), expected_ms=3_600_000)
    depot.submit(a_job(spec))
    attempt = depot.state.work.attempts[depot.attempt("1.0.0.1").attempt_id]
    assert left_ms(depot.state, attempt) is None and remaining_ms(depot.state, attempt, spec) == 3_600_000
    depot.at(100)
    says(depot, "1.0.0.1", 0.25)
    assert left_ms(depot.state, attempt) == 300_000
    depot.at(150).tick()
    assert remaining_ms(depot.state, attempt, spec) == 250_000
    depot.save("1.0.0.1", "v1")
    outcome(depot.restore("1.0.0.1", 1))
    assert left_ms(depot.state, attempt) is None, "one word tells no pace"
    depot.at(200)
    says(depot, "1.0.0.1", 0.5)
    assert left_ms(depot.state, attempt) == 200_000


def test_those_who_wait_are_told_by_it() -> None:
    depot = Depot("a")
    depot.submit(a_job(tasks=2, expected_ms=3_600_000))
    depot.submit(a_job(expected_ms=60_000))
    depot.at(100)
    (before,) = depot.explain(2).steps
    says(depot, "1.0.0.1", 0.5)
    (after,) = depot.explain(2).steps
    assert before.eta_ms is not None and after.eta_ms is not None
    assert before.eta_ms - depot.now_ms == 3_500_000 and after.eta_ms - depot.now_ms == 100_000


def test_a_full_disk_and_an_image_keep_the_newest_word() -> None:
    depot = Depot("a")
    depot.submit(a_job())
    depot.at(40)
    says(depot, "1.0.0.1", 0.1)
    depot.at(41)
    says(depot, "1.0.0.1", 0.3)
    depot.disk_was_full()
    attempt = depot.state.work.attempts[depot.attempt("1.0.0.1").attempt_id]
    assert attempt.row.progress is not None and attempt.row.progress.fraction == 0.3
    copy = state_of(image_of(depot.state)).work.attempts[attempt.row.attempt_id]
    assert (copy.row, copy.told_ms, copy.paced) == (attempt.row, attempt.told_ms, attempt.paced)
    assert copy.told_ms == depot.now_ms - 1_000
