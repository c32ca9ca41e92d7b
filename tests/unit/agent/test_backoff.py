"""The waits between tries: capped, growing, and evenly spread."""

from __future__ import annotations

import random

import pytest

from coordinator.agent.backoff import Backoff
from coordinator.agent.config import Patience

CEILINGS = Patience().retry_ceilings_s


def test_waits_stay_below_their_ceilings_and_grow_to_thirty_seconds() -> None:
    """The n-th wait reaches up to, and never beyond, the n-th ceiling; the last ceiling is kept for ever."""
    highest = Backoff(CEILINGS, lambda: 1.0)
    assert [highest.next_s() for _ in range(13)] == [2.5, 5.0] + [10.0] * 8 + [20.0, 30.0, 30.0]
    lowest = Backoff(CEILINGS, lambda: 0.0)
    assert [lowest.next_s() for _ in range(3)] == [0.0, 0.0, 0.0]


def test_success_starts_over() -> None:
    """After a reset the first ceiling counts again."""
    backoff = Backoff(CEILINGS, lambda: 1.0)
    backoff.next_s()
    backoff.next_s()
    backoff.reset()
    assert backoff.next_s() == 2.5


@pytest.mark.parametrize("outage_s", [1.0, 3.0, 15.0])
def test_a_fleet_comes_back_evenly_within_ten_seconds(outage_s: float) -> None:
    """2,000 agents lose a coordinator for seconds: all are back within 10 s of its return, and no tenth of a
    second sees more than 8 % of them."""
    draw = random.Random(1).random
    back: list[float] = []
    for _ in range(2_000):
        backoff, now = Backoff(CEILINGS, draw), 0.0
        while now < outage_s:
            now += backoff.next_s()
        back.append(now - outage_s)
    assert max(back) <= 10.0
    tenths = [0] * 101
    for wait in back:
        tenths[int(wait * 10)] += 1
    assert max(tenths) <= 160


def test_full_jitter_is_uniform() -> None:
    """First waits of 10,000 agents fill ten equal parts of the range evenly (chi-squared, 9 degrees, 0.1 %: 27.9)."""
    draw = random.Random(2).random
    counts = [0] * 10
    for _ in range(10_000):
        counts[int(Backoff(CEILINGS, draw).next_s() / 0.25)] += 1
    assert sum((count - 1000) ** 2 / 1000 for count in counts) < 27.9
