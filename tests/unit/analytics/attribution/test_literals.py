"""What a pattern requires is in every line that it matches."""

from __future__ import annotations

import pytest
import re2

from analytics.attribution.literals import required
from tests.unit.analytics.attribution.told import rules


@pytest.mark.parametrize(
    ("pattern", "texts"),
    [
        (r"Kill(?:ed)? process", {"Kill process", "Killed process"}),
        (r"(?:foo|bar).{0,20}(?:bazz|\d{3,5} quxx)", {"bazz", " quxx"}),
        (r"(?i)Foo\d+bar", {"foo"}),
        (r"[Ss]pot yz", {"Spot yz", "spot yz"}),
        (r"(?:ab){2}c", {"ababc"}),
        (r"x(?:abc)*yzz", {"yzz"}),
        (r"a[]b]cde", {"a]cde", "abcde"}),
        (r"\bcode: +(\d+)\.$", {"code:"}),
        (r"(?P<node>\S+) died of", {" died of"}),
    ],
)
def test_what_is_required(pattern: str, texts: set[str]) -> None:
    """One of these texts."""
    need = required(pattern)
    assert need is not None
    assert texts == need.texts


@pytest.mark.parametrize(
    "pattern", [r"^\d+$", r"abc|\d", r"(?:abc)?", r"", r"ab", r"\QABC\E", r"\pLabc", r"[[:alpha:]]abc"]
)
def test_nothing_may_be_required(pattern: str) -> None:
    """Of what it does not understand it says nothing."""
    assert required(pattern) is None


def test_every_example_of_the_table_passes_the_gate() -> None:
    """Its row's texts and form are found in it, whatever its prefix."""
    missed = []
    for row in rules().rows:
        need = required(row.pattern)
        if need is None or row.where:
            continue
        line = "[rank0]: 2024-01-01 00:00:00 " + row.example
        held = any(text.lower() in line.lower() if need.folds else text in line for text in need.texts)
        if not held or not re2.search(need.form, line):
            missed.append(row.id)
    assert [] == missed
