"""Patterns as people write them, in one form; and what the matching of one part means."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.errors import Code, CoordError
from coordinator.globs import matches
from coordinator.jobfile.patterns import normal


@pytest.mark.parametrize(
    ("pattern", "is_"),
    [("./out/*.pt", "out/*.pt"), ("results/", "results/**"), (".//a", "a"), ("./results//", "results/**")],
)
def test_a_pattern_has_one_form(pattern: str, is_: str) -> None:
    """As people write them; a directory is everything beneath it."""
    assert is_ == normal(pattern)
    assert is_ == normal(is_)
    assert not matches(normal("results/"), "results") and matches(normal("results/"), "results/a/b")


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "./", ".", "/etc/passwd", "../x", "a/../b", "a//b", "a\0b", "a\nb", "a**", "x/**y/z", "x" * 300],
)
def test_what_leads_out_of_the_directory_is_no_pattern(pattern: str) -> None:
    """Refused, with the reason."""
    with pytest.raises(CoordError) as caught:
        normal(pattern)
    assert Code.BAD_REQUEST is caught.value.code


@given(st.text("ab*?[]!", min_size=1, max_size=8), st.text("ab]!", min_size=1, max_size=8))
@settings(max_examples=300, deadline=None)
def test_within_a_part_a_pattern_means_what_it_does_in_a_shell(pattern: str, name: str) -> None:
    """The standard library's meaning; it knows no `**`."""
    if "**" not in pattern:
        assert fnmatch.fnmatchcase(name, pattern) is matches(pattern, name)
