"""Log lines from a program on an agent to a subscriber, beside `tee`: `python -m bench.logs [--quick]`.

A coordinator, an agent and one job that writes lines of 110 bytes, each with the time at which it was made; a reader
follows the job as plain bytes. Alternating runs, medians:

- `tee`: the same program into `tee FILE > /dev/null`, from its first line's time to the end of tee.
- `relay`: from the first line's time to the arrival of the last one: the attempt's file, the agent's socket, the
  coordinator's file, synced, and the reader are all on the way.
- `tail`: 1,000 lines a second; how old each line is when its reader has it, without and with another job at full speed.

The agent's files lie in memory where /dev/shm is: an agent has a machine of its own, and on one file system every sync
of the coordinator's would wait for the agent's file, too.

Needs gcc, and ../shared/tools/linegen.c.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

from coordinator.agent.cleanup import kill_attempts
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, when_online

SOURCE = Path(__file__).parents[2] / "shared" / "tools" / "linegen.c"
FLOORS = {"relay_to_tee_min": 0.85, "tail_p99_ms_max": 10.0, "tail_under_load_p99_ms_max": 50.0}


class Followed(NamedTuple):
    first_made_s: float
    last_came_s: float
    bytes: int
    ages_ms: list[float]


def made_s(line: bytes) -> float:
    """When linegen wrote this line, on the monotonic clock of this machine."""
    at = line.index(b"ts=") + 3
    return float(line[at : at + 17])


def follow(head: Head, job_id: int, *, ages: bool = False) -> Followed:
    """Read the job's log as it comes, until it has ended."""
    headers = {"Authorization": f"Bearer {head.token('admin')}", "Accept": "text/plain"}
    request = urllib.request.Request(f"{head.url}/v1/jobs/{job_id}/logs?follow=true", headers=headers)
    first_s, total, rest, found = 0.0, 0, b"", []
    with urllib.request.urlopen(request, timeout=120) as answer:
        while data := answer.read1(1 << 20):
            came_s = time.monotonic()
            if not first_s:
                first_s = made_s(data)
            total += len(data)
            last_s = came_s
            if ages:
                lines = (rest + data).split(b"\n")
                rest = lines.pop()
                found += [(came_s - made_s(line)) * 1_000 for line in lines]
    return Followed(first_s, last_s, total, found)


class Bench:
    def __init__(self, place: Path, head: Head, client: Client) -> None:
        self.place, self.head, self.client = place, head, client
        self.linegen = place / "linegen"
        subprocess.run(["gcc", "-O2", "-o", str(self.linegen), str(SOURCE)], check=True)

    def submit(self, *arguments: str) -> int:
        job = {"command": [str(self.linegen), *arguments], "resources": {"cpus": 0.5}}
        return self.client.jobs.submit(job).job_id

    def tee(self, lines: int) -> float:
        """Lines a second."""
        out = self.place / "tee.out"
        subprocess.run(f"{self.linegen} {lines} | tee {out} > /dev/null", shell=True, check=True)
        ended_s = time.monotonic()
        with out.open("rb") as file:
            began_s = made_s(file.readline())
        out.unlink()
        return lines / (ended_s - began_s)

    def relay(self, lines: int) -> float:
        """Lines a second."""
        job_id = self.submit(str(lines))
        seen = follow(self.head, job_id)
        if seen.bytes != self.length(lines):
            raise RuntimeError(f"{seen.bytes} bytes came of {self.length(lines)}")
        return lines / (seen.last_came_s - seen.first_made_s)

    def length(self, lines: int) -> int:
        """Bytes of so many lines: all of one length."""
        if not hasattr(self, "_line"):
            self._line = len(subprocess.run([str(self.linegen), "1"], capture_output=True, check=True).stdout)
        return lines * self._line

    def tail(self, seconds: float) -> list[float]:
        """Ages in milliseconds, the smallest first, without the first tenth: the program's start."""
        job_id = self.submit(str(int(seconds * 1_000)), "1000")
        ages = follow(self.head, job_id, ages=True).ages_ms
        return sorted(ages[len(ages) // 10 :])


def figures(bench: Bench, rounds: int, lines: int, seconds: float) -> tuple[dict[str, float], dict[str, float]]:
    rates: dict[str, list[float]] = {"tee": [], "relay": []}
    for _ in range(rounds):
        rates["tee"].append(bench.tee(lines))
        rates["relay"].append(bench.relay(lines))
    quiet = bench.tail(seconds)
    load = bench.submit(str(int(bench.length(1) and 900_000_000 / bench.length(1))))
    reader = threading.Thread(target=follow, args=(bench.head, load), daemon=True)
    reader.start()
    busy = bench.tail(seconds)
    bench.client.jobs.cancel(load)
    reader.join(60)
    told: dict[str, float] = {f"{name}_lines_s": round(statistics.median(found)) for name, found in rates.items()}
    for name, ages in (("tail", quiet), ("tail_under_load", busy)):
        told |= {
            f"{name}_p50_ms": round(ages[len(ages) // 2], 2),
            f"{name}_p99_ms": round(ages[len(ages) * 99 // 100], 2),
            f"{name}_max_ms": round(ages[-1], 2),
        }
    ratio = statistics.median(ours / tee for ours, tee in zip(rates["relay"], rates["tee"], strict=True))
    return told, {"relay_to_tee": round(ratio, 3)}


def main() -> int:
    """Print the figures; 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    rounds, lines, seconds = (1, 200_000, 2.0) if quick else (5, 2_000_000, 20.0)
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory() as text, tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        place = Path(text)
        with Head(place) as head, head.start() as client, Agent(Path(elsewhere), head, "w1", "--cpus", "4") as agent:
            try:
                when_online(client, agent)
                told, ratios = figures(Bench(place, head, client), rounds, lines, seconds)
            finally:
                agent.kill()
                kill_attempts(agent.state)
    print(json.dumps({"bench": "logs", "n": rounds, "figures": told, "ratios": ratios, "floors": FLOORS}))
    missed = (
        ratios["relay_to_tee"] < FLOORS["relay_to_tee_min"]
        or told["tail_p99_ms"] > FLOORS["tail_p99_ms_max"]
        or told["tail_under_load_p99_ms"] > FLOORS["tail_under_load_p99_ms_max"]
    )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
