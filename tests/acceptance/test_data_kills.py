"""kill -9 at every step of a checkpoint and of a result, of the daemon, the keeper and the coordinator.

Steps are requests of the agent, before they are seen and before they are answered: between two of them a daemon keeps
nothing that its successor does not find. test_transfers.py kills the coordinator between bytes and row.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest

from coordinator.client import Client
from tests.acceptance.processes import GUARD_S, Agent, Head, wait_for, when_online
from tests.acceptance.stepgate import Step, StepGate

LANES = 4
SETTINGS = (
    "blobs.sweep_s=200ms",
    "blobs.scan_s=500ms",
    "policy.blob_grace_ms=2s",
    "policy.heartbeat_interval_ms=1s",
    "policy.ping_after_intervals=1.9",
    "policy.lost_after_ms=6s",
    "policy.term_ms=4s",
)
CHECKPOINT, OUTPUTS = "/checkpoints", "/outputs"
STEPS = [
    Step(line, after, asked)
    for line, after in (
        ("/uploads", ""),
        ("PUT /v1/uploads/", ""),
        (CHECKPOINT, ""),
        ("/uploads", CHECKPOINT),
        ("PUT /v1/uploads/", CHECKPOINT),
        (OUTPUTS, ""),
    )
    for asked in (True, False)
]
SIZE = 300_000
SCRIPT = f"""
if [ ! "$COORD_RESTORED" ]; then
    yes state of $COORD_ATTEMPT | head -c {SIZE} > $COORD_CHECKPOINT_DIR/n
    : > $COORD_CHECKPOINT_DIR/.ready
    while [ -e $COORD_CHECKPOINT_DIR/.ready ]; do sleep 0.02; done
    while [ ! -e GATE ]; do sleep 0.02; done
fi
mkdir -p made; yes $COORD_ATTEMPT | head -c {SIZE} > made/model; echo $COORD_ATTEMPT > made/who
"""


class Lane(NamedTuple):
    """An agent that reaches the coordinator by its own gate alone, and the jobs that only it takes."""

    agent: Agent
    gate: StepGate
    client: Client
    """Of its own: a client is one thread's."""

    def begin(self, mark: Path) -> int:
        """A job that saves its state, and goes on to its result when `mark` is there."""
        job = {
            "command": ["sh", "-ec", SCRIPT.replace("GATE", str(mark))],
            "outputs": ["made/*"],
            "checkpoint": {"every": "1h"},
            "labels": {"lane": self.agent.provider_id},
            "retry": {"limit": 3, "delay": "0s", "losses": 5},
        }
        return self.client.jobs.submit(job).job_id


class Field(NamedTuple):
    head: Head
    client: Client
    lanes: list[Lane]
    jobs: list[int]
    """All that were begun."""


@pytest.fixture(scope="module")
def field(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Field]:
    directory = tmp_path_factory.mktemp("kills")
    settings = [part for one in SETTINGS for part in ("--set", one)]
    with Head(directory, *settings) as head, head.start() as client, contextlib.ExitStack() as stack:
        lanes = []
        for name in (f"w{n}" for n in range(LANES)):
            gate = stack.enter_context(StepGate(head.url))
            agent = Agent(directory, head, name, "--cpus", "1", "--label", f"lane={name}")
            agent.env = {**agent.env, "COORD_URL": gate.url}
            lanes.append(Lane(stack.enter_context(agent), gate, stack.enter_context(head.client())))
        when_online(client, *(lane.agent for lane in lanes))
        yield Field(head, client, lanes, [])


def kill_daemon(agent: Agent) -> None:
    os.kill(agent.daemon_pid(), signal.SIGKILL)


def kill_keeper(agent: Agent) -> None:
    os.kill(agent.pid, signal.SIGKILL)
    agent.wait()
    agent.spawn()


def at_step(lane: Lane, step: Step, mark: Path) -> int:
    """A job that stands still there."""
    lane.gate.arm(step)
    job_id = lane.begin(mark)
    if CHECKPOINT == step.after or step.line == OUTPUTS:
        wait_for(lambda: any(entry.checkpoints for entry in lane.client.jobs.data(job_id).entries), "a checkpoint")
        mark.touch()
    assert lane.gate.reached.wait(GUARD_S), f"{step} was never reached"
    return job_id


