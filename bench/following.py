"""From the end of a program to its verdict, while its log grows: `python -m bench.following [--quick]`.

A coordinator, an agent, and programs that write lines like those of a training run at 20 MB/s, fail, and note when.

- `end_to_verdict`: from the program's last instruction to the job's end by its verdict: the rest of the log travels, is
  stored, read and judged meanwhile. One log of 1 GB, and twenty of 50 MB one after the other.
- `full_pass_s`: the same 1 GB log read and judged from its beginning, in the same run.
- `worker_growth_mb`: resident memory of the worker at the end of the 1 GB against a tenth of the way.
- `relay_*`: 2,000,000 lines as fast as they go, and the age of lines at 1,000 a second beside that, with two
  coordinators by turns, one that follows logs and one that does not.

Needs gcc, and ../shared/tools/linegen.c.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import psutil

from analytics.attribution.engine import Rules
from analytics.attribution.following.attempt import FollowedAttempt
from bench import logs
from coordinator.agent.cleanup import kill_attempts
from coordinator.client import Client
from coordinator.core.ids import attempt_of
from tests.acceptance.processes import Agent, Head, when_online

RATE = 20_000_000
FLOORS = {"end_to_verdict_p99_s_max": 0.5, "worker_growth_mb_max": 32.0}
WRITER = """
import os, sys, time
total, note = int(sys.argv[1]), sys.argv[2]
lines, step = [], 0
for step in range(1, 24_000):
    words = b"[rank0]: 2026-11-22 12:00:00,123 INFO iteration %9d | loss %.6f | lr 1.5e-04\\n"
    lines.append(words % (step, 9 / step))
    if step % 50 == 0:
        lines.append(b"2026-11-22 12:00:00 WARNING dataloader: worker 3 took 0.8 s for a batch, others 0.1 s\\n")
block, written, began = b"".join(lines), 0, time.monotonic()
while written < total:
    at = 0
    while at < len(block):
        at += os.write(1, block[at:])
    written += len(block)
    time.sleep(max(0.0, began + written / RATE - time.monotonic()))
os.write(1, WORDS)
with open(note, "w") as file:
    file.write(repr(time.monotonic()))
