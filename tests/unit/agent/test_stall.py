"""The clock behind `stall_after`, on a clock of the test's own."""

from __future__ import annotations

import math

from coordinator.agent.stall import StallClock


def test_output_is_a_sign_of_life_of_a_program_that_makes_no_reports() -> None:
    """Each byte starts the wait anew."""
    clock = StallClock(10.0, 0.0)
    assert 10.0 == clock.due_s()
    clock.wrote(7.0)
    assert 17.0 == clock.due_s()


def test_output_alone_does_not_keep_a_program_alive_that_reports() -> None:
    """One that prints the same error for ever is stuck all the same."""
    clock = StallClock(10.0, 0.0)
    clock.reported(3.0)
    clock.wrote(9.0)
    assert 13.0 == clock.due_s()
    assert "nor checkpoint" in clock.why()


def test_time_in_the_freezer_does_not_count() -> None:
    """It could not get on; it has as long as was left when it was frozen."""
    clock = StallClock(10.0, 0.0)
    clock.frozen(True, 4.0)
    clock.frozen(True, 5.0)
    assert math.inf == clock.due_s()
    clock.frozen(False, 104.0)
    assert 110.0 == clock.due_s()


def test_a_sign_that_is_seen_while_it_is_frozen_is_not_counted_twice() -> None:
    """Its last words may be read after the freeze began: the wait goes on from the thaw."""
    clock = StallClock(10.0, 0.0)
    clock.frozen(True, 4.0)
    clock.wrote(6.0)
    clock.frozen(False, 104.0)
    assert 114.0 == clock.due_s()
