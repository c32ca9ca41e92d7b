"""When a worker hangs, and when it is the watcher that stood still."""

from __future__ import annotations

from analytics.watch import Watch


def test_silence_is_counted_until_something_is_heard() -> None:
    """Each sign of life begins it anew; at the deadline the reason says how long it was."""
    watch = Watch(step_s=10, silent_s=30, stuck_s=1000)
    assert ["", ""] == [watch.step(10), watch.step(10)]
    watch.heard()
    assert ["", "", "nothing was heard of it for 30 s"] == [watch.step(10), watch.step(10), watch.step(10)]


def test_own_stall_kills_nobody() -> None:
    """A step that took far longer than it should counts for nothing, as often as it happens."""
    watch = Watch(step_s=10, silent_s=30, stuck_s=30)
    watch.at_work(1, 1)
    assert [""] * 5 == [watch.step(3600) for _ in range(5)]
    assert "" == watch.step(10)


def test_each_thread_has_its_time_for_one_piece_of_work() -> None:
    """Other work, or none, begins it anew; the other thread's progress does not help."""
    watch = Watch(step_s=10, silent_s=1000, stuck_s=30)
    for n in range(1, 9):
        watch.at_work(n, 0)
        assert "" == watch.step(10)
    watch.at_work(9, 4)
    assert ["", ""] == [watch.step(10), watch.step(10)]
    watch.at_work(10, 4)
    assert "one of its threads was at the same work for 30 s" == watch.step(10)


def test_threads_that_wait_are_not_stuck() -> None:
    """Nothing to do for an hour is no reason."""
    watch = Watch(step_s=10, silent_s=100_000, stuck_s=30)
    watch.at_work(0, 0)
    assert [""] * 360 == [watch.step(10) for _ in range(360)]