sys.stdout.flush()
os._exit(1)
"""
WORDS = b"usage: train.py [--lr LR]\ntrain.py: error: unrecognized arguments: --learning-rate\n"


class Ended(NamedTuple):
    seconds: float
    reason: str
    attempt: str


def one(client: Client, place: Path, size: int) -> Ended:
    """Run a program that writes so much and fails; how long after its end its job ended, and by what."""
    note = place / "ended"
    program = WRITER.replace("RATE", str(RATE)).replace("WORDS", repr(WORDS))
    command = [sys.executable, "-c", program, str(size), str(note)]
    job = client.jobs.submit({"command": command, "retry": {"limit": 1}, "name": "growing"})
    state = client.jobs.wait(job.job_id, timeout_s=60.0 + 3 * size / RATE)
    came_s = time.monotonic()
    (task,) = client.jobs.tasks(job.job_id, attempts=True).entries
    if state.state != "failed" or task.attempts != 1 or "config_error" not in task.reason:
        raise RuntimeError(f"the job is {state.state} after {task.attempts} attempts: {state.reason}")
    return Ended(came_s - float(note.read_text()), task.reason, task.tries[0].attempt)


class Memory(threading.Thread):
    """Resident memory of the worker, every half second."""

    def __init__(self, head: Head) -> None:
        super().__init__(daemon=True)
        children = psutil.Process(head.pid).children(recursive=True)
        self._worker = next(child for child in children if "analytics.worker" in child.cmdline())
        self.seen: list[int] = []
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.5):
            self.seen.append(self._worker.memory_info().rss)


def growing(head: Head, client: Client, place: Path, large: int, small: int, rounds: int) -> dict[str, float]:
    memory = Memory(head)
    memory.start()
    big = one(client, place, large)
    memory.over.set()
    memory.join()
    tenth = len(memory.seen) // 10
    began_s = time.monotonic()
    fresh = FollowedAttempt(head.data / "logs", attempt_of(big.attempt), [0], Rules.load(None), frozenset())
    while fresh.advance():
        pass
    full_s = time.monotonic() - began_s
    found = sorted([big.seconds, *(one(client, place, small).seconds for _ in range(rounds))])
    return {
        "end_to_verdict_p50_s": round(found[len(found) // 2], 3),
        "end_to_verdict_p90_s": round(found[len(found) * 9 // 10], 3),
        "end_to_verdict_p99_s": round(found[len(found) * 99 // 100], 3),
        "end_to_verdict_large_s": round(big.seconds, 3),
        "full_pass_s": round(full_s, 2),
        "large_mb": round(fresh.read_bytes / 1e6),
        "worker_growth_mb": round((memory.seen[-1] - memory.seen[tenth]) / 1e6, 1),
        "worker_mb": round(max(memory.seen) / 1e6, 1),
    }


def lag_s(client: Client) -> float:
    lines = client.metrics().splitlines()
    return float(next(line for line in lines if line.startswith("coord_loop_lag_seconds ")).split()[1])


def relays(heads: dict[str, logs.Bench], rounds: int, lines: int, seconds: float) -> dict[str, float]:
    """The relay's figures by turns; medians of the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in heads}
    ages: dict[str, list[float]] = {name: [] for name in heads}
    lags: dict[str, list[float]] = {name: [] for name in heads}
    for turn in range(rounds):
        for name in sorted(heads, reverse=bool(turn % 2)):
            rates[name].append(heads[name].relay(lines))
            found = heads[name].tail(seconds)
            ages[name].append(found[len(found) * 99 // 100])
            lags[name].append(lag_s(heads[name].client) * 1_000)
    told: dict[str, float] = {}
    for name in heads:
        told[f"relay_{name}_lines_s"] = round(statistics.median(rates[name]))
        told[f"relay_{name}_age_p99_ms"] = round(statistics.median(ages[name]), 2)
        told[f"relay_{name}_loop_lag_ms"] = round(statistics.median(lags[name]), 2)
    return told


def main() -> int:
    """Print the figures; 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    large, small, rounds = (40_000_000, 4_000_000, 2) if quick else (1_000_000_000, 50_000_000, 20)
    turns, lines, seconds = (1, 200_000, 2.0) if quick else (5, 2_000_000, 10.0)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory() as text, tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        place, there = Path(text), Path(elsewhere)
        names = ("with", "without")
        for name in names:
            (place / name).mkdir()
        head, other = Head(place / "with"), Head(place / "without", "--set", "attribution.enabled=false")
        with head, other, head.start() as client, other.start() as beside:
            agents = Agent(there, head, "w1", "--cpus", "4"), Agent(there, other, "w2", "--cpus", "4")
            with agents[0], agents[1]:
                try:
                    when_online(client, agents[0])
                    when_online(beside, agents[1])
                    told = growing(head, client, place, large, small, rounds)
                    benches = dict(
                        zip(names, (logs.Bench(place, head, client), logs.Bench(place, other, beside)), strict=True)
                    )
                    told |= relays(benches, turns, lines, seconds)
                finally:
                    for agent in agents:
                        agent.kill()
                        kill_attempts(agent.state)
    ratios = {
        "full_pass_to_end": round(told["full_pass_s"] / told["end_to_verdict_large_s"], 1),
        "relay_with_to_without": round(told["relay_with_lines_s"] / told["relay_without_lines_s"], 3),
    }
    print(json.dumps({"bench": "following", "n": rounds + 1, "figures": told, "ratios": ratios, "floors": FLOORS}))
    missed = told["end_to_verdict_p99_s"] > FLOORS["end_to_verdict_p99_s_max"]
    return 1 if missed or told["worker_growth_mb"] > FLOORS["worker_growth_mb_max"] else 0


if __name__ == "__main__":
    sys.exit(main())
