"""Patterns over paths: what they mean, and what they refuse to mean."""

from __future__ import annotations

import time

import pytest

from coordinator import globs
from coordinator.core.errors import CoordError


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("a.txt", "a.txt", True),
        ("a.txt", "aXtxt", False),
        ("./a.txt", "a.txt", True),
        ("*.txt", "a.txt", True),
        ("*.txt", "a\nb.txt", True),
        ("*.txt", "sub/a.txt", False),
        ("*.txt", "a.txt\n", False),
        ("sub/*", "sub/a", True),
        ("sub/*", "sub/a/b", False),
        ("sub/**", "sub/a/b", True),
        ("sub/**", "sub", False),
        ("**", "a", True),
        ("**", "a/b/c", True),
        ("**/*.bin", "x.bin", True),
        ("**/*.bin", "a/b/x.bin", True),
        ("a/**/z", "a/z", True),
        ("a/**/z", "a/b/c/z", True),
        ("a/**/z", "az", False),
        ("?.bin", "x.bin", True),
        ("?.bin", "xy.bin", False),
        ("a?b", "a/b", False),
        ("[abc].bin", "b.bin", True),
        ("[!abc].bin", "b.bin", False),
        ("[!abc].bin", "d.bin", True),
        ("a[!x]b", "a/b", False),
        ("[a-c]1", "b1", True),
        ("[]]", "]", True),
        ("[^a]", "^", True),
        ("x[", "x[", True),
        ("a+b(1).txt", "a+b(1).txt", True),
        ("*", ".hidden", True),
    ],
)
def test_a_pattern_means_what_its_page_says(pattern: str, path: str, expected: bool) -> None:
    """Stars stay within a part, `**` is for parts, and what is special to regular expressions is not special here."""
    assert expected is globs.matches(pattern, path)


@pytest.mark.parametrize("pattern", ["", "/etc/*", "../x", "a/../b", "a//b", "a/", "./", "a" * 1_025])
def test_a_pattern_that_leaves_its_directory_is_refused(pattern: str) -> None:
    """It is a mistake to tell, not one that matches nothing."""
    with pytest.raises(CoordError):
        globs.compiled(pattern)


@pytest.mark.parametrize(
    ("pattern", "path", "expected"),
    [
        ("[z-a]", "m", False),
        ("[!z-a]", "m", True),
        ("[&&~~||--]", "~", True),
        ("[a^]", "^", True),
        ("[a\\]", "\\", True),
        ("*a*b", "aab", True),
        ("*ab*ab", "ab", False),
        ("*ab*ab", "abcab", True),
        ("**/b/*", "a/b/b/c", True),
    ],
)
def test_what_regular_expressions_read_otherwise_means_what_it_says(pattern: str, path: str, expected: bool) -> None:
    """Ranges that run backwards, sets within sets, and stars that took too little at first."""
    assert expected is globs.matches(pattern, path)


def test_thousands_of_names_that_almost_match_cost_little() -> None:
    """The coordinator holds a tenant's names against a tenant's pattern: 1,024 of them (a result) in a moment, where
    each of the worst took 20 ms."""
    pattern, names = "*" + "a" * 120 + "b", ["a" * 250 + str(number) for number in range(1_024)]
    began_s = time.process_time()
    assert not any(globs.matches(pattern, name) for name in names)
    assert time.process_time() - began_s < 2.0


def test_a_hostile_pattern_costs_little() -> None:
    """The worst that the bounds let in, against a path that almost matches."""
    began_s = time.monotonic()
    assert not globs.matches("*a" * 500 + "b", "a" * 1_000 + "c")
    assert not globs.matches("**/*a*/" * 140 + "x", "a/" * 500 + "y")
    assert time.monotonic() - began_s < 5.0
