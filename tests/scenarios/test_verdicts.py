"""What a verdict does to a task that failed: on the virtual clock, each way that it can come or not come."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.core import commands
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import ProviderId
from coordinator.core.policy import Policy
from coordinator.core.rows import EndCause
from coordinator.core.verdict.rows import Cause, Fault, Recommendation, Seen
from coordinator.core.work.jobspec import CheckpointRule, Heed, RetryRule
from tests.depot import Depot, outcome
from tests.site import Site, a_job
from tests.verdicts import (
    ELSEWHERE,
    RESTART,
    STOP,
    UNKNOWN,
    WAITS,
    a_broken_gpu,
    a_verdict,
    judge,
    kept,
    wanted,
    where,
)

HOUR_S = 3_600


def a_failed_one(*names: str, code: int = 1, at: float = 3, policy: Policy = WAITS, **retry: Any) -> Site:
    """A job of one task whose first attempt has just failed."""
    site = Site(*names or ("a", "b"), policy=policy)
    site.submit(a_job(retry=RetryRule(**{"delay_ms": 1_000, **retry})))
    site.run_to(at)
    site.exits("1.0.0.1", code, out_bytes=10, err_bytes=20)
    return site


def test_a_failure_waits_for_its_verdict() -> None:
    """The task is pending, says what for, and analytics is asked with all that it needs, once."""
    site = a_failed_one()
    task = site.task()
    assert ("pending", "verdict", 1) == (task.state, task.waits_for, task.failures)
    assert "its verdict is waited for" in task.reason and task.not_before_ms == site.now_ms + 2_000
    (asked,) = wanted(site)
    assert (1, 0, 0, 1) == asked.attempt_id and asked.until_ms == site.now_ms + 2_000
    assert ("j", "s", "failed") == (asked.name, asked.step, asked.state)
    exit = asked.exits[0]
    assert exit is not None and (10, 20) == (exit.out_bytes, exit.err_bytes)
    assert (where(site, "1.0.0.1"),) == asked.providers and () == asked.history


def test_stop_ends_the_task_in_the_users_words() -> None:
    site = a_failed_one(code=3)
    judge(site, "1.0.0.1", a_verdict(STOP))
    assert ("failed", 3) == (site.task().state, site.task().exit_code)
    expected = (
        "exit 3; user_code: the program raised KeyError: 'lr' (stderr line 7); mend the program and run the job again; "
        "it is not tried again"
    )
    assert expected == site.task().reason
    assert "failed" == site.job().state and expected in site.step().reason
    row = kept(site, "1.0.0.1")
    assert row is not None and not row.late and Cause.USER_CODE is row.verdict.cause
    site.run_to(60)
    assert ["failed"] == site.states(), "nothing runs it again"


@pytest.mark.parametrize(
    ("advice", "said"),
    [("Mend it. Then run it.", "mend it. Then run it"), ("A retry helps.", "a retry helps"), ("NCCL said it", None)],
)
def test_its_advice_is_part_of_a_sentence(advice: str, said: str | None) -> None:
    site = a_failed_one()
    judge(site, "1.0.0.1", a_verdict(STOP, advice=advice))
    assert site.task().reason.endswith(f" (stderr line 7); {said or advice}; it is not tried again")


def test_restart_runs_again_behind_the_backoff() -> None:
    """Also where the rules for exit codes would have given up: a time limit."""
    site = Site("a", "b", policy=WAITS)
    site.submit(a_job(retry=RetryRule(delay_ms=1_000)))
    site.exits("1.0.0.1", 0, cause=EndCause.TIMEOUT)
    judge(site, "1.0.0.1", a_verdict(RESTART, cause=Cause.NCCL_TIMEOUT, summary="a collective hung", advice=""))
    assert ("pending", "backoff") == (site.task().state, site.task().waits_for)
    assert "nccl_timeout: a collective hung (stderr line 7); retry 1 of 3 in 1." in site.task().reason
    site.run_to(5)
    assert ["failed", "running"] == site.states()
    assert "backoff" == site.attempt("1.0.0.2").unblocked_by


def test_elsewhere_runs_again_at_once_on_another_provider() -> None:
    site = a_failed_one()
    first = where(site, "1.0.0.1")
    judge(site, "1.0.0.1", a_broken_gpu())
    assert ["failed", "running"] == site.states(), "at once: no backoff"
    assert first != where(site, "1.0.0.2") and "verdict" == site.attempt("1.0.0.2").unblocked_by
    site.exits("1.0.0.2", 1)
    judge(site, "1.0.0.2", None, why_none="none")
    site.run_to(10)
    assert first != where(site, "1.0.0.3"), "still, hours later; whatever the rules say"


def test_elsewhere_waits_for_another_provider_that_is_busy_and_says_why() -> None:
    """The other one could run it and has no room: the task waits for it, and `why` names what it avoids."""
    site = Site("a", "b", policy=WAITS)
    site.submit(a_job(tasks=3, retry=RetryRule(delay_ms=1_000)))
    site.submit(a_job(tasks=1))
    full = where(site, "1.0.0.1")
    (other,) = {"a", "b"} - {full}
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    assert "pending" == site.task().state
    (why,) = site.explain(1).steps
    (avoided,) = [obstacle for obstacle in why.obstacles if obstacle.constraint == "avoided"]
    assert (1, True) == (avoided.providers, avoided.ever)
    assert f"{full} for 6 h: gpu_hardware: a GPU fell off the bus" in avoided.text
    assert "wait" == why.verdict and "1 avoided after a verdict" in why.text and f"not on {full}" in site.task().reason
    site.run_to(30)
    assert "pending" == site.task().state and [] != site.running(other)
    site.exits(site.running(other)[0])
    site.run_to(32)
    assert other == where(site, "1.0.0.2")


def test_elsewhere_with_nobody_else_is_no_deadlock_and_says_so() -> None:
    site = a_failed_one("a")
    judge(site, "1.0.0.1", a_broken_gpu())
    assert "no other provider could run it, so there again: retry 1 of 3 in 1." in site.task().reason
    site.run_to(6)
    assert ["failed", "running"] == site.states()


def test_when_all_were_left_the_one_that_was_left_first_is_taken_again() -> None:
    site = a_failed_one()
    first = where(site, "1.0.0.1")
    judge(site, "1.0.0.1", a_broken_gpu())
    second = where(site, "1.0.0.2")
    site.exits("1.0.0.2", 1)
    judge(site, "1.0.0.2", a_broken_gpu())
    told = [row.why for row in site.audits("task", "1.0.0") if row.after == "decided"]
    assert f"not on {second} ({first} may take it again: nobody else could)" in told[-1]
    assert first == where(site, "1.0.0.3")


def a_crowded_one() -> tuple[Site, str, str]:
    """The only task with a verdict of two full providers was sent away from the first: (site, first, other)."""
    site, rule = Site("a", "b", policy=WAITS), RetryRule(delay_ms=1_000, losses=0)
    site.submit(a_job(tasks=3, retry=rule))
    site.submit(a_job(retry=rule))
    first, other = where(site, "1.0.0.1"), where(site, "1.0.2.1")
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    assert [1, 2] == [len(site.running(name)) for name in (first, other)] and "pending" == site.task().state
    return site, first, other


def test_what_is_avoided_fades() -> None:
    """Not at all for six hours; then it is only ranked behind others."""
    site, first, _ = a_crowded_one()
    for second in range(5, 6 * HOUR_S, 4):
        site.at(second)
        site.beat_all()
        site.tick()
    assert "pending" == site.task().state and 1 == len(site.running(first)), "there is room there, for six hours"
    site.run_to(6 * HOUR_S + 700)
    assert first == where(site, "1.0.0.2"), "then it is better than nothing"


def test_who_waits_elsewhere_goes_back_when_nobody_is_left_there() -> None:
    """Everybody else who could have run it is lost: it is not kept waiting for hours."""
    site, first, other = a_crowded_one()
    site.breaks(other)
    site.run_to(25)
    assert "pending" == site.task().state, "it may be back"
    site.run_to(60)
    assert first == where(site, "1.0.0.2")
    told = [row.why for row in site.audits("task", "1.0.0") if row.after == "decided"]
    assert f"nobody else could run it any more: {first} may take it again" == told[-1]


def rests(site: Site, name: str) -> bool:
    return site.provider(name).row.quarantined_until_ms is not None


TWO_REST = replace(WAITS, quarantine_failures=2, quarantine_jobs=2)
"""Failures of two jobs in a row, and a provider is quarantined."""
WHOLE = (Ask(cpus=2 * UNIT),)
"""All that a provider has."""


def test_elsewhere_is_not_the_end_of_a_quarantine() -> None:
    """The only other provider rests: the task goes back at once, rather than to wait until that has rested."""
    site = Site("a", "b", policy=TWO_REST)
    site.submit(a_job(asks=WHOLE, retry=RetryRule(limit=0, verdict=Heed.OFF)))
    site.submit(a_job(asks=WHOLE, retry=RetryRule(delay_ms=1_000)))
    resting, first = where(site, "1.0.0.1"), where(site, "2.0.0.1")
    site.exits("1.0.0.1", 1)
    site.submit(a_job(asks=WHOLE, retry=RetryRule(limit=0, verdict=Heed.OFF)))
    site.exits("3.0.0.1", 1)
    assert rests(site, resting) and not rests(site, first)
    site.exits("2.0.0.1", 1)
    judge(site, "2.0.0.1", a_broken_gpu())
    assert "no other provider could run it, so there again: retry 1 of 3 in 1." in site.task(2).reason
    site.run_to(10)
    assert rests(site, resting) and first == where(site, "2.0.0.2")


def test_of_those_that_were_left_the_first_that_may_be_given_work_is_taken_again() -> None:
    """It was sent away from both, and the one that it left first rests."""
    site = Site("a", "b", policy=TWO_REST)
    site.submit(a_job(asks=WHOLE, retry=RetryRule(delay_ms=1_000)))
    resting = where(site, "1.0.0.1")
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    first = where(site, "1.0.0.2")
    site.submit(a_job(asks=WHOLE, retry=RetryRule(limit=0, verdict=Heed.OFF)))
    site.exits("2.0.0.1", 1)
    assert rests(site, resting)
    site.exits("1.0.0.2", 1)
    judge(site, "1.0.0.2", a_broken_gpu())
    site.run_to(10)
    assert rests(site, resting) and first == where(site, "1.0.0.3")
    assert "so there again" in [row.why for row in site.audits("task", "1.0.0") if row.after == "decided"][-1]
    judged = site.task().judged
    assert judged is not None and [True, False] == [one.until_ms > site.now_ms for one in judged.avoid]


def test_who_waits_elsewhere_goes_back_when_a_quarantine_begins_there() -> None:
    """As when everybody there were lost: a quarantine is not waited for."""
    site = Site("a", "b", policy=TWO_REST)
    site.submit(a_job(asks=WHOLE, retry=RetryRule(delay_ms=1_000)))
    for _ in range(2):
        site.submit(a_job(retry=RetryRule(limit=0, verdict=Heed.OFF)))
    first, other = where(site, "1.0.0.1"), where(site, "2.0.0.1")
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    site.exits("2.0.0.1", 1)
    assert "pending" == site.task().state and f"not on {first}" in site.task().reason
    site.exits("3.0.0.1", 1)
    assert rests(site, other)
    site.run_to(15)
    assert rests(site, other) and first == where(site, "1.0.0.2")
    told = [row.why for row in site.audits("task", "1.0.0") if row.after == "decided"]
    assert f"nobody else could run it any more: {first} may take it again" == told[-1]


def test_a_quarantine_is_waited_for_where_to_go_back_would_not_help() -> None:
    """Who was left is lost, and all that is there rests: the task goes there when that is over."""
    site = Site("a", "b", "c", policy=TWO_REST)
    site.submit(a_job(asks=WHOLE, retry=RetryRule(delay_ms=1_000)))
    for _ in range(2):
        site.submit(a_job(asks=WHOLE, retry=RetryRule(limit=0, losses=0, verdict=Heed.OFF)))
    first, other, third = (where(site, f"{job}.0.0.1") for job in (1, 2, 3))
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    site.breaks(first)
    site.run_to(60)
    site.submit(a_job(asks=WHOLE, retry=RetryRule(limit=0, verdict=Heed.OFF), priority=9))
    site.exits("2.0.0.1", 1)
    assert other == where(site, "4.0.0.1")
    site.exits("4.0.0.1", 1)
    assert rests(site, other)
    site.breaks(third)
    site.run_to(300)
    judged = site.task().judged
    assert "pending" == site.task().state and judged is not None
    assert [True] == [one.until_ms > site.now_ms for one in judged.avoid], "nothing is to be had by going back"
    site.run_to(700)
    assert other == where(site, "1.0.0.2")


@pytest.mark.parametrize("verdict", [None, a_verdict(UNKNOWN), a_verdict(Recommendation.OK)])
def test_without_an_answer_that_helps_the_rules_decide_at_once(verdict: object) -> None:
    site = a_failed_one()
    judge(site, "1.0.0.1", verdict)  # type: ignore[arg-type]
    assert "backoff" == site.task().waits_for and "retry 1 of 3 in 1." in site.task().reason
    site = a_failed_one("a", code=127)
    judge(site, "1.0.0.1", verdict)  # type: ignore[arg-type]
    assert "failed" == site.task().state and "no other provider could run it" in site.task().reason


def test_a_verdict_that_does_not_come_is_waited_for_two_seconds() -> None:
    """Then the rules decide; when it comes after all it is kept and shown, and changes nothing."""
    site = a_failed_one(delay_ms=10_000)
    site.run_to(4)
    assert "verdict" == site.task().waits_for
    site.run_to(5)
    assert "backoff" == site.task().waits_for
    judge(site, "1.0.0.1", a_verdict(STOP), remark="its log came late")
    assert ("pending", "backoff") == (site.task().state, site.task().waits_for)
    row = kept(site, "1.0.0.1")
    assert row is not None and row.late and "its log came late" == row.remark
    site.run_to(20)
    assert ["failed", "running"] == site.states()


def test_said_twice_it_counts_once() -> None:
    """The second one is a correction: kept, and no order."""
    site = a_failed_one()
    judge(site, "1.0.0.1", a_verdict(RESTART))
    site.run_to(6)
    judge(site, "1.0.0.1", a_verdict(STOP))
    assert ["failed", "running"] == site.states()
    row = kept(site, "1.0.0.1")
    assert row is not None and row.late and STOP is row.verdict.recommendation
    site.exits("1.0.0.2", 1)
    assert ["1.0.0.1"] == [past.attempt for past in wanted(site)[-1].history], "and one verdict in its history"


def test_a_verdict_on_an_older_attempt_is_no_order() -> None:
    site = a_failed_one()
    site.run_to(9)
    site.exits("1.0.0.2", 1)
    assert "verdict" == site.task().waits_for
    judge(site, "1.0.0.1", a_verdict(STOP))
    assert ("pending", "verdict") == (site.task().state, site.task().waits_for)
    judge(site, "1.0.0.2", a_verdict(RESTART))
    assert "backoff" == site.task().waits_for
    assert [True, False] == [row.late for row in (kept(site, "1.0.0.1"), kept(site, "1.0.0.2")) if row is not None]


def test_a_job_that_is_cancelled_meanwhile_stays_cancelled() -> None:
    site = a_failed_one()
    site.cancel(1)
    assert "cancelled" == site.job().state
    judge(site, "1.0.0.1", a_verdict(RESTART))
    site.run_to(10)
    assert ("cancelled", ["failed"]) == (site.job().state, site.states())
    row = kept(site, "1.0.0.1")
    assert row is not None and row.late


def test_the_wait_survives_a_restart_of_the_head() -> None:
    """Analytics is asked again; an answer counts still, and without one the time that was set decides."""
    for verdict, state in ((a_verdict(STOP), "failed"), (None, "pending")):
        site = a_failed_one()
        site.restart(4)
        assert [(1, 0, 0, 1)] * 2 == [asked.attempt_id for asked in wanted(site)]
        assert wanted(site)[0] == wanted(site)[1]
        for name in ("a", "b"):
            site.back(name)
        if verdict is not None:
            judge(site, "1.0.0.1", verdict)
        site.run_to(5)
        assert (state == site.task().state and "verdict" != site.task().waits_for) or state == "failed"
    site = a_failed_one()
    site.restart(40)
    site.tick()
    assert "backoff" == site.task().waits_for, "the time was over before the start"


def test_a_full_disk_that_undoes_the_answer_leaves_the_task_to_the_rules() -> None:
    """What analytics said is said once: it is written again, and shown."""
    site = a_failed_one()
    site.durable = False
    undone = judge(site, "1.0.0.1", a_verdict(STOP))
    site.durable = True
    assert "verdict" == site.task().waits_for, "nothing of it is durable"
    site.disk_was_full(undone)
    site.tick()
    row = kept(site, "1.0.0.1")
    assert row is not None and row.late
    site.run_to(8)
    assert ["failed", "running"] == site.states()


def test_a_start_on_a_full_disk_with_a_clock_that_is_behind_makes_nobody_wait_longer() -> None:
    """It cuts what is waited for; that this is not durable changes nothing."""
    site = a_failed_one(at=30)
    site.durable = False
    undone = site.restart(27)
    assert wanted(site)[-1].until_ms == site.now_ms + 2_000
    site.disk_was_full(undone)
    site.durable = True
    site.run_to(29)
    assert "backoff" == site.task().waits_for


@pytest.mark.parametrize(
    ("rule", "state"),
    [
        ({"on": ("exit:1",)}, "pending"),
        ({"verdict": Heed.ADVISE}, "pending"),
    ],
)
def test_rules_of_the_job_win_at_once(rule: dict[str, Any], state: str) -> None:
    """Nothing is waited for where the job's rules try it again. The verdict is asked for and shown."""
    site = a_failed_one(**rule)
    assert (state, True) == (site.task().state, site.task().waits_for != "verdict")
    assert [None] == [asked.until_ms for asked in wanted(site)]
    judge(site, "1.0.0.1", a_verdict(STOP))
    assert state == site.task().state
    row = kept(site, "1.0.0.1")
    assert row is not None and row.late


