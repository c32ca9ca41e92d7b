"""Policies side by side: the same run twice is the same report, the forecast loses less where the past tells."""

from __future__ import annotations

from random import Random

import pytest

from analytics.past import PastFigures, PastSession
from bench.easy import Asked, starts
from cli.replaying import made_up
from coordinator.core.errors import CoordError
from coordinator.core.ids import ProviderId, TenantName
from coordinator.core.rows import EndReason, Resources, TenantRow
from coordinator.simulator.history.books import Books
from coordinator.simulator.history.compare import compare
from coordinator.simulator.history.fleet import Fleet, Session, alike, of_sessions
from coordinator.simulator.history.picture import drawn
from coordinator.simulator.history.report import Report, jain
from coordinator.simulator.history.workload import HOUR_MS, Job, Made, loaded, make, moved, told

DAY_MS = 24 * HOUR_MS
DAYS = 13


def restless(seed: int) -> tuple[list[Session], Fleet]:
    """Ten machines that stay, ten that come and go within hours; names tell nothing."""
    dice = Random(seed)
    sessions = []
    for number in range(20):
        at = dice.randint(0, HOUR_MS)
        mean_ms = (10 * DAY_MS) if number % 2 else 3 * HOUR_MS
        while at < DAYS * DAY_MS:
            end = at + int(dice.expovariate(1.0) * mean_ms) + 60_000
            name = ProviderId(f"m{number * 7 % 20:02d}")
            sessions.append(Session(provider_id=name, began_ms=at, ended_ms=end, reason=EndReason.READ_ERROR))
            at = end + HOUR_MS // 2
    return sessions, of_sessions(sessions, Resources(cpus=1.0))


def test_a_forecast_loses_less_than_chance_and_the_same_seed_is_the_same_report() -> None:
    """On a fleet of two kinds of machines, jobs of four hours at a quarter of it."""
    sessions, fleet = restless(3)

    def run() -> list[tuple[Report, Books]]:
        past = PastFigures(
            PastSession(s.provider_id, s.began_ms, s.ended_ms, s.reason.value if s.reason else "") for s in sessions
        )
        made = make(Made(lengths_ms=(4 * HOUR_MS,), load=0.25), 18.0, 7 * DAY_MS, DAYS * DAY_MS, Random(1))
        return compare(fleet, made.jobs, ["forecast", "random"], past.at, 24 * HOUR_MS)

    first, second = run(), run()
    (forecast, _), (random, _) = first
    assert [report for report, _ in first] == [report for report, _ in second]
    assert forecast.wasted_h < 0.6 * random.wasted_h
    assert random.lost > 0
    picture = drawn("a <title>", first)
    assert picture.startswith("<svg") and "a &lt;title&gt;" in picture and picture.count("<polyline") >= 6


def test_weights_share_out_what_is_short() -> None:
    """Two users whose jobs always wait, one of weight three: it holds three quarters."""
    fleet = alike("8x1")
    assert fleet is not None
    jobs = [
        Job(at_ms=0, run_ms=HOUR_MS + 60_000 * (n % 7), tenant=TenantName(f"u{n % 2}"), limit_ms=2 * HOUR_MS)
        for n in range(160)
    ]
    tenants = [TenantRow(name=TenantName("u1"), created_at_ms=0, weight=3)]
    [(found, _)] = compare(fleet, jobs, ["fit"], None, HOUR_MS, tenants)
    waits = {entry.tenant: entry.wait_mean_s for entry in found.tenants}
    assert waits["u1"] < 0.75 * waits["u0"]
    assert 160 == found.completed


def test_a_workload_is_brought_to_a_load_and_told_its_limits() -> None:
    work = make(Made(lengths_ms=(HOUR_MS,), load=0.5), 100.0, 0, 10 * DAY_MS, Random(2))
    asked = work.hours() / (100 * 240)
    assert 0.45 < asked < 0.55
    close = moved(work, 5, 0.5)
    assert (5, len(work.jobs)) == (close.jobs[0].at_ms, len(close.jobs))
    assert (close.jobs[-1].at_ms - 5) * 2 - (work.jobs[-1].at_ms - work.jobs[0].at_ms) in range(-2, 3)
    assert {2 * HOUR_MS} == {job.limit_ms for job in told(work, 2.0).jobs}
    fleet = alike("50x1")
    assert fleet is not None
    dense = loaded(work, fleet, 0, 0.8)
    span_h = (dense.jobs[-1].at_ms - dense.jobs[0].at_ms) / HOUR_MS
    assert 0.79 < dense.hours() / (50 * span_h) < 0.81


@pytest.mark.parametrize("text", ["8h@0%", "8x@30%", "0.1s@30%"])
def test_a_workload_that_cannot_be_made_is_refused(text: str) -> None:
    with pytest.raises(CoordError):
        made_up(text)


def test_made_up_workloads_are_told_from_files() -> None:
    assert Made(lengths_ms=(8 * HOUR_MS,), load=0.3) == made_up("8h@30%")
    assert Made(lengths_ms=(HOUR_MS, DAY_MS), load=0.5) == made_up("1h+24h@0.5")
    assert made_up("log.swf.gz") is None


def test_jain_is_one_for_equals_and_one_nth_for_one_alone() -> None:
    assert 1.0 == jain([3.0, 3.0, 3.0])
    assert 0.25 == jain([1.0, 0.0, 0.0, 0.0])


def test_easy_lets_past_who_delays_nobody_and_plain_order_nobody() -> None:
    """Four nodes: three held for ten; the head wants four, a short job fits before it, a long one does not."""
    jobs = [Asked(0, 10, 10, 3), Asked(1, 5, 5, 4), Asked(2, 8, 8, 1), Asked(2, 9, 9, 1)]
    assert [0, 10, 15, 15] == starts(jobs, 4, backfill=False)
    assert [0, 10, 2, 15] == starts(jobs, 4, backfill=True)
