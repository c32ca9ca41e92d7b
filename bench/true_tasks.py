"""Ten thousand tasks that do nothing, submit to all done, beside HyperQueue, GNU parallel and posix_spawn in C.

    python -m bench.true_tasks [--quick] [--tasks N] [--rounds N] [--isolation none|uid] [--only NAME ...]

Alternating rounds, medians; rates in tasks a second. Eight at a time, but for C, which holds four.

- `coord`: a coordinator and one agent on this machine, an array of `true` with every part of it durable as always: the
  data directory on the disk of the temporary directory, the agent's state in memory where /dev/shm is (an agent has a
  machine of its own; on one file system each sync of one waits for the other's bytes). `coord_one_disk`: both there.
- `hyperqueue`: server and worker of its LocalCluster, one job of as many tasks, no output files; nothing is durable.
  BENCH_PYTHON names the interpreter that has it (`python3 -m venv V && V/bin/pip install hyperqueue`).
- `parallel`: GNU parallel, `-j8`.
- `c`: ../shared/tools/spawn_rate.c: posix_spawn, four at once, and nothing else.

`cpu_ms_*` is where a task's CPU time goes, by process, in milliseconds of one core: `head` is `coord serve`, `keeper`
and `daemon` are the agent's two processes (starters are counted as the keeper's), `programs` are the tasks themselves.
Peers that are not installed are left out, and named in `left_out`.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from coordinator.agent.cleanup import kill_attempts
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, when_online

TASKS, ROUNDS, SLOTS = 10_000, 3, 8
WITHIN_S = 600.0
SOURCE = Path(__file__).parents[2] / "shared" / "tools" / "spawn_rate.c"
FLOORS = {"coord_to_hyperqueue_min": 4.0, "coord_to_c_min": 0.75}
HYPERQUEUE = """
import sys, time
from hyperqueue import Job
from hyperqueue.cluster import LocalCluster, WorkerConfig
tasks, slots, place = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
with LocalCluster(place, WorkerConfig(cores=slots)) as cluster:
    client = cluster.client()
    def run(count):
        job = Job()
        for _ in range(count):
            job.program(["true"], stdout=None, stderr=None)
        began = time.perf_counter()
        client.wait_for_jobs([client.submit(job)])
        return time.perf_counter() - began
    run(slots)
    print("seconds", run(tasks))