@pytest.mark.parametrize(
    ("rule", "refused"),
    [
        ({"limit": 0}, "it is not to be retried"),
        ({"never": ("exit:1",)}, "its rules do not retry that"),
        ({"on": ("exit:2",)}, "its rules do not retry that"),
        ({"limit": 0, "verdict": Heed.ADVISE}, "it is not to be retried"),
    ],
)
@pytest.mark.parametrize("recommendation", [RESTART, ELSEWHERE])
def test_the_last_reason_says_what_it_died_of(rule: dict[str, Any], refused: str, recommendation: Any) -> None:
    """Where nothing is tried again, the verdict is waited for as well: the reasons of task, step and job hold it."""
    site = a_failed_one(**rule)
    assert ("pending", "verdict") == (site.task().state, site.task().waits_for)
    judge(site, "1.0.0.1", a_verdict(recommendation))
    expected = (
        "exit 1; user_code: the program raised KeyError: 'lr' (stderr line 7); mend the program and run the job again; "
        f"{refused}"
    )
    assert ("failed", expected) == (site.task().state, site.task().reason)
    assert expected in site.step().reason and expected in site.job().reason
    site.run_to(60)
    assert ["failed"] == site.states(), "whatever the verdict asked for"


@pytest.mark.parametrize("answer", ["none", "unknown", "never"])
def test_the_last_failure_waits_two_seconds_at_most(answer: str) -> None:
    site = a_failed_one(limit=0)
    if answer == "never":
        site.run_to(4.9)
        assert "pending" == site.task().state
        site.run_to(6)
    else:
        judge(site, "1.0.0.1", None if answer == "none" else a_verdict(UNKNOWN))
    assert ("failed", "exit 1; it is not to be retried") == (site.task().state, site.task().reason)
    judge(site, "1.0.0.1", a_verdict(STOP))
    row = kept(site, "1.0.0.1")
    assert row is not None and row.late and "exit 1; it is not to be retried" == site.task().reason


