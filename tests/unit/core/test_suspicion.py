"""What verdicts say against providers: how much it counts, for how long, and who may not be spoken of."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from coordinator.core import events
from coordinator.core.fleet.publish import view_of
from coordinator.core.ids import JobId, ProviderId, RequestId, TenantName
from coordinator.core.image import image_of, state_of
from coordinator.core.policy import Policy
from coordinator.core.verdict.rows import SUSPICIONS_MAX, Cause, Evidence, Fault, Role, SuspicionRow
from coordinator.core.verdict.suspicion import suspicion
from coordinator.core.work.jobspec import RetryRule
from tests.builders import START_MS
from tests.site import Site, a_job
from tests.treasury import Treasury
from tests.verdicts import WAITS, a_broken_gpu, a_verdict, judge, wanted, where

AN_END = Evidence(role=Role.EXIT, signature="exit", text="its provider was lost")
DAY_MS = 24 * 3_600_000
POLICY = Policy()


def a_row(attempt: str = "1.0.0.1", age_ms: int = 0, confidence: float = 1.0, tenant: str = "x") -> SuspicionRow:
    return SuspicionRow(
        provider_id=ProviderId("a"),
        attempt=attempt,
        at_ms=START_MS - age_ms,
        cause=Cause.GPU_HARDWARE,
        confidence=confidence,
        text="Xid 79",
        tenant=TenantName(tenant),
    )


def held_against(site: Site, name: str) -> list[SuspicionRow]:
    """Durable ones, oldest first; what is decided by is the same."""
    found = [row for row in site.rows.values() if isinstance(row, SuspicionRow) and row.provider_id == name]
    assert set(found) == set(site.state.work.suspicions.get(ProviderId(name), ()))
    return sorted(found, key=lambda row: row.at_ms)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], 0.0),
        ([a_row()], 0.25),
        ([a_row(confidence=0.5)], 0.125),
        ([a_row(age_ms=DAY_MS)], 0.125),
        ([a_row(age_ms=2 * DAY_MS)], 0.0625),
        ([a_row(age_ms=7 * DAY_MS)], 0.0),
        ([a_row(), a_row("2.0.0.1", tenant="y")], 1 - 0.75**2),
        ([a_row(age_ms=DAY_MS), a_row("2.0.0.1", DAY_MS)], 1 - 0.875**2),
        ([a_row(f"{job}.0.0.1") for job in range(1, 17)], 0.25),
        ([a_row(f"{job}.0.0.1", tenant="xyz"[job % 3]) for job in range(1, 17)], 1 - 0.75**3),
        ([a_row("1.0.0.1", DAY_MS), a_row("1.0.0.2"), a_row("1.0.9.1", DAY_MS)], 0.25),
        ([a_row(age_ms=-5)], 0.25),
    ],
)
def test_it_halves_in_a_day_a_job_counts_once_and_a_tenant_is_bounded(
    rows: list[SuspicionRow], expected: float
) -> None:
    assert suspicion(rows, START_MS, POLICY) == pytest.approx(expected)


def test_a_suspected_provider_is_taken_last() -> None:
    """Both have room and are alike; what is suspected is ranked as if so much of the run were lost there."""
    site = Site("a", "b", policy=WAITS)
    site.submit(a_job())
    bad = where(site, "1.0.0.1")
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    (row,) = held_against(site, bad)
    assert ("1.0.0.1", Cause.GPU_HARDWARE, "NVRM: Xid 79") == (row.attempt, row.cause, row.text)
    site.submit(a_job(expected_ms=3_600_000))
    assert bad != where(site, "2.0.0.1")
    site.submit(a_job(expected_ms=3_600_000))
    site.submit(a_job(expected_ms=3_600_000))
    choice = site.attempt("4.0.0.1").choice
    assert bad in (where(site, "3.0.0.1"), where(site, "4.0.0.1")) and choice is not None
    lost = {where(site, name): site.attempt(name).choice for name in ("2.0.0.1", "3.0.0.1", "4.0.0.1")}
    at_stake = lost[bad]
    assert at_stake is not None and at_stake.loss_ms >= 0.9 * 0.25 * 1_800_000, "and that is in what is told of it"


def blames(site: Treasury, tenant: str, job: int) -> None:
    """A job of this tenant's fails on the only provider, and its log says that a GPU is broken there."""
    site.asks(a_job(retry=RetryRule(limit=0)), tenant)
    site.exits(f"{job}.0.0.1", 1)
    judge(site, f"{job}.0.0.1", a_broken_gpu())


def test_the_logs_of_one_tenant_are_one_word_and_take_nobody_elses_away() -> None:
    """Else sixteen jobs that lie would have a provider ranked last for all. What a second tenant says counts as well,
    and is still there when the first has said it sixteen times."""
    site = Treasury("a", policy=WAITS)
    for name in ("liar", "other"):
        site.tenant(name)
    for job in range(1, 4):
        blames(site, "liar", job)
    assert suspicion(held_against(site, "a"), site.now_ms, POLICY) == pytest.approx(0.25)
    blames(site, "other", 4)
    for job in range(5, SUSPICIONS_MAX + 9):
        blames(site, "liar", job)
    rows = held_against(site, "a")
    assert SUSPICIONS_MAX == len(rows) and ["4.0.0.1"] == [row.attempt for row in rows if row.tenant == "other"]
    assert "liar" == rows[-1].tenant
    assert suspicion(rows, site.now_ms, POLICY) == pytest.approx(1 - 0.75 * (1 - 0.9 * 0.25))


