"""A field of agents whose jobs write down every moment in which they run, and what is made of that afterwards.

The programs share the tester's file system, whatever becomes of their machines' networks: their own notes are the
ground truth against which the coordinator's audit is read.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coordinator.api_types.happenings import EventEntry
from coordinator.api_types.work import TaskEntry
from coordinator.client import Client
from coordinator.timetext import parse_time
from tests.acceptance.cable import Cable, FarAgent
from tests.acceptance.processes import GUARD_S, Agent, Head, wait_for, when_online

TICK_S = 0.05
STOOD_STILL_S = 1.0
"""Two notes so far apart: it did not run between them. A busy machine delays one by less."""
PROGRAM = f"""
import os, sys, time
place, attempt = sys.argv[1], os.environ["COORD_ATTEMPT"]
open(f"{{place}}/{{attempt}}.pid", "w").write(str(os.getpid()))
ticks = open(f"{{place}}/{{attempt}}.ticks", "a", buffering=1)
number = 0
while not any(os.path.exists(f"{{place}}/{{name}}") for name in ("go", "go-" + attempt)):
    number += 1
    ticks.write(f"{{time.time_ns()}}\\n")
    try:
        print(number, flush=True)
    except BrokenPipeError:
        pass
    time.sleep({TICK_S})
"""
"""It does not mind that nobody reads what it writes any more: with that alone many a program ends."""


@dataclass
class Case:
    """One job of one task, which runs on `agent` until it is let go."""

    client: Client
    on_lost: str
    place: Path
    job_id: int = 0
    agent: Agent = field(init=False)
    struck_ns: int = 0
    """When its agent was struck."""

    def begin(self) -> None:
        self.place.mkdir()
        program = self.place / "program.py"
        program.write_text(PROGRAM)
        command = [sys.executable, "-S", "-E", str(program), str(self.place)]
        self.job_id = self.client.jobs.submit({"command": command, "on_lost": self.on_lost}).job_id

    def attempt(self, number: int) -> str:
        return f"{self.job_id}.0.0.{number}"

    def ticks(self, number: int) -> list[int]:
        """When attempt `number` ran, in wall nanoseconds."""
        path = self.place / f"{self.attempt(number)}.ticks"
        return [int(line) for line in path.read_text().split()] if path.exists() else []

    def pid(self, number: int = 1) -> int:
        return int((self.place / f"{self.attempt(number)}.pid").read_text())

    def runs(self, number: int = 1) -> bool:
        """Whether this attempt runs at this moment: it makes a note before it would count as standing still."""
        asked_ns, until_s = time.time_ns(), time.monotonic() + STOOD_STILL_S
        while time.monotonic() < until_s:
            if (ticks := self.ticks(number)) and ticks[-1] > asked_ns:
                return True
            time.sleep(TICK_S)
        return False

    def runs_anywhere(self) -> bool:
        """Whether the attempt that is the task's own runs at this moment."""
        current = [entry.number for entry in self.task().tries if entry.state in ("running", "frozen", "in_doubt")]
        return len(current) == 1 and self.runs(current[0])

    def let_go(self, number: int | None = None) -> None:
        """Have attempt `number`, or all of them, end with success."""
        (self.place / ("go" if number is None else f"go-{self.attempt(number)}")).touch()

    def task(self) -> TaskEntry:
        (entry,) = self.client.jobs.tasks(self.job_id, attempts=True).entries
        return entry

    def rows(self, after: str, number: int = 1) -> list[EventEntry]:
        """The audit's rows of attempt `number` going into this state, the oldest first."""
        found = self.client.audit(job_id=self.job_id, entity="attempt", limit=500).entries
        return [row for row in reversed(found) if row.after == after and row.subject == self.attempt(number)]

    def row(self, after: str, number: int = 1, within_s: float = GUARD_S) -> EventEntry:
        """The first of them, as soon as it is there."""
        return wait_for(lambda: next(iter(self.rows(after, number)), None), f"{self.attempt(number)} {after}", within_s)

    def doubted_after_s(self) -> float:
        """From the last heartbeat that was received to the decision that the attempt is in doubt, in seconds."""
        doubt_ms = self.row("in_doubt").wall_ns // 1_000_000
        beats = self.client.heartbeats(self.agent.provider_id, window="24h", limit=500).entries
        return (doubt_ms - max(at for beat in beats if (at := parse_time(beat.observed_at)) <= doubt_ms)) / 1000

    def finish(self) -> None:
        """Let everything go: exactly one attempt completed, no two of them ran at once, nothing of them is left."""
        self.let_go()
        assert self.client.jobs.wait(self.job_id, timeout_s=60.0).state == "completed"
        task = self.task()
        assert [entry.state for entry in task.tries].count("completed") == 1
        assert task.exit_code == 0

    def overlapped_s(self) -> float:
        """For how long two attempts ran at once; negative: the shortest time between one and the next."""
        runs = [ticks for number in range(1, self.task().attempts + 1) if (ticks := self.ticks(number))]
        return max(((a[-1] - b[0]) / 1e9 for a, b in itertools.pairwise(runs)), default=0.0)

    def figures(self) -> dict[str, Any]:
        """What became of it, in seconds since its agent was struck. Null: it did not happen."""

        def since(wall_ns: int | None) -> float | None:
            return round((wall_ns - self.struck_ns) / 1e9, 2) if wall_ns is not None else None

        def first(after: str, number: int = 1) -> float | None:
            rows = [row.wall_ns for row in self.rows(after, number) if row.wall_ns > self.struck_ns]
            return since(rows[0] if rows else None)

        ticks = [at for at in self.ticks(1) if at > self.struck_ns]
        stills = [(a, b) for a, b in itertools.pairwise(ticks) if b - a > STOOD_STILL_S * 1e9]
        task = self.task()
        doubted = first("in_doubt")
        replaced = next((n for n in range(2, task.attempts + 1) if self.ticks(n)), None)
        return {
            "on_lost": self.on_lost,
            "in_doubt": doubted,
            "after_last_heartbeat": round(self.doubted_after_s(), 2) if doubted is not None else None,
            "reserved": first("reserved", 2),
            "stood_still": [(since(a), since(b)) for a, b in stills],
            "last_ran": since(ticks[-1] if ticks else None),
            "went_on": next((since(row.wall_ns) for row in self.rows("running") if row.wall_ns > self.struck_ns), None),
            "lost": first("lost"),
            "replacement_ran": since(self.ticks(replaced)[0]) if replaced is not None else None,
            "attempts": task.attempts,
            "losses": task.losses,
            "failures": task.failures,
            "state": task.state,
            "set_aside": len(self.rows("late")),
            "overlapped": round(self.overlapped_s(), 2),
        }