def test_a_job_may_have_none() -> None:
    site = a_failed_one(verdict=Heed.OFF)
    assert ("backoff", []) == (site.task().waits_for, wanted(site))


def test_nothing_is_waited_for_where_nobody_gives_verdicts() -> None:
    site = a_failed_one(policy=Policy(verdict_wait_ms=0))
    assert "backoff" == site.task().waits_for and [None] == [asked.until_ms for asked in wanted(site)]


@pytest.mark.parametrize("recommendation", [RESTART, ELSEWHERE])
def test_budgets_bound_what_a_verdict_may_ask_for(recommendation: Recommendation) -> None:
    site = a_failed_one("a", "b", "c", "d", limit=2)
    for number in (1, 2):
        judge(site, f"1.0.0.{number}", a_verdict(recommendation))
        site.run_to(site.now_s + 4)
        site.exits(f"1.0.0.{number + 1}", 1)
    assert ("pending", "verdict") == (site.task().state, site.task().waits_for)
    judge(site, "1.0.0.3", a_verdict(recommendation))
    assert "failed" == site.task().state and site.task().reason.endswith("; all 2 retries are used up")
    assert "user_code: the program raised KeyError: 'lr'" in site.task().reason
    site.run_to(site.now_s + 30)
    assert ["failed"] * 3 == site.states()