def has_one_result(client: Client, job_id: int, into: Path) -> None:
    """Made as a whole by the attempt that it names, and there to the last byte."""
    assert client.jobs.wait(job_id, timeout_s=40.0).state == "completed"
    (task,) = client.jobs.tasks(job_id, attempts=True).entries
    assert [one.state for one in task.tries].count("completed") == 1
    (made,) = client.jobs.data(job_id).entries
    for file in made.outputs:
        client.jobs.get_output(job_id, "0.0", file, into)
    who = (into / "made" / "who").read_text().strip()
    assert who == task.tries[-1].attempt
    assert (into / "made" / "model").read_bytes() == (f"{who}\n".encode() * SIZE)[:SIZE]


@pytest.mark.parametrize("kill", [kill_daemon, kill_keeper])
def test_an_agent_killed_at_any_step_leaves_one_result(
    field: Field, tmp_path: Path, kill: Callable[[Agent], None]
) -> None:
    """Whatever it was about to say or to hear: the next daemon goes on, or the next attempt, and one result counts."""

    def walk(lane: Lane, steps: list[Step]) -> list[int]:
        done = []
        for number, step in enumerate(steps):
            here = tmp_path / f"{lane.agent.provider_id}-{number}"
            here.mkdir()
            job_id = at_step(lane, step, here / "mark")
            kill(lane.agent)
            lane.gate.let_go()
            (here / "mark").touch()
            has_one_result(lane.client, job_id, here)
            done.append(job_id)
        return done

    with ThreadPoolExecutor(LANES) as threads:
        walks = [threads.submit(walk, lane, STEPS[n::LANES]) for n, lane in enumerate(field.lanes)]
        for one in walks:
            field.jobs.extend(one.result())


def test_a_coordinator_killed_at_any_step_leaves_one_result(field: Field, tmp_path: Path) -> None:
    """It stands at a step of several agents at once; each of them goes on with the next coordinator."""
    with ThreadPoolExecutor(LANES) as threads:
        for first in range(0, len(STEPS), LANES):
            marks = [tmp_path / f"mark-{first}-{n}" for n in range(LANES)]
            at = list(threads.map(at_step, field.lanes, STEPS[first : first + LANES], marks))
            field.head.kill()
            for lane, mark in zip(field.lanes, marks, strict=True):
                lane.gate.let_go()
                mark.touch()
            field.head.start().close()
            into = [tmp_path / f"job-{job_id}" for job_id in at]
            list(threads.map(has_one_result, [lane.client for lane in field.lanes], at, into))
            field.jobs.extend(at)


def test_nothing_is_left_of_all_that_but_the_results(field: Field) -> None:
    """Once the sweep has been there: files, rows and holds are the same blobs, those of the results and no other; no
    upload is open, and no agent keeps a copy."""
    assert field.jobs, "this comes after the kills"
    holders = {f"task:{job_id}.0.0" for job_id in field.jobs}

    def is_tidy() -> bool:
        files = {path.name for path in (field.head.data / "blobs").glob("*/*/*") if path.is_file()}
        with contextlib.closing(sqlite3.connect(f"file:{field.head.data}/truth.sqlite?mode=ro", uri=True)) as truth:
            rows = {digest for (digest,) in truth.execute("SELECT digest FROM blob")}
            held = dict(truth.execute("SELECT holder, digests FROM hold"))
            uploads = truth.execute("SELECT count(*) FROM upload").fetchone()[0]
        named = {digest for digests in held.values() for digest in json.loads(digests)}
        parts = list((field.head.data / "blobs" / ".uploads").iterdir())
        return (set(held), files, rows, uploads, parts) == (holders, named, named, 0, [])

    wait_for(is_tidy, "nothing but the results being left")
    assert () == field.client.check().problems
    for lane in field.lanes:
        assert [] == [path for path in (lane.agent.state / "spool").rglob("*") if path.is_file()]
