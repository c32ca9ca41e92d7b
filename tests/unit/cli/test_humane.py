"""Times, lengths and sizes as people write and read them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from cli import humane
from coordinator.core.errors import CoordError

NOW = datetime(2026, 11, 22, 12, 0, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"), (0, "0s"), (0.44, "0.4s"), (9.96, "10.0s"), (59, "59s"), (59.7, "1m"), (61, "1m 1s"),
        (3600, "1h"), (3725, "1h 2m"), (90_000, "1d 1h"), (14 * 86400, "14d"), (-30, "-30s"),
    ],
)  # fmt: skip
def test_a_length_shows_its_two_largest_units(seconds: float | None, text: str) -> None:
    """Never a unit of zero, never more than two."""
    assert humane.length(seconds) == text


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (None, "-"),
        ("2026-11-22T11:59:48.000Z", "12s ago"),
        ("2026-11-22T09:30:00.000Z", "2h ago"),
        ("2026-11-22T15:00:00.000Z", "in 3h"),
        ("2026-11-22T12:00:00.400Z", "now"),
    ],
)
def test_a_moment_is_told_by_its_distance(at: str | None, text: str) -> None:
    """Past, future, and a clock that is a little ahead."""
    assert humane.ago(at, NOW) == text


@pytest.mark.parametrize(("text", "size"), [("512", 512), ("64MB", 64_000_000), ("1.5GiB", 1_610_612_736), ("0", 0)])
def test_sizes_have_decimal_and_binary_units(text: str, size: int) -> None:
    """MB is 10^6, MiB is 2^20."""
    assert humane.size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-1", "1 elephant", "1e9", "٣GB\x1b"])
def test_what_is_no_size_is_refused_and_said(text: str) -> None:
    """The message shows what was given, escaped."""
    with pytest.raises(CoordError) as refused:
        humane.size(text)
    assert ascii(text) in refused.value.message and refused.value.hint


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "-"),
        ("2026-11-22T12:00:00.400Z", "in 1s"),
        ("2026-11-22T12:00:59.100Z", "in 1m"),
        ("2026-11-29T12:00:00Z", "in 7d"),
        ("2026-11-22T11:59:48Z", "12s ago"),
    ],
)
def test_what_ends_says_when_and_never_that_it_has_ended_before(text: str | None, said: str) -> None:
    """A token in its last second is valid still, and the list says so."""
    assert humane.left(text, NOW) == said


def test_counts_have_their_plural() -> None:
    assert [humane.count(n, "session") for n in (0, 1, 2)] == ["0 sessions", "1 session", "2 sessions"]