def test_a_person_may_run_it_again_after_a_stop() -> None:
    """Placed anew, with fresh budgets and without a memory of what it was kept away from."""
    site = a_failed_one()
    judge(site, "1.0.0.1", a_broken_gpu())
    site.exits("1.0.0.2", 1)
    judge(site, "1.0.0.2", a_verdict(STOP))
    assert "failed" == site.job().state and None is site.task().judged
    site.retry(1)
    assert ["failed", "failed", "running"] == site.states()
    site.exits("1.0.0.3", 1)
    assert () == wanted(site)[-1].history and "verdict" == site.task().waits_for


def test_a_loss_has_a_verdict_too_and_stays_a_loss() -> None:
    site = Site("a", "b", policy=WAITS)
    site.submit(a_job())
    first = where(site, "1.0.0.1")
    site.breaks(first)
    site.run_to(60)
    assert ["lost", "running"] == site.states()
    (asked,) = wanted(site)
    assert ("lost", (None,), None) == (asked.state, asked.exits, asked.until_ms)
    judge(site, "1.0.0.1", a_verdict(STOP, cause=Cause.NODE_FAILURE, fault=Fault.PROVIDER))
    assert ["lost", "running"] == site.states()
    row = kept(site, "1.0.0.1")
    assert row is not None and row.late


