"""What tracing costs a task: `true`, submit to all done, with and without, by turns in one run.

    python -m bench.tracing [--quick] [--tasks N] [--rounds N]

Two coordinators with one agent each run side by side, one agent with `--trace` and one with `--no-trace`; while one has
work the other is idle. Rounds alternate, and so does who is first; the ratio is the median over the rounds, and
`error` is what it would move by if all were repeated (standard error). Many short rounds: a machine that others use, or
that grows hot, changes within one of ten seconds by more than is asked about here.

With tracing every program is told of its trace; of a program that traces nothing and leaves nothing there is nothing to
look for and nothing to send: the coordinator's own spans are a view of what it stores anyway.

`cpu_ms_*` is CPU time a task by all processes of the coordinator and of the agent, programs included, until the traces
have arrived: what is done behind the tasks counts, too.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from bench.true_tasks import SLOTS, WITHIN_S
from coordinator.agent.control import AgentControl
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, wait_for, when_online

TASKS, ROUNDS = 2_000, 30
FLOORS = {"traced_to_untraced_min": 0.97}
WARM = 300
"""Tasks of a first round that is not counted."""


class Side:
    """One coordinator and its agent."""

    def __init__(self, head: Head, client: Client, agent: Agent) -> None:
        self._head, self._client, self._agent = head, client, agent

    def rate(self, tasks: int) -> tuple[float, float]:
        """Tasks a second, and milliseconds of CPU a task."""
        before = self._spent()
        began_s = time.perf_counter()
        job = {"command": ["true"], "array": f"1-{tasks}", "resources": {"cpus": 0.1}}
        job_id = self._client.jobs.submit(job).job_id
        entry = self._client.jobs.wait(job_id, timeout_s=WITHIN_S)
        took_s = time.perf_counter() - began_s
        if entry.state != "completed":
            raise RuntimeError(f"the job is {entry.state}: {entry.reason}")
        time.sleep(1.0)  # the agent puts its spans together for half a second
        wait_for(lambda: not AgentControl(self._agent.state).status().traces.waiting_bytes, "the traces arriving")
        return tasks / took_s, (self._spent() - before) / tasks * 1_000

    def _spent(self) -> float:
        """Seconds of CPU of everything that runs here, and of what ran."""
        spent = 0.0
        for root in (self._head.pid, self._agent.pid):
            whole = psutil.Process(root)
            for process in (whole, *whole.children(recursive=True)):
                with suppress(psutil.Error):
                    spent += sum(process.cpu_times()[:4])
        return spent

    def dropped(self) -> int:
        traces = AgentControl(self._agent.state).status().traces
        return traces.dropped_parts + traces.refused_parts + traces.rejected_rows


@contextmanager
def side(place: Path, state: Path, flag: str) -> Iterator[Side]:
    place.mkdir()
    state.mkdir()
    arguments = ("--cpus", f"{SLOTS / 10:g}", "--isolation", "none", "--work", str(state / "work"), flag)
    with Head(place) as head, head.start() as client, Agent(state, head, "w1", *arguments) as agent:
        when_online(client, agent)
        yield Side(head, client, agent)


def measure(tasks: int, rounds: int) -> dict[str, object]:
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    rates: dict[str, list[float]] = {"traced": [], "untraced": []}
    spent: dict[str, list[float]] = {"traced": [], "untraced": []}
    with tempfile.TemporaryDirectory() as text, tempfile.TemporaryDirectory(dir=memory) as elsewhere:
        place, state = Path(text), Path(elsewhere)
        with (
            side(place / "traced", state / "traced", "--trace") as traced,
            side(place / "untraced", state / "untraced", "--no-trace") as untraced,
        ):
            sides = {"traced": traced, "untraced": untraced}
            for one in sides.values():
                one.rate(min(WARM, tasks))
            for number in range(rounds):
                for name in sorted(sides, reverse=bool(number % 2)):
                    rate, cpu_ms = sides[name].rate(tasks)
                    rates[name].append(rate)
                    spent[name].append(cpu_ms)
            lost = traced.dropped()
    ratio, error = compared(rates["traced"], rates["untraced"])
    cpu, cpu_error = compared(spent["traced"], spent["untraced"])
    return {
        "bench": "tracing",
        "n": rounds,
        "figures": {
            "tasks": tasks,
            "slots": SLOTS,
            **{f"{name}_a_second": round(statistics.median(found)) for name, found in rates.items()},
            **{f"cpu_ms_{name}": round(statistics.median(found), 3) for name, found in spent.items()},
            "parts_dropped_or_refused": lost,
            "error": round(error, 3),
            "cpu_error": round(cpu_error, 3),
        },
        "rounds": {name: [round(rate) for rate in found] for name, found in rates.items()},
        "ratios": {"traced_to_untraced": round(ratio, 3), "cpu_traced_to_untraced": round(cpu, 3)},
        "floors": FLOORS,
    }


def compared(ours: list[float], theirs: list[float]) -> tuple[float, float]:
    """The median of the ratios, round by round, and its standard error."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    # of a median it is a quarter more than of a mean
    return statistics.median(ratios), 1.25 * statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else 0.0


def main() -> int:
    """Print the figures; 1 when a floor was missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--tasks", type=int)
    parser.add_argument("--rounds", type=int)
    told = parser.parse_args()
    report = measure(told.tasks or (300 if told.quick else TASKS), told.rounds or (1 if told.quick else ROUNDS))
    print(json.dumps(report))
    ratios = report["ratios"]
    assert isinstance(ratios, dict)
    return 1 if ratios["traced_to_untraced"] < FLOORS["traced_to_untraced_min"] and not told.quick else 0


if __name__ == "__main__":
    sys.exit(main())
