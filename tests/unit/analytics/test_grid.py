"""The 7x24 grid: every second in its hour, on anybody's clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.reliability import grid
from analytics.reliability.columns import as_of
from analytics.reliability.features import hourly, window_of
from tests.unit.analytics.histories import T0, D, H, M, Row, fleet


def at(zone: str, text: str) -> int:
    """Unix ms of a wall clock's reading."""
    return int(datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).timestamp() * 1000)


def by_minutes(spans: list[tuple[int, int]], zone: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """The same by asking the clock at every minute. Spans begin and end on whole minutes."""
    cells = np.zeros(168)
    for begin, end in spans:
        for minute in range(begin, end, M):
            told = datetime.fromtimestamp(minute / 1000, tz=UTC).astimezone(ZoneInfo(zone))
            cells[told.weekday() * 24 + told.hour] += 60
    return cells


def folded(spans: list[tuple[int, int]], zone: str, from_ms: int, to_ms: int) -> list[float]:
    """One row's cells."""
    begin, end = np.array([a for a, _ in spans], np.int64), np.array([b for _, b in spans], np.int64)
    return list(grid.fold(np.zeros(len(spans), np.int32), begin, end, 1, from_ms, to_ms, zone)[0])


def test_monday_first_in_utc() -> None:
    """2024-01-01 was a Monday: an hour from 00:30 is half in its first cell, half in its second."""
    begin = at("UTC", "2024-01-01T00:30")
    cells = folded([(begin, begin + H)], "UTC", begin - D, begin + D)
    assert [1800.0, 1800.0, 0.0] == cells[:3]
    assert 3600.0 == sum(cells)


def test_half_hour_zone() -> None:
    """In Kolkata (+5:30) a whole UTC hour lies half in one hour and half in the next."""
    begin = at("UTC", "2024-01-01T00:00")
    cells = folded([(begin, begin + H)], "Asia/Kolkata", begin - D, begin + D)
    assert [1800.0, 1800.0] == cells[5:7]


@pytest.mark.parametrize(
    ("zone", "change"),
    [
        ("Europe/Berlin", "2024-03-31T01:00"),
        ("America/New_York", "2024-11-03T06:00"),
        ("Australia/Lord_Howe", "2024-04-06T15:00"),
    ],
)
def test_change_of_the_clock(zone: str, change: str) -> None:
    """Forward by an hour, back by an hour, back by half an hour: minute for minute what the clock showed."""
    middle = at("UTC", change)
    spans = [(middle - 5 * H + 7 * M, middle + 4 * H + 11 * M)]
    assert by_minutes(spans, zone).tolist() == pytest.approx(folded(spans, zone, middle - 7 * D, middle + 7 * D))


def test_unknown_zone_is_refused() -> None:
    """A name that is no zone, or tries to be a path."""
    for name in ("Mars/Olympus", "../../etc/passwd", "", "/etc/localtime"):
        with pytest.raises(ValueError, match="no time zone"):
            grid.offsets(name, T0, T0 + D)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 14 * 24 * 60), st.integers(0, 3000)), max_size=4),
    st.sampled_from(("UTC", "Asia/Kathmandu", "Europe/Berlin", "America/St_Johns")),
)
def test_every_minute_is_in_its_cell(found: list[tuple[int, int]], zone: str) -> None:
    """Against asking the clock at each minute, over two weeks with a change of the clock in Berlin and St John's."""
    base = at("UTC", "2024-10-25T00:00")
    spans = [(base + a * M, base + (a + n) * M) for a, n in found]
    whole = (base - D, base + 18 * D)
    assert by_minutes(spans, zone).tolist() == pytest.approx(folded(spans, zone, *whole))


def test_rows_of_many_blocks_stay_apart() -> None:
    """More providers than a block holds: each row has its own time and nobody else's."""
    n = 3 * 256 + 5
    begin = np.array([T0 + i * M for i in range(n)], np.int64)
    cells = grid.fold(np.arange(n, dtype=np.int32), begin, begin + (np.arange(n) + 1) * 1000, n, T0, T0 + 7 * D)
    assert (np.arange(n) + 1).tolist() == pytest.approx(cells.sum(axis=1).tolist())


def test_online_never_exceeds_observed_and_the_unobserved_is_in_neither() -> None:
    """One provider, up but for an hour, with an outage of ours: cells say the share of what was seen."""
    now = T0 + 14 * D
    rows = [Row(0, T0, T0 + D, boot=1, ours=True), Row(0, T0 + D + H, boot=1, ours=True)]
    window = window_of(as_of(fleet(rows, [(T0 + 3 * D, T0 + 3 * D + 30 * M)]), now), now)
    online, observed = hourly(window)
    assert bool(np.all(online <= observed + 1e-6))
    assert window.observed_ms[0] / 1000 == pytest.approx(observed.sum())
    assert window.online_ms[0] / 1000 == pytest.approx(online.sum())
    weekday = (datetime.fromtimestamp(T0 / 1000, tz=UTC) + timedelta(days=3)).weekday()
    assert 2 * 3600 - 1800 == pytest.approx(observed[0, weekday * 24])
    some, seen = hourly(window, "UTC", np.array([0]))
    assert online.tolist() == some.tolist() and observed.tolist() == seen.tolist()
