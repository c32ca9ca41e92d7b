"""Which lines begin another cycle, however a file is cut into pieces."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics.attribution.desk.cycles import CYCLES_MAX, Splitter
from analytics.attribution.desk.passes import by_cycles
from tests.unit.analytics.desk.service import STOPS, WELL, rules

RANKS = b"[0] Cycle: 1\n[1] Cycle: 0\n[0] Cycle: 1\n[1] Cycle: 1\n"


def parts(*pieces: bytes) -> list[bytes]:
    splitter = Splitter()
    found: dict[int, bytes] = {}
    for piece in pieces:
        for cycle, data in splitter.feed(piece):
            found[cycle] = found.get(cycle, b"") + data
    for cycle, data in splitter.close():
        found[cycle] = found.get(cycle, b"") + data
    assert list(found) == list(range(len(found)))
    return list(found.values())


@pytest.mark.parametrize(("text", "expected"), [
    (b"a\nb", [b"a\nb"]),
    (b"a\nCycle: 0 x\nb\n", [b"a\nCycle: 0 x\nb\n"]),
    (b"a\n - Cycle: 0 x\nb\n - Cycle: 1 y\nc", [b"a\n - Cycle: 0 x\nb\n", b" - Cycle: 1 y\nc"]),
    (b"Cycle: 3\nx\nCycle: 4\n", [b"Cycle: 3\nx\n", b"Cycle: 4\n"]),
    (RANKS, [RANKS]),
    (b"lifeCycle: 7\nCycle: x\nCycle:  2\n", [b"lifeCycle: 7\nCycle: x\nCycle:  2\n"]),
    (b"Cycle: 0\nCycle: 1", [b"Cycle: 0\n", b"Cycle: 1"]),
])  # fmt: skip
def test_a_larger_number_begins_another(text: bytes, expected: list[bytes]) -> None:
    """With its whole line; nothing is lost."""
    assert expected == parts(text)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.sampled_from([b"x", b"\n", b"Cycle: 0", b"Cycle: 1\n", b" Cycle: 2 y\n", b"Cycle: ", b"3"]), max_size=30
    ),
    st.lists(st.integers(1, 9), min_size=1, max_size=40),
)
def test_where_it_is_cut_has_no_effect(words: list[bytes], sizes: list[int]) -> None:
    """The same cycles from any pieces."""
    text = b"".join(words)
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    assert parts(text) == parts(*pieces, text[at:])


def test_a_program_that_counts_cycles_of_its_own_is_one_run(tmp_path: Path) -> None:
    """Thousands of them are no launcher's: its progress is one story."""
    log = tmp_path / "log"
    log.write_bytes(b"".join(b"Cycle: %d\n" % n + WELL for n in range(CYCLES_MAX + 10)) + STOPS)
    passed = by_cycles(lambda: os.open(log, os.O_RDONLY), rules())
    (verdict,) = passed.verdicts
    assert (0, "STOP", log.stat().st_size) == (passed.first, verdict.recommendation, passed.read_bytes)
    assert verdict.progress.lines == 4 * (CYCLES_MAX + 10) + 3


def test_a_line_full_of_the_word_takes_no_longer_than_another() -> None:
    """It was searched anew for each of them: a megabyte took five minutes, and whoever else is followed waited."""
    line = b"Cycle: x " * 110_000 + b"\n"
    began = time.process_time()
    assert [b"Cycle: 1\n" + line, b"Cycle: 2\n"] == parts(b"Cycle: 1\n" + line + b"Cycle: 2\n")
    assert time.process_time() - began < 1.0
