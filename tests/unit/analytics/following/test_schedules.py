"""Whatever befalls a file while it is followed, the verdict is that of a full pass over what lies there at the end."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from analytics.attribution.engine import canonical, judge
from analytics.attribution.following.tracker import Tracker, full_pass
from tests.unit.analytics.following.test_tracker import RULES, opener

LINES = (
    b"step %d loss 2.5",
    b"[rank3]: torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate %d MiB",
    b"Traceback (most recent call last):",
    b'  File "train.py", line %d, in main',
    b"RuntimeError: NCCL communicator was aborted on rank %d",
    b"slurmstepd: error: *** JOB %d ON node-1 CANCELLED AT 2024-01-01T00:00:00 DUE TO TIME LIMIT ***",
    b"saving checkpoint at iteration %d",
    b"OSError: [Errno 28] No space left on device %d",
    "größer \u20ac %d".encode(),
    b"\xff\xfe invalid %d \x80",
    b"progress 1%%\rprogress %d%%\r",
)
ENDS = (b"\n", b"\n", b"\n", b"\r\n", b"\r\r\n", b"")


class World:
    """One file, whoever writes it, and a tracker that is killed and restored."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.dice = random.Random(seed)
        self.path = directory / "log"
        self.path.write_bytes(b"")
        self.tracker = Tracker(opener(self.path), RULES)
        self.kept: bytes | None = None
        self.number = 0

    def text(self) -> bytes:
        """Some bytes that were never written before, cut anywhere."""
        parts = []
        for _ in range(self.dice.choice((1, 3, 40, 200))):
            self.number += 1
            line = self.dice.choice(LINES)
            parts.append((line % self.number if b"%d" in line else line) + self.dice.choice(ENDS))
        data = b"".join(parts)
        return data[: self.dice.randint(1, len(data))] + b"%d" % self.number

    def append(self) -> None:
        with self.path.open("ab") as file:
            file.write(self.text())

    def truncate(self) -> None:
        os.truncate(self.path, self.dice.randint(0, self.path.stat().st_size))

    def replace(self) -> None:
        other = self.path.with_name("other")
        other.write_bytes(self.text())
        other.rename(self.path)

    def recreate(self) -> None:
        self.path.unlink()
        self.path.write_bytes(self.text())

    def rewrite(self) -> None:
        """The same inode, from its beginning, shorter or longer than it was."""
        self.path.write_bytes(self.text())

    def overwrite(self) -> None:
        """The same inode, its beginning only."""
        with self.path.open("r+b") as file:
            file.write(self.text())

    def look(self) -> None:
        self.tracker.advance(self.dice.choice((1, 2, 7, 100, 4_096, 1 << 20)))

    def keep(self) -> None:
        self.kept = self.tracker.save() or self.kept

    def kill(self) -> None:
        """What was not kept is gone."""
        self.tracker.close()
        if self.kept is None:
            self.tracker = Tracker(opener(self.path), RULES)
        else:
            self.tracker = Tracker.restore(opener(self.path), RULES, self.kept)


WEIGHTS = {
    World.append: 30,
    World.look: 40,
    World.truncate: 2,
    World.replace: 2,
    World.recreate: 2,
    World.rewrite: 3,
    World.overwrite: 2,
    World.keep: 6,
    World.kill: 4,
}


def differs(seed: int, directory: Path) -> bool:
    """Play one schedule; whether the verdict differs from a full pass."""
    world = World(seed, directory)
    for act in world.dice.choices(list(WEIGHTS), list(WEIGHTS.values()), k=world.dice.randint(3, 40)):
        act(world)
    verdict = world.tracker.finish(pause=lambda _: None)
    full = judge([full_pass(opener(world.path), RULES)])
    return canonical(verdict) != canonical(full) or world.tracker.consumed != world.path.stat().st_size


def test_random_schedules_lead_to_the_verdict_of_a_full_pass(tmp_path: Path) -> None:
    """Appends, truncations, replacements, rewrites, kills and resumptions in any order."""
    assert [seed for seed in range(120) if differs(seed, tmp_path)] == []


@pytest.mark.soak
def test_ten_thousand_schedules_of_files_lead_to_the_verdict_of_a_full_pass(tmp_path: Path) -> None:
    """The same, 10,000 of them."""
    assert [seed for seed in range(10_000) if differs(seed, tmp_path)] == []