"""


class Coord:
    """One coordinator and one agent that run as long as the `with` block."""

    def __init__(self, head: Head, client: Client, agent: Agent) -> None:
        self.client = client
        self.agent = agent
        keeper = psutil.Process(agent.pid)
        self._processes = {"head": psutil.Process(head.pid), "keeper": keeper}
        self._processes["daemon"] = psutil.Process(agent.daemon_pid())

    def rate(self, tasks: int) -> tuple[float, dict[str, float]]:
        """Tasks a second, and milliseconds of CPU a task by process."""
        before = self._spent()
        began_s = time.perf_counter()
        # a part of a CPU each, so that any machine has the slots
        job = {"command": ["true"], "array": f"1-{tasks}", "resources": {"cpus": 0.1}}
        job_id = self.client.jobs.submit(job).job_id
        entry = self.client.jobs.wait(job_id, timeout_s=WITHIN_S)
        took_s = time.perf_counter() - began_s
        if entry.state != "completed":
            raise RuntimeError(f"the job is {entry.state}: {entry.reason}")
        after = self._spent()
        return tasks / took_s, {name: (after[name] - before[name]) / tasks * 1_000 for name in after}

    def _spent(self) -> dict[str, float]:
        spent = {}
        for name, process in self._processes.items():
            times = process.cpu_times()
            spent[name] = times.user + times.system
            if name == "keeper":
                spent["programs"] = times.children_user + times.children_system
        for child in self._processes["keeper"].children():
            with suppress(psutil.Error):  # one that removes files, and is gone
                if "coordinator.agent.starter" in child.cmdline():
                    times = child.cpu_times()
                    spent["keeper"] += times.user + times.system
                    spent["programs"] += times.children_user + times.children_system
        return spent


@contextmanager
def coord(place: Path, state: Path, isolation: str) -> Iterator[Coord]:
    place.mkdir()
    arguments = ("--cpus", f"{SLOTS / 10:g}", "--isolation", isolation, "--work", str(state / "work"))
    state.chmod(0o711)
    with Head(place) as head, head.start() as client, Agent(state, head, "w1", *arguments) as agent:
        try:
            when_online(client, agent)
            yield Coord(head, client, agent)
        finally:
            agent.kill()
            kill_attempts(agent.state)


def timed(argv: list[str], **more: object) -> float:
    began_s = time.perf_counter()
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **more)  # type: ignore[call-overload]
    return time.perf_counter() - began_s


def peers(place: Path) -> tuple[dict[str, Callable[[int], float]], dict[str, str]]:
    """How each of them runs so many tasks (tasks a second), and who is not here, and why."""
    there: dict[str, Callable[[int], float]] = {}
    left_out: dict[str, str] = {}
    python = os.environ.get("BENCH_PYTHON", sys.executable)
    if subprocess.run([python, "-c", "import hyperqueue"], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        there["hyperqueue"] = lambda tasks: hyperqueue(python, tasks)
    else:
        left_out["hyperqueue"] = f"{python} has none; BENCH_PYTHON names an interpreter that has it"
    if shutil.which("parallel"):
        there["parallel"] = lambda tasks: tasks / parallel(tasks)
    else:
        left_out["parallel"] = "not installed"
    binary = place / "spawn_rate"
    if SOURCE.exists() and shutil.which("gcc"):
        subprocess.run(["gcc", "-O2", "-o", str(binary), str(SOURCE)], check=True)
        there["c"] = lambda tasks: in_c(binary, tasks)
    else:
        left_out["c"] = f"gcc and {SOURCE.name} are needed"
    return there, left_out


def hyperqueue(python: str, tasks: int) -> float:
    with tempfile.TemporaryDirectory() as place:
        argv = [python, "-c", HYPERQUEUE, str(tasks), str(SLOTS), place]
        done = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=WITHIN_S)
    found = re.search(r"^seconds (\S+)$", done.stdout, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"HyperQueue said {done.stdout[-500:]}")
    return tasks / float(found[1])


def parallel(tasks: int) -> float:
    numbers = "\n".join(map(str, range(tasks)))
    return timed(["parallel", f"-j{SLOTS}", "true"], input=numbers, text=True)


def in_c(binary: Path, tasks: int) -> float:
    done = subprocess.run([binary, str(tasks), "posix", "4"], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1].removesuffix("/s"))


def measure(tasks: int, rounds: int, isolation: str, only: tuple[str, ...]) -> dict[str, object]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    rates: dict[str, list[float]] = {}
    spent: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as text, tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        place = Path(text)
        place.chmod(0o711)
        theirs, left_out = peers(place)
        ours = {"coord": Path(elsewhere), "coord_one_disk": place / "agent"}
        ours["coord_one_disk"].mkdir()
        for number in range(rounds):
            for name, state in ours.items():
                if only and name not in only:
                    continue
                directory = state / str(number)
                directory.mkdir()
                with coord(place / f"{name}-{number}", directory, isolation) as running:
                    running.rate(min(200, tasks))  # what is made once is made
                    rate, by_process = running.rate(tasks)
                rates.setdefault(name, []).append(rate)
                for process, cpu_ms in by_process.items() if name == "coord" else ():
                    spent.setdefault(process, []).append(cpu_ms)
            for name, run in theirs.items():
                if not only or name in only:
                    rates.setdefault(name, []).append(run(tasks))
    figures = {f"{name}_a_second": round(statistics.median(found)) for name, found in rates.items()}
    figures_ms = {f"cpu_ms_{name}": round(statistics.median(found), 3) for name, found in spent.items()}
    ratios = {
        f"coord_to_{name}": round(statistics.median(a / b for a, b in zip(rates["coord"], rates[name], strict=True)), 3)
        for name in rates
        if name in theirs and "coord" in rates
    }
    return {
        "bench": "true_tasks",
        "n": rounds,
        "figures": {"tasks": tasks, "slots": SLOTS, "isolation": isolation, **figures, **figures_ms},
        "rounds": {name: [round(rate) for rate in found] for name, found in rates.items()},
        "ratios": ratios,
        "floors": FLOORS,
        "left_out": left_out,
    }


def main() -> int:
    """Print the figures; 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--isolation", choices=("none", "uid", "sandbox"), default="none")
    parser.add_argument("--only", nargs="*", default=[], help="coord, coord_one_disk, hyperqueue, parallel, c")
    told = parser.parse_args()
    tasks = told.tasks or (300 if told.quick else TASKS)
    report = measure(tasks, told.rounds or (1 if told.quick else ROUNDS), told.isolation, tuple(told.only))
    print(json.dumps(report))
    ratios = report["ratios"]
    assert isinstance(ratios, dict)
    missed = any(ratios.get(name.removesuffix("_min"), floor) < floor for name, floor in FLOORS.items())
    return 1 if missed and not told.quick else 0


if __name__ == "__main__":
    sys.exit(main())
