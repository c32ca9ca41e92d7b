"""Patterns over paths: what they name, what is no pattern, and that none takes for ever."""

from __future__ import annotations

import fnmatch
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.errors import Code, CoordError
from coordinator.globs import is_plain, matches, normal


@pytest.mark.parametrize(
    ("pattern", "path", "named"),
    [
        ("model.pt", "model.pt", True),
        ("model.pt", "a/model.pt", False),
        ("*.pt", "model.pt", True),
        ("*.pt", "a/model.pt", False),
        ("*.pt", ".pt", True),
        ("*", ".hidden", True),
        ("?.pt", "ab.pt", False),
        ("[ab]?.pt", "b7.pt", True),
        ("[!ab].pt", "a.pt", False),
        ("[a-c-].pt", "-.pt", True),
        ("[]x].pt", "].pt", True),
        ("[*].pt", "*.pt", True),
        ("[*].pt", "a.pt", False),
        ("[.pt", "[.pt", True),
        ("A.pt", "a.pt", False),
        ("**", "a/b/c", True),
        ("**/*.pt", "model.pt", True),
        ("**/*.pt", "a/b/model.pt", True),
        ("a/**/b", "a/b", True),
        ("a/**/b", "a/x/y/b", True),
        ("a/**/b", "a/x/y/c", False),
        ("a/**", "a/x/y", True),
        ("a/**", "a", False),
        ("a/*", "a/x/y", False),
        ("**/a/**/b/*", "x/a/y/b/c", True),
        ("a*b*c", "axxbxxbxc", True),
        ("a*b*c", "axxbxxbx", False),
    ],
)
def test_what_a_pattern_names(pattern: str, path: str, named: bool) -> None:
    """Stars stay within a part, `**` crosses parts, classes and case count."""
    assert named is matches(normal(pattern), path)


@pytest.mark.parametrize(
    ("pattern", "is_"),
    [("./out/*.pt", "out/*.pt"), ("results/", "results/**"), (".//a", "a"), ("./results//", "results/**")],
)
def test_a_pattern_has_one_form(pattern: str, is_: str) -> None:
    """As people write them; a directory is everything beneath it."""
    assert is_ == normal(pattern)
    assert is_ == normal(is_)


@pytest.mark.parametrize(
    "pattern",
    ["", "/", "./", ".", "/etc/passwd", "../x", "a/../b", "a//b", "a\0b", "a\nb", "a**", "x/**y/z", "x" * 300],
)
def test_what_leads_out_of_the_directory_is_no_pattern(pattern: str) -> None:
    """Refused, with the reason."""
    with pytest.raises(CoordError) as caught:
        normal(pattern)
    assert Code.BAD_REQUEST is caught.value.code


def test_a_path_without_signs_is_itself() -> None:
    """Collecting one needs no walk over a directory."""
    assert is_plain("a/b.pt") and not is_plain("a/[b].pt") and not is_plain("a/**")


@given(st.text("ab*?[]!-", max_size=8), st.text("ab]!-", min_size=1, max_size=8))
@settings(max_examples=500, deadline=None)
def test_within_a_part_it_is_what_shells_do(pattern: str, name: str) -> None:
    """The standard library's meaning, where that is one: it has `**` as `*`, and its empty ranges are of its own."""
    if "**" in pattern or not pattern or "-" in pattern:
        return
    assert fnmatch.fnmatchcase(name, pattern) is matches(pattern, name)


def test_no_pattern_takes_for_ever() -> None:
    """The classical trap, at full length, on both levels: the product of the lengths and no more."""
    began = time.process_time()
    assert not matches("a*" * 100 + "b", "a" * 255)
    assert not matches("/".join(["**", "a"] * 100) + "/b", "/".join(["a"] * 250))
    assert time.process_time() - began < 1.0