def test_good_runs_are_told_when_they_wrote_something() -> None:
    site = Site("a", policy=WAITS)
    site.submit(a_job(tasks=2))
    site.exits("1.0.0.1", 0)
    assert [] == wanted(site)
    site.exits("1.0.1.1", 0, out_bytes=5)
    (asked,) = wanted(site)
    assert ("completed", None) == (asked.state, asked.until_ms)
    assert "completed" == site.job().state


def test_history_tells_of_the_task_first_and_then_of_its_siblings() -> None:
    """Sixteen at most; whether the attempt had got anywhere is told with it. A restart forgets none of it."""
    site = Site(*(f"p{n}" for n in range(12)), policy=WAITS)
    site.submit(a_job(tasks=20, retry=RetryRule(delay_ms=0, limit=9)))
    for task in range(1, 20):
        site.exits(f"1.0.{task}.1", 1)
        judge(site, f"1.0.{task}.1", a_verdict(RESTART, root=f"r{task}"))
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_verdict(RESTART, root="own", progress=Seen(steps=3, checkpoints=1)))
    site.run_to(1)
    site.exits("1.0.0.2", 1)
    history = wanted(site)[-1].history
    assert 16 == len(history) and ("1.0.0.1", "own", True) == (
        history[0].attempt,
        history[0].root,
        history[0].progressed,
    )
    assert [f"1.0.{task}.1" for task in range(5, 20)] == [past.attempt for past in history[1:]]
    assert [False, *[True] * 15] == [past.first_of_another for past in history]
    assert not history[1].progressed and history[0].provider_id == ProviderId(where(site, "1.0.0.1"))
    site.restart(2)
    assert history == wanted(site)[-1].history


