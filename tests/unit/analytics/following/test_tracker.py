"""A file is read once while it stays the same file, and anew, with the reason, as soon as it does not."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from analytics.attribution.engine import Rules, canonical, judge
from analytics.attribution.following.tracker import Tracker, TrackerState, full_pass
from coordinator.core.errors import Code, CoordError

RULES = Rules.load(None)
FAILS = b"step 1 loss 2.5\nTraceback (most recent call last):\nRuntimeError: CUDA out of memory. Tried to allocate\n"


def opener(path: Path) -> Callable[[], int]:
    return lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)


def tracker_of(path: Path) -> Tracker:
    return Tracker(opener(path), RULES)


def settle(path: Path) -> None:
    """Have its time lie back, as that of a file that nobody has written for a while."""
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns - 1_000_000_000))


def read_all(tracker: Tracker) -> int:
    total = 0
    while read := tracker.advance():
        total += read
    return total


def test_only_what_is_new_is_read(tmp_path: Path) -> None:
    """Nothing of an unchanged file, and of one that grew only what was appended."""
    log = tmp_path / "log"
    log.write_bytes(b"a" * 5_000 + b"\n")
    settle(log)
    tracker = tracker_of(log)
    assert read_all(tracker) == 5_001
    assert tracker.advance() == 0
    with log.open("ab") as file:
        file.write(FAILS)
    assert read_all(tracker) == len(FAILS)
    assert (tracker.consumed, dict(tracker.replays)) == (5_001 + len(FAILS), {})
    assert tracker.state is TrackerState.READY_TO_COMPLETE
    tracker.close()


def truncated(path: Path) -> None:
    os.truncate(path, 100)


def replaced(path: Path) -> None:
    path.unlink()
    path.write_bytes(b"another file\n" * 1_000)


def replaced_by_rename(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(path.read_bytes())
    other.rename(path)


def rewritten_longer(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"other words from its beginning on\n" * 1_000)


def rewritten_at_the_end(path: Path) -> None:
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size - 10)
        file.write(b"otherwise, and more")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (truncated, "truncated"),
        (replaced, "replaced"),
        (replaced_by_rename, "replaced"),
        (rewritten_longer, "rewritten"),
        (rewritten_at_the_end, "rewritten"),
    ],
)
def test_another_file_is_read_from_its_beginning(tmp_path: Path, change: Callable[[Path], None], why: str) -> None:
    """Whatever it became, the verdict is that of a full pass over what lies there now."""
    log = tmp_path / "log"
    log.write_bytes(FAILS + b"words\n" * 1_000)
    settle(log)
    tracker = tracker_of(log)
    read_all(tracker)
    change(log)
    verdict = tracker.finish(pause=lambda _: None)
    assert (tracker.why_replayed, dict(tracker.replays)) == (why, {why: 1})
    assert canonical(verdict) == canonical(judge([full_pass(opener(log), RULES)]))
    assert tracker.consumed == log.stat().st_size


def test_a_change_in_place_that_shows_in_its_time_alone_is_believed_when_it_stands(tmp_path: Path) -> None:
    """In the middle, where nobody looks: another time and the same size, twice."""
    log = tmp_path / "log"
    log.write_bytes(b"0123456789\n" * 2_000)
    settle(log)
    tracker = tracker_of(log)
    read_all(tracker)
    with log.open("r+b") as file:
        file.seek(10_000)
        file.write(FAILS)
    verdict = tracker.finish(pause=lambda _: None)
    assert dict(tracker.replays) == {"rewritten": 1}
    assert canonical(verdict) == canonical(judge([full_pass(opener(log), RULES)]))


def test_a_write_that_is_on_its_way_is_no_rewrite(tmp_path: Path) -> None:
    """The time of a file is set before its length: seen in between, it has grown a moment later."""
    log = tmp_path / "log"
    log.write_bytes(b"words\n" * 100)
    settle(log)
    tracker = tracker_of(log)
    read_all(tracker)
    os.utime(log)
    assert tracker.advance() == 0
    with log.open("ab") as file:
        file.write(FAILS)
    assert read_all(tracker) == len(FAILS)
    assert not tracker.replays
    tracker.close()


def test_it_begins_before_there_is_a_file_and_ends_with_a_line_without_an_end(tmp_path: Path) -> None:
    """Pending until then; a partial last line counts at the end, and not before."""
    log = tmp_path / "log"
    tracker = tracker_of(log)
    states = [(tracker.advance(), tracker.state)]
    log.write_bytes(FAILS.rstrip(b"\n"))
    states.append((read_all(tracker), tracker.state))
    assert states == [(0, TrackerState.PENDING), (len(FAILS) - 1, TrackerState.READY_TO_COMPLETE)]
    before = tracker.peek()
    verdict = tracker.finish(pause=lambda _: None)
    assert canonical(verdict) == canonical(judge([full_pass(opener(log), RULES)]))
    assert canonical(verdict) != canonical(before)
    assert tracker.state is TrackerState.COMPLETED


def test_what_grows_while_it_is_drained_counts(tmp_path: Path) -> None:
    """The end is where nothing comes any more."""
    log = tmp_path / "log"
    log.write_bytes(b"words\n")
    more = [FAILS, b"the last line\n"]

    def write_more(_: float) -> None:
        if more:
            with log.open("ab") as file:
                file.write(more.pop(0))

    tracker = tracker_of(log)
    verdict = tracker.finish(pause=write_more)
    assert not more
    assert tracker.consumed == log.stat().st_size
    assert canonical(verdict) == canonical(judge([full_pass(opener(log), RULES)]))


def test_a_state_that_was_kept_is_gone_on_with(tmp_path: Path) -> None:
    """Cursor and state together: only the rest is read, also by another process."""
    log = tmp_path / "log"
    log.write_bytes(b"words\n" * 2_000 + FAILS)
    tracker = tracker_of(log)
    tracker.advance(7_001)
    kept = tracker.save()
    assert kept is not None
    tracker.close()
    again = Tracker.restore(opener(log), RULES, kept)
    assert again.consumed == 7_001
    assert read_all(again) == log.stat().st_size - 7_001
    assert not again.replays
    assert canonical(again.finish(pause=lambda _: None)) == canonical(judge([full_pass(opener(log), RULES)]))


def test_a_state_of_another_file_is_not_gone_on_with(tmp_path: Path) -> None:
    """What lies there is found to be another file at the first look."""
    log = tmp_path / "log"
    log.write_bytes(b"words\n" * 2_000)
    tracker = tracker_of(log)
    read_all(tracker)
    kept = tracker.save()
    assert kept is not None
    tracker.close()
    replaced(log)
    again = Tracker.restore(opener(log), RULES, kept)
    read_all(again)
    assert sum(again.replays.values()) == 1
    assert again.consumed == log.stat().st_size
    again.close()


@pytest.mark.parametrize("data", [b"", b"\x93\x02", os.urandom(200)])
def test_what_is_no_state_is_refused(tmp_path: Path, data: bytes) -> None:
    """Then it is begun anew; nothing of it is believed."""
    with pytest.raises(CoordError):
        Tracker.restore(opener(tmp_path / "log"), RULES, data)


def test_what_cannot_be_followed_says_so(tmp_path: Path) -> None:
    """A compressed file, a directory: unsupported, with why. One that is never there: not found."""
    packed = tmp_path / "log.gz"
    packed.write_bytes(gzip.compress(FAILS))
    for path, why in ((packed, "gzip"), (tmp_path, "regular")):
        tracker = tracker_of(path)
        tracker.advance()
        assert tracker.state is TrackerState.UNSUPPORTED
        assert why in tracker.error
        with pytest.raises(CoordError) as refused:
            tracker.finish(pause=lambda _: None)
        assert refused.value.code is Code.BAD_REQUEST
    with pytest.raises(CoordError) as refused:
        tracker_of(tmp_path / "nowhere").finish(pause=lambda _: None)
    assert refused.value.code is Code.NOT_FOUND


def test_a_file_that_goes_away_and_comes_again_is_another(tmp_path: Path) -> None:
    """Failed while it is away, followed again once it is back."""
    log = tmp_path / "log"
    log.write_bytes(b"words\n" * 10)
    tracker = tracker_of(log)
    read_all(tracker)
    log.unlink()
    assert tracker.advance() == 0
    assert tracker.state is TrackerState.FAILED
    log.write_bytes(FAILS)
    assert read_all(tracker) == len(FAILS)
    assert (tracker.state, tracker.error) == (TrackerState.READY_TO_COMPLETE, "")
    tracker.close()


def test_a_tracker_holds_one_descriptor_and_gives_it_back(tmp_path: Path) -> None:
    """However often it looks."""
    log = tmp_path / "log"
    log.write_bytes(FAILS)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 a count is all
    tracker = tracker_of(log)
    for _ in range(50):
        tracker.advance()
    assert len(os.listdir("/proc/self/fd")) == before + 1  # noqa: PTH208
    tracker.close()
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208
