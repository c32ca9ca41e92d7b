"""What the views of a trace print: on wide and narrow terminals, in colour and without, whatever jobs call things."""

from __future__ import annotations

import importlib
import io
import re
from types import ModuleType

import pytest
from msgspec import structs

from cli.trace import VIEWS
from cli.traceviews import critical, endtoend, gantt, lineage, queuing, rich
from cli.traceviews.compared import compared, imagined
from cli.traceviews.sheet import Sheet, bar, clock
from coordinator.api_types.trace import BadRow, Counts, DragEntry, Fold, Outcome, Profile, SegmentKind, Skew
from coordinator.api_types.trace_comparison import ComparedKind, ComparedSide, ComparedTask, Comparison, WhatIf
from coordinator.lengths import long
from tests.unit.cli.profiles import S, a_datum, a_graph, a_path, a_profile, a_segment, an_attempt, an_edge


class Terminal(io.StringIO):
    """A terminal of our own: what it shows is what was written."""

    def __init__(self, encoding: str = "utf-8", tty: bool = False) -> None:
        super().__init__()
        self._told = encoding
        self._tty = tty

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._told

    def isatty(self) -> bool:
        return self._tty


def a_sheet(
    width: int = 80, height: int = 24, limit: int = 40, *, tty: bool = False, ascii_only: bool = False
) -> Sheet:
    return Sheet(Terminal("ascii" if ascii_only else "utf-8", tty), width, height, limit, tty)


def shown(sheet: Sheet) -> list[str]:
    assert isinstance(sheet.out, Terminal)
    return sheet.out.getvalue().splitlines()


