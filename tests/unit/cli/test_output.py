"""Listings in every format, and what may reach a terminal."""

from __future__ import annotations

import csv
import io
import json

import pytest
from msgspec import Struct

from cli import heatmap, output, terminal


class Thing(Struct, frozen=True, kw_only=True):
    name: str
    share: float | None = None
    labels: dict[str, str] = {}
    parts: tuple[str, ...] = ()
    good: bool = True


class Things(Struct, frozen=True, kw_only=True):
    entries: tuple[Thing, ...]
    next_page: str | None = None


COLUMNS = (
    output.Column("NAME", lambda t: t.name),
    output.Column("SHARE", lambda t: str(t.share), right=True),
    output.Column("PARTS", lambda t: "+".join(t.parts), wide=True),
)
SOME = Things(entries=(Thing(name="a", share=0.5, labels={"x": "1"}, parts=("p", "q")), Thing(name="long-name")))


def printed(capsys: pytest.CaptureFixture[str], form: output.Format, answer: Things = SOME) -> str:
    output.listing(answer, COLUMNS, form, name=lambda t: str(t.name))
    return capsys.readouterr().out


def test_a_table_is_aligned_and_leaves_wide_columns_away(capsys: pytest.CaptureFixture[str]) -> None:
    """Titles, then a row an entry, two spaces between columns, numbers to the right."""
    assert printed(capsys, "table") == "NAME       SHARE\na            0.5\nlong-name   None\n"


def test_wide_shows_every_column(capsys: pytest.CaptureFixture[str]) -> None:
    """`-o wide` is the table and more."""
    assert printed(capsys, "wide").splitlines()[1].split() == ["a", "0.5", "p+q"]


def test_json_is_the_answer_itself(capsys: pytest.CaptureFixture[str]) -> None:
    """`{"entries": [...], ...}` with the answer's field names, null for what is not known."""
    found = json.loads(printed(capsys, "json"))
    assert found["next_page"] is None
    assert found["entries"][1] == {"name": "long-name", "share": None, "labels": {}, "parts": [], "good": True}


def test_jsonl_is_an_entry_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Every line is a JSON object by itself."""
    assert [json.loads(line)["name"] for line in printed(capsys, "jsonl").splitlines()] == ["a", "long-name"]


def test_csv_has_every_field_and_reads_back(capsys: pytest.CaptureFixture[str]) -> None:
    """All fields, not only the table's; empty for null, JSON for what has parts."""
    rows = list(csv.DictReader(io.StringIO(printed(capsys, "csv"))))
    assert rows[0] == {"name": "a", "share": "0.5", "labels": '{"x":"1"}', "parts": '["p","q"]', "good": "true"}
    assert rows[1]["share"] == ""


def test_names_are_one_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """For `xargs`."""
    assert printed(capsys, "name") == "a\nlong-name\n"


@pytest.mark.parametrize(("form", "out"), [("table", ""), ("jsonl", ""), ("csv", ""), ("name", "")])
def test_an_empty_listing_prints_nothing_to_stdout(
    capsys: pytest.CaptureFixture[str], form: output.Format, out: str
) -> None:
    """Only JSON has something to say about nothing."""
    assert printed(capsys, form, Things(entries=())) == out


HOSTILE = "\x1b]0;owned\x07\x1b[2J\u202etxt\x9b31m\u2028next\rline\nline"


@pytest.mark.parametrize("form", ["table", "wide", "name", "json", "jsonl"])
def test_no_control_character_from_outside_reaches_stdout(
    capsys: pytest.CaptureFixture[str], form: output.Format
) -> None:
    """Whatever a name holds: no escape, no bidi override, no line break that was not ours."""
    text = printed(capsys, form, Things(entries=(Thing(name=HOSTILE, share=1.0),)))
    assert not set(text) & set("\x1b\x07\x9b\u202e\u2028\r")
    if form in ("table", "wide"):
        assert len(text.splitlines()) == 2


def test_safe_json_stays_the_same_json() -> None:
    """Escaping what a terminal must not see changes no value."""
    encoded = json.dumps({"name": HOSTILE}, ensure_ascii=False)
    assert json.loads(terminal.safe_json(encoded)) == {"name": HOSTILE}


def test_no_color_and_pipes_have_no_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    """Colour needs a terminal and no NO_COLOR."""

    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert terminal.has_colour(Screen())
    assert not terminal.has_colour(io.StringIO())
    monkeypatch.setenv("NO_COLOR", "1")
    assert not terminal.has_colour(Screen())


def grid(value: float | None = None) -> list[list[float | None]]:
    return [[value] * 24 for _ in range(7)]


def test_the_plain_heatmap_has_a_row_a_day_and_a_digit_an_hour() -> None:
    """Tenths as digits, # for all of it, a point where nothing was observed."""
    cells = grid()
    cells[0][0], cells[0][1], cells[6][23] = 1.0, 0.0, 0.55
    out = io.StringIO()
    heatmap.draw(cells, out)
    lines = out.getvalue().splitlines()
    assert lines[1].split() == ["Mon", "#", "0", *["."] * 22]
    assert lines[7].split() == ["Sun", *["."] * 23, "5"]
    assert "\x1b" not in out.getvalue()
    assert max(len(line) for line in lines) <= 80


@pytest.mark.parametrize(("share", "tenth"), [(0.0, 0), (0.0999, 0), (0.1, 1), (0.3, 3), (0.7, 7), (0.99, 9), (1.0, 9)])
def test_a_tenth_begins_at_its_own_value(share: float, tenth: int) -> None:
    """0.3 is the third tenth though 0.3 * 10 is not 3 in binary."""
    assert heatmap.tenth(share) == tenth
