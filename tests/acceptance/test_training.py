"""The shipped example: training that goes through the loss of its machines, and ends as if there had been none."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import numpy as np

from coordinator.api_types.work import AttemptEntry
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, wait_for, when_online

EXAMPLE = Path(__file__).parents[2] / "examples" / "training"
KILLS = 10
EVERY_S = 2.0
STEP_S = 0.05
HEARD_S = 0.15
"""What a message takes at most: as far as that may differ it is known when a program began, and how old a state is."""
STEPS = "1000"
"""More than it gets to before the last kill, however long we take to see what it does."""
COMMAND = ("--steps", STEPS, "--step-seconds", str(STEP_S), "--save-every", "8")


def undisturbed(directory: Path) -> Path:
    """The weights of a run that nobody kills, without coord. Its environment is as bare as an attempt's: variables of
    the linear algebra library choose other kernels, which round differently."""
    places = {"COORD_CHECKPOINT_DIR": str(directory / "state"), "COORD_OUTPUT_DIR": str(directory)}
    command = [sys.executable, str(EXAMPLE / "train.py"), "--steps", STEPS]
    env = {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", "OMP_NUM_THREADS": "1"}
    subprocess.run(command, env=env | places, check=True, capture_output=True)
    return directory / "weights.npz"


def an_attempt(client: Client, job_id: int, after: int) -> AttemptEntry | None:
    """One with a higher number, if it runs and has saved its state since it began."""
    (task,) = client.jobs.tasks(job_id, attempts=True).entries
    assert task.state not in ("completed", "failed", "cancelled"), f"it {task.state} too soon: {task.reason}"
    newest = task.tries[-1] if task.tries else None
    if newest is None or newest.state != "running" or newest.number <= after:
        return None
    saved = [c for entry in client.jobs.data(job_id).entries for c in entry.checkpoints if c.attempt == newest.number]
    return newest if saved else None


def steps_of(log: str) -> list[tuple[int, int]]:
    """Of each attempt: the step that it began with, and the last one that it did."""
    parts = [list(map(int, re.findall(r"step (\d+)", part))) for part in log.split("begins with ")[1:]]
    return [(part[0], part[-1]) for part in parts]


def test_training_survives_its_providers_and_ends_with_the_same_weights(tmp_path: Path) -> None:
    """Ten times kill -9 of the provider that it runs on, keeper, daemon and program, at a moment of our choice.
    No more work is lost than since the last checkpoint, less than the interval; the result is the same to the bit."""
    expected = undisturbed(tmp_path)
    program = tmp_path / "train.py"
    shutil.copy(EXAMPLE / "train.py", program)
    # A file of the test's own: what was printed last before a kill -9 may never have left the provider.
    log, undisturbed_now = tmp_path / "steps", tmp_path / "undisturbed"
    script = f'[ ! -e {undisturbed_now} ] || set -- "$@" --step-seconds 0; exec "$@" >> {log}'
    with Head(tmp_path) as head, head.start() as client, ExitStack() as stack:
        agents = {f"w{n}": stack.enter_context(Agent(tmp_path, head, f"w{n}", "--cpus", "1")) for n in range(3)}
        when_online(client, *agents.values())
        job = client.jobs.submit(
            {
                "name": "training",
                "command": ["sh", "-c", script, "sh", sys.executable, str(program), *COMMAND],
                "outputs": ["weights.npz"],
                "checkpoint": {"every": f"{EVERY_S:g}s"},
                "retry": {"losses": 2 * KILLS},
            }
        )
        hit: list[str] = []
        number = 0
        for kill in range(KILLS):
            ask = partial(an_attempt, client, job.job_id, number)
            attempt = wait_for(ask, "a checkpoint of a new attempt")
            number = attempt.number
            time.sleep(kill % 4 * 2 * STEP_S)  # somewhere in an interval of the program's own
            if kill == KILLS - 1:
                undisturbed_now.touch()
            victim = agents[attempt.ranks[0].provider_id]
            os.kill(victim.daemon_pid(), signal.SIGKILL)  # not when it sees that its keeper is gone
            victim.kill()
            client.drain(victim.provider_id)  # back at once and with all in its cache, it would be taken again
            if kill >= 2:
                client.resume(hit[-2])
            victim.spawn()
            hit.append(victim.provider_id)
        assert client.jobs.wait(job.job_id, timeout_s=60.0).state == "completed"
        (task,) = client.jobs.tasks(job.job_id, attempts=True).entries
        (made,) = client.jobs.data(job.job_id).entries
        assert client.jobs.get_output(job.job_id, "0.0", made.outputs[0], tmp_path / "got")
    assert set(agents) == set(hit), "every provider was to be killed"
    lost_ms = [attempt.lost_ms for attempt in task.tries if attempt.state == "lost"]
    again = [done - begun for (_, done), (begun, _) in itertools.pairwise(steps_of(log.read_text()))]
    print(f"killed {hit}; lost_ms {lost_ms}; steps that were done twice {again}")
    assert all(-1 <= count and count * STEP_S < EVERY_S for count in again)  # a step is saved, then printed
    assert KILLS == len(lost_ms) == task.losses
    assert all(lost is not None and lost < EVERY_S * 1_000 for lost in lost_ms)
    losses = zip(again, lost_ms, strict=True)
    assert all(lost for count, lost in losses if count * STEP_S > HEARD_S), "what was done twice is told as lost"
    assert all(attempt.restored > 0 for attempt in task.tries[1:] if attempt.started_at is not None)
    with np.load(expected) as wanted, np.load(tmp_path / "got" / "weights.npz") as got:
        assert wanted.files == got.files
        assert all(np.array_equal(wanted[name], got[name]) for name in wanted.files)


def test_the_example_asks_for_nothing_of_coord() -> None:
    """It imports what it needs to train, and nothing else: the files and variables are the whole agreement."""
    imported = re.findall(r"^(?:from|import) (\w+)", (EXAMPLE / "train.py").read_text(), re.M)
    assert {"__future__", "argparse", "itertools", "os", "time", "pathlib", "numpy"} == set(imported)
