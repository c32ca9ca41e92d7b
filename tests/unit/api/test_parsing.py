"""Text that comes from outside: times, lengths, queries and bodies are taken, or refused as what they are."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.api_types.access import TokenRequest
from coordinator.api_types.fleet import DrainRequest
from coordinator.api_types.operations import SqlRequest
from coordinator.core.errors import Code, CoordError
from coordinator.service.api.fleet import ProvidersQuery
from coordinator.service.api.query import parse_query
from coordinator.service.api.reliability import BacktestQuery, ReliabilityQuery
from coordinator.service.api.uploads import decode_body
from coordinator.timetext import (
    asked_duration,
    asked_time,
    duration_text,
    optional_text,
    parse_duration,
    parse_time,
    to_text,
)

LAST_MS = 253_402_300_799_999


@given(st.integers(0, LAST_MS))
def test_a_time_survives_being_written_and_read(ms: int) -> None:
    """Exact to the millisecond over all years, always 24 characters, ordered like the numbers."""
    text = to_text(ms)
    assert ms == parse_time(text) and 24 == len(text) and text.endswith("Z")
    assert (to_text(max(0, ms - 1)) <= text) and optional_text(ms) == text and optional_text(None) is None


@given(st.integers(0, 10**10), st.integers(-14 * 60, 14 * 60))
def test_a_moment_is_the_same_in_every_zone_and_in_unix_seconds(seconds: int, offset_min: int) -> None:
    """ISO 8601 with any offset, with a space or a T, and the number of seconds mean one time."""
    moment = datetime.fromtimestamp(seconds, UTC).astimezone(timezone(timedelta(minutes=offset_min)))
    assert seconds * 1_000 == parse_time(moment.isoformat()) == parse_time(moment.isoformat(" "))
    assert seconds * 1_000 == parse_time(str(seconds)) == parse_time(f"{seconds}.0")


@pytest.mark.parametrize(
    "text", ["", "now", "2026-11-22", "2026-11-22T10:00:00", "1e9", "inf", "nan", "0x10", "1_000", "-1", "9" * 17, " 5"]
)
def test_what_is_no_time_is_refused_by_name(text: str) -> None:
    """BAD_REQUEST that names the parameter; nothing is guessed, a missing zone least of all."""
    with pytest.raises(CoordError) as caught:
        asked_time(text, "as_of")
    assert Code.BAD_REQUEST is caught.value.code and caught.value.message.startswith("as_of: ")


@given(st.integers(0, 10**12))
def test_a_length_of_time_survives_being_written_and_read(ms: int) -> None:
    """`duration_text` is the shortest text that means the same."""
    assert ms == parse_duration(duration_text(ms))


@pytest.mark.parametrize(
    ("text", "ms"), [("30s", 30_000), ("5m", 300_000), ("8h", 28_800_000), ("7d", 604_800_000), ("1.5h", 5_400_000)]
)
def test_lengths_are_written_as_people_write_them(text: str, ms: int) -> None:
    """A number and a unit."""
    assert ms == parse_duration(text)


@pytest.mark.parametrize("text", ["", "8", "h", "-8h", "8 h", "8H", "8hours", "1e3s", "\u0668h", "31d", "59s"])
def test_a_length_that_is_none_or_out_of_range_is_refused_with_the_bounds(text: str) -> None:
    """The hint says from where to where."""
    with pytest.raises(CoordError) as caught:
        asked_duration(text, "horizon", 60_000, 30 * 86_400_000)
    assert "1m to 30d" in caught.value.hint and caught.value.message.startswith("horizon: ")


@given(st.text(max_size=60), st.sampled_from([ReliabilityQuery, ProvidersQuery, BacktestQuery]))
def test_any_query_is_taken_or_refused(text: str, into: type[ReliabilityQuery]) -> None:
    """Never another error than BAD_REQUEST, and the answer never repeats more than a little of it."""
    for query in (text, f"limit={text}", f"min_score={text}&page={text}", f"{text}={text}"):
        try:
            parse_query(query, into)
        except CoordError as error:
            assert Code.BAD_REQUEST is error.code
            assert str(error).isprintable()


@given(st.binary(max_size=60), st.sampled_from([TokenRequest, DrainRequest, SqlRequest]))
def test_any_body_is_taken_or_refused(body: bytes, into: type[TokenRequest]) -> None:
    """Never another error than BAD_REQUEST."""
    for sent in (body, b'{"role":' + body + b"}", b'{"' + body + b'":1}', b"[" * len(body) * 100):
        try:
            decode_body(sent, "application/json", into)
        except CoordError as error:
            assert Code.BAD_REQUEST is error.code
