"""Outputs: published once, with the end, whoever is killed while they travel; refused where they tell too much."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from coordinator.agent.control import AgentControl
from coordinator.api_types.work import TaskEntry
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, wait_for, when_online
from tests.acceptance.tollgate import TollGate

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="users of their own need root")


class Fleet(NamedTuple):
    head: Head
    client: Client
    agent: Agent


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One coordinator and one agent, for tests that leave them alive."""
    directory = tmp_path_factory.mktemp("results")
    with Head(directory) as head, head.start() as client, Agent(directory, head, "w1") as agent:
        when_online(client, agent)
        yield Fleet(head, client, agent)


def shell(text: str, *outputs: str, **more: object) -> dict[str, object]:
    """A job of one shell script."""
    return {"command": ["sh", "-c", text], "outputs": list(outputs), **more}


def ended(client: Client, job_id: int) -> TaskEntry:
    client.jobs.wait(job_id, timeout_s=30.0)
    (task,) = client.jobs.tasks(job_id, attempts=True).entries
    return task


def result(client: Client, job_id: int, into: Path) -> dict[str, bytes]:
    """The files of the job's one result, fetched and verified."""
    (made,) = client.jobs.data(job_id).entries
    for file in made.outputs:
        client.jobs.get_output(job_id, "0.0", file, into)
    return {file.path: (into / file.path).read_bytes() for file in made.outputs}


def phases(agent: Agent) -> dict[str, str]:
    """Of what the agent holds."""
    return {held.attempt: held.phase for held in AgentControl(agent.state).status().attempts}


def test_what_was_declared_is_published_with_the_end(fleet: Fleet, tmp_path: Path) -> None:
    """Of the working directory and of COORD_OUTPUT_DIR, directories and bits as they were; what was not, is not."""
    script = (
        "mkdir -p a/b $COORD_OUTPUT_DIR/out; echo one > a/b/x.txt; echo two > a/y.txt; : > a/empty.txt; echo > z.bin;"
        "cp /bin/true run; chmod 755 run; echo three > $COORD_OUTPUT_DIR/out/1.txt; ln -s /etc/passwd a/link.txt"
    )
    job = fleet.client.jobs.submit(shell(script, "a/**/*.txt", "out/*", "run"))
    assert "completed" == ended(fleet.client, job.job_id).state
    got = result(fleet.client, job.job_id, tmp_path)
    assert Path("/bin/true").read_bytes() == got.pop("run")
    assert {"a/b/x.txt": b"one\n", "a/y.txt": b"two\n", "a/empty.txt": b"", "out/1.txt": b"three\n"} == got
    assert os.access(tmp_path / "run", os.X_OK)


@pytest.mark.parametrize(
    ("script", "output", "why"),
    [
        ("true", "model.pt", "'model.pt' matches no file"),
        ("ln -s /etc/passwd model.pt", "model.pt", "link"),
        ("mkdir d; ln -s /etc e; cp /etc/hostname d", "e/hostname", "link"),
        ("mkfifo model.pt", "model.pt", "FIFO"),
    ],
)
def test_a_success_without_its_output_is_a_failure_that_says_why(
    fleet: Fleet, script: str, output: str, why: str
) -> None:
    """Cause `output`, not tried again: the next attempt would do the same."""
    job = fleet.client.jobs.submit(shell(script, output))
    task = ended(fleet.client, job.job_id)
    assert ("failed", 1) == (task.state, task.attempts)
    end = task.tries[0].ranks[0].exit
    assert end is not None
    assert ("output", 0) == (end.cause, end.code)
    assert why in end.text


def test_a_failure_publishes_nothing(fleet: Fleet) -> None:
    """Its files may be halves."""
    job = fleet.client.jobs.submit(shell("echo half > model.pt; exit 3", "model.pt", retry={"limit": 0}))
    assert "failed" == ended(fleet.client, job.job_id).state
    assert not [entry for entry in fleet.client.jobs.data(job.job_id).entries if entry.outputs]


def test_the_result_of_a_step_is_the_input_of_the_next(fleet: Fleet, tmp_path: Path) -> None:
    """By the step's name: the files are there before its program starts."""
    first = {"name": "prep", "command": ["sh", "-c", "echo clean > data.csv"], "outputs": ["data.csv"]}
    second = {
        "name": "train",
        "command": ["sh", "-c", "tr a-z A-Z < data.csv > model"],
        "inputs": ["prep:data.csv"],
        "outputs": ["model"],
        "needs": ["prep"],
    }
    job = fleet.client.jobs.submit({"name": "two", "step": [first, second]})
    assert "completed" == fleet.client.jobs.wait(job.job_id, timeout_s=30.0).state
    made = {entry.step: entry for entry in fleet.client.jobs.data(job.job_id).entries}
    fleet.client.jobs.get_output(job.job_id, "1.0", made["train"].outputs[0], tmp_path)
    assert b"CLEAN\n" == (tmp_path / "model").read_bytes()


SIZE = 100_000_000


