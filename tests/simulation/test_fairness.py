"""The queue alone in light worlds: shares over the window, nobody starved, no head delayed; thousands of seeds."""

from __future__ import annotations

from collections import Counter

import pytest

from coordinator.simulator.fairness.shares import WITHIN
from coordinator.simulator.fairness.story import be_fair
from tests.simulation.soaking import try_seeds

SEEDS = 30
UNFAIR_ONCE = (1899,)
"""Seeds that found something that few others find."""
SOAK_SEEDS = 10_000
SOAK_PARTS = 10


def test_the_queue_is_fair() -> None:
    """Three to one and other weights, bursty and steady: within 5 % over the window; and nobody waits beyond the
    bounds of the policy, no head of the queue beyond its first planned start, and who was alone for a day gets his
    least when others come."""
    worlds: Counter[str] = Counter()
    for seed in (*range(SEEDS), *UNFAIR_ONCE):
        outcome = be_fair(seed)
        assert not outcome.violation, f"seed {seed} of {outcome.world}: {outcome.violation}"
        assert abs(outcome.off) <= WITHIN
        worlds[outcome.world] += 1
    assert {"shares", "incumbents", "floods", "backfill"} == set(worlds)


def test_a_light_world_is_its_seed() -> None:
    assert be_fair(4) == be_fair(4)
    assert be_fair(4) != be_fair(5)


@pytest.mark.soak
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_ten_thousand_queues_are_fair(part: int) -> None:
    told: Counter[str] = Counter()

    def violation_of(seed: int) -> str:
        outcome = be_fair(seed)
        told[outcome.world] += 1
        told["off_per_mille_most"] = max(told["off_per_mille_most"], round(abs(outcome.off) * 1_000))
        return f"{outcome.world}: {outcome.violation}" if outcome.violation else ""

    size = SOAK_SEEDS // SOAK_PARTS
    try_seeds(range(part * size, (part + 1) * size), violation_of, told)
