"""Data through a loss, told from the audit: who saved, who resumed, whose result counts, what is collected."""

from __future__ import annotations

from coordinator.core.data.rows import BlobRow
from coordinator.core.errors import Code
from coordinator.core.rows import AuditRow
from coordinator.core.work.jobspec import CheckpointRule, Input, OnLost
from tests.builders import refusal
from tests.depot import Depot, an_input, digest_of, outcome
from tests.site import a_job, a_step

SHOWN = ("job", "attempt", "result", "checkpoint", "artifact")
HOUR_S = 3_600


def told(depot: Depot) -> list[str]:
    """What happened, in order: `attempt 1.0.0.1 running`."""
    rows = sorted((row for row in depot.all(AuditRow) if row.entity in SHOWN), key=lambda row: row.seq)
    return [f"{row.entity} {row.subject} {row.after}" for row in rows]


def test_a_run_that_is_cut_off_resumes_and_makes_one_result() -> None:
    """Its provider comes back with a result of its own when it is too late: set aside, and collected."""
    depot = Depot("a", "b")
    depot.store("data", 2_000_000)
    train = a_step(
        "train",
        inputs=(an_input("data"),),
        outputs=("model.out",),
        checkpoint=CheckpointRule(every_ms=30_000, keep=1),
        on_lost=OnLost(mode="retry"),
    )
    report = a_step("report", needs=(0,), inputs=(Input(path="", step=0, pattern="*"),))
    depot.submit_with(a_job(train, report))
    first = depot.attempt("1.0.0.1").ranks[0].provider_id
    old = depot.claim("1.0.0.1")
    depot.run_to(30)
    depot.save("1.0.0.1", "half")
    depot.run_to(45)
    depot.store("old model", claim=old)
    depot.falls_silent(first)
    depot.run_to(90)
    assert refusal(depot.publish(old, "old model")).code is Code.STALE_TOKEN
    outcome(depot.restore("1.0.0.2", 1))
    depot.run_to(120)
    depot.save("1.0.0.2", "more")
    depot.results("1.0.0.2", "model")
    depot.exits("1.1.0.1")
    assert told(depot) == [
        "job 1 pending",
        "attempt 1.0.0.1 leased",
        "job 1 staging",
        "attempt 1.0.0.1 staging",
        "attempt 1.0.0.1 running",
        "job 1 running",
        "checkpoint 1.0.0.1 published",
        "attempt 1.0.0.1 in_doubt",
        "attempt 1.0.0.2 reserved",
        "attempt 1.0.0.1 lost",
        "attempt 1.0.0.2 leased",
        "attempt 1.0.0.2 staging",
        "attempt 1.0.0.2 running",
        "attempt 1.0.0.1 late",
        "checkpoint 1.0.0.1 restored",
        "checkpoint 1.0.0.2 published",
        "result 1.0.0 published",
        "attempt 1.0.0.2 completed",
        "attempt 1.1.0.1 leased",
        "attempt 1.1.0.1 staging",
        "attempt 1.1.0.1 running",
        "attempt 1.1.0.1 completed",
        "job 1 completed",
    ]
    assert depot.attempt("1.0.0.1").lost_ms == 20_000, "less than the interval"
    depot.at(25 * HOUR_S)
    gone = {digest_of(text) for text in ("old model", "half", "more")}
    assert set(depot.sweep()) == gone
    assert {row.digest for row in depot.all(BlobRow)} == {digest_of("data"), digest_of("model")}
    assert depot.account().storage == 2_000_100


def test_the_coordinator_is_killed_between_bytes_and_result() -> None:
    """What was acknowledged is there; what was not is asked again, and counts once."""
    depot = Depot("a")
    depot.submit(a_job(a_step(outputs=("*.out",), on_lost=OnLost(mode="retry"))))
    claim = depot.claim("1.0.0.1")
    upload = depot.opened("x", claim=claim)
    depot.agents["a"].conn = None
    depot.restart(20)
    depot.back("a")
    assert depot.opened("x", claim=claim) == upload, "the upload goes on"
    outcome(depot.done(upload, "x"))
    depot.durable, mark = False, len(depot.decisions)
    outcome(depot.publish(claim, "x"))
    undone = depot.decisions[mark:]
    depot.durable = True
    depot.write(depot.disk_was_full(*undone))
    assert depot.output() is None and depot.states() == ["running"]
    outcome(depot.publish(claim, "x"))
    output = depot.output()
    assert output is not None and output.attempt == 1 and depot.account().storage == 100


def test_an_artifact_keeps_its_blob_until_the_name_is_given_to_another() -> None:
    depot = Depot()
    depot.store("v1")
    depot.store("v2")
    outcome(depot.name("model", "v1"))
    outcome(depot.name("model", "v2"))
    assert refusal(depot.name("../model", "v2")).code is Code.BAD_REQUEST
    assert refusal(depot.name("model", "v3")).code is Code.NOT_FOUND
    depot.at(25 * HOUR_S)
    assert depot.sweep() == [digest_of("v1")]
    outcome(depot.unname("model"))
    assert refusal(depot.unname("model")).code is Code.NOT_FOUND
    assert depot.sweep() == [digest_of("v2")] and depot.account().storage == 0
    assert told(depot) == ["artifact model put", "artifact model put", "artifact model removed"]
