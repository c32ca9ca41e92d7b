"""What is tried again: causes, budgets, backoffs, providers to blame, storms."""

from __future__ import annotations

from typing import NoReturn

import pytest
from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.commands import Decision
from coordinator.core.ids import JobId, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.rows import EndCause, ExitInfo, ProviderRow
from coordinator.core.work.jobspec import RetryRule
from coordinator.core.work.live import Load
from coordinator.core.work.retries import backoff_ms, blame_provider, cause_of, exit_code_of, may_help, names, told
from tests.site import Site, a_job

POLICY = Policy(verdict_wait_ms=0)


def exited(code: int) -> ExitInfo:
    return ExitInfo(cause=EndCause.EXITED, code=code)


ENDS = [
    (exited(3), "exit:3", 3, "exit 3"),
    (ExitInfo(cause=EndCause.SIGNALLED, signal=9), "signal:KILL", 137, "killed by signal KILL"),
    (
        ExitInfo(cause=EndCause.SIGNALLED, signal=9, text="killed by SIGKILL; it may have run out of memory"),
        "signal:KILL",
        137,
        "killed by SIGKILL; it may have run out of memory",
    ),
    (ExitInfo(cause=EndCause.TIMEOUT, text="the time limit of 1 s"), "timeout", 124, "the time limit of 1 s"),
    (ExitInfo(cause=EndCause.SIGNALLED, signal=40), "signal:40", 168, "killed by signal 40"),
    (ExitInfo(cause=EndCause.TIMEOUT), "timeout", 124, "its time limit"),
    (ExitInfo(cause=EndCause.OOM, signal=9), "oom", 137, "out of memory"),
    (ExitInfo(cause=EndCause.START, text="no such file"), "start", 127, "could not be started: no such file"),
    (ExitInfo(cause=EndCause.LOG_FULL), "log_full", None, "its log was full"),
]


@pytest.mark.parametrize(("exit", "cause", "code", "words"), ENDS, ids=[e[1] for e in ENDS])
def test_an_end_has_a_cause_a_number_and_words(exit: ExitInfo, cause: str, code: int | None, words: str) -> None:
    assert (cause, code, words) == (cause_of(exit), exit_code_of(exit), told(exit))


def test_rules_name_causes() -> None:
    assert names("exit:64-78", "exit:75") and not names("exit:64-78", "exit:79")
    assert names("signal:SIGKILL", "signal:KILL") and names("signal:9x", "signal:KILL") is False
    assert names("any", "timeout") and not names("timeout", "oom")


@pytest.mark.parametrize(
    ("rule", "helped", "not_helped"),
    [
        (RetryRule(), ["exit:1", "signal:KILL", "oom"], ["exit:126", "exit:127", "timeout", "log_full"]),
        (RetryRule(on=("exit:75", "timeout")), ["exit:75", "timeout"], ["exit:1", "oom"]),
        (RetryRule(never=("exit:2",)), ["exit:1"], ["exit:2", "timeout"]),
        (RetryRule(on=("any",), never=("oom",)), ["exit:127"], ["oom"]),
    ],
)
def test_only_causes_that_a_retry_can_help(rule: RetryRule, helped: list[str], not_helped: list[str]) -> None:
    assert all(may_help(rule, cause) for cause in helped)
    assert not any(may_help(rule, cause) for cause in not_helped)


def test_a_backoff_doubles_is_capped_and_is_lengthened_by_a_hash() -> None:
    rule = RetryRule(delay_ms=1_000, factor=2.0, delay_max_ms=6_000)
    waits = [backoff_ms(rule, times, "1.0.0.1", POLICY) for times in (1, 2, 3, 4, 500)]
    for wait, plain in zip(waits, (1_000, 2_000, 4_000, 6_000, 6_000), strict=True):
        assert plain <= wait <= plain * (1 + POLICY.retry_jitter)
    assert waits == [backoff_ms(rule, times, "1.0.0.1", POLICY) for times in (1, 2, 3, 4, 500)]
    assert 1 < len({backoff_ms(rule, 1, f"1.0.0.{n}", POLICY) for n in range(9)})


# ---- in a fleet


def test_failures_and_losses_have_budgets_of_their_own() -> None:
    site = Site("a", "b")
    site.submit(a_job(retry=RetryRule(limit=1, losses=5, delay_ms=0)))
    for _ in range(3):
        (name,) = (n for n in "ab" if site.running(n))
        site.breaks(name)
        site.back(name, rebooted=True)
    assert (0, 3) == (site.task().failures, site.task().losses)
    site.exits("1.0.0.4", 1)
    assert (1, 3, "running") == (site.task().failures, site.task().losses, site.states()[-1])
    site.exits("1.0.0.5", 1)
    assert "failed" == site.job().state


