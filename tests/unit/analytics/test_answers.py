"""Answers: order, filters, flags, and what is said of those of whom nothing is known."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import duckdb
import msgspec
import pytest
from msgspec.structs import replace

from analytics.room import Room
from analytics.snapshots import SCHEMAS, STATUSES, THERMALS
from coordinator import wire
from coordinator.api_types.reliability import (
    Availability,
    Backtest,
    Features,
    Forecast,
    NetworkAvailability,
    ReliabilityAnswer,
)
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import ProviderFigures
from coordinator.ports.analytics import (
    AnyQuestion,
    AskAvailability,
    AskBacktest,
    AskFeatures,
    AskForecast,
    AskNetwork,
    AskReliability,
)
from tests.unit.analytics.histories import T0, D, H, M, Row, every
from tests.unit.analytics.truths import MemoryTruth, enrolled

T = TypeVar("T")
NOW = T0 + 40 * D + 10 * H
"""What every room here takes for now."""


def fleet_of_characters() -> MemoryTruth:
    """p0 always there, p1 daily, p2 every hour, p3 came three hours ago, p4 left twenty days ago."""
    start = NOW - 30 * D
    truth = MemoryTruth(
        [
            Row(0, start, ours=True),
            *[Row(1, start + d * D, start + d * D + 9 * H, "clean_close", ours=True) for d in range(29)],
            *[row._replace(ours=True) for row in every(2, 50 * M, 10 * M, start, NOW - 2 * H)],
            Row(2, NOW - H, ours=True),
            Row(3, NOW - 3 * H, ours=True),
            Row(4, start, NOW - 20 * D, ours=True),
        ]
    )
    truth.enrolled = [enrolled("p0", 1, start), enrolled("p4", 2, start), enrolled("ghost", 3, start)]
    return truth


def room_of(path: Path, truth: MemoryTruth) -> Room:
    """A room over a truth whose clock stands at NOW, computed once."""
    room = Room(path / "w" / "warehouse.duckdb", path / "w" / "views", truth, "256MB", 1, now_ms=lambda: NOW)
    room.sync()
    room.compute()
    return room


@pytest.fixture
def room(tmp_path: Path) -> Room:
    """A room over that fleet."""
    return room_of(tmp_path, fleet_of_characters())


def asked(room: Room, question: AnyQuestion, kind: type[T]) -> T:
    """The decoded answer."""
    answer = room.answer_slowly if room.is_slow(question) else room.answer  # type: ignore[arg-type]
    return msgspec.json.decode(answer(question).json, type=kind)  # type: ignore[arg-type]


def listed(room: Room, **filters: float | int) -> list[str]:
    """Ids in a listing."""
    answer = asked(room, AskReliability(**filters), ReliabilityAnswer)  # type: ignore[arg-type]
    return [entry.provider_id for entry in answer.entries]


def test_order_is_score_then_uptime_then_id(room: Room) -> None:
    """Best first; the enrolled of whom nothing was seen in the window come last, at 0, by name."""
    answer = asked(room, AskReliability(), ReliabilityAnswer)
    keys = [(-e.liveness_score, -e.uptime_pct, e.provider_id) for e in answer.entries]
    assert sorted(keys) == keys
    assert ["p0", "p3"] == [e.provider_id for e in answer.entries][:2]
    assert ["ghost", "p4"] == [e.provider_id for e in answer.entries][-2:]
    assert (6, 6) == (answer.providers, answer.matched)
    ghost, gone = answer.entries[-2], answer.entries[-1]
    assert "never_observed" in ghost.flags and "never_observed" in gone.flags
    assert (None, True) == (ghost.first_seen_at, gone.first_seen_at is not None)


def test_filters_are_inclusive_and_zero_is_unbounded(room: Room) -> None:
    """A bound keeps who stands on it; max_score 0 and limit 0 bound nothing; matched counts before the limit."""
    everybody = asked(room, AskReliability(limit=0, max_score=0.0), ReliabilityAnswer)
    assert 6 == len(everybody.entries)
    daily = next(e for e in everybody.entries if e.provider_id == "p1")
    assert "p1" in listed(room, min_score=daily.liveness_score, max_score=daily.liveness_score)
    assert "p1" in listed(room, min_uptime=daily.uptime_pct, min_stays_4h=daily.p_stays_4h)
    assert "p1" not in listed(room, min_uptime=daily.uptime_pct + 1e-4)
    assert ["p0"] == listed(room, min_score=0.99)
    one = asked(room, AskReliability(limit=1), ReliabilityAnswer)
    assert (1, 6) == (len(one.entries), one.matched)


def test_row_shows_what_stands_behind_it(room: Room) -> None:
    """Terms add up, intervals hold their figure, the grid has 7x24 cells, the forecast is there when asked for."""
    for entry in asked(room, AskReliability(horizon_ms=8 * H), ReliabilityAnswer).entries:
        terms = entry.score_terms
        total = terms.uptime + terms.stays_4h + terms.stays_8h + terms.mtbf + terms.recent_failure
        assert entry.liveness_score == pytest.approx(min(max(total, 0.0), 1.0), abs=1e-5)
        assert entry.p_stays_8h_interval.low <= entry.p_stays_8h <= entry.p_stays_8h_interval.high
        assert entry.hourly_availability is not None and [24] * 7 == [len(day) for day in entry.hourly_availability]
        assert entry.online == (entry.forecast is not None)
        if entry.forecast is not None:
            assert entry.forecast.low <= entry.forecast.probability <= entry.forecast.high
            assert 8 * 3600 == entry.forecast.horizon_s


def test_what_verdicts_say_stands_beside_the_figures_and_changes_none(room: Room) -> None:
    plain = asked(room, AskReliability(limit=0), ReliabilityAnswer)
    said = asked(room, AskReliability(limit=0, suspicions=(("p3", 0.25), ("gone", 0.5))), ReliabilityAnswer)
    assert {"p3": 0.25} == {entry.provider_id: entry.suspicion for entry in said.entries if entry.suspicion}
    assert plain.entries == tuple(replace(entry, suspicion=0.0) for entry in said.entries)
    assert 0.5 == asked(room, AskFeatures(provider_id="p3", suspicion=0.5), Features).suspicion


def test_newcomer_is_flagged(room: Room) -> None:
    """Three hours old: newcomer, thin, borrowed, and nothing claimed that was not seen."""
    row = asked(room, AskFeatures(provider_id="p3"), Features)
    assert {"newcomer", "thin", "borrowed_4h", "borrowed_8h", "mtbf_lower_bound"} == set(row.flags)
    assert 1.0 == row.uptime_pct
    assert 3 * 3600 == row.observed_seconds


def test_forecast_falls_with_the_horizon_and_is_null_for_the_absent(room: Room) -> None:
    """P never rises with h, between and beyond the learnt horizons; who is gone has none."""
    hours = (0.1, 0.5, 1, 3, 8, 20, 48, 100, 300)
    found = [asked(room, AskForecast(provider_id="p2", horizon_ms=int(h * H)), Forecast) for h in hours]
    assert sorted((f.probability for f in found), reverse=True) == [f.probability for f in found]
    assert found[0].departures > 100 and () == found[0].flags
    assert asked(room, AskForecast(provider_id="p4", horizon_ms=H), Forecast | None) is None  # type: ignore[arg-type]
    assert asked(room, AskForecast(provider_id="ghost", horizon_ms=H), Forecast | None) is None  # type: ignore[arg-type]


def test_unknown_provider_zone_and_horizon_are_refused(room: Room) -> None:
    """With a code, and what to do."""
    for question, code in (
        (AskFeatures(provider_id="nobody"), Code.NOT_FOUND),
        (AskForecast(provider_id="nobody", horizon_ms=H), Code.NOT_FOUND),
        (AskAvailability(provider_id="nobody"), Code.NOT_FOUND),
        (AskFeatures(provider_id="p0", time_zone="Mars/Olympus"), Code.BAD_REQUEST),
        (AskAvailability(time_zone="../x"), Code.BAD_REQUEST),
        (AskForecast(provider_id="p0", horizon_ms=0), Code.BAD_REQUEST),
        (AskReliability(horizon_ms=15 * D), Code.BAD_REQUEST),
        (AskReliability(as_of_ms=NOW + D), Code.BAD_REQUEST),
        (AskBacktest(horizons_ms=()), Code.BAD_REQUEST),
        (AskBacktest(every_ms=1), Code.BAD_REQUEST),
    ):
        with pytest.raises(CoordError) as refusal:
            asked(room, question, object)
        assert code == refusal.value.code
        assert refusal.value.hint


def test_as_of_a_past_moment(room: Room) -> None:
    """Ten days ago p3 did not exist, and p4 had left within the window."""
    answer = asked(room, AskReliability(as_of_ms=NOW - 10 * D, horizon_ms=H), ReliabilityAnswer)
    assert {"p0", "p1", "p2", "p4", "ghost"} == {e.provider_id for e in answer.entries}
    gone = next(e for e in answer.entries if e.provider_id == "p4")
    assert 0.2 < gone.uptime_pct < 0.4
    with pytest.raises(CoordError):
        asked(room, AskFeatures(provider_id="p3", as_of_ms=NOW - 10 * D), Features)


def test_network_is_over_everybody_seen(room: Room) -> None:
    """Four of six were seen in the window; two of them are highly reliable."""
    answer = asked(room, AskNetwork(), NetworkAvailability)
    assert (4, 2) == (answer.providers, answer.highly_reliable)
    assert answer.p10_uptime_pct is not None and answer.p90_uptime_pct is not None
    assert answer.p10_uptime_pct <= answer.p90_uptime_pct


def test_availability_of_one_and_of_all(room: Room) -> None:
    """Seconds observed add up to two weeks; the daily provider's nights are empty on its own clock."""
    one = asked(room, AskAvailability(provider_id="p1", time_zone="Asia/Kolkata"), Availability)
    assert 14 * 86_400 == pytest.approx(sum(map(sum, one.observed_seconds)), abs=1)
    assert 9 / 24 == pytest.approx(one.uptime_pct or 0, abs=0.03)
    everybody = asked(room, AskAvailability(), Availability)
    assert everybody.provider_id is None
    assert sum(map(sum, everybody.observed_seconds)) > sum(map(sum, one.observed_seconds))


