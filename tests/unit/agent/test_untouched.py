"""What the kernel tells of directories, against directories that something is done to."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coordinator.agent import syscalls
from coordinator.agent.places import Places
from coordinator.agent.untouched import Untouched
from tests.unit.agent.daemon_side import a_keeper, a_plan, a_shell


@pytest.fixture
def untouched() -> Iterator[Untouched]:
    by = Untouched()
    yield by
    by.close()


@pytest.fixture
def both(tmp_path: Path) -> tuple[Path, Path]:
    """Two directories, with a file and a directory in the second."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    (second / "within").mkdir(parents=True)
    (second / "file").write_text("x")
    return first, second


def test_nothing_happens(untouched: Untouched, both: tuple[Path, Path]) -> None:
    """What is read, listed and asked about stays untouched, and so does what was done before."""
    watches = untouched.watch(map(str, both))
    assert {"file", "within"} == {entry.name for entry in both[1].iterdir()}
    assert "x" == (both[1] / "file").read_text()
    assert untouched.sure(watches)
    assert untouched.sure(watches)


@pytest.mark.parametrize(
    "act",
    [
        lambda path: (path / "new").write_text("x"),
        lambda path: (path / "new").mkdir(),
        lambda path: (path / "new").symlink_to("nowhere"),
        lambda path: os.link(path / "file", path / "new"),
        lambda path: os.mkfifo(path / "new"),
        lambda path: (path / "file").unlink(),
        lambda path: (path / "within").rmdir(),
        lambda path: (path / "file").rename(path / "other"),
        lambda path: (path / "file").rename(path.parent / "other"),
        lambda path: path.chmod(0o755 if path.stat().st_mode & 0o77 == 0 else 0o700),
        lambda path: os.utime(path, (1, 1)),
        lambda path: path.rename(path.with_name("elsewhere")),
        lambda path: path.rename(path.with_name("away")).with_name(path.name).mkdir(),
    ],
)
def test_something_happens(untouched: Untouched, both: tuple[Path, Path], act: Callable[[Path], object]) -> None:
    """Whatever is done to one of the directories is seen, for ever, and in no others."""
    first, watches = untouched.watch([str(both[0])]), untouched.watch(map(str, both))
    act(both[1])
    assert not untouched.sure(watches)
    assert not untouched.sure(watches)
    assert untouched.sure(first)


def test_what_is_not_watched_is_not_vouched_for(untouched: Untouched, both: tuple[Path, Path]) -> None:
    """A directory that is not there, and a machine that has no watch left: nobody is sure, and nothing fails."""
    assert () == untouched.watch([str(both[0]), str(both[0] / "missing")])
    assert not untouched.sure(())
    watches = untouched.watch([str(both[0])])
    untouched.close()
    assert not untouched.sure(watches)
    assert () == untouched.watch([str(both[0])])


def test_a_thousand_things_are_one_word(untouched: Untouched, both: tuple[Path, Path]) -> None:
    """A program that makes files without end does not fill the kernel's queue: others stay known."""
    busy, calm = untouched.watch([str(both[0])]), untouched.watch([str(both[1])])
    for number in range(1_000):
        (both[0] / str(number)).touch()
    assert not untouched.sure(busy)
    assert untouched.sure(calm)


def test_a_queue_that_ran_over_means_that_nobody_is_known(
    untouched: Untouched, both: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel says that it lost something: no directory is vouched for any more."""
    watches = untouched.watch([str(both[1])])
    overflow = (-1).to_bytes(4, "little", signed=True) + syscalls.IN_Q_OVERFLOW.to_bytes(4, "little") + bytes(8)
    with monkeypatch.context() as patched:
        patched.setattr(os, "read", lambda _fd, _most, read=os.read: overflow + read(_fd, _most))
        other = untouched.watch([str(both[0])])
        (both[0] / "new").touch()
        assert not untouched.sure(other)
    assert not untouched.sure(watches)


@pytest.mark.parametrize("part", ["", "home", "tmp", "outputs", "checkpoints", "trace"])
def test_a_place_that_something_was_left_in_is_nobody_elses(tmp_path: Path, part: str) -> None:
    """Used again as it is when nothing was done in it; removed when a file was made, even one that is gone again."""
    places = Places(tmp_path / "attempts", tmp_path / "work", ())
    try:
        place = places.take()
        places.give_back(place, again=True)
        assert place is places.take()
        left = Path(place.work, part, "left")
        left.touch()
        left.unlink()
        places.give_back(place, again=True)
        assert place is not places.take()
    finally:
        places.close()


def test_the_daemon_is_told_whose_end_left_nothing(tmp_path: Path) -> None:
    """What a program wrote to its streams is no matter; a file anywhere is, and what an earlier keeper saw is not
    known."""
    plans = {
        "1.0.0.1": a_plan("true"),
        "1.0.1.1": a_shell("echo said"),
        "1.0.2.1": a_shell('touch "$COORD_TRACE_DIR/spans.jsonl"'),
        "1.0.3.1": a_shell('echo 0.5 > "$COORD_PROGRESS_FILE"'),
    }
    state = tmp_path / "state"
    with a_keeper(state) as side:
        for number, (attempt, plan) in enumerate(plans.items(), start=1):
            side.start(plan, attempt, number)
        assert [True, True, False, False] == [side.phase("exited", attempt).untouched for attempt in plans]
        side.kill()
    with a_keeper(state) as side:
        assert {"exited": False} == {now.phase: now.untouched for now in side.now.values()}