def plain(line: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", line)


def a_run() -> Profile:
    """Two tasks, one of which failed once, waited for a slot and backed off."""
    return a_profile(
        data_ids=("a", "b"),
        attempts=(
            an_attempt("a", 0, 4, critical=True),
            an_attempt("b", 0, 2, slot=1, outcome=Outcome.FAILED),
            an_attempt("b", 5, 9, attempt=2, critical=True),
        ),
        real_critical_path=a_path(
            a_segment(SegmentKind.RUN, 0, 4, task="a"),
            a_segment(SegmentKind.BACKOFF, 4, 5, task="b", attempt=2, cause="backoff"),
            a_segment(SegmentKind.RUN, 5, 9, task="b", attempt=2, cause="backoff"),
        ),
        lineage=(an_edge("b", "a"),),
        per_data_id=(a_datum("a"), a_datum("b", "a", waited_s=1.0)),
        drag=(DragEntry(task="b", drag_ns=5 * S, drag_seconds=5.0, duration_ns=9 * S),),
    )


def test_a_length_is_told_in_three_figures() -> None:
    """From nanoseconds to days."""
    told = [long(ns) for ns in (0, 800, 1_500, 12_345_678, 999_600_000, 3_210_000_000, 125 * S, 90_000 * S, -S)]
    assert ["0 s", "0.8 us", "1.5 us", "12.3 ms", "1 s", "3.21 s", "2m 5s", "1d 1h", "-1 s"] == told


def test_a_time_at_the_beginning_of_all_times_is_told() -> None:
    """A trace may start at 0, and one may be of a year that no calendar has."""
    assert clock(0) == "1970-01-01 00:00:00.000 UTC"
    assert clock(2**63) == "2262-04-11 23:47:16.854 UTC"
    assert clock(2**68) == f"{2**68} ns"


def test_a_small_share_is_seen() -> None:
    """What is there at all has a mark, and nothing is longer than the whole."""
    assert [bar(0, 10, blocks=False), bar(0.001, 10, blocks=False), bar(2, 10, blocks=False)] == ["", ".", "#" * 10]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("width", [40, 80, 200])
@pytest.mark.parametrize("tty", [False, True])
def test_every_view_shows_any_run(view: str, width: int, tty: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one, and one with retries: something is said, and no line is cut off by the terminal."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    for profile in (a_profile(), a_run()):
        sheet = a_sheet(width, tty=tty)
        importlib.import_module(VIEWS[view]).show(profile, sheet)
        lines = shown(sheet)
        assert lines and lines[0]
        if view in ("gantt", "lineage"):
            assert max(len(plain(line)) for line in lines[1:-1] or [""]) <= width


@pytest.mark.parametrize("view", VIEWS)
def test_no_name_reaches_the_terminal_as_it_is(view: str) -> None:
    """Escapes, line breaks and reordering characters in whatever a job named are shown, not carried out."""
    evil = "x\x1b]0;owned\x07\n\u202ey"
    profile = a_profile(
        workflow_id=evil,
        data_ids=(evil, "z"),
        attempts=(an_attempt(evil, 0, 1, provider=evil, name=evil, key=evil, outcome=Outcome.FAILED),),
        real_critical_path=a_path(a_segment(SegmentKind.RUN, 0, 1, task=evil, provider=evil, cause=evil)),
        lineage=(an_edge("z", evil),),
        per_data_id=(a_datum(evil), a_datum("z", evil, waited_s=1.0)),
        drag=(DragEntry(task=evil, drag_ns=S, drag_seconds=1.0, duration_ns=S),),
        folded=(
            Fold(name=evil, count=1, outcomes={"failed": 1}, p50_seconds=1, p95_seconds=1, max_seconds=1, worst=evil,
                 attempts=1, critical=1),
        ),
        counts=Counts(rejected=1, bad=(BadRow(source=evil, line=1, why=evil),)),
        cycles=(evil,),
        notes=(evil,),
    )  # fmt: skip
    sheet = a_sheet()
    importlib.import_module(VIEWS[view]).show(profile, sheet)
    text = "\n".join(shown(sheet))
    assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "owned" in text


@pytest.mark.parametrize("view", VIEWS)
def test_colour_is_for_terminals_that_want_it(view: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR and no terminal at all: no escape is written."""
    show = importlib.import_module(VIEWS[view]).show
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    piped, bare = a_sheet(), a_sheet(tty=True)
    show(a_run(), piped)
    assert "\x1b" not in "\n".join(shown(piped))
    monkeypatch.setenv("NO_COLOR", "1")
    show(a_run(), bare)
    assert "\x1b" not in "\n".join(shown(bare))


@pytest.mark.parametrize("view", VIEWS)
def test_a_stream_without_block_characters_gets_ascii(view: str) -> None:
    """What is written can be encoded."""
    sheet = a_sheet(ascii_only=True)
    importlib.import_module(VIEWS[view]).show(a_run(), sheet)
    "\n".join(shown(sheet)).encode("ascii")


def test_the_path_shows_each_segment_with_its_cause() -> None:
    """In the order of time, and what was only inferred is marked."""
    sheet = a_sheet(120)
    run = a_run()
    critical.show(run, sheet)
    text = "\n".join(shown(sheet))
    assert re.search(r"backoff +b +2 +p1 +backoff", text)
    assert re.search(r"run +8 s +88.9 %", text)
    assert "inferred" not in text and "~" not in text


def test_a_narrow_terminal_keeps_what_the_path_is_about() -> None:
    """Shares and providers make room for tasks and causes."""
    task = "a-task-with-a-long-name"
    sheet = a_sheet(60, tty=True)
    critical.show(a_profile(real_critical_path=a_path(a_segment(SegmentKind.RUN, 0, 1, task=task))), sheet)
    assert any(task in line and "submit" in line for line in shown(sheet))
    assert max(len(plain(line)) for line in shown(sheet)) <= 60


def test_of_a_long_path_the_longest_segments_are_shown() -> None:
    """And between them how many are left away, with their time: the rows still cover the whole."""
    segments = tuple(a_segment(SegmentKind.RUN, n, n + 1, task=f"t{n}") for n in range(99))
    path = a_path(*segments, a_segment(SegmentKind.QUEUE, 99, 150))
    rows = critical.told(path.segments, 10)
    assert len(rows) <= 11
    assert sum(row.skipped or 1 for row in rows) == 100
    assert sum(row.length_ns or row.end_ns - row.first.start_ns for row in rows) == path.makespan_ns
    assert any(row.first.kind == "queue" and not row.skipped for row in rows)


def test_one_segment_alone_is_not_left_away() -> None:
    """Saying that one is missing takes the line that it would take."""
    segments = tuple(
        a_segment(SegmentKind.RUN, n, n + (1 if n % 20 == 10 else 10), task=f"t{n}") for n in range(0, 200, 10)
    )
    rows = critical.told(segments, 20 - 1)
    assert not any(row.skipped == 1 for row in rows)


@pytest.mark.parametrize("height", [8, 12, 24, 60])
@pytest.mark.parametrize("tasks", [1, 3, 30, 3000])
@pytest.mark.parametrize("names", [1, 40, 3000])
def test_the_chart_fits_its_height(height: int, tasks: int, names: int) -> None:
    """However many tasks, names and providers there are."""
    attempts = tuple(
        an_attempt(f"t{n}", n / 10, n / 10 + 3, name=f"n{n % names}", provider=f"p{n % 500}", slot=n % 4)
        for n in range(tasks)
    )
    sheet = a_sheet(80, height)
    gantt.show(a_profile(attempts=attempts, data_ids=tuple(one.task for one in attempts)), sheet)
    lines = shown(sheet)
    assert len(lines) <= height
    assert max(map(len, lines[:-1])) <= 80


def test_every_attempt_is_in_some_row_of_the_chart() -> None:
    """Folding hides none."""
    attempts = tuple(
        an_attempt(f"t{n}", n, n + 1, name=f"n{n % 7}", provider=f"p{n % 90}", slot=n % 3) for n in range(400)
    )
    profile = a_profile(attempts=attempts)
    for room in (3, 7, 10, 50, 100, 500):
        rows = gantt.lines(profile, room)
        assert len(rows) <= room
        assert {(one.task, one.attempt) for row in rows for one in row.attempts} == {(f"t{n}", 1) for n in range(400)}


def test_a_fan_out_is_one_row_and_its_neighbours_their_own() -> None:
    """Of many tasks of one name the row says how many; others are shown one by one."""
    attempts = [an_attempt("s", 0, 1, name="split")]
    attempts += [an_attempt(f"m{n}", 1, 2, name="map", slot=n) for n in range(100)]
    attempts.append(an_attempt("r", 2, 3, name="reduce"))
    rows = gantt.lines(a_profile(attempts=tuple(attempts)), 20)
    assert ["s split", "map x100", "r reduce"] == [row.label for row in rows]
    sheet = a_sheet(60, 20)
    gantt.show(a_profile(attempts=tuple(attempts)), sheet)
    lines = {line.split()[0]: line for line in shown(sheet)}
    assert re.fullmatch(r"s split +█+", lines["s"])
    assert re.fullmatch(r"map x100 +█+", lines["map"])
    assert lines["s"].rindex("█") < lines["map"].index("█") < lines["map"].rindex("█") < lines["r"].index("█")


def test_what_went_wrong_is_drawn_as_such() -> None:
    """A failed attempt has another mark than one that went well, and the legend names it."""
    sheet = a_sheet(60)
    gantt.show(a_run(), sheet)
    lines = shown(sheet)
    assert any(re.fullmatch(r"b +x+", line) for line in lines)
    assert any(line.startswith("b try 2") and "█" in line for line in lines)
    assert "x failed" in lines[-1] and "b backoff" in lines[-1]


def test_stacked_diamonds_name_each_task_once() -> None:
    """2^60 paths, 181 tasks, 181 lines."""
    edges = []
    for n in range(0, 180, 3):
        edges += [
            (f"t{n + 1}", f"t{n}"),
            (f"t{n + 2}", f"t{n}"),
            (f"t{n + 3}", f"t{n + 1}"),
            (f"t{n + 3}", f"t{n + 2}"),
        ]
    sheet = a_sheet(200, limit=0)
    lineage.show(a_graph(*edges), sheet)
    named = re.findall(r"^[│├└─↓ ]*(t\d+)", "\n".join(shown(sheet)[2:]), re.MULTILINE)
    assert sorted(named) == sorted({f"t{n}" for n in range(181)})
    assert any("t3  also from t1" in line for line in shown(sheet))


def test_a_long_chain_stays_a_column() -> None:
    """A hundred thousand tasks one behind the other, and no line is wider than the first."""
    sheet = a_sheet(40, limit=0)
    lineage.show(a_graph(*((f"t{n:06d}", f"t{n - 1:06d}") for n in range(1, 100_000))), sheet)
    lines = shown(sheet)[2:]
    assert len(lines) == 100_000
    assert max(map(len, lines)) == len("↓ t000001")


def test_a_wide_fan_out_is_cut_with_its_number() -> None:
    """Those on the path and those with descendants first."""
    edges = [(f"m{n:03d}", "split") for n in range(500)] + [("reduce", "m250")]
    sheet = a_sheet()
    lineage.show(a_graph(*edges), sheet)
    text = "\n".join(shown(sheet))
    assert "m250" in text and "reduce" in text
    assert f"... {500 - lineage.SIBLINGS_MAX} more of split" in text


def test_a_cycle_in_the_lineage_ends() -> None:
    """Each of its tasks is there once, and the cycle is told."""
    profile = a_graph(("a", "b"), ("b", "a"), ("c", "a"))
    sheet = a_sheet()
    lineage.show(
        a_profile(
            data_ids=profile.data_ids, lineage=profile.lineage, per_data_id=profile.per_data_id, cycles=("a -> b -> a",)
        ),
        sheet,
    )
    lines = shown(sheet)
    assert any("a -> b -> a" in line for line in lines)
    assert sorted(re.findall(r"^[│├└─↓ ]*([abc])\b", "\n".join(lines[3:]), re.MULTILINE)) == ["a", "b", "c"]


def test_those_that_waited_longest_come_first() -> None:
    """With the parent that they waited for."""
    profile = a_profile(
        per_data_id=(a_datum("a"), a_datum("b", "a", waited_s=1.5), a_datum("c", "a", "b", waited_s=3)),
        data_ids=("a", "b", "c"),
    )
    sheet = a_sheet(100)
    queuing.show(profile, sheet)
    lines = shown(sheet)
    assert lines[0].startswith("2 of 3 tasks waited, 4.5 s in all")
    assert [line.split()[0] for line in lines[3:]] == ["c", "b", "a"]
    assert re.search(r"c +3 s .* b +2 ", lines[3])


def test_a_table_that_is_cut_says_so() -> None:
    """And --limit 0 has all."""
    profile = a_profile(per_data_id=tuple(a_datum(f"t{n}") for n in range(50)), data_ids=())
    cut, whole = a_sheet(limit=10), a_sheet(limit=0)
    queuing.show(profile, cut)
    queuing.show(profile, whole)
    assert shown(cut)[-1] == "... 40 more; --limit 0 has all"
    assert len(shown(whole)) == 53


def test_of_a_run_that_goes_on_all_is_told_so_far() -> None:
    """Its path, its path of dependencies, and its end-to-end figures."""
    run = a_run()
    going = structs.replace(
        run,
        real_critical_path=structs.replace(run.real_critical_path, finished=False),
        critical_path=structs.replace(run.critical_path, path=("a", "b")),
    )
    for view, said in (
        (critical, ("so far: it still runs", "By dependencies alone, so far")),
        (endtoend, (" so far, ",)),
    ):
        sheet = a_sheet()
        view.show(going, sheet)
        assert all(text in "\n".join(shown(sheet)) for text in said)


@pytest.mark.parametrize("view", [rich, critical, endtoend, queuing])
def test_what_makes_figures_doubtful_is_said(view: ModuleType) -> None:
    """Bad rows by name, clocks, repeated and orphaned spans: wherever there are figures to judge."""
    profile = a_profile(
        counts=Counts(duplicates=3, orphans=2, rejected=1, bad=(BadRow(source="f", line=7, why="no name"),)),
        skew=Skew(corrected=True, bound_ns=2_000_000, violations=4, worst_ns=S),
        notes=("one note",),
        real_critical_path=a_path(a_segment(SegmentKind.RUN, 0, 4, task="a")),
        per_data_id=(a_datum("a"),),
    )
    sheet = a_sheet()
    view.show(profile, sheet)
    text = "\n".join(shown(sheet))
    for said in ("f, line 7: no name", "3 rows came twice", "2 spans whose parent is missing", "one note",
                 "4 tasks seemed to begin before", "by up to 1 s", "within 2 ms"):  # fmt: skip
        assert said in text


def test_a_comparison_says_where_the_difference_is() -> None:
    """The whole, the kinds of the paths, the tasks."""
    side = ComparedSide(workflow_id="1", makespan_ns=10 * S, tasks=2, attempts=2, slots=1)
    answer = Comparison(
        a=side, b=side, delta_ns=-2 * S, delta_seconds=-2.0,
        kinds=(ComparedKind(kind="run", a_ns=9 * S, b_ns=7 * S, delta_ns=-2 * S),),
        tasks=(
            ComparedTask(name="train", key="lr=0.1", a_seconds=5.0, b_seconds=3.0, delta_seconds=-2.0, a_path_seconds=5,
                         b_path_seconds=3, a_attempts=1, b_attempts=1),
            ComparedTask(name="new", key="", a_seconds=None, b_seconds=1.0, delta_seconds=1.0, a_path_seconds=0,
                         b_path_seconds=1, a_attempts=0, b_attempts=1),
        ),
    )  # fmt: skip
    sheet = a_sheet()
    compared(answer, sheet)
    text = "\n".join(shown(sheet))
    assert "B took 2 s less, 20.0 %" in text
    assert re.search(r"train lr=0.1 +5 s +3 s +-2 s", text)
    assert re.search(r"new +- +1 s +only in B", text)


def test_a_replay_says_how_far_to_trust_it() -> None:
    """The error of replaying the unchanged run stands beside what is foretold."""
    answer = WhatIf(
        slots=8, without=("a",), recorded_ns=10 * S, unchanged_ns=11 * S, error_ns=S, error_fraction=0.1,
        predicted_ns=6 * S, saved_ns=5 * S, recorded_slots=4,
    )  # fmt: skip
    sheet = a_sheet()
    imagined(answer, sheet)
    lines = shown(sheet)
    assert lines[0] == "on 8 slots instead of 4 and if a cost nothing: 6 s (5 s less, 45.5 %)"
    assert any(re.fullmatch(r"error of that +\+1 s, 10.0 %", line) for line in lines)
