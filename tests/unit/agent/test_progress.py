"""Reports of progress: what is one, how it is found in a stream, how often it is told."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.agent.progress import LineScan, Report, Teller, parse
from coordinator.core.rows import LeaseToken

KEY = ("1.0.0.1", 0)
TOKEN = LeaseToken(1, 7)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("0.4", Report(fraction=0.4)),
        ("40%", Report(fraction=0.4)),
        ("1", Report(fraction=1.0)),
        ("0.4 step=1200 loss=0.3", Report(fraction=0.4, values=(("step", "1200"), ("loss", "0.3")))),
        ("step=1 step=2", Report(values=(("step", "2"),))),
        ("0.5 third epoch", Report(fraction=0.5, text="third epoch")),
        ("warming up", Report(text="warming up")),
        ("1.5 beyond", Report(text="1.5 beyond")),
        ("nan", Report(text="nan")),
        ("-0.1", Report(text="-0.1")),
        ("1e999", Report(text="1e999")),
        ("", None),
        ("   ", None),
        ("0.5 \x1b[2J", None),
    ],
)
def test_a_line_is_read_as_its_page_says(line: str, expected: Report | None) -> None:
    """A fraction within 0 and 1, values by name, words; anything that a terminal would act on is nothing."""
    assert expected == parse(line)


def test_a_report_keeps_within_its_bounds() -> None:
    """Sixteen values, each of 64 characters, 200 characters of words: the wire takes no more."""
    report = parse("0.1 " + " ".join(f"v{i}=1" for i in range(30)) + " " + "w" * 500 + f" {'n' * 80}=1 x={'y' * 80}")
    assert report is not None
    assert 16 == len(report.values)
    assert 200 == len(report.text)


@given(st.lists(st.integers(1, 40), max_size=20))
def test_a_report_is_found_however_its_stream_is_cut(cuts: list[int]) -> None:
    """Reports are lines, whole ones; where the pieces of a stream end says nothing."""
    text = (
        b"hello\ncoord-progress 0.1\nmore coord-progress 0.9\ncoord-progress bad\x1b\ncoord-progress 0.2 step=3\nend\n"
    )
    scan, found, at = LineScan(), [], 0
    for cut in [*cuts, len(text)]:
        piece = text[at : at + cut]
        report = scan.feed(at, piece)
        at += len(piece)
        if report is not None:
            found.append(report)
    assert Report(fraction=0.2, values=(("step", "3"),)) == found[-1]
    assert all(report.fraction in (0.1, 0.2) for report in found)


def test_bytes_that_come_again_are_no_news_and_a_gap_cuts_a_line() -> None:
    """A stream is sent again after a reconnect; what was dropped in between may have held the line's begin."""
    scan = LineScan()
    assert scan.feed(0, b"coord-progress 0.1\n") is not None
    assert scan.feed(0, b"coord-progress 0.1\n") is None
    assert scan.feed(100, b"coord-progress 0.3\ncoord-progress 0.4\n") == Report(fraction=0.4)
    assert LineScan().feed(5, b"coord-progress 0.3\n") is None


def test_a_line_without_an_end_costs_no_memory() -> None:
    """A hundred megabytes without a line's end keep half a kilobyte here."""
    scan = LineScan()
    for i in range(100):
        assert scan.feed(i << 20, b"x" * (1 << 20)) is None
    assert len(scan._rest) <= 600
    assert scan.feed(100 << 20, b"\ncoord-progress 0.5\n") == Report(fraction=0.5)


def test_a_line_that_is_too_long_is_no_report_however_it_is_cut() -> None:
    """Nor is what is left of it."""
    scan = LineScan()
    line = b"coord-progress 0.1 " + b"x" * 600 + b" 5\n"
    for i in range(0, len(line), 7):
        assert scan.feed(i, line[i : i + 7]) is None


def test_a_program_that_reports_all_the_time_is_told_once_a_second() -> None:
    """The newest one counts; the last one before the end is told at once."""
    now_s = 100.0
    teller = Teller(lambda: now_s)
    assert math.inf == teller.due_s()
    for step in range(10):
        teller.put(KEY, TOKEN, Report(fraction=step / 10))
    assert [0.9] == [told.fraction for told in teller.ready()]
    teller.put(KEY, TOKEN, Report(fraction=0.95))
    now_s = 100.5
    assert [] == teller.ready()
    assert 101.0 == teller.due_s()
    now_s = 101.0
    assert [0.95] == [told.fraction for told in teller.ready()]
    teller.put(KEY, TOKEN, Report(fraction=1.0))
    last = teller.last(KEY)
    assert last is not None
    assert 1.0 == last.fraction
    assert teller.last(KEY) is None
