"""The core in seeded worlds: every invariant after every event, in a box of time, with the count reported."""

from __future__ import annotations

import csv
import hashlib
import lzma
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from coordinator.simulator import story
from coordinator.simulator.replay import read_stays
from tests.simulation.soaking import try_seeds

BOX_S = float(os.environ.get("COORD_TEST_SEEDS_BOX_S", "60"))
"""Wall time that the suite gives to seeds."""
SEEDS_MIN = 24
"""Held whatever the box: so many must pass even on a slow machine."""
EVENTS = 2_000
GOLEM = Path(__file__).parents[3] / "shared/data/golem_network/sessions.csv.xz"
SOAK_SEEDS = 10_000
SOAK_PARTS = 40


def the_story_of(seed: int, steps: int) -> tuple[int, str]:
    lines: list[str] = []
    status = story.run(seed, steps, lines.append)
    return status, "\n".join(lines)


@cache
def check(seed: int) -> story.Outcome:
    """How that seed went, which is its own: whoever looks at the same one looks at the same world."""
    outcome = story.simulate(seed, EVENTS)
    assert not outcome.violation, f"{outcome.violation}\nreplay it: coord simulate --seed {seed} --steps {EVENTS}"
    assert outcome.events >= EVENTS
    return outcome


def test_seeds_hold_for_as_long_as_the_box_allows(
    record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """No seed of the box violates an invariant, and together they saw every way in which a session and a job end."""
    until_s = time.monotonic() + BOX_S
    seeds, simulated_ms, starts, frozen = 0, 0, 0, 0
    ends: Counter[str] = Counter()
    settled: Counter[str] = Counter()
    while seeds < SEEDS_MIN or time.monotonic() < until_s:
        outcome = check(seeds)
        seeds += 1
        simulated_ms += outcome.elapsed_ms
        starts, frozen = starts + outcome.starts, frozen + outcome.frozen
        ends.update(outcome.ends)
        settled.update(outcome.settled)
    everything = {
        "clean_close",
        "draining",
        "read_error",
        "stale_heartbeat",
        "coordinator_restart",
        "superseded",
        "agent_restart",
    }
    assert everything == set(ends)
    assert {"completed", "failed", "cancelled"} == set(settled)
    assert min(settled.values()) > seeds and starts > 20 * seeds and frozen > seeds, "the worlds are too quiet"
    record_property("seeds", seeds)
    with capsys.disabled():
        print(
            f"\nsimulator: {seeds} seeds of {EVENTS} events held, {simulated_ms / 86_400_000:.0f} simulated days,"
            f" {settled.total()} jobs ended, attempts ran {starts} times and were frozen {frozen} times"
        )


def test_the_same_seed_tells_the_same_story_byte_for_byte() -> None:
    told = {seed: the_story_of(seed, 1_500) for seed in (3, 5, 8)}
    assert told == {seed: the_story_of(seed, 1_500) for seed in told}
    assert told[3] != told[5]


def test_a_story_does_not_depend_on_the_hash_seed_of_the_interpreter() -> None:
    """Nothing iterates over a set of strings: another process with another hash seed tells the same."""
    code = (
        "import hashlib; from coordinator.simulator import story; lines = []; story.run(8, 1500, lines.append);"
        "print(hashlib.sha256('\\n'.join(lines).encode()).hexdigest())"
    )
    expected = hashlib.sha256(the_story_of(8, 1_500)[1].encode()).hexdigest()
    for hash_seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert expected == told.stdout.strip()


def test_a_day_passes_in_seconds() -> None:
    """The slow worlds cover days: a core without a clock needs no waiting."""
    outcome = story.simulate(7, 5_000)
    assert not outcome.violation
    assert outcome.elapsed_ms > 86_400_000


def test_a_loss_is_suspected_within_ten_seconds() -> None:
    """In worlds of plain seconds and while the coordinator is quick: the tick before the tenth second judges."""
    longest_ms = max(check(seed).suspected_after_ms for seed in range(0, 40, 4))
    assert 9_000 < longest_ms <= 10_000


def test_machines_come_and_go_as_real_ones_did() -> None:
    """The recorded stays of a real network as availability: every invariant holds there too."""
    if not GOLEM.is_file():
        pytest.skip(f"{GOLEM} is not here: no recorded sessions to replay")
    with lzma.open(GOLEM, "rt") as lines:
        recorded = read_stays(csv.DictReader(lines))
    settled: Counter[str] = Counter()
    for seed in range(4):
        outcome = story.simulate(seed, 1_500, recorded=recorded)
        assert not outcome.violation, f"seed {seed}: {outcome.violation}"
        settled.update(outcome.settled)
    assert settled["completed"] > 4


@pytest.mark.soak
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_ten_thousand_seeds_hold(part: int) -> None:
    told: Counter[str] = Counter()

    def violation_of(seed: int) -> str:
        outcome = story.simulate(seed, EVENTS)
        told.update(events=outcome.events, starts=outcome.starts, frozen=outcome.frozen, **outcome.settled)
        return outcome.violation

    size = SOAK_SEEDS // SOAK_PARTS
    try_seeds(range(100_000 + part * size, 100_000 + (part + 1) * size), violation_of, told)
