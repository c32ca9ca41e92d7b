"""The table of signatures and what is said of causes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from analytics.attribution.rules import Row
from analytics.attribution.taxonomy import CLASSES
from coordinator.core.verdict.rows import Cause, Fault, Recommendation, Role
from tests.unit.analytics.attribution.told import rules

CAUSES_PAGE = Path(__file__).parents[4] / "docs/reference/causes.md"
FRAMES = {
    "checkpoint_eof": b"train.py:main\ntorch/serialization.py:load",
    "any_exception": b"train.py:main",
    "loader_thread_cut": b"threading.py:run\ntorch/utils/data/_utils/pin_memory.py:_pin_memory_loop",
}
"""Of the tracebacks that rows with `where` ask for."""
REMEDIES = (Recommendation.RESTART, Recommendation.RESTART_ELSEWHERE, Recommendation.STOP)


@pytest.mark.parametrize("row", rules().rows, ids=lambda row: row.id)
def test_a_rows_example_is_known_by_that_row(row: Row) -> None:
    """No row above it takes its example away, and its pattern matches what it is meant for."""
    assert bool(row.where) == (row.id in FRAMES)
    found = rules().classify(row.example.encode(), FRAMES.get(row.id, b""))
    assert found is not None
    assert row.id == found.id


def test_harmless_rows_ask_for_nothing_and_failing_ones_for_a_remedy() -> None:
    """Benign and progress rows are `ok` and do nothing; every other one says what to do, and of what cause it is."""
    for row in rules().rows:
        if row.role in (Role.BENIGN, Role.PROGRESS):
            assert (row.cause, row.first, row.repeat) == (Cause.OK, Recommendation.OK, Recommendation.OK), row.id
        else:
            assert row.cause is not Cause.OK, row.id
            assert row.first in REMEDIES, row.id
            assert row.repeat in REMEDIES, row.id


def test_a_repeat_is_never_milder_than_the_first_time() -> None:
    """What STOPs at once does not restart when it comes again."""
    for row in rules().rows:
        if row.first is Recommendation.STOP:
            assert row.repeat is Recommendation.STOP, row.id


def test_what_is_said_of_a_row_fits_into_a_sentence() -> None:
    """Notes stand in summaries behind the headline of their cause: no full stop, no capital, something to read."""
    for row in rules().rows:
        if row.role is Role.PROGRESS:
            continue
        assert len(row.note) >= 15, row.id
        assert not row.note.endswith("."), row.id


def test_every_cause_has_words_and_a_signature_or_an_exit() -> None:
    """No class is without a headline, advice, and a way to be found."""
    assert set(Cause) == set(CLASSES)
    found = {row.cause for row in rules().rows}
    for cause, kind in CLASSES.items():
        assert kind.headline
        assert kind.advice or cause is Cause.OK
        assert cause in found | {Cause.UNKNOWN, Cause.OK}, cause


def test_only_a_provider_is_blamed_for_what_the_program_cannot_cause() -> None:
    """Suspicion of a provider rests on the classes that are its own."""
    assert {Cause.GPU_HARDWARE, Cause.NODE_FAILURE} == {
        cause for cause, kind in CLASSES.items() if kind.fault is Fault.PROVIDER
    }


def test_every_cause_is_documented() -> None:
    """docs/reference/causes.md has a section for each class, that names its fault and the default action."""
    page = CAUSES_PAGE.read_text("utf-8")
    sections = dict(re.findall(r"^### `(\w+)`\n(.*?)(?=^### |^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert {cause.value for cause in Cause} == set(sections)
    for cause, kind in CLASSES.items():
        assert f"fault: {kind.fault.value}" in sections[cause.value], cause
        assert kind.action.value in sections[cause.value], cause


def test_every_column_of_the_table_is_documented() -> None:
    """Users write rows of their own: the page says what each column holds."""
    page = CAUSES_PAGE.read_text("utf-8")
    for column in (*Row.__struct_fields__[:2], "action_first", "action_repeat", "pattern", "example", "note", "where"):
        assert f"`{column}`" in page, column
