"""A follower that is killed at any moment, and its coordinator with it, gives the verdict of a full pass."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from analytics.attribution.engine import canonical
from analytics.attribution.following import attempt as attempts
from analytics.attribution.following.attempt import FollowedAttempt
from analytics.attribution.following.follower import PATIENCE_MS
from store.log_files import INDEX, log_path
from store.log_index import RECORD_BYTES
from tests.unit.analytics.following.stored_logs import ATTEMPT, StoredLogs
from tests.unit.analytics.following.test_follower import RULES, Bench, ended, wanted
from tests.unit.analytics.following.test_schedules import World


def differs(seed: int, place: Path, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Play one life of an attempt with two ranks; whether its verdict differs from a full pass."""
    dice = random.Random(seed)
    monkeypatch.setattr(attempts, "SAVE_BYTES", dice.choice((1, 500, 20_000)))
    place.mkdir()
    writer = World(seed, place)
    logs = StoredLogs(place)
    with logs:
        bench = Bench(logs, place)
    lengths = [[0, 0], [0, 0]]
    for _ in range(dice.randint(1, 12)):
        with logs:  # the coordinator begins, and is killed at the end of the block
            bench.begin()
            for _ in range(dice.randint(1, 6)):
                rank, stream, data = dice.randint(0, 1), dice.randint(0, 1), writer.text()
                logs.write((stream, data), rank=rank)
                lengths[rank][stream] += len(data)
                if dice.random() < 0.7:
                    bench.follow(ATTEMPT, ranks=2)
                if dice.random() < 0.3:
                    bench.begin()
        if dice.random() < 0.2:
            lose_end_of_index(logs, dice)
            bench.begin()  # whoever read along lost power, too
    ask = wanted(ended(*lengths[0]), ended(*lengths[1]))
    with logs:
        bench.ask(ask)
        bench.now_ms += PATIENCE_MS
        bench.turns()
        logs.open_ranks(2)
        full = FollowedAttempt(logs.root, ATTEMPT, (0, 1), RULES, frozenset())
        while full.advance():
            pass
        return canonical(bench.verdict()) != canonical(full.judge(ask))


def lose_end_of_index(logs: StoredLogs, dice: random.Random) -> None:
    """As a power cut may: the next start makes it anew from the lengths of the streams."""
    index = log_path(logs.root, (ATTEMPT, dice.randint(0, 1)), INDEX)
    if index.exists():
        count = index.stat().st_size // RECORD_BYTES
        with index.open("r+b") as file:
            file.truncate(dice.randint(0, count) * RECORD_BYTES)


def test_kills_at_any_moment_change_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """States are kept at random moments, indexes lose their ends, processes begin anew."""
    assert [seed for seed in range(12) if differs(seed, tmp_path / str(seed), monkeypatch)] == []


@pytest.mark.soak
def test_a_thousand_lives_with_kills_change_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same, a thousand of them."""
    assert [seed for seed in range(1_000) if differs(seed, tmp_path / str(seed), monkeypatch)] == []