def test_what_is_missing_on_one_provider_is_tried_on_another() -> None:
    """Exit 127: the provider may be to blame; when nobody else is left, it has failed."""
    site = Site("a", "b")
    site.submit(a_job(retry=RetryRule(delay_ms=1_000)))
    where = next(n for n in "ab" if site.running(n))
    site.exits("1.0.0.1", 127)
    site.run_to(3)
    (other,) = (n for n in "ab" if site.running(n))
    assert where != other
    site.exits("1.0.0.2", 127)
    assert "no other provider could run it" in site.task().reason


def test_elsewhere_keeps_away_from_where_it_failed() -> None:
    site = Site("a", "b")
    site.submit(a_job(retry=RetryRule(delay_ms=1_000, elsewhere=True)))
    first = next(n for n in "ab" if site.running(n))
    site.exits("1.0.0.1", 1)
    site.run_to(3)
    assert [] == site.running(first)
    assert ["1.0.0.2"] == site.running("b" if first == "a" else "a")


def test_a_task_that_fails_on_provider_after_provider_stops() -> None:
    """Five providers, whatever its budget: a retry storm is not worth it."""
    site = Site(*"abcdef")
    site.submit(a_job(retry=RetryRule(limit=100, delay_ms=1_000, factor=1.0, elsewhere=True)))
    for number in range(1, 6):
        site.exits(f"1.0.0.{number}", 1)
        site.run_to(site.now_s + 3)
    assert "it failed on 5 providers" in site.task().reason


def test_twenty_retries_in_ten_minutes_are_an_alert() -> None:
    site = Site("a")
    site.submit(a_job(retry=RetryRule(limit=100, delay_ms=1_000, factor=1.0)))
    for number in range(1, 20):
        site.exits(f"1.0.0.{number}", 1)
        site.run_to(site.now_s + 2)
    assert [] == site.warned("retry_storm")
    site.exits("1.0.0.20", 1)
    assert ["1"] == site.warned("retry_storm")
    site.cancel(1)
    assert ["1"] == site.calmed("retry_storm")


def test_a_provider_on_which_job_after_job_fails_gets_no_new_work_for_a_while() -> None:
    """Five failures in a row of three jobs; it ends by itself, and the next one is twice as long."""
    site = Site("a", "b", policy=replace(POLICY, quarantine_ms=60_000))
    for length_ms in (60_000, 120_000):
        for _ in range(POLICY.quarantine_failures):
            site.submit(a_job(retry=RetryRule(limit=0)))
            (running,) = site.running("a")
            site.exits(running, 1)
        row = site.provider("a").row
        assert site.now_ms + length_ms == row.quarantined_until_ms
        site.submit(a_job())
        (running,) = site.running("b")
        site.cancel(int(running.split(".")[0]))
        site.run_to(site.now_s + length_ms / 1_000 + 1)
    assert 2 * ["a"] == site.warned("provider_quarantined") == site.calmed("provider_quarantined")
    row = site.provider("a").row
    assert isinstance(row, ProviderRow) and row.quarantined_until_ms is None


@pytest.mark.parametrize("ending", [events.ProviderResume, events.ProviderForget])
def test_an_admin_ends_a_quarantine(ending: type[events.ProviderResume | events.ProviderForget]) -> None:
    """By resuming the provider, at once; with one that is forgotten the alert ends, too."""
    site = Site("a", "b")
    for _ in range(POLICY.quarantine_failures):
        site.submit(a_job(retry=RetryRule(limit=0)))
        (running,) = site.running("a")
        site.exits(running, 1)
    site.decide(ending(at_ms=site.now_ms, request_id=site.request(), provider_id=ProviderId("a"), by="token:ann"))
    assert ["a"] == site.calmed("provider_quarantined")
    over = next(row for row in site.audits("provider", "a") if row.after == "quarantine over")
    assert "token:ann" == over.by
    if ending is events.ProviderResume:
        assert site.provider("a").row.quarantined_until_ms is None
        site.submit(a_job())
        assert ["6.0.0.1"] == site.running("a")


def test_alerts_that_still_stand_are_told_again_after_a_restart() -> None:
    """Nobody who shows them remembers: a quarantine and a straggler would be silent for the rest of their time."""
    site = Site("a", "b")
    site.submit(a_job(expected_ms=1_000))
    site.run_to(80)
    assert ["1.0.0"] == site.warned("straggler")
    for _ in range(POLICY.quarantine_failures):
        site.submit(a_job(retry=RetryRule(limit=0)))
        running = next(text for name in "ab" for text in site.running(name) if text != "1.0.0.1")
        site.exits(running, 1)
    quarantined = site.warned("provider_quarantined")
    assert 1 == len(quarantined)
    site.restart(82)
    assert 2 * quarantined == site.warned("provider_quarantined") and 2 * ["1.0.0"] == site.warned("straggler")


