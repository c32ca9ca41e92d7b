"""Where a path stands in the text of a TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.jobfile import line_of
from tests.unit.jobfile.examples import EVERYTHING

TEXT = '''name = "a # [b]"  # c
"quoted key" = 1
a.b . c = 2
text = """
x = 1
[[step]]
"""
literal = \'\'\'
y = "\'\'\'
[table]
list = [
  1,
  { deep = [ "]", 2 ] }, # x
]
time = 1979-05-27 07:32:00
[[step]]
one = 1
[step.retry]
limit = 1
[[step]]
two = { three = { four = 4 } }
[[step.part]]
p = 1
[[step.part]]
p = 2
'''


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("name", 1),
        ("'quoted key'", 2),
        ("a.b.c", 3),
        ("text", 4),
        ("literal", 8),
        ("table", 10),
        ("table.list", 11),
        ("table.list[0]", 12),
        ("table.list[1].deep", 13),
        ("table.list[1].deep[1]", 13),
        ("table.time", 15),
        ("step", 16),
        ("step[0].one", 17),
        ("step[0].retry", 18),
        ("step[0].retry.limit", 19),
        ("step[1]", 20),
        ("step[1].two.three.four", 21),
        ("step[1].part[0].p", 23),
        ("step[1].part[1].p", 25),
        ("step[0].retry.none", 18),
        ("step[1].none[3].x", 20),
        ("x", None),
        ("nothing", None),
        ("", None),
    ],
)
def test_a_path_is_found_on_its_line_or_the_nearest_table_around_it(path: str, line: int | None) -> None:
    """Strings, comments, dotted keys and arrays of tables included."""
    tomllib.loads(TEXT)
    assert line == line_of(TEXT, path)


def paths(value: Any, path: str = "") -> Iterator[str]:
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from paths(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from paths(inner, f"{path}[{i}]")


def test_every_path_of_the_example_is_on_a_line_that_holds_its_key() -> None:
    """All of a real file."""
    lines = EVERYTHING.split("\n")
    for path in paths(tomllib.loads(EVERYTHING)):
        line = line_of(EVERYTHING, path)
        assert line is not None
        key = path.rpartition(".")[2].partition("[")[0]
        assert key in lines[line - 1], path


@given(st.text(max_size=80), st.text(max_size=20))
@settings(max_examples=200, deadline=None)
def test_no_text_and_no_path_is_too_odd(text: str, path: str) -> None:
    """A line of the text, or None."""
    line = line_of(text, path)
    assert line is None or 1 <= line <= text.count("\n") + 1
