"""Made-up fleets: the same again, each of its character; and on one of them the forecast is not blind."""

from __future__ import annotations

import itertools
import statistics

import pytest

from analytics.past import PastFigures, PastSession
from bench.made_fleets import jobs_of
from coordinator.core.rows import Resources
from coordinator.simulator.history.characters import BEGAN_MS, DAY_MS, NAMES, made
from coordinator.simulator.history.compare import compare
from coordinator.simulator.history.fleet import Session, of_sessions
from coordinator.simulator.history.workload import HOUR_MS


@pytest.mark.parametrize("name", NAMES)
def test_a_machine_is_in_one_place_at_a_time_and_the_same_seed_is_the_same_fleet(name: str) -> None:
    """Sessions are disjoint and in order; only the last one may be open; another seed is another fleet."""
    sessions = made(name, 24, 20.0, 3)
    assert sessions == made(name, 24, 20.0, 3) != made(name, 24, 20.0, 4)
    assert len({session.provider_id for session in sessions}) == 24
    for provider_id, group in itertools.groupby(sessions, key=lambda session: session.provider_id):
        rows = list(group)
        assert all(session.ended_ms is not None for session in rows[:-1]), provider_id
        for before, after in itertools.pairwise(rows):
            assert before.ended_ms is not None and before.began_ms < before.ended_ms < after.began_ms
        assert BEGAN_MS <= rows[0].began_ms and rows[-1].began_ms < BEGAN_MS + 20 * DAY_MS


def lasted_h(sessions: list[Session]) -> list[float]:
    return [(s.ended_ms - s.began_ms) / HOUR_MS for s in sessions if s.ended_ms is not None]


def test_they_are_of_the_character_that_is_said() -> None:
    """Half of the stays: of servers days, of laptops less than an hour, of the office a day's work."""
    middle = {name: statistics.median(lasted_h(made(name, 60, 30.0, 1))) for name in ("servers", "laptops", "office")}
    assert middle["servers"] > 24.0
    assert middle["laptops"] < 1.0
    assert 8.0 < middle["office"] < 11.0
    days = [(s.began_ms - BEGAN_MS) // DAY_MS % 7 for s in made("office", 60, 28.0, 1)]
    assert sum(day >= 5 for day in days) < len(days) / 100
    before, after = (
        [lasted for s in made("turning", 90, 50.0, 1) if (s.began_ms > turned) == late for lasted in lasted_h([s])]
        for turned, late in ((BEGAN_MS + 25 * DAY_MS, False), (BEGAN_MS + 26 * DAY_MS, True))
    )
    assert statistics.mean(before) > 1.3 * statistics.mean(after)


def test_where_everybody_goes_home_the_forecast_still_tells_who_stays_for_the_run() -> None:
    """120 office machines, runs of 4 h at 30 %: ranked by the hazard over two days alone more than half of what chance
    loses was lost."""
    sessions = made("office", 120, 24.0, 5)
    fleet = of_sessions(sessions, Resources(cpus=1.0))
    past = PastFigures(PastSession(s.provider_id, s.began_ms, s.ended_ms) for s in sessions)
    jobs = jobs_of("4h@30%", fleet, fleet.from_ms + 14 * DAY_MS, 5)
    reports = {r.policy: r for r, _ in compare(fleet, jobs, ("forecast", "score", "random"), past.at, 2 * HOUR_MS)}
    wasted_h = {policy: report.wasted_h for policy, report in reports.items()}
    assert reports["random"].lost > 200
    assert wasted_h["forecast"] < 0.5 * wasted_h["random"], wasted_h
    assert wasted_h["forecast"] < 0.8 * wasted_h["score"], wasted_h
