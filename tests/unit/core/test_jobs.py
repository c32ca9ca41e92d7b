"""Submitting, cancelling and running again: idempotent, exact in its counts, silent about other tenants."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from coordinator.core import commands, events
from coordinator.core.amounts import UNIT, Ask
from coordinator.core.errors import Code
from coordinator.core.ids import JobId, TenantName
from coordinator.core.image import image_of
from coordinator.core.policy import Policy
from coordinator.core.rows import AuditRow, JobRow, TaskRow
from coordinator.core.work.jobspec import RetryRule, When
from tests.builders import START_MS, refusal
from tests.site import Site, a_job, a_step

STRANGER = TenantName("stranger")


def answered(decision: commands.Decision) -> JobRow:
    (reply,) = decision.replies
    assert isinstance(reply.result, JobRow), f"refused: {reply.result}"
    return reply.result


# ---- submit


def test_one_key_makes_one_job_live_ended_or_only_in_the_store() -> None:
    site = Site("a")
    first = answered(site.submit(a_job(), key="k", body="b"))
    assert first.job_id == answered(site.submit(a_job(), key="k", body="b")).job_id
    site.exits("1.0.0.1")
    assert "completed" == answered(site.submit(a_job(), key="k", body="b")).state
    site.restart(site.now_s + 1)
    assert 1 == answered(site.submit(a_job(), key="k", body="b", known=site.job())).job_id
    assert 1 == len([row for row in site.rows.values() if isinstance(row, JobRow)])


def test_one_key_and_another_body_is_refused() -> None:
    site = Site("a")
    site.submit(a_job(), key="k", body="b")
    assert Code.CONFLICT is refusal(site.submit(a_job(), key="k", body="c")).code


def test_a_key_that_a_full_disk_undid_is_free_again() -> None:
    """The submission was refused: the same one again makes the job, under a new number."""
    site = Site("a")
    site.durable = False
    undone = site.submit(a_job(), key="k", body="b")
    site.durable = True
    site.disk_was_full(undone)
    assert 2 == answered(site.submit(a_job(), key="k", body="b")).job_id


def test_an_array_of_a_million_is_one_row_until_its_tasks_are_placed() -> None:
    site = Site("a")
    site.submit(a_job(tasks=1_000_000))
    assert 2 == len([row for row in site.rows.values() if isinstance(row, TaskRow)])
    assert 2 == len(site.state.work.jobs[JobId(1)].steps[0].tasks)
    site.cancel(1)
    assert (1_000_000, "cancelled") == (site.job().cancelled, site.job().state)


def test_beyond_the_bound_of_live_jobs_they_are_refused() -> None:
    site = Site(policy=Policy(jobs_max=1))
    site.submit(a_job())
    assert Code.TOO_MANY is refusal(site.submit(a_job())).code


def test_a_deadline_of_the_past_is_refused() -> None:
    assert Code.BAD_JOB is refusal(Site().submit(a_job(deadline_ms=START_MS))).code


# ---- cancel


def test_another_tenants_job_does_not_exist() -> None:
    site = Site("a")
    site.submit(a_job(retry=RetryRule(limit=0)))
    before = image_of(site.state)
    assert Code.NOT_FOUND is refusal(site.cancel(1, tenant=STRANGER)).code
    explain = events.JobExplain(at_ms=site.now_ms, request_id=site.request(), tenant=STRANGER, job_id=JobId(1))
    assert Code.NOT_FOUND is refusal(site.decide(explain)).code
    assert before == image_of(site.state)
    site.exits("1.0.0.1", 1)
    assert Code.NOT_FOUND is refusal(site.cancel(1, tenant=STRANGER)).code
    assert Code.NOT_FOUND is refusal(site.retry(1, tenant=STRANGER)).code


def test_cancelling_what_has_ended_changes_nothing_and_what_never_was_is_not_found() -> None:
    site = Site("a")
    site.submit(a_job())
    site.exits("1.0.0.1")
    assert "completed" == answered(site.cancel(1)).state
    assert Code.NOT_FOUND is refusal(site.cancel(7)).code


def test_a_program_that_ends_well_in_spite_of_being_stopped_has_completed() -> None:
    """The stop comes too late: the result is there."""
    site = Site("a")
    site.submit(a_job())
    site.falls_silent("a")
    site.cancel(1)
    site.agents["a"].hears = True
    site.exits("1.0.0.1", 0)
    assert ("completed", ["completed"]) == (site.job().state, site.states())


def test_a_stop_that_nobody_answers_is_said_again() -> None:
    site = Site("a")
    site.submit(a_job())
    site.falls_silent("a")
    site.cancel(1)
    site.agents["a"].hears = True
    assert "running" == site.job().state
    site.run_to(40)
    assert "cancelled" == site.job().state


def test_one_running_task_is_cancelled_alone() -> None:
    site = Site("a")
    site.submit(a_job(tasks=2))
    site.cancel(1, (0, 0))
    site.exits("1.0.1.1")
    assert ("cancelled", 1, 1) == (site.job().state, site.job().completed, site.job().cancelled)
    assert "1 of 2 tasks were cancelled" in site.job().reason


@pytest.mark.parametrize("task", [(0, 9), (3, 0), (-1, 0)])
def test_a_task_that_is_not_there(task: tuple[int, int]) -> None:
    site = Site("a")
    site.submit(a_job())
    assert Code.NOT_FOUND is refusal(site.cancel(1, task)).code


def test_a_backoff_is_cancelled_at_once() -> None:
    site = Site("a")
    site.submit(a_job())
    site.exits("1.0.0.1", 1)
    assert "cancelled" == answered(site.cancel(1)).state
    site.run_to(60)
    assert ["failed"] == site.states()


# ---- graphs


def test_a_chain_of_a_thousand_steps_ends_in_one_decision_when_its_first_fails() -> None:
    """No recursion by the length of the chain."""
    site = Site("a")
    steps = [a_step("s0", retry=RetryRule(limit=0))]
    steps += [a_step(f"s{n}", needs=(n - 1,)) for n in range(1, 1_000)]
    site.submit(a_job(*steps))
    site.exits("1.0.0.1", 1)
    assert ("failed", 1, 999) == (site.job().state, site.job().failed, site.job().cancelled)


def test_a_step_waits_for_all_that_it_needs() -> None:
    site = Site("a")
    site.submit(a_job(a_step("x"), a_step("y"), a_step("z", needs=(0, 1))))
    site.exits("1.0.0.1")
    assert [] == site.states(step=2)
    site.exits("1.1.0.1")
    assert ["running"] == site.states(step=2)
    assert "step 1.1" == site.attempt("1.2.0.1").unblocked_by


def test_a_step_for_failures_is_skipped_when_there_was_none() -> None:
    site = Site("a")
    site.submit(a_job(a_step("x"), a_step("mend", needs=(0,), when=When.FAILED)))
    site.exits("1.0.0.1")
    assert ("completed", 1, 1) == (site.job().state, site.job().completed, site.job().cancelled)
    assert "none did" in site.step(step=1).reason


def test_no_more_tasks_run_at_a_time_than_the_step_allows() -> None:
    site = Site("a")
    site.submit(a_job(tasks=3, max_running=1))
    for task in range(3):
        assert [f"1.0.{task}.1"] == site.running("a")
        site.exits(f"1.0.{task}.1")
    assert "completed" == site.job().state
    assert "limit max_running" == site.attempt("1.0.1.1").unblocked_by


# ---- run again


def failed_job(site: Site) -> None:
    """Three tasks: the first completes, the others fail."""
    site.submit(a_job(tasks=3, retry=RetryRule(limit=0), max_running=1))
    for task, code in enumerate((0, 1, 1)):
        site.exits(f"1.0.{task}.1", code)
    assert ("failed", 1, 2) == (site.job().state, site.job().completed, site.job().failed)


def test_a_retry_runs_what_did_not_complete_with_fresh_budgets() -> None:
    site = Site("a")
    failed_job(site)
    assert 1 == answered(site.retry(1)).retries
    site.exits("1.0.1.2")
    site.exits("1.0.2.2")
    assert ("completed", 3, 0) == (site.job().state, site.job().completed, site.job().failed)
    assert (["completed"], 0) == (site.states(task=0), site.task(task=1).failures)


def test_a_retry_of_a_live_job_puts_its_failed_tasks_back() -> None:
    site = Site("a")
    site.submit(a_job(tasks=2, retry=RetryRule(limit=0)))
    site.exits("1.0.0.1", 1)
    site.retry(1)
    assert ["failed", "running"] == site.states()
    site.exits("1.0.0.2")
    site.exits("1.0.1.1")
    assert ("completed", 2, 0) == (site.job().state, site.job().completed, site.job().failed)


def test_a_retry_runs_what_was_skipped_too() -> None:
    site = Site("a")
    site.submit(a_job(a_step("x", retry=RetryRule(limit=0)), a_step("y", needs=(0,), tasks=2)))
    site.exits("1.0.0.1", 1)
    site.retry(1)
    site.exits("1.0.0.2")
    site.exits("1.1.0.1")
    site.exits("1.1.1.1")
    assert ("completed", 3) == (site.job().state, site.job().completed)


def test_a_retry_of_a_cancelled_array_goes_on_where_it_was() -> None:
    site = Site("a")
    site.submit(a_job(tasks=9))
    site.exits("1.0.0.1")
    site.cancel(1)
    site.retry(1)
    for task in range(1, 9):
        (name,) = [running for running in site.running("a") if running.startswith(f"1.0.{task}.")]
        site.exits(name)
    assert ("completed", 9, 0) == (site.job().state, site.job().completed, site.job().cancelled)


def test_nothing_to_run_again_is_a_conflict() -> None:
    site = Site("a")
    site.submit(a_job())
    site.exits("1.0.0.1")
    assert Code.CONFLICT is refusal(site.retry(1)).code


def test_a_look_into_the_store_that_is_too_old_is_a_conflict() -> None:
    """A task that was run again meanwhile, and completed, would run twice."""
    site = Site("a")
    failed_job(site)
    rows = dict(site.rows)
    site.retry(1)
    site.exits("1.0.1.2")
    site.exits("1.0.2.2", 1)
    fresh, site.rows = site.rows, rows
    assert Code.CONFLICT is refusal(site.retry(1)).code
    site.rows = fresh
    assert 2 == answered(site.retry(1)).retries
    assert ["failed", "failed", "running"] == site.states(task=2)
    assert ["failed", "completed"] == site.states(task=1)


def test_a_look_that_misses_a_failure_is_a_conflict() -> None:
    site = Site("a")
    site.submit(a_job(tasks=2, retry=RetryRule(limit=0)))
    site.exits("1.0.0.1", 1)
    row = site.task()
    site.rows["task", row.task_id] = replace(row, state=row.state.RUNNING)
    before = image_of(site.state)
    assert Code.CONFLICT is refusal(site.retry(1)).code
    assert before == image_of(site.state)


# ---- the audit


def test_every_transition_is_one_audit_row_numbered_without_gaps() -> None:
    """What it was, what it became, and what it had waited for, up to the end; also across a restart."""
    site = Site("a")
    site.submit(a_job(a_step(asks=(Ask(cpus=2 * UNIT),))))
    site.submit(a_job(a_step(asks=(Ask(cpus=2 * UNIT),))))
    site.exits("1.0.0.1")
    site.restart(site.now_s + 1)
    site.back("a")
    site.exits("2.0.0.1")
    rows = [row for row in site.rows.values() if isinstance(row, AuditRow)]
    assert list(range(1, len(rows) + 1)) == [row.seq for row in rows]
    seen = [(row.before, row.after) for row in site.audits("attempt", "2.0.0.1")]
    assert [("", "leased"), ("leased", "staging"), ("staging", "running"), ("running", "completed")] == seen
    assert "slot 1.0.0.1" == site.audits("attempt", "2.0.0.1")[0].unblocked_by
    assert ["pending", "staging", "running", "completed"] == [row.after for row in site.audits("job", "2")]
    assert {"token:t", "agent:a", "coord"} == {row.by for row in rows if row.entity in ("job", "attempt")}


def test_what_people_do_is_in_the_audit() -> None:
    site = Site("a")
    who = site.provider("a").row.provider_id
    for event in (
        events.ProviderDrain(at_ms=site.now_ms, request_id=site.request(), by="token:x", provider_id=who, note="fans"),
        events.ProviderResume(at_ms=site.now_ms, request_id=site.request(), by="token:x", provider_id=who),
        events.ProviderForget(at_ms=site.now_ms, request_id=site.request(), by="token:x", provider_id=who),
    ):
        site.decide(event)
    seen = [(row.after, row.by) for row in site.audits("provider", "a")]
    drained = [("drained", "token:x"), ("resumed", "token:x"), ("forgotten", "token:x")]
    assert [("enrolled", "token:join-1"), *drained] == seen


def test_an_event_carries_its_time_into_the_audit_to_the_nanosecond() -> None:
    site = Site("a")
    event = events.JobSubmit(
        at_ms=site.now_ms,
        wall_ns=site.now_ms * 1_000_000 + 123_456,
        mono_ns=42,
        request_id=site.request(),
        tenant=TenantName("default"),
        by="token:t",
        spec=a_job(),
    )
    site.decide(event)
    row = site.audits("job", "1")[0]
    assert (event.wall_ns, 42) == (row.wall_ns, row.mono_ns)


def test_a_job_that_a_full_disk_undid_from_its_beginning_to_its_end_was_never_there() -> None:
    """Its key makes a job again, that is durable: an answer that names one which is nowhere would lose the work."""
    site = Site()
    site.durable = False
    undone = [site.submit(a_job(), key="k", body="b"), site.cancel(1)]
    assert not site.state.work.jobs
    site.durable = True
    site.disk_was_full(*undone)
    (reply,) = site.submit(a_job(), key="k", body="b").replies
    assert isinstance(reply.result, JobRow) and site.rows["job", reply.result.job_id] == reply.result


def test_a_job_whose_second_end_a_full_disk_undid_is_asked_of_the_store() -> None:
    """What is remembered of it is newer than what is stored: running it again would be refused for ever."""
    site = Site()
    site.submit(a_job())
    site.cancel(1)
    site.durable = False
    undone = [site.retry(1), site.cancel(1)]
    site.durable = True
    site.disk_was_full(*undone)
    (reply,) = site.retry(1).replies
    assert isinstance(reply.result, JobRow) and reply.result.retries == 1
