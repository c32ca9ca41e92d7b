"""The table, and users' own rows before it."""

from __future__ import annotations

from pathlib import Path

import pytest

from analytics.attribution.rules import COLUMNS, ROWS_MAX, Rules
from coordinator.core.errors import Code, CoordError
from tests.unit.analytics.attribution.told import rules

HEADER = "\t".join(COLUMNS) + "\n"


def row(pattern: str, example: str = "abc") -> str:
    """One row, `ours`."""
    return f"ours\tuser_code\troot\tSTOP\tSTOP\t{pattern}\t{example}\ta note\n"


def table(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "rows.tsv"
    path.write_text(text)
    return path


def test_users_rows_are_asked_first(tmp_path: Path) -> None:
    """Also where a row of the project knows the line; one with the same id replaces that."""
    own = rules().classify(b"OSError: [Errno 28] No space left on device")
    assert own is not None
    ours = Rules.load(
        table(tmp_path, HEADER + "# ours\n\n" + row("No space left on device", "No space left on device"))
    )
    found = ours.classify(b"OSError: [Errno 28] No space left on device")
    assert found is not None
    assert found.id == "ours"
    assert ours.digest != rules().digest
    replaced = Rules.load(
        table(tmp_path, HEADER + row("nobody writes this", "nobody writes this").replace("ours", own.id))
    )
    assert len(replaced.rows) == len(rules().rows)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "header"),
        ("id\tcause\n", ":1: the first line is not the header"),
        (HEADER + "one\ttwo\n", ":2: no role"),
        (HEADER + row("abc(") + "\n", ":2: RE2 does not take"),
        (HEADER + "\n" + row(r"(?=look)ahead"), ":3: RE2 does not take"),
        (HEADER + row(r"\d+"), "nothing of 3 characters"),
        (HEADER + row("(" * 300 + "abc" + ")" * 300), "nested more than 64 deep"),
        (HEADER + row("abc").replace("root", "trunk"), "'trunk' is no role: there are root, confirm, cascade"),
        (HEADER + row("abc").replace("user_code", "data_eror"), "'data_eror' is no cause: did you mean data_error?"),
        (HEADER + row("abc").replace("STOP", "HALT"), "'HALT' is no action_first"),
        (
            HEADER + row("abc") + row("def").replace("ours", "b"),
            ":3: the pattern 'def' does not match the example 'abc'",
        ),
        (HEADER + row("abc").replace("user_code", "ok"), "the role is root, and the cause ok is for benign"),
        (HEADER + row("abc").replace("root", "benign"), "the role is benign, and the cause user_code says"),
        (HEADER + row("abc").replace("user_code\troot", "ok\tbenign"), "the role is benign, so both actions are OK"),
        (HEADER + row("abc").replace("STOP\tSTOP", "OK\tSTOP"), "both actions are of RESTART, RESTART_ELSEWHERE, STOP"),
        (HEADER + row("abc") + row("abc"), ":3: the id 'ours' is there twice"),
        (HEADER + row("a" * 1_001), "1 to 1000 characters"),
        (HEADER + "".join(row("abc").replace("ours", f"r{i}") for i in range(ROWS_MAX + 1)), "more than 1000"),
    ],
)
def test_a_bad_table_is_refused_with_the_line(tmp_path: Path, text: str, said: str) -> None:
    """What is wrong, and where."""
    with pytest.raises(CoordError) as error:
        Rules.load(table(tmp_path, text))
    assert error.value.code is Code.BAD_CONFIG
    assert said.lower() in str(error.value).lower()


def test_a_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    """No file, no text, too long."""
    for path in (tmp_path / "none.tsv", tmp_path):
        with pytest.raises(CoordError, match="readable table"):
            Rules.load(path)
    with pytest.raises(CoordError, match="more than"):
        Rules.load(table(tmp_path, HEADER + "#" * (1 << 20)))


def test_named_groups_tell_rank_and_node(tmp_path: Path) -> None:
    """As a row of a user may name them."""
    ours = Rules.load(
        table(tmp_path, HEADER + row(r"node (?P<node>\S+) lost rank (?P<rank>\d+)(?P<x>!)?", "node a lost rank 1"))
    )
    found = ours.classify(b"oh: node n7 lost rank 12")
    assert found is not None
    assert {"node": b"n7", "rank": b"12"} == ours.named(found, b"oh: node n7 lost rank 12")


def test_a_row_with_frames_knows_the_end_of_a_traceback_alone(tmp_path: Path) -> None:
    """And requires no text of the line."""
    framed = row(r"^[A-Z]\w+$", "Odd").rstrip("\n") + "\tloader\\.py:fetch\n"
    ours = Rules.load(table(tmp_path, HEADER.rstrip("\n") + "\twhere\n" + framed))
    assert ours.classify(b"Odd") is None
    other = ours.classify(b"Odd", b"/a/main.py:run")
    assert other is not None
    assert other.id == "any_exception"
    found = ours.classify(b"Odd", b"/a/main.py:run\n/b/loader.py:fetch")
    assert found is not None
    assert found.id == "ours"


def test_one_line_takes_no_more_than_its_share() -> None:
    """16 KiB of texts that rows require, in 50 ms: how many rows are asked is bounded."""
    texts = sorted(rules()._asking)
    line = b" ".join(texts)[: 16 * 1024]
    assert len(rules()._asked(line)) <= 48


@pytest.mark.parametrize(
    ("pattern", "example", "rows"),
    [
        ("(?:(?:%s{}){{4}}){{4}}" % ("abcdefghij" * 60), ("abcdefghij" * 60 + "{0}") * 16, 90),
        ("[abcd][efgh][ijkl]" * 20 + "{}", "aei" * 20 + "{}", 500),
    ],
)
def test_rows_that_are_too_much_together_are_refused(tmp_path: Path, pattern: str, example: str, rows: int) -> None:
    """Each is taken by RE2 alone; the gate that they would make is not, and said so as a traceback."""
    many = "".join(row(pattern.format(i), example.format(i)).replace("ours", f"r{i}") for i in range(rows))
    with pytest.raises(CoordError, match="characters of text") as error:
        Rules.load(table(tmp_path, HEADER + many))
    assert error.value.code is Code.BAD_CONFIG