def test_a_published_checkpoint_is_progress_whatever_the_log_says() -> None:
    """Who comes after it begins elsewhere: the same end again is not the same without progress."""
    depot = Depot("a", "b", policy=WAITS)
    rule = CheckpointRule(every_ms=60_000, keep=2, auto=False)
    depot.submit(a_job(checkpoint=rule, retry=RetryRule(delay_ms=0, limit=9)))
    depot.save("1.0.0.1", "v1")
    depot.exits("1.0.0.1", 1)
    judge(depot, "1.0.0.1", a_verdict(RESTART))
    depot.run_to(1)
    outcome(depot.restore("1.0.0.2", 1))
    depot.exits("1.0.0.2", 1)
    judge(depot, "1.0.0.2", a_verdict(RESTART))
    judged = depot.task().judged
    assert judged is not None and [True, False] == [past.progressed for past in judged.past]


def test_a_users_mistake_says_nothing_against_the_provider() -> None:
    """Five failures of three jobs in a row quarantine a provider, unless verdicts say that it was not to blame."""
    for fault, quarantined in ((Fault.JOB, False), (Fault.UNKNOWN, True)):
        site = Site("a", "b", policy=WAITS)
        site.breaks("b")
        for job in range(1, 6):
            site.submit(a_job(retry=RetryRule()))
            site.exits(f"{job}.0.0.1", 1)
            if job == 1:
                site.back("b")
            judge(site, f"{job}.0.0.1", a_verdict(STOP, fault=fault))
        quarantines = [p for p in ("a", "b") if site.provider(p).row.quarantined_until_ms is not None]
        assert quarantined == bool(quarantines)