def test_it_is_no_failure_no_disconnect_and_no_quarantine() -> None:
    site = Site("a", "b", policy=WAITS)
    site.submit(a_job())
    bad = where(site, "1.0.0.1")
    before = view_of(site.provider(bad))
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    assert before == view_of(site.provider(bad)) and None is site.provider(bad).row.quarantined_until_ms


def test_analytics_is_told_whom_other_jobs_blame() -> None:
    """Of the attempt's own providers, and for two days."""
    site = Site("a", policy=WAITS)
    for job, hours in ((1, 0), (2, 1), (3, 72)):
        site.at(hours * 3_600)
        site.beat_all()
        site.submit(a_job(retry=RetryRule(limit=1)))
        site.exits(f"{job}.0.0.1", 1)
        judge(site, f"{job}.0.0.1", a_broken_gpu() if job == 1 else None)
    told = {note.attempt_id[0]: note.suspected for note in wanted(site) if note.attempt_id[3] == 1}
    assert {1: (), 2: ("a",), 3: ()} == told
    site.run_to(site.now_s + 10)
    site.exits("1.0.0.2", 1)
    assert () == wanted(site)[-1].suspected, "its own verdict is in its history"


def test_a_log_speaks_against_nobody_but_its_own_providers() -> None:
    """Nor without a line: who went away under an attempt has a record of that already."""
    site = Site("a", "b", "c", policy=WAITS)
    for job, verdict in enumerate(
        (
            a_broken_gpu("a", "b", "c", "nowhere"),
            a_broken_gpu(evidence=()),
            a_verdict(fault=Fault.PROVIDER, evidence=(replace(a_verdict().evidence[0], line=0),)),
            a_broken_gpu("a", "b", evidence=(AN_END, *a_broken_gpu().evidence)),
            a_verdict(fault=Fault.JOB),
        ),
        start=1,
    ):
        site.submit(a_job())
        ran_on = where(site, f"{job}.0.0.1")
        site.exits(f"{job}.0.0.1", 1)
        judge(site, f"{job}.0.0.1", verdict)
        if job == 1:
            first = ran_on
    assert {first: 1} == {name: len(rows) for name, rows in site.state.work.suspicions.items()}
    judge(site, "1.0.0.9", a_broken_gpu("a"))
    assert [first] == list(site.state.work.suspicions), "nobody was asked about that one"


def test_of_several_ranks_only_those_that_are_named() -> None:
    site = Site("a", "b", "c", policy=WAITS)
    site.submit(a_job(nodes=2))
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    assert {} == site.state.work.suspicions
    ranks = [rank.provider_id for rank in site.attempt("1.0.0.1").ranks]
    judge(site, "1.0.0.1", a_broken_gpu(ranks[1], "c"))
    assert [ranks[1]] == list(site.state.work.suspicions)


def test_a_failure_in_a_row_is_of_the_provider_that_the_verdict_names() -> None:
    """Whose rank ended first has seen it, and need not have done it."""
    site = Site("a", "b", policy=WAITS)
    site.submit(a_job(nodes=2))
    first, second = (rank.provider_id for rank in site.attempt("1.0.0.1").ranks)
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu(second))
    failures = {who: len(row) for who, row in site.state.work.failures.items()}
    assert first != second and {second: 1} == failures


def test_a_correction_takes_back_what_was_said() -> None:
    site = Site("a", policy=WAITS)
    site.submit(a_job(retry=RetryRule(limit=0)))
    site.exits("1.0.0.1", 1)
    for verdict, count in ((a_broken_gpu(), 1), (a_broken_gpu(), 1), (a_verdict(), 0)):
        judge(site, "1.0.0.1", verdict)
        assert count == len(held_against(site, "a"))


def test_the_newest_are_kept_and_faded_ones_go() -> None:
    site = Site("a", policy=WAITS)
    for job in range(1, SUSPICIONS_MAX + 4):
        site.submit(a_job(retry=RetryRule(limit=0)))
        site.exits(f"{job}.0.0.1", 1)
        site.at(job)
        judge(site, f"{job}.0.0.1", a_broken_gpu())
    assert [f"{job}.0.0.1" for job in range(4, SUSPICIONS_MAX + 4)] == [r.attempt for r in held_against(site, "a")]
    assert image_of(state_of(image_of(site.state))) == image_of(site.state)
    site.restart(30)
    assert SUSPICIONS_MAX == len(held_against(site, "a"))
    for hours in (7 * 24 - 1, 7 * 24 + 1):
        site.at(hours * 3_600)
        site.tick()
        assert (SUSPICIONS_MAX if hours < 7 * 24 else 0) == len(held_against(site, "a"))
    assert {} == site.state.work.suspicions


def test_who_is_forgotten_is_not_suspected_any_more() -> None:
    site = Site("a", "b", policy=WAITS)
    site.submit(a_job(retry=RetryRule(limit=0)))
    bad = where(site, "1.0.0.1")
    site.exits("1.0.0.1", 1)
    judge(site, "1.0.0.1", a_broken_gpu())
    site.breaks(bad)
    site.run_to(60)
    forget = events.ProviderForget(
        at_ms=site.now_ms, request_id=RequestId(99), provider_id=ProviderId(bad), by="token:t"
    )
    site.decide(forget)
    assert [] == held_against(site, bad)
    judge(site, "1.0.0.1", a_broken_gpu())
    assert [] == held_against(site, bad) and JobId(1) not in site.state.work.jobs
