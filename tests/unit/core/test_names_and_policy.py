"""Names that come from outside, and the deadlines that follow the size of the fleet."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import NAME_CHARS_MAX, AttemptId, attempt_of, attempts_of, check_name
from coordinator.core.policy import Policy


@pytest.mark.parametrize("name", ["a", "A9", "rack-3.node_7", "gpu:0", "me@home", "a" * NAME_CHARS_MAX, "x_"])
def test_ordinary_names_are_taken_as_they_are(name: str) -> None:
    assert name == check_name(name, "provider")


@pytest.mark.parametrize(
    "name",
    ["", " a", "a ", "a/b", "..", "-a", "a-", ".a", "a\n", "a\x1b[31m", "<b>", "a" * (NAME_CHARS_MAX + 1), "ü", "a%2e"],
)
def test_what_could_hurt_a_terminal_a_url_or_a_path_is_refused_and_shown_harmlessly(name: str) -> None:
    with pytest.raises(CoordError) as caught:
        check_name(name, "provider")
    assert Code.BAD_REQUEST is caught.value.code
    assert str(caught.value).isascii() and str(caught.value).isprintable()
    assert len(str(caught.value)) < 250


def test_an_error_says_what_is_and_what_to_do() -> None:
    assert "no (do this)" == str(CoordError(Code.CONFLICT, "no", "do this"))
    assert "no" == str(CoordError(Code.CONFLICT, "no"))


@pytest.mark.parametrize(
    ("connected", "interval_ms"), [(0, 5_000), (10_000, 5_000), (10_001, 6_000), (100_000, 50_000)]
)
def test_the_interval_keeps_the_fleet_within_its_budget(connected: int, interval_ms: int) -> None:
    policy = Policy()
    assert interval_ms == policy.interval_ms(connected)
    assert connected / (interval_ms / 1_000) <= policy.heartbeat_budget_per_s


def test_nobody_is_lost_before_six_intervals() -> None:
    assert [30_000, 30_000, 300_000] == [Policy().lost_ms(i) for i in (1_000, 5_000, 50_000)]


def test_an_interval_below_a_second_is_kept_while_the_budget_allows_it() -> None:
    policy = Policy(heartbeat_interval_ms=500)
    assert [500, 500, 1_000] == [policy.interval_ms(connected) for connected in (1, 1_000, 1_001)]


def test_a_name_that_is_none_is_told_in_proper_words() -> None:
    with pytest.raises(CoordError, match="the name of an artifact"):
        check_name("a b", "artifact")
    with pytest.raises(CoordError, match="the name of a pool"):
        check_name("a b", "pool")


def read_one_by_one(names: list[str]) -> tuple[AttemptId, ...] | str:
    try:
        return tuple(map(attempt_of, names))
    except CoordError as error:
        return str(error)


def read_together(names: list[str]) -> tuple[AttemptId, ...] | str:
    try:
        return attempts_of(names)
    except CoordError as error:
        return str(error)


NUMBERS = st.tuples(*[st.integers(0, 10**15)] * 4).map(lambda numbers: ".".join(map(str, numbers)))
ODD = st.sampled_from(
    ("1.0.0", "1.0.0.1.1", "1.0.0.1],[1.0.0.2", "1,0,0,1", "", "01.0.0.1", "-0.0.0.1", "1.0.0.1 ", "1.0.0.²")
)


@given(st.lists(NUMBERS | ODD | st.text("0123456789.,[]", max_size=9), max_size=6))
def test_many_names_of_attempts_are_read_as_each_of_them_would_be(names: list[str]) -> None:
    """Whatever stands in them: no two are taken for one, and none for two."""
    assert read_one_by_one(names) == read_together(names)
