"""Listings in every format, and what may reach a terminal."""

from __future__ import annotations

import csv
import io
import json

import pytest
from msgspec import Struct

from cli import access, figures, heatmap, output, past, pool, providers, quality, terminal, usage
from coordinator.api_types.reliability import Availability, Backtest, BacktestHorizon


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


WIDE = (
    output.Column("NAME", lambda t: t.name),
    output.Column("WHAT", lambda t: t.labels["what"], whole=True),
    output.Column("SPARE", lambda t: "spare", spare=True),
    output.Column("SHARE", lambda t: "0.5", right=True, explained="SHARE OF IT"),
)


def table(fit: int | None, name: str = "a-name-of-some-length", what: str = "words") -> list[str]:
    out = io.StringIO()
    output.print_table([Thing(name=name, labels={"what": what})], WIDE, out, fit=fit)
    return out.getvalue().splitlines()


def test_a_table_that_fits_is_whole() -> None:
    assert "SPARE" in table(80)[0] and "a-name-of-some-length" in table(80)[1]


def test_a_narrow_terminal_loses_spare_columns_first_then_the_ends_of_long_texts() -> None:
    """No line is longer than the terminal; what a listing is about stays."""
    without_spare, cut = table(40), table(26)
    assert "SPARE" not in without_spare[0] and "a-name-of-some-length" in without_spare[1]
    assert max(map(len, cut)) <= 26 and "a-name-of-s…" in cut[1] and "0.5" in cut[1]


def test_nothing_is_cut_where_no_terminal_is() -> None:
    assert "x" * 200 in table(None, name="x" * 200)[1]


def test_a_sentence_is_never_cut() -> None:
    """The terminal wraps it."""
    assert "w" * 90 in table(40, what="w" * 90)[1]


def test_wide_titles_explain_themselves(capsys: pytest.CaptureFixture[str]) -> None:
    answer = Things(entries=(Thing(name="a", labels={"what": "x"}),))
    output.listing(answer, WIDE, "wide", name=lambda t: str(t.name))
    assert "SHARE OF IT" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [providers.COLUMNS, figures.RELIABILITY, access.TOKENS, past.SESSIONS])
def test_titles_of_the_narrow_tables_leave_room_for_their_cells(columns: tuple[output.Column, ...]) -> None:
    narrow = [column for column in columns if not column.wide]
    assert sum(len(column.title) + output.GAP for column in narrow) <= 72


@pytest.mark.parametrize("columns", [usage.NOW, pool.CAPACITY])
def test_tables_of_many_figures_fit_an_ordinary_terminal_without_their_spare_columns(
    columns: tuple[output.Column, ...],
) -> None:
    """With cells of eight characters; of what a tenant uses its cost and what is left of its budget stay."""
    narrow = [column for column in columns if not column.wide]
    kept, widths = output.fitted(narrow, [max(len(column.title), 8) for column in narrow], 80)
    assert sum(widths) + output.GAP * (len(kept) - 1) <= 80
    assert {"TENANT", "COST", "LEFT"} <= {narrow[at].title for at in kept} or columns is pool.CAPACITY


def test_names_of_providers_are_whole_beside_their_figures_on_sixty_columns() -> None:
    """Cut, `newcomer-002` and `newcomer-008` are the same."""
    narrow = [column for column in figures.RELIABILITY if not column.wide]
    longest = {"PROVIDER": 12, "MTBF": 8}
    kept, widths = output.fitted(narrow, [longest.get(c.title, max(len(c.title), 5)) for c in narrow], 60)
    assert widths[0] == 12 and sum(widths) + output.GAP * (len(kept) - 1) <= 60


def test_a_week_in_long_form_is_a_row_an_hour(capsys: pytest.CaptureFixture[str]) -> None:
    """7 x 24 rows in the order of the week; null where nothing was observed, null too for the whole fleet."""
    grid = tuple(tuple(None if hour == 3 else day / 10 for hour in range(24)) for day in range(7))
    seconds = tuple(tuple(0.0 if hour == 3 else 60.0 for hour in range(24)) for _ in range(7))
    week = Availability(
        provider_id=None, as_of="2026-11-22T12:00:00Z", window_days=14.0, time_zone="UTC",
        hourly_availability=grid, observed_seconds=seconds, uptime_pct=0.5,
    )  # fmt: skip
    figures.print_availability(week, "csv")
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert len(rows) == 168
    assert rows[25] == {"provider_id": "", "weekday": "1", "hour": "1", "share": "0.1", "observed_seconds": "60.0"}
    assert rows[3]["share"] == ""
    figures.print_availability(week, "jsonl")
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[3] == {"provider_id": None, "weekday": 0, "hour": 3, "share": None, "observed_seconds": 0.0}


def test_a_backtest_without_a_past_says_so_and_shows_no_table(capsys: pytest.CaptureFixture[str]) -> None:
    """JSON stays what it is."""
    nothing = Backtest(
        from_=None, to=None, cuts=0, every_s=43200.0, window_s=1209600.0, model="rate",
        horizons=(BacktestHorizon(horizon_s=28800.0, n=0, base_rate=None, auc=None, brier=None, log_loss=None,
                                  brier_base_rate=None, calibration=()),),
        note="too little history: 0.0 of 14.2 days",
    )  # fmt: skip
    quality.print_backtest(nothing, "table")
    assert capsys.readouterr() == ("", "too little history: 0.0 of 14.2 days\n")
    quality.print_backtest(nothing, "json")
    assert json.loads(capsys.readouterr().out)["horizons"][0]["n"] == 0
