"""Exactly one result: published with the end of its attempt, by the current token alone, with all its blobs."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from coordinator.core.data.answers import Published
from coordinator.core.data.rows import FileEntry
from coordinator.core.errors import Code
from coordinator.core.ids import ProviderId
from coordinator.core.rows import EndCause, LeaseToken, Promises
from coordinator.core.work.jobspec import JobSpec, OnLost, Overlap, RetryRule
from tests.builders import refusal
from tests.depot import DONE, Depot, digest_of, outcome
from tests.site import a_job, a_step


def a_maker(**more: Any) -> JobSpec:
    """A job of one task that declares outputs."""
    told: dict[str, Any] = {"outputs": ("*.out",), "on_lost": OnLost(mode="retry")}
    return a_job(**(told | more))


def test_a_result_and_its_attempts_end_are_one_decision() -> None:
    depot = Depot("a")
    depot.submit(a_maker())
    depot.at(2)
    assert depot.results("1.0.0.1", "x", "y") == Published(repeated=False)
    output = depot.output()
    assert output is not None and output.attempt == 1 and output.size == 200
    assert [entry.path for entry in output.files] == ["x.out", "y.out"]
    assert depot.job().state.value == "completed" and depot.task().exit_code == 0
    assert depot.holds() == {"task:1.0.0": tuple(sorted((digest_of("x"), digest_of("y"))))}
    assert [row.after for row in depot.audits("result", "1.0.0")] == ["published"]


def test_its_repetition_is_the_same_one() -> None:
    """Also after a restart, by what the store has; the exit that follows is settled."""
    depot = Depot("a")
    depot.submit(a_maker())
    claim = depot.claim("1.0.0.1")
    depot.results("1.0.0.1", "x")
    assert outcome(depot.publish(claim, "x")) == Published(repeated=True)
    depot.restart(10)
    assert outcome(depot.publish(claim, "x")) == Published(repeated=True)
    depot.back("a")
    assert depot.states() == ["completed"] and depot.running("a") == []


def test_success_without_its_result_is_a_loss() -> None:
    """An agent that keeps the outputs to itself is the one to blame, and the task runs again."""
    depot = Depot("a", "b")
    depot.submit(a_maker())
    depot.exits("1.0.0.1")
    assert depot.states() == ["lost", "running"]
    assert depot.task().losses == 1 and depot.task().failures == 0
    assert "outputs were not published" in depot.attempt("1.0.0.1").reason


def test_outputs_that_are_not_there_are_a_failure_that_is_not_tried_again() -> None:
    depot = Depot("a")
    depot.submit(a_maker())
    depot.exits("1.0.0.1", 0, cause=EndCause.OUTPUT, text="*.out matches nothing")
    assert depot.job().state.value == "failed" and depot.task().exit_code == 73
    assert "*.out matches nothing" in depot.job().reason
    depot.submit(a_maker(retry=RetryRule(on=("output",), delay_ms=1_000)))
    depot.exits("2.0.0.1", 0, cause=EndCause.OUTPUT)
    assert depot.job(2).state.value != "failed"


def test_a_result_names_only_what_is_stored() -> None:
    """A missing blob, one of another size, one of another tenant: refused, and nothing has changed."""
    depot = Depot("a")
    depot.submit(a_maker())
    claim = depot.claim("1.0.0.1")
    assert refusal(depot.publish(claim, "x")).code is Code.INCOMPLETE
    depot.store("x", claim=claim)
    lie = (FileEntry(path="x.out", digest=digest_of("x"), size=99),)
    assert refusal(depot.publish(claim, files=lie)).code is Code.INCOMPLETE
    twice = depot.files("x") * 2
    assert refusal(depot.publish(claim, files=twice)).code is Code.BAD_REQUEST
    assert refusal(depot.publish(claim)).code is Code.BAD_REQUEST
    assert depot.output() is None and depot.states() == ["running"]


def test_a_stale_token_publishes_nothing_and_is_audited_once() -> None:
    """The provider came back too late: its result is set aside, and collected."""
    depot = Depot("a", "b")
    depot.submit(a_maker())
    first = depot.attempt("1.0.0.1").ranks[0].provider_id
    claim = depot.claim("1.0.0.1")
    depot.store("x", claim=claim)
    depot.falls_silent(first)
    depot.run_to(60)
    assert depot.states() == ["lost", "running"]
    for _ in range(2):
        assert refusal(depot.publish(claim, "x")).code is Code.STALE_TOKEN
    assert refusal(depot.open("z", claim=claim)).code is Code.STALE_TOKEN
    assert [row.after for row in depot.audits("attempt", "1.0.0.1")].count("late") == 1
    depot.results("1.0.0.2", "y")
    output = depot.output()
    assert output is not None and output.attempt == 2
    assert refusal(depot.publish(claim, "x")).code is Code.STALE_TOKEN
    depot.at(25 * 3_600)
    assert depot.sweep() == [digest_of("x")]


def test_whoever_was_given_up_and_not_replaced_may_still_publish() -> None:
    """Its token is the newest: the work is not done twice for nothing."""
    depot = Depot("a")
    depot.submit(a_maker())
    claim = depot.claim("1.0.0.1")
    depot.store("x", claim=claim)
    depot.falls_silent("a")
    depot.run_to(60)
    assert depot.states() == ["lost"]
    assert refusal(depot.open("y", claim=claim)).code is Code.UNREACHABLE, "it is asked again when it has connected"
    outcome(depot.publish(claim, "x"))
    assert depot.states() == ["completed"] and depot.task().losses == 0


def test_a_claim_is_for_its_own_provider_rank_and_token() -> None:
    depot = Depot("a")
    depot.submit(a_maker())
    for lie in (
        {"provider_id": ProviderId("b")},
        {"token": LeaseToken(1, 99)},
        {"token": LeaseToken(0, 0)},
        {"rank": 1},
        {"rank": -1},
    ):
        claim = replace(depot.claim("1.0.0.1"), **lie)
        for ask in (depot.open("x", claim=claim), depot.publish(claim, "x"), depot.ask(claim)):
            assert refusal(ask).code is Code.STALE_TOKEN
    assert depot.audits("attempt", "1.0.0.1")[-1].after == "running"


def test_the_result_of_several_ranks_waits_for_all_of_them() -> None:
    """Rank 0's files are held meanwhile; a rank that fails withdraws them."""
    depot = Depot("a", "b")
    depot.submit(a_maker(nodes=2, retry=RetryRule(limit=1, delay_ms=1_000)))
    depot.results("1.0.0.1", "x")
    assert depot.output() is None and "task:1.0.0" in depot.holds()
    depot.exits("1.0.0.1", 1, rank=1)
    assert depot.states()[0] == "failed" and depot.holds() == {} and depot.attempt("1.0.0.1").outputs == ()
    depot.run_to(10)
    depot.results("1.0.0.2", "y")
    depot.exits("1.0.0.2", 0, rank=1)
    output = depot.output()
    assert output is not None and output.attempt == 2 and depot.job().state.value == "completed"


