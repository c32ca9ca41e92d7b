"""Cells of CSV files: no text of ours is calculated by a spreadsheet, and numbers stay numbers."""

from __future__ import annotations

import pytest

from coordinator.csvtext import cell


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "@SUM(A1)", "-cmd|'/c calc'!A0", "\t=1", "\r=1", "-", "-1-1", "-1e5", "-.", "-1.2.3"]
)
def test_what_would_be_calculated_is_text(text: str) -> None:
    """An apostrophe before it, and nothing else is changed."""
    assert "'" + text == cell(text)


@pytest.mark.parametrize("text", ["", "lab-07", "-5", "-0.25", "12", "a=b", "1+1", "2026-11-22T04:31:05.123Z"])
def test_everything_else_stays_as_it_is(text: str) -> None:
    """Names, times, and numbers below zero."""
    assert text == cell(text)
