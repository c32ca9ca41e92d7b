"""When a worker hangs, and when it is the watcher that stood still."""

from __future__ import annotations

from analytics.watch import Watch

STILL_S = 1e9
"""Nobody is ended for it."""


def test_silence_is_counted_until_something_is_heard() -> None:
    """Each sign of life begins it anew; at the deadline the reason says how long it was."""
    watch = Watch(step_s=10, silent_s=30, stuck_s=1000, still_s=STILL_S)
    assert ["", ""] == [watch.step(10), watch.step(10)]
    watch.heard()
    assert ["", "", "nothing was heard of it for 30 s"] == [watch.step(10), watch.step(10), watch.step(10)]


def test_own_stall_kills_nobody() -> None:
    """A step that took far longer than it should counts for nothing, as often as it happens."""
    watch = Watch(step_s=10, silent_s=30, stuck_s=30, still_s=STILL_S)
    watch.at_work(1, 1, cpu_s=0.0)
    assert [""] * 5 == [watch.step(3600) for _ in range(5)]
    assert "" == watch.step(10)


def test_each_thread_has_its_time_for_one_piece_of_work() -> None:
    """Other work, or none, begins it anew; the other thread's progress does not help."""
    watch = Watch(step_s=10, silent_s=1000, stuck_s=30, still_s=STILL_S)
    for n in range(1, 9):
        watch.at_work(n, 0, cpu_s=0.0)
        assert "" == watch.step(10)
    watch.at_work(9, 4, cpu_s=0.0)
    assert ["", ""] == [watch.step(10), watch.step(10)]
    watch.at_work(10, 4, cpu_s=0.0)
    assert "one of its threads was at the same work for 30 s" == watch.step(10)


def test_threads_that_wait_are_not_stuck() -> None:
    """Nothing to do for an hour is no reason."""
    watch = Watch(step_s=10, silent_s=100_000, stuck_s=30, still_s=STILL_S)
    watch.at_work(0, 0, cpu_s=0.0)
    assert [""] * 360 == [watch.step(10) for _ in range(360)]


def test_who_is_at_work_and_uses_no_cpu_hangs() -> None:
    """Threads that wait for each other, or for a disk that does not answer, are found long before the time that honest
    work may take. A hundredth of a core is what answering us costs."""
    watch = Watch(step_s=10, silent_s=1000, stuck_s=1000, still_s=30)
    used_s = 5.0
    for _ in range(20):
        used_s += 0.2
        watch.at_work(1, 0, cpu_s=used_s)
        assert "" == watch.step(10), "it works"
    found = []
    for _ in range(2):
        used_s += 0.01
        watch.at_work(1, 0, cpu_s=used_s)
        found.append(watch.step(10))
    assert ["", "one of its threads was at work for 30 s that used no CPU"] == found


def test_who_waits_for_work_may_stand_still() -> None:
    watch = Watch(step_s=10, silent_s=100_000, stuck_s=30, still_s=30)
    for _ in range(360):
        watch.at_work(0, 0, cpu_s=1.0)
        assert "" == watch.step(10)
    watch.at_work(0, 3, cpu_s=1.0)
    assert ["", ""] == [watch.step(10), watch.step(10)], "what it stood still before does not count"