def test_backtest_says_what_is_missing(tmp_path: Path) -> None:
    """With four days of history there is no cut, and the note says how much is needed."""
    room = room_of(tmp_path, MemoryTruth([Row(0, NOW - 4 * D, ours=True)]))
    answer = asked(room, AskBacktest(), Backtest)
    assert 0 == answer.cuts
    assert "too little history: 4.0 of 14.2 days" == answer.note
    assert [None, None, None] == [h.auc for h in answer.horizons]


def test_figures_for_the_core(room: Room) -> None:
    """Published: everybody seen, curves that fall and rise, stays only for those online."""
    assert room.now is not None
    event = room.now.published()
    by_name: dict[str, ProviderFigures] = {f.provider_id: f for f in event.providers}
    assert {"p0", "p1", "p2", "p3"} == set(by_name)
    assert len(event.horizons_ms) == len(by_name["p0"].stays) and len(event.delays_ms) == len(by_name["p0"].returns)
    stays = event.fleet_stays.p
    assert sorted(stays, reverse=True) == list(stays) and sorted(event.fleet_returns.p) == list(event.fleet_returns.p)
    assert len(event.fleet_stays.at_ms) <= 200


def test_snapshots_hold_the_documented_columns(room: Room, tmp_path: Path) -> None:
    """Every published file has its columns with their types, and the fleet's rows."""
    room.publish()
    for name, schema in SCHEMAS.items():
        with duckdb.connect() as con:
            path = str(tmp_path / "w" / "views" / f"{name}.parquet")
            found = con.execute("DESCRIBE FROM read_parquet(?)", [path]).fetchall()
            assert schema == {row[0]: row[1] for row in found}, name
    with duckdb.connect() as con:
        (rows,) = con.execute(f"SELECT count(*) FROM '{tmp_path}/w/views/features.parquet'").fetchall()[0]
    assert 4 == rows


def test_wire_names_are_the_wires() -> None:
    """The numbers in telemetry mean the same words here."""
    assert (wire.STATUSES, wire.THERMALS) == (STATUSES, THERMALS)