def test_verdicts_of_attempts_that_never_were_are_ignored() -> None:
    site = a_failed_one()
    decision = judge(site, "9.0.0.1", a_verdict(STOP))
    assert commands.Decision() == decision
    judge(site, "1.7.0.1", a_verdict(STOP))
    judge(site, "1.0.5.1", a_verdict(STOP))
    assert "verdict" == site.task().waits_for


def test_who_waits_for_a_verdict_as_its_step_is_given_up_has_failed_if_nothing_could_have_followed() -> None:
    """Ten tasks that die together are ten failures, although each waits for its verdict; one that the rules would have
    tried again is cancelled, like one that waits behind a backoff."""
    for limit, ended in ((0, (10, 0)), (1, (0, 10))):
        site = Site("a", "b", "c", policy=WAITS)
        site.submit(a_job(tasks=10, max_fails=1, retry=RetryRule(limit=limit)))
        for task in range(10):
            site.exits(f"1.0.{task}.1", task + 1)
        assert {"verdict"} == {site.task(task=task).waits_for for task in range(10)}
        if limit:
            site.cancel(1)
        else:
            for task in range(2):
                judge(site, f"1.0.{task}.1", a_verdict(STOP))
        assert ended == (site.step().failed, site.step().cancelled)
        assert ["failed" if not limit else "cancelled"] * 10 == [site.task(task=task).state for task in range(10)]
        if not limit:
            assert "failed" == site.job().state
            assert (10, "exit 10; it is not to be retried") == (site.task(task=9).exit_code, site.task(task=9).reason)
        for task in range(2, 10):
            judge(site, f"1.0.{task}.1", a_verdict(RESTART))
        assert ended == (site.step().failed, site.step().cancelled), "late ones are kept and are no orders"
