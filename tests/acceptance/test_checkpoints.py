"""State that outlives its provider: taken when it is whole, restored wherever the next attempt begins."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from coordinator.agent.control import AgentControl
from coordinator.api_types.data import CheckpointEntry
from coordinator.api_types.work import AttemptEntry, TaskEntry
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, wait_for, when_online

COUNT = """
n=$(cat $COORD_CHECKPOINT_DIR/n 2>/dev/null || echo 0); echo from $n
while [ ! -e {gate} ]; do sleep 0.02; done
"""
"""Counts nothing: it tells what it was restored to, and waits."""


class Fleet(NamedTuple):
    head: Head
    client: Client
    agents: dict[str, Agent]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """One coordinator, two agents that may be killed."""
    directory = tmp_path_factory.mktemp("checkpoints")
    with Head(directory) as head, head.start() as client, ExitStack() as stack:
        agents = {name: stack.enter_context(Agent(directory, head, name, "--cpus", "4")) for name in ("w1", "w2")}
        when_online(client, *agents.values())
        yield Fleet(head, client, agents)


def submit(fleet: Fleet, script: str, **more: object) -> int:
    job = {"command": ["sh", "-c", script], "retry": {"limit": 3, "delay": "0s"}}
    return fleet.client.jobs.submit(job | (more or {"checkpoint": {"every": "1h"}})).job_id


def the_task(fleet: Fleet, job_id: int) -> TaskEntry:
    (task,) = fleet.client.jobs.tasks(job_id, attempts=True).entries
    return task


def attempt(fleet: Fleet, job_id: int, number: int, state: str = "running") -> AttemptEntry:
    """That attempt, as soon as it is in this state."""

    def found() -> AttemptEntry | None:
        tries = [one for one in the_task(fleet, job_id).tries if one.number == number]
        return tries[0] if tries and tries[0].state == state else None

    return wait_for(found, f"attempt {number} of job {job_id} being {state}")


def saved(fleet: Fleet, job_id: int) -> list[CheckpointEntry]:
    """Its checkpoints, the oldest first."""
    entries = fleet.client.jobs.data(job_id).entries
    return sorted((c for entry in entries for c in entry.checkpoints), key=lambda c: c.number)


def when_saved(fleet: Fleet, job_id: int, count: int) -> list[CheckpointEntry]:
    """The same, once there are so many."""

    def enough() -> list[CheckpointEntry] | None:
        found = saved(fleet, job_id)
        return found if len(found) >= count else None

    return wait_for(enough, f"{count} checkpoints of job {job_id}")


def log(fleet: Fleet, job_id: int) -> bytes:
    return b"".join(fleet.client.jobs.logs(job_id))


def provider_of(fleet: Fleet, one: AttemptEntry) -> Agent:
    return fleet.agents[one.ranks[0].provider_id]


def completed(fleet: Fleet, job_id: int) -> bool:
    return fleet.client.jobs.wait(job_id, timeout_s=30.0).state == "completed"


def test_a_directory_that_stands_still_is_saved_and_restored_elsewhere(fleet: Fleet, tmp_path: Path) -> None:
    """Nothing is installed, nothing is agreed: it changed, and then it did not. After kill -9 of the provider the next
    attempt finds it, with directories and bits."""
    script = (
        COUNT.format(gate=tmp_path / "gate") + "test $n = 7 && $COORD_CHECKPOINT_DIR/in/run && echo $COORD_RESTORED"
    )
    write = "cd $COORD_CHECKPOINT_DIR; mkdir in; cp /bin/true in/run; echo 7 > n; cd -;"
    job_id = submit(fleet, f"[ $COORD_RESTORED ] || {{ {write} }}; {script}", checkpoint={"every": "1s"})
    (first,) = when_saved(fleet, job_id, 1)
    assert (1, 2) == (first.number, first.files)
    one = attempt(fleet, job_id, 1)
    agent = provider_of(fleet, one)
    agent.kill()
    agent.spawn()
    wait_for(lambda: log(fleet, job_id) == b"from 7\n", "the next attempt")
    (tmp_path / "gate").touch()
    assert completed(fleet, job_id)
    wait_for(lambda: log(fleet, job_id) == b"from 7\n1\n", "the end of its log")
    assert (0, 1) == ((tries := the_task(fleet, job_id).tries)[0].restored, tries[-1].restored)
    assert not saved(fleet, job_id), "what a success left behind is kept by nobody"


def test_a_program_that_says_so_itself_is_saved_then_and_only_then(fleet: Fleet, tmp_path: Path) -> None:
    """`coord checkpoint` answers with the number once it counts; from then on a directory that stands still is no
    state. Only what changed travels."""
    coord = f"{sys.executable} -m cli.main"
    script = f"""
    cd {Path(__file__).parents[2]}
    head -c 1000000 /dev/urandom > $COORD_CHECKPOINT_DIR/large; echo 1 > $COORD_CHECKPOINT_DIR/n
    {coord} checkpoint --label one --wait
    echo 2 > $COORD_CHECKPOINT_DIR/n
    {coord} checkpoint --label two --wait
    echo half > $COORD_CHECKPOINT_DIR/n
    while [ ! -e {tmp_path / "gate"} ]; do sleep 0.05; done
    exit 3
    """
    again = f"[ $COORD_RESTORED ] && cat $COORD_CHECKPOINT_DIR/n && exit 0; {script}"
    job_id = submit(fleet, again, checkpoint={"every": "1s"})
    first, second = when_saved(fleet, job_id, 2)
    assert (("one", 2), ("two", 2)) == ((first.label, first.files), (second.label, second.files))
    assert first.sent > 1_000_000 > 10_000 > second.sent
    (tmp_path / "gate").touch()
    assert completed(fleet, job_id)
    assert b"2\n" == wait_for(lambda: log(fleet, job_id), "the log of the second attempt")
    assert [0, 2] == [one.restored for one in the_task(fleet, job_id).tries]


def test_a_damaged_checkpoint_is_skipped_for_the_one_before(fleet: Fleet, tmp_path: Path) -> None:
    """Bytes that are no longer what their digest says are noticed where they arrive; both facts are told."""
    gate = tmp_path / "gate"
    script = f"""
    [ $COORD_RESTORED ] && cat $COORD_CHECKPOINT_DIR/n && exit 0
    for n in 1 2; do
        rm -f $COORD_CHECKPOINT_DIR/.ready; echo state $n of {gate} > $COORD_CHECKPOINT_DIR/n
        echo step=$n > $COORD_CHECKPOINT_DIR/.ready
        while [ -e $COORD_CHECKPOINT_DIR/.ready ]; do sleep 0.02; done
    done
    while [ ! -e {gate} ]; do sleep 0.02; done; exit 3
    """
    job_id = submit(fleet, script)
    assert ["step=1", "step=2"] == [c.label for c in when_saved(fleet, job_id, 2)]
    text = f"state 2 of {gate}\n".encode()
    (blob,) = [path for path in (fleet.head.data / "blobs").glob("*/*/*") if path.read_bytes() == text]
    blob.write_bytes(text.replace(b"2", b"9"))
    gate.touch()
    assert completed(fleet, job_id)
    assert f"state 1 of {gate}\n".encode() == wait_for(lambda: log(fleet, job_id), "the log of the second attempt")
    assert [0, 1] == [one.restored for one in the_task(fleet, job_id).tries]


def test_an_agent_that_is_told_to_stop_gives_programs_time_to_save(fleet: Fleet, tmp_path: Path) -> None:
    """By the signal that the job named and by a file: what it writes then is what the next attempt begins with."""
    script = f"""
    [ $COORD_RESTORED ] && cat $COORD_CHECKPOINT_DIR/n && exit 0
    save() {{ [ -e $COORD_CHECKPOINT_DIR/.wanted ] && echo asked > $COORD_CHECKPOINT_DIR/n;
              echo last > $COORD_CHECKPOINT_DIR/.ready; }}
    trap save USR1; trap 'exit 143' TERM; touch {tmp_path / "up"}
    while true; do sleep 0.02; done
    """
    job_id = submit(fleet, script, checkpoint={"every": "1h", "signal": "USR1", "grace": "20s"})
    wait_for((tmp_path / "up").exists, "the program")
    agent = provider_of(fleet, attempt(fleet, job_id, 1))
    agent.signal(signal.SIGTERM)
    assert 0 == agent.wait()
    agent.spawn()
    assert completed(fleet, job_id)
    assert b"asked\n" == wait_for(lambda: log(fleet, job_id), "the log of the second attempt")
    task = the_task(fleet, job_id)
    assert (1, 0) == (task.losses, task.failures)


def test_a_drained_provider_has_its_programs_save(fleet: Fleet, tmp_path: Path) -> None:
    """They go on, and what they did until then is safe."""
    script = f"""
    echo up > {tmp_path / "up"}
    while [ ! -e {tmp_path / "gate"} ]; do
        if [ -e $COORD_CHECKPOINT_DIR/.wanted ]; then rm $COORD_CHECKPOINT_DIR/.wanted
            echo x > $COORD_CHECKPOINT_DIR/n; : > $COORD_CHECKPOINT_DIR/.ready; fi
        sleep 0.02
    done
    """
    job_id = submit(fleet, script)
    wait_for((tmp_path / "up").exists, "the program")
    name = attempt(fleet, job_id, 1).ranks[0].provider_id
    fleet.client.drain(name)
    when_saved(fleet, job_id, 1)
    fleet.client.resume(name)
    (tmp_path / "gate").touch()
    assert completed(fleet, job_id)


@pytest.mark.parametrize("victim", ["daemon", "coordinator"])
def test_a_checkpoint_survives_whoever_is_killed_beside_it(fleet: Fleet, tmp_path: Path, victim: str) -> None:
    """The program runs on, its next checkpoint is taken and counts; none is counted twice."""
    script = f"""
    for n in 1 2 3; do
        rm -f $COORD_CHECKPOINT_DIR/.ready; yes $n {tmp_path} | head -c 20000000 > $COORD_CHECKPOINT_DIR/n
        : > $COORD_CHECKPOINT_DIR/.ready; touch {tmp_path}/$n
        while [ -e $COORD_CHECKPOINT_DIR/.ready ]; do sleep 0.02; done
    done
    while [ ! -e {tmp_path / "gate"} ]; do sleep 0.02; done
    """
    job_id = submit(fleet, script, checkpoint={"every": "1h", "keep": 5})
    wait_for((tmp_path / "2").exists, "the second state")
    agent = provider_of(fleet, attempt(fleet, job_id, 1))
    if victim == "daemon":
        os.kill(agent.daemon_pid(), signal.SIGKILL)
    else:
        fleet.head.kill()
        fleet.head.start().close()
    found = when_saved(fleet, job_id, 2)
    wait_for(lambda: (tmp_path / "3").exists() and len(saved(fleet, job_id)) > 1, "the third state")
    (tmp_path / "gate").touch()
    assert completed(fleet, job_id)
    task = the_task(fleet, job_id)
    assert [1] == [one.number for one in task.tries if one.started_at is not None], "it was run again"
    assert len({c.manifest for c in found}) == len(found) <= 3


def test_a_program_that_gets_nowhere_is_ended_and_tried_again(fleet: Fleet, tmp_path: Path) -> None:
    """Cause `stalled`, a failure like others. One that reports is no longer kept alive by what it prints."""
    script = f"""
    [ -e {tmp_path / "again"} ] && exit 0
    touch {tmp_path / "again"}; echo coord-progress 0.5 step=1
    while true; do echo still here; sleep 0.1; done
    """
    job_id = submit(fleet, script, stall_after="1s")
    assert completed(fleet, job_id)
    first, _ = the_task(fleet, job_id).tries
    end = first.ranks[0].exit
    assert end is not None
    assert "stalled" == end.cause
    assert "no report" in end.text
    assert first.progress is not None
    assert (0.5, {"step": "1"}) == (first.progress.fraction, first.progress.values)


def test_what_the_spool_does_not_hold_is_skipped_and_told(fleet: Fleet, tmp_path: Path) -> None:
    """The job goes on; the status says what is wrong. (More files than a manifest holds: the same way.)"""
    script = f"""
    cd $COORD_CHECKPOINT_DIR; seq -f f%g 4200 | xargs touch; : > .ready
    while [ -e .ready ]; do sleep 0.05; done; while [ ! -e {tmp_path / "gate"} ]; do sleep 0.02; done
    """
    job_id = submit(fleet, script)
    agent = provider_of(fleet, attempt(fleet, job_id, 1))

    def problem() -> str:
        held = AgentControl(agent.state).status().attempts
        return next((one.problem for one in held if one.attempt.startswith(f"{job_id}.")), "")

    assert "more than 4096 files" in wait_for(problem, "the problem being shown")
    (tmp_path / "gate").touch()
    assert completed(fleet, job_id)
    assert not saved(fleet, job_id)
