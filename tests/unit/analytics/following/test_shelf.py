"""What is kept comes back whole or not at all, and what nobody asks for goes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from analytics.attribution.following.places import Places
from analytics.attribution.following.shelf import STATE_BYTES_MAX, SUFFIX, Shelf
from analytics.attribution.following.usual import LINES_MAX, PROGRAMS_MAX, RUNS, Usual


def test_a_state_comes_back_until_it_is_dropped(tmp_path: Path) -> None:
    """The last one that was put; private to us."""
    shelf = Shelf(tmp_path / "states")
    assert shelf.get("a") is None
    assert shelf.put("a", b"first")
    assert shelf.put("a", b"second")
    assert shelf.get("a") == b"second"
    (file,) = (tmp_path / "states").iterdir()
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    shelf.drop("a")
    assert shelf.get("a") is None


@pytest.mark.parametrize("size", [0, 1, 20, 30])
def test_a_torn_file_is_no_state(tmp_path: Path, size: int) -> None:
    """A power cut may leave any beginning of it."""
    shelf = Shelf(tmp_path)
    shelf.put("a", b"some state")
    os.truncate(tmp_path / f"a{SUFFIX}", size)
    assert shelf.get("a") is None


def test_what_is_too_large_or_has_no_room_is_not_kept(tmp_path: Path) -> None:
    """And what was kept before stays."""
    shelf = Shelf(tmp_path)
    shelf.put("a", b"small")
    assert not shelf.put("a", b"x" * (STATE_BYTES_MAX + 1))
    assert shelf.get("a") == b"small"
    assert not Shelf(tmp_path / "nowhere" / "at all").put("a", b"x")


def test_what_nobody_asked_for_in_a_while_goes(tmp_path: Path) -> None:
    """But for the one that is to stay."""
    shelf = Shelf(tmp_path)
    for key in ("old", "young", "stays"):
        shelf.put(key, key.encode())
    for key in ("old", "stays"):
        os.utime(tmp_path / f"{key}{SUFFIX}", (time.time() - 100, time.time() - 100))
    shelf.sweep(50, keep="stays")
    assert [shelf.get(key) for key in ("old", "young", "stays")] == [None, b"young", b"stays"]


def test_what_good_runs_said_is_bounded_and_comes_back() -> None:
    """The latest runs of the programs that ran lately."""
    usual = Usual()
    for number in range(RUNS + 2):
        usual.learn("p", frozenset({f"line {number}"}))
    assert usual.of("p") == {f"line {number}" for number in range(2, RUNS + 2)}
    usual.learn("q", frozenset(f"{n:04}" for n in range(10 * LINES_MAX)))
    assert len(usual.of("q")) == LINES_MAX
    again = Usual()
    again.restore(usual.save())
    assert (again.of("p"), again.of("q")) == (usual.of("p"), usual.of("q"))
    again.restore(b"nothing of ours")
    assert again.of("p") == usual.of("p")
    for number in range(PROGRAMS_MAX):
        again.learn(str(number), frozenset("x"))
    assert again.of("p") == frozenset()
    assert len(again.save()) < STATE_BYTES_MAX


def test_the_fullest_of_usual_lines_fits_on_the_shelf() -> None:
    """Fingerprints have sixteen characters."""
    usual = Usual()
    for program in range(PROGRAMS_MAX):
        for run in range(RUNS):
            usual.learn(f"tenant/{program:064}/0", frozenset(f"{run}{n:015}" for n in range(LINES_MAX)))
    assert len(usual.save()) < STATE_BYTES_MAX


def test_places_are_given_all_or_none() -> None:
    places = Places(3)
    assert [places.take(2), places.take(2), places.take(1), places.take()] == [True, False, True, False]
    places.free(2)
    assert (places.taken, places.take(2)) == (1, True)