class Field:
    """A head, `size` agents that can be struck, each at the end of a cable and with room for one task, and one more
    with room for everything."""

    def __init__(self, directory: Path, size: int, *settings: str) -> None:
        self._directory = directory
        self._size = size
        self._settings = settings
        self._stack = ExitStack()
        self._numbers = itertools.count(1)

    def __enter__(self) -> Field:
        with ExitStack() as stack:
            cables = [stack.enter_context(Cable()) for _ in range(self._size)]
            sets = [word for setting in self._settings for word in ("--set", setting)]
            self.head = stack.enter_context(
                Head(self._directory, *sets, "--insecure-listen", listen=f"{cables[0].ours}:0")
            )
            self.client = self.head.start()
            stack.callback(self.client.close)
            self.agents = [
                FarAgent(self._directory, self.head, f"far{number}", cable, "--cpus", "1")
                for number, cable in enumerate(cables)
            ]
            for agent in self.agents:
                stack.enter_context(agent)
            spare = Agent(self._directory, self.head, "spare", "--insecure", "--cpus", "64")
            self.spare = stack.enter_context(spare)
            when_online(self.client, *self.agents, self.spare)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *told: object) -> None:
        self._stack.close()

    def begin(self, modes: Sequence[str]) -> list[Case]:
        """A job of each mode, each on an agent that can be struck; whatever is started anew may go to the spare one."""
        self.client.drain("spare")
        cases = [Case(self.client, mode, self._directory / f"case{next(self._numbers)}") for mode in modes]
        agents = {agent.provider_id: agent for agent in self.agents}
        for case in cases:
            case.begin()
        for case in cases:
            wait_for(lambda case=case: len(case.ticks(1)) > 3, f"{case.on_lost} running")  # type: ignore[misc]
            case.row("running")
            case.agent = agents[case.task().tries[0].ranks[0].provider_id]
        self.client.resume("spare")
        return cases

    def tidy(self, *, cancel: bool = True) -> None:
        """Nothing is cut, everybody is up; with `cancel` nothing runs any more."""
        for agent in self.agents:
            agent.cable.mend()
            if agent.popen is not None and agent.popen.poll() is not None:
                agent.spawn()
        for job in self.client.jobs.list(state="pending,staging,running").entries if cancel else ():
            self.client.jobs.cancel(job.job_id)
            self.client.jobs.wait(job.job_id, timeout_s=60.0)

    def place(self, name: str) -> Path:
        """A directory for what programs leave behind."""
        path = self._directory / name
        path.mkdir()
        return path

    def cut(self, cases: Sequence[Case]) -> None:
        for case in cases:
            case.struck_ns = time.time_ns()
            cable_of(case).cut("input", "output")

    def mend(self, cases: Sequence[Case]) -> None:
        for case in cases:
            cable_of(case).mend()

    def finish(self, cases: Sequence[Case]) -> list[dict[str, Any]]:
        """Everybody is back, every job ended once; what became of each."""
        for case in cases:
            case.finish()
        for case in cases:
            if case.agent.popen is not None and case.agent.popen.poll() is not None:
                case.agent.spawn()
        when_online(self.client, *self.agents)
        return [case.figures() for case in cases]


def cable_of(case: Case) -> Cable:
    assert isinstance(case.agent, FarAgent)
    return case.agent.cable


def kill_all_of(case: Case) -> None:
    """kill -9 of the daemon, the keeper and the program: what a power cut leaves. The state directory is kept."""
    daemon, program = case.agent.daemon_pid(), case.pid()
    case.struck_ns = time.time_ns()
    for pid in (daemon, case.agent.pid, program):
        os.kill(pid, signal.SIGKILL)
    case.agent.wait()


def wait_until(moment_s: float) -> None:
    """Until this moment of the monotonic clock: a length that a test is about."""
    while (left_s := moment_s - time.monotonic()) > 0:
        time.sleep(min(left_s, 1.0))
