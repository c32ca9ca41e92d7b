"""The launch monitor's two paths together, beside each of them alone: seconds to the right answer.

    [COORD_TEST_RAY=PATH] python -m bench.launches [--quick] [--rounds N] [--only recorded coord slurm ray]

- Real launches, on `coord` (a coordinator and an agent on this machine) and on Slurm and Ray where they are installed:
  `runs` prints its first step after half a second; `dies` lacks a module and exits; `hangs` lacks it too and stays
  (a thread that nobody ended). Asked until the end; the answer is the first that is said, from the submission on.
- `recorded`: the labelled logs of ../shared/data/logs, a line each 50 ms on a virtual clock, by a system that says
  RUNNING from the beginning and whose process stays 600 s behind its last line where the label is a failure, as one
  that waits for a dead peer does (its own time-out: ten minutes). The log is read each second, the states every five.

`seconds_*` are medians; a launch whose right answer never came counts with the time at which its watching ended.
`wrong_*` counts answers that were wrong: a success that was called a failure, or the other way round.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from analytics.attribution.engine import Analysis, Rules
from coordinator.agent.cleanup import kill_attempts
from coordinator.core.ids import Ms
from coordinator.launches.monitor import Kind, Monitor, Until
from coordinator.launches.sightings import (
    Ended,
    LogRead,
    Pace,
    Past,
    Phase,
    Piece,
    Sighting,
    Source,
    StateSeen,
    TryFailed,
)
from coordinator.launches.sources.coord_job import CoordJob
from coordinator.launches.sources.ray_jobs import RayJob
from coordinator.launches.sources.slurm import Slurm
from coordinator.launches.watching import Watch
from tests.acceptance.one_ray import ray_command, ray_head, ray_stop, ray_submit
from tests.acceptance.one_slurm import OneSlurm, missing
from tests.acceptance.processes import Agent, Head, when_online

ROUNDS = 3
CAP_S = 40.0
"""A real launch is watched no longer: `hangs` would be for ever by its states."""
LOGS = Path(__file__).parents[2] / "shared" / "data" / "logs"
LINE_MS = 50
STAYS_MS = 600_000
PATHS = ("both", "states", "log")
RUNS = "sleep 0.5; for i in 1 2 3 4 5 6; do echo step $i loss 0.3; sleep 0.5; done"
DIES = "echo loading; python3 -c 'import no_such_module_here'; exit 7"
HANGS = "echo loading; python3 -c 'import no_such_module_here'; sleep 600"
LAUNCHES = {"runs": (RUNS, True), "dies": (DIES, False), "hangs": (HANGS, False)}


class Half:
    """A source of which one path is looked at."""

    def __init__(self, whole: Source, path: str, late_s: float) -> None:
        self._whole, self._path, self._late_s = whole, path, late_s

    @property
    def name(self) -> str:
        return self._whole.name

    @property
    def pace(self) -> Pace:
        return self._whole.pace

    @property
    def ended_ms(self) -> Ms | None:
        return self._whole.ended_ms if self._path != "log" else None

    def past(self) -> Past:
        return Past()

    @property
    def is_late(self) -> bool:
        return time.monotonic() >= self._late_s

    def look(self) -> Sequence[Sighting] | None:
        if self._path == "log":
            time.sleep(0.2)
            return ()
        return self._whole.look()

    def record(self) -> Sequence[Sighting] | None:
        found = self._whole.record() or ()  # it also finds where the log is
        if self.is_late:  # a remark, so that the watching ends
            return (TryFailed(at_ms=0, why="late"),)
        return found if self._path != "log" else ()

    def read(self) -> Sequence[Piece] | None:
        if self._path == "states":
            time.sleep(0.2)
            return ()
        return self._whole.read()

    def next_steps(self, running: bool) -> Sequence[str]:
        return ()


class Answered(NamedTuple):
    """What was said first, and when."""

    seconds: float
    right: bool
    """False: wrong, or none came in time."""
    said: bool


def first_answer(source: Source, path: str, good: bool, began_s: float) -> Answered:
    """Of a real launch. `until` finished, so that every answer is told; the watching ends with the first."""
    rules = Rules.load(None)
    half = Half(source, path, began_s + CAP_S)
    watch = Watch(half, Until.FINISHED, None, lambda: Analysis(rules), lambda: time.time_ns() // 1_000_000)
    for remark in watch:
        answer: bool | None = None
        if half.is_late:
            break
        if remark.kind is Kind.EARLY:
            answer = False
        elif remark.phase is Phase.PROGRESS:
            answer = True
        elif remark.kind is Kind.END:
            answer = remark.text.startswith("completed")
        if answer is not None:
            return Answered(time.monotonic() - began_s, answer is good, True)
    return Answered(CAP_S, False, False)


# ---- real launches


class Launched(NamedTuple):
    """A launch that was submitted: how it is looked at, and how it is ended."""

    source: Source
    cancel: Callable[[], object]


Submit = Callable[[str], Launched]
"""Has a shell run this."""


@contextmanager
def coord(place: Path) -> Iterator[Submit]:
    with Head(place) as head, head.start() as client, Agent(place, head, "w1", "--cpus", "4") as agent:
        try:
            when_online(client, agent)

            def submit(script: str) -> Launched:
                job = client.jobs.submit({"command": ["sh", "-c", script], "retry": {"limit": 0}}).job_id
                return Launched(CoordJob(head.client, job), lambda: client.jobs.cancel(job))

            yield submit
        finally:
            agent.kill()
            kill_attempts(agent.state)


@contextmanager
def slurm(place: Path) -> Iterator[Submit]:
    with OneSlurm(place) as one:

        def submit(script: str) -> Launched:
            job = one.submit(script)
            return Launched(Slurm(job, one.env), lambda: one.say("scancel", job))

        yield submit


@contextmanager
def ray(place: Path) -> Iterator[Submit]:
    with ray_head(ray_command() or "ray", place) as address:

        def submit(script: str) -> Launched:
            job = ray_submit(address, script)
            return Launched(RayJob(job, address, {}), lambda: ray_stop(address, job))

        yield submit


def systems() -> tuple[dict[str, Callable[[Path], AbstractContextManager[Submit]]], dict[str, str]]:
    """Those that are here, and why others are not."""
    there: dict[str, Callable[[Path], AbstractContextManager[Submit]]] = {"coord": coord}
    left_out: dict[str, str] = {}
    if why := missing():
        left_out["slurm"] = why
    else:
        there["slurm"] = slurm
    if ray_command() is None:
        left_out["ray"] = "neither `ray` nor COORD_TEST_RAY"
    else:
        there["ray"] = ray
    return there, left_out


# ---- recorded launches


def replayed(text: bytes, good: bool, path: str, rules: Rules) -> Answered:
    """A log whose lines come one by one, on a virtual clock."""
    lines = text.splitlines(keepends=True)
    last_ms = len(lines) * LINE_MS
    end_ms = last_ms if good else last_ms + STAYS_MS
    monitor, analysis, fed = Monitor(Until.FINISHED, 0, None), Analysis(rules), 0
    for now_ms in range(0, end_ms + 6_000, 1_000):
        remarks = monitor.pass_time(now_ms)
        if path != "states" and fed < len(lines):
            upto = min(len(lines), now_ms // LINE_MS)
            analysis.feed(b"".join(lines[fed:upto]))
            fed = upto
            remarks += monitor.see(LogRead(at_ms=now_ms, verdict=analysis.peek()))
        if path != "log" and now_ms % 5_000 == 0:
            seen: Sighting = StateSeen(phase=Phase.RUNNING, at_ms=0)
            if now_ms >= end_ms:
                seen = Ended(at_ms=end_ms, ok=good, words="completed" if good else "failed")
            remarks += monitor.see(seen)
        for remark in remarks:
            if remark.kind is Kind.EARLY:
                return Answered(now_ms / 1000, not good, True)
            if remark.kind is Kind.END:
                return Answered(now_ms / 1000, remark.text.startswith("completed") is good, True)
    return Answered(end_ms / 1000, good and path == "log", False)


def recordings() -> list[tuple[bytes, bool]]:
    """The labelled excerpts, without the line that names their source; the second: a healthy one."""
    table = LOGS / "excerpts" / "labels.tsv"
    if not table.exists():
        return []
    found = []
    for row in table.read_text().splitlines()[1:]:
        name, _, action = row.split("\t")[:3]
        text = (LOGS / "excerpts" / name).read_bytes()
        found.append((text.partition(b"\n")[2], action == "OK"))
    return found


# ---- the whole


def measure(rounds: int, only: Sequence[str]) -> dict[str, object]:
    """The report."""
    figures: dict[str, object] = {}
    answers: dict[str, list[Answered]] = {}
    there, left_out = systems()
    rules = Rules.load(None)
    for text, good in recordings() if not only or "recorded" in only else []:
        for path in PATHS:
            answers.setdefault(f"recorded_{'good' if good else 'bad'}_{path}", []).append(
                replayed(text, good, path, rules)
            )
    for name, start in there.items():
        if only and name not in only:
            continue
        with TemporaryDirectory(prefix="launches") as place, start(Path(place)) as submit:
            for _ in range(rounds):
                for launch, (script, good) in LAUNCHES.items():
                    for path in PATHS:
                        began_s = time.monotonic()
                        launched = submit(script)
                        answer = first_answer(launched.source, path, good, began_s)
                        answers.setdefault(f"{name}_{launch}_{path}", []).append(answer)
                        launched.cancel()
    for case, found in answers.items():
        figures[f"seconds_{case}"] = round(statistics.median(one.seconds for one in found), 2)
        figures[f"wrong_{case}"] = sum(one.said and not one.right for one in found)
        figures[f"none_{case}"] = sum(not one.said for one in found)
    return {"bench": "launches", "n": rounds, "figures": figures, "ratios": {}, "floors": {}, "left_out": left_out}


def main() -> int:
    """Print the figures; 1 when an answer of both paths together was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--only", nargs="*", default=[], choices=("recorded", "coord", "slurm", "ray"))
    told = parser.parse_args()
    only = told.only or (["coord"] if told.quick else [])
    report = measure(told.rounds or (1 if told.quick else ROUNDS), only)
    print(json.dumps(report))
    figures = report["figures"]
    assert isinstance(figures, dict)
    return 1 if any(figures[name] for name in figures if name.startswith("wrong_") and name.endswith("both")) else 0


if __name__ == "__main__":
    sys.exit(main())