def arriving(head: Head) -> int:
    """Bytes of uploads that are not whole yet."""
    sizes = [0]
    for path in (head.data / "blobs" / ".uploads").iterdir():
        with contextlib.suppress(FileNotFoundError):
            sizes.append(path.stat().st_size)
    return sum(sizes)


def uploading(fleet: Fleet, directory: Path, size: int) -> int:
    """A job that has succeeded, and whose outputs are on their way: the coordinator is stopped. The job's number."""
    gate = directory / "gate"
    waits = f"while [ ! -e {gate} ]; do sleep 0.02; done; yes {directory} | head -c {size} > model"
    job = fleet.client.jobs.submit(shell(waits, "model"))
    attempt = f"{job.job_id}.0.0.1"
    wait_for(lambda: phases(fleet.agent).get(attempt) == "running", "the program")
    fleet.head.signal(signal.SIGSTOP)
    gate.touch()
    wait_for(lambda: phases(fleet.agent).get(attempt) == "uploading", "the end of the program")
    return job.job_id


def test_a_cancelled_job_stops_sending_and_has_no_result(fleet: Fleet, tmp_path: Path) -> None:
    """Nobody wants what travels any more: the attempt ends at once, and nothing of it counts."""
    job_id = uploading(fleet, tmp_path, size=300_000_000)
    fleet.head.signal(signal.SIGCONT)
    fleet.client.jobs.cancel(job_id)
    task = ended(fleet.client, job_id)
    wait_for(lambda: f"{job_id}.0.0.1" not in phases(fleet.agent), "the agent being rid of it")
    made = [entry for entry in fleet.client.jobs.data(job_id).entries if entry.outputs]
    # on a quick machine it was through before the cancellation came
    assert (task.state, made) == ("cancelled", []) or (task.state == "completed" and made)


@pytest.mark.parametrize("victim", ["daemon", "agent", "coordinator"])
def test_whoever_is_killed_while_the_outputs_travel_there_is_one_result(
    fleet: Fleet, tmp_path: Path, victim: str
) -> None:
    """kill -9: the program is not run again, its result is published once, by the one attempt that made it, and what
    had arrived of it is not sent again."""
    head, client, agent = fleet
    job_id = uploading(fleet, tmp_path, size=SIZE)
    head.signal(signal.SIGCONT)
    arrived = wait_for(lambda: arriving(head), "bytes on their way")
    match victim:
        case "daemon":
            os.kill(agent.daemon_pid(), signal.SIGKILL)
        case "agent":
            agent.kill()
            agent.spawn()
        case "coordinator":
            head.kill()
            head.start().close()
    assert arrived <= arriving(head) or client.jobs.data(job_id).entries, "what had arrived was thrown away"
    task = ended(client, job_id)
    assert ("completed", 1) == (task.state, task.attempts), task
    (made,) = client.jobs.data(job_id).entries
    assert [("model", SIZE)] == [(file.path, file.size) for file in made.outputs]
    wait_for(lambda: phases(agent) == {}, "the agent holding nothing any more")


def test_a_step_runs_where_what_it_takes_was_made(tmp_path: Path) -> None:
    """On either of two agents: it finds 64 MB that the step before it made there, and nothing of them travels back."""
    size = 64 << 20
    with ExitStack() as stack:
        head = stack.enter_context(Head(tmp_path))
        client = stack.enter_context(head.start())
        gates, agents = {}, []
        for name in ("w1", "w2"):
            gates[name] = stack.enter_context(TollGate(head.url))
            agent = Agent(tmp_path, head, name, "--label", f"node={name}")
            agent.env = {**agent.env, "COORD_URL": gates[name].url}
            agents.append(stack.enter_context(agent))
        when_online(client, *agents)
        for name in ("w2", "w1"):
            before = {each: gate.brought for each, gate in gates.items()}
            make = {
                "name": "make",
                "command": ["sh", "-ec", f"head -c {size} /dev/urandom > big.bin; b2sum < big.bin"],
                "outputs": ["big.bin"],
                "labels": {"node": name},
            }
            use = {
                "name": "use",
                "command": ["sh", "-ec", "b2sum < in/big.bin"],
                "inputs": [{"from": "make:*.bin", "to": "in/"}],
                "needs": ["make"],
                "time_limit": "1m",
            }
            job = client.jobs.submit({"name": "two", "step": [make, use]})
            assert "completed" == client.jobs.wait(job.job_id, timeout_s=60.0).state
            (task,) = client.jobs.tasks(job.job_id, step=1, attempts=True).entries
            (attempt,) = task.tries
            assert attempt.choice is not None
            assert (name, 0) == (attempt.ranks[0].provider_id, attempt.choice.fetch)
            sums = [b"".join(client.jobs.logs(job.job_id, task=f"{step}.0")) for step in range(2)]
            assert sums[0] and sums[0] == sums[1]
            for each, gate in gates.items():
                assert gate.brought - before[each] < size // 64, f"{each} fetched something"