def test_a_repetition_while_other_ranks_run_is_none_that_is_late() -> None:
    """The coordinator was killed behind the first one: what it wrote tells, not what it remembered."""
    depot = Depot("a", "b")
    depot.submit(a_maker(nodes=2))
    claim = depot.claim("1.0.0.1")
    depot.results("1.0.0.1", "x")
    depot.restart(1)
    assert outcome(depot.publish(claim, "x")) == Published(repeated=True)
    assert "late" not in [row.after for row in depot.audits("attempt", "1.0.0.1")]


def test_what_one_rank_brought_is_withdrawn_when_its_attempt_is_given_up() -> None:
    """Another attempt starts at once: nobody holds what the first one would have made."""
    depot = Depot("a", "b", "c", "d")
    depot.submit(a_maker(nodes=2, overlap=Overlap.ALLOW))
    depot.results("1.0.0.1", "x")
    depot.falls_silent(depot.attempt("1.0.0.1").ranks[1].provider_id)
    depot.run_to(15)
    assert depot.states()[:2] == ["lost", "running"]
    assert depot.attempt("1.0.0.1").outputs == () and depot.holds() == {}


def test_rank_0_and_success_alone_publish() -> None:
    depot = Depot("a", "b")
    depot.submit(a_maker(nodes=2))
    claim = depot.claim("1.0.0.1", rank=1)
    assert refusal(depot.publish(claim, "x")).code is Code.BAD_REQUEST
    failed = depot.publish(depot.claim("1.0.0.1"), "x", exit=replace(DONE, code=1))
    assert refusal(failed).code is Code.BAD_REQUEST


def test_agents_that_do_not_do_data_are_not_given_it() -> None:
    depot = Depot("a", promises=Promises(work=True))
    depot.submit(a_maker())
    assert depot.states() == []
    (step,) = depot.explain(1).steps
    assert [o.constraint for o in step.obstacles] == ["data"] and step.verdict == "never"
    depot.submit(a_job())
    assert depot.states(2) == ["running"]


def test_a_graph_hands_results_on() -> None:
    depot = Depot("a")
    make, take = a_step("make", outputs=("*.out",)), a_step("take", needs=(0,))
    depot.submit(a_job(make, take))
    depot.results("1.0.0.1", "x")
    assert depot.states(1, 1) == ["running"]


def test_what_is_being_cancelled_sends_nothing_more() -> None:
    """Unless its result is there already: then it has succeeded."""
    depot = Depot("a")
    depot.submit(a_maker(tasks=2))
    claims = [depot.claim("1.0.0.1"), depot.claim("1.0.1.1")]
    depot.store("x", claim=claims[0])
    depot.agents["a"].hears = False
    depot.cancel(1)
    depot.agents["a"].hears = True
    assert refusal(depot.open("y", claim=claims[1])).code is Code.STALE_TOKEN
    outcome(depot.publish(claims[0], "x"))
    depot.exits("1.0.1.1")
    assert [depot.task(task=n).state.value for n in (0, 1)] == ["completed", "cancelled"]
