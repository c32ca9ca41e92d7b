"""The clock offset: right within the bound that is reported with it, whatever the network does."""

from __future__ import annotations

import math
import random

from hypothesis import given
from hypothesis import strategies as st

from coordinator.agent.offset import Estimate, OffsetFilter


def exchange(
    known: OffsetFilter, now: float, ahead: float, out: float, held: float, back: float, whole: bool = False
) -> float:
    """One heartbeat sent at `now` and its acknowledgement, on simulated ways. Returns when it came back."""
    received = now + out + ahead
    told, told_held = (float(math.floor(received)), float(math.floor(held))) if whole else (received, held)
    returned = now + out + held + back
    known.add(now, told, told_held, returned)
    return returned


def test_nothing_is_claimed_before_the_first_sample() -> None:
    """No sample, no estimate."""
    assert OffsetFilter().estimate(0.0, 0.0) is None


@given(
    ahead=st.floats(-1e9, 1e9),
    ways=st.lists(st.tuples(st.floats(0, 5_000), st.floats(0, 250), st.floats(0, 5_000)), min_size=1, max_size=60),
    whole=st.booleans(),
)
def test_the_truth_lies_within_the_bound(ahead: float, ways: list[tuple[float, float, float]], whole: bool) -> None:
    """Delays as asymmetric as they come, stamps in whole milliseconds or not: never off by more than the bound."""
    known, now = OffsetFilter(), 1e6
    for out, held, back in ways:
        now = exchange(known, now, ahead, out, held, back, whole) + 5_000
    estimate = known.estimate(now, now)
    assert estimate is not None
    assert abs(estimate.offset_ms - ahead) <= estimate.bound_ms + 1e-3


def test_the_bound_holds_while_the_clocks_drift_apart() -> None:
    """A coordinator's clock that gains 90 ppm stays within the bound as samples age."""
    known, ahead = OffsetFilter(), 250.0
    draw = random.Random(3)
    worst = 0.0
    now = 0.0
    for _ in range(500):
        now = exchange(known, now, ahead + now * 90e-6, draw.expovariate(0.05), 5.0, draw.expovariate(0.5)) + 5_000
        estimate = known.estimate(now, now)
        assert estimate is not None
        error = abs(estimate.offset_ms - (ahead + now * 90e-6))
        assert error <= estimate.bound_ms
        worst = max(worst, estimate.bound_ms)
    assert worst < 60.0


def test_the_fastest_exchange_of_the_window_counts() -> None:
    """One quick exchange among slow, lopsided ones gives the estimate."""
    known, now = OffsetFilter(), 0.0
    for _ in range(5):
        now = exchange(known, now, 100.0, 400.0, 0.0, 2.0) + 1_000
    now = exchange(known, now, 100.0, 1.0, 0.0, 1.0)
    for _ in range(5):
        now = exchange(known, now, 100.0, 400.0, 0.0, 2.0) + 1_000
    estimate = known.estimate(now, now)
    assert estimate is not None
    assert abs(estimate.offset_ms - 100.0) < 0.01
    assert estimate.bound_ms < 4.0


def test_a_step_of_our_wall_clock_moves_the_offset_by_as_much() -> None:
    """The window is on a clock that nobody sets: the estimate follows the wall clock of the moment."""
    known = OffsetFilter()
    now = exchange(known, 1_000.0, 0.0, 1.0, 0.0, 1.0)
    before, after = known.estimate(now, now), known.estimate(now, now + 3_600_000)
    assert isinstance(before, Estimate)
    assert isinstance(after, Estimate)
    assert after.offset_ms - before.offset_ms == -3_600_000


def test_impossible_figures_are_ignored() -> None:
    """A coordinator that claims to have held the answer longer than the exchange took says nothing."""
    known = OffsetFilter()
    known.add(1_000.0, 1_000.0, 50.0, 1_010.0)
    known.add(1_000.0, 1_000.0, -5.0, 1_010.0)
    assert known.estimate(1_010.0, 1_010.0) is None