def test_the_only_one_that_could_work_is_not_quarantined() -> None:
    """Five mistyped commands must not stop a fleet of one. A second one that joins makes the next failure count."""
    site = Site("a")
    for _ in range(2 * POLICY.quarantine_failures):
        site.submit(a_job(retry=RetryRule(limit=0)))
        (running,) = site.running("a")
        site.exits(running, 127)
    assert [] == site.warned("provider_quarantined")


def test_one_job_alone_quarantines_nobody() -> None:
    site = Site("a")
    site.submit(a_job(retry=RetryRule(limit=100, delay_ms=1_000, factor=1.0)))
    for number in range(1, 12):
        site.exits(f"1.0.0.{number}", 1)
        site.run_to(site.now_s + 2)
    assert site.provider("a").row.quarantined_until_ms is None


def test_a_success_ends_the_row_of_failures() -> None:
    site = Site("a")
    for number in range(1, 12):
        site.submit(a_job(retry=RetryRule(limit=0)))
        site.exits(f"{number}.0.0.1", 0 if number % 4 == 0 else 1)
    assert [] == site.warned("provider_quarantined")


def fail_all(site: Site, *names: str) -> None:
    """What runs on these providers exits with 1, as long as anything does."""
    for _ in range(200):
        running = [text for name in names for text in site.running(name)]
        if not running:
            return
        for text in running:
            site.exits(text, 1)
    raise AssertionError(f"something still runs on {names}")


def test_arrays_of_several_jobs_that_fail_on_one_provider_have_it_set_aside() -> None:
    """The row of failures is of three jobs, though the many tasks of each fail one behind the other: the last five
    failures were of two jobs at most, and the provider ate the retries of all."""
    site = Site("a", "b", policy=POLICY)
    for _ in range(POLICY.quarantine_jobs):
        site.submit(a_job(tasks=40, retry=RetryRule(limit=0)))
    fail_all(site, "a")
    assert ["a"] == site.warned("provider_quarantined")


def test_jobs_that_fail_everywhere_have_no_more_than_two_providers_set_aside() -> None:
    """Three mistyped arrays must not take one machine after the other from everybody: what has completed nothing and
    fails on two others is to blame itself."""
    names = ("a", "b", "c", "d", "e", "f")
    site = Site(*names, policy=POLICY)
    for _ in range(POLICY.quarantine_jobs):
        site.submit(a_job(tasks=60, retry=RetryRule(limit=0)))
    fail_all(site, *names)
    assert {} == site.state.work.jobs
    assert 2 >= len(site.warned("provider_quarantined"))


def test_whether_a_job_fails_elsewhere_is_not_asked_of_those_where_nothing_failed() -> None:
    """A mistyped array fails thousands of times a second, and a fleet has tens of thousands of providers: each failure
    would look at all that hold something."""

    class Unlooked(dict[ProviderId, Load]):
        def items(self) -> NoReturn:
            raise AssertionError("all of them are looked at")

    site = Site("a", "b", "c", policy=POLICY)
    site.submit(a_job(tasks=12))
    work = site.state.work
    work.loads = Unlooked(work.loads)
    for name in "abc":
        blame_provider(site.state, ProviderId(name), JobId(1), POLICY, Decision())
    assert {"a", "b"} == work.failures.keys()


def test_a_straggler_is_flagged_once_against_its_siblings() -> None:
    site = Site("a", policy=replace(POLICY, straggler_min_ms=30_000))
    site.submit(a_job(tasks=7))
    for task in range(6):
        site.run_to(site.now_s + 2)
        site.exits(f"1.0.{task}.1", ran_ms=2_000)
    assert [] == site.warned("straggler")
    site.run_to(site.now_s + 90)
    assert ["1.0.6"] == site.warned("straggler")
    assert site.task(task=6).straggler
    site.exits("1.0.6.1")
    assert ["1.0.6"] == site.calmed("straggler")


def test_a_task_is_a_straggler_against_its_expected_run_time() -> None:
    site = Site("a")
    site.submit(a_job(expected_ms=30_000))
    site.run_to(80)
    assert [] == site.warned("straggler")
    site.run_to(120)
    assert ["1.0.0"] == site.warned("straggler")


@pytest.mark.parametrize("fails_elsewhere", [False, True])
def test_a_node_on_which_one_array_fails_at_once_is_set_aside_when_it_runs_elsewhere(fails_elsewhere: bool) -> None:
    """Instant failures free their place at once: without this one bad node would eat the queue. Where the job fails on
    others too, it is the job."""
    site = Site("a", "b", policy=Policy(quarantine_failures=3, verdict_wait_ms=0))
    site.submit(a_job(tasks=60, retry=RetryRule(delay_ms=3_600_000)))
    for turn in range(12):
        for name, code in (("b", int(fails_elsewhere and turn > 3)), ("a", int(turn > 3))):
            running = site.running(name)
            if running:
                site.exits(running[0], code)
    assert (site.provider("a").row.quarantined_until_ms is None) == fails_elsewhere
    assert site.provider("b").row.quarantined_until_ms is None
