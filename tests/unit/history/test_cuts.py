"""The ranking alone at cuts of a history: what is counted, and that it is no worse than the floor that was set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analytics.past import PastFigures, PastSession
from analytics.reliability.columns import HOUR_MS
from bench.cuts import Cut, cuts_of, lost_by, measured
from cli.replaying import read_fleet
from coordinator.core.ids import ProviderId
from coordinator.core.rows import Resources
from coordinator.simulator.history.fleet import Session, of_sessions

GOLEM = Path(__file__).parents[4] / "shared" / "data" / "golem_network" / "sessions.csv.xz"
WATCHED_MS = (1_545_114_551_000, 1_551_830_000_000)
FLOORS = {1: 0.04, 4: 0.22, 8: 0.25, 24: 0.42}


def test_a_run_that_its_machine_outlives_loses_nothing_and_another_loses_what_it_did() -> None:
    """Four machines stay for 1, 2, 3 and 10 h; half of them get 4 h runs: chance loses 6 h of them in the mean of four,
    twice; who takes the last two loses 3 h. A cut whose runs would end after the history is left out."""
    keys = {"forecast": {4: np.array([4.0, 3.0, 2.0, 1.0])}}
    left_h = np.array([1.0, 2.0, 3.0, 10.0])
    cuts = [Cut(0, left_h, keys), Cut(HOUR_MS, left_h, keys)]
    assert (3.0, 1.0) == lost_by(cuts, "forecast", 4, 0.5, 4 * HOUR_MS)
    assert (3.0, 1.5) == lost_by(cuts, None, 4, 0.5, 4 * HOUR_MS)
    assert (6.0, 2.0) == lost_by(cuts, "forecast", 4, 0.5, 5 * HOUR_MS)


def test_at_a_cut_everybody_online_is_ranked_by_what_was_known_then() -> None:
    """At day 14 three have left for good and one is yet to come. One that leaves twice a day is ranked last by the
    forecast and by the hazard; hindsight takes who stays longest."""
    day = 24 * HOUR_MS
    sessions = []
    for number in range(12):
        name = ProviderId(f"m{number:02d}")
        if number < 3:
            sessions.append(Session(provider_id=name, began_ms=0, ended_ms=10 * day))
        elif number == 11:
            sessions += [
                Session(provider_id=name, began_ms=n * day // 2, ended_ms=n * day // 2 + 11 * HOUR_MS)
                for n in range(40)
            ]
        else:
            sessions.append(Session(provider_id=name, began_ms=number, ended_ms=(15 + number) * day))
    sessions += [
        Session(provider_id=ProviderId(f"x{n}"), began_ms=13 * day, ended_ms=14 * day + HOUR_MS) for n in (0, 1)
    ]
    sessions.append(Session(provider_id=ProviderId("late"), began_ms=15 * day, ended_ms=16 * day))
    fleet = of_sessions(sessions, Resources(cpus=1.0))
    past = PastFigures(PastSession(s.provider_id, s.began_ms, s.ended_ms) for s in sessions)
    [cut] = cuts_of(fleet, past, day, 0, 15 * day)
    assert (14 * day, 11) == (cut.at_ms, len(cut.left_h))
    assert [1.0, 1.0, 11.0] == sorted(cut.left_h)[:3]
    flapping = int(np.flatnonzero(cut.left_h == 11.0)[0])
    for ranking in ("forecast", "hazard"):
        assert flapping == int(np.argmax(cut.keys[ranking][4])), ranking
    assert max(cut.left_h) == cut.left_h[int(np.argmin(cut.keys["hindsight"][4]))]


@pytest.mark.skipif(not GOLEM.exists(), reason="needs ../shared/data/golem_network")
def test_on_volunteers_the_ranking_loses_less_than_a_plain_shrunk_hazard_and_the_floor_that_was_set() -> None:
    """As the floor was measured: once a day of the time that was watched. It loses no more than the plain hazard at any
    length; the hazard's own shares are those of the floor, give or take .03."""
    fleet, past = read_fleet(str(GOLEM), 1.0)
    assert past is not None
    for one in measured(fleet, past, 24 * HOUR_MS, 0.3, *WATCHED_MS):
        share, floor = one["to_random"], FLOORS[one["run_h"]]
        assert share["forecast"] <= share["hazard"] < share["score"], one
        assert share["forecast"] <= floor, one
        assert abs(share["hazard"] - floor) <= 0.03, one
