"""`coord watch` on real launches: of a coordinator, of Slurm and of Ray. The last two where they are installed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.cli_runs import Coord, Done, Server
from tests.acceptance.one_ray import ray_command, ray_head, ray_submit
from tests.acceptance.one_slurm import OneSlurm, missing
from tests.acceptance.processes import GUARD_S, Agent, when_online

TRAINS = "for i in 1 2 3; do echo step $i loss 0.3; sleep 0.3; done"
LACKS = "echo loading; python3 -c 'import no_such_module_here'"
HANGS = LACKS + "; sleep 600"
"""The line is fatal, and its process stays: states alone would say that it runs."""


@pytest.fixture(scope="module")
def coord(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Coord]:
    directory = tmp_path_factory.mktemp("watch")
    with Server(directory) as server:
        client = server.start()
        with Agent(directory, server, "one", "--cpus", "2") as agent:
            when_online(client, agent)
            yield Coord(server.data)


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OneSlurm]:
    if why := missing():
        pytest.skip(f"no Slurm: {why}")
    with OneSlurm(tmp_path_factory.mktemp("slurm")) as one:
        yield one


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    command = ray_command()
    if command is None:
        pytest.skip("no Ray: neither `ray` nor COORD_TEST_RAY")
    with ray_head(command, tmp_path_factory.mktemp("ray")) as address:
        yield address


def remarks(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.out.splitlines()]


def kinds(done: Done) -> list[str]:
    return [row["phase"] or row["kind"] for row in remarks(done)]


def test_a_job_that_runs_has_launched(coord: Coord, tmp_path: Path) -> None:
    """Each phase in its order, and what to do next."""
    go = tmp_path / "go"
    coord(
        "submit",
        "--name",
        "trains",
        "-o",
        "name",
        "--",
        "sh",
        "-c",
        f"until test -e {go}; do sleep 0.1; done; {TRAINS}",
    )
    done = coord("watch", "last", "-o", "jsonl")
    assert done.code == 0
    assert kinds(done) == ["submitted", "queued", "placed", "starting", "running"]
    go.touch()
    shown = coord("watch", "last", "--until", "finished")
    assert shown.code == 0
    assert "first progress" in shown.out and "completed" in shown.out
    assert "next: coord job show" in shown.err


def test_a_job_that_dies_at_once_says_why_and_ends_with_its_status(coord: Coord) -> None:
    """The verdict with its line, whatever the job does next; `finished` has the job's own exit status."""
    job = coord("submit", "--retry", "0", "-o", "name", "--", "sh", "-c", f"{LACKS}; exit 7").out.strip()
    done = coord("watch", job, "--until", "finished", "-o", "jsonl")
    assert done.code == 7, done.err
    verdicts = [row["verdict"] for row in remarks(done) if row["verdict"] is not None]
    assert verdicts[-1]["cause"] == "env_dependency"
    assert "no_such_module_here" in verdicts[-1]["evidence"][0]["text"]


def test_one_that_has_failed_already_is_no_success(coord: Coord) -> None:
    """It did run; asked later, its result is the answer, and everything is told at its own time."""
    job = coord("submit", "--retry", "0", "-o", "name", "--", "sh", "-c", f"{LACKS}; exit 7").out.strip()
    assert coord("job", "wait", job).code == 7
    done = coord("watch", job, "-o", "jsonl")
    assert done.code == 7, done.err
    rows = remarks(done)
    assert [row["at"] for row in rows] == sorted(row["at"] for row in rows)
    assert (rows[-1]["kind"], rows[-1]["verdict"]["cause"]) == ("end", "env_dependency")


def test_a_fatal_line_is_said_while_the_process_hangs(coord: Coord) -> None:
    """The slow path knows what no state tells; the end is waited for, and is its cancellation."""
    job = coord("submit", "-o", "name", "--", "sh", "-c", HANGS).out.strip()
    seen: list[dict[str, Any]] = []
    argv = [sys.executable, "-m", "cli", "watch", job, "--until", "finished", "-o", "jsonl"]
    with subprocess.Popen(argv, env=coord.env, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            seen.append(json.loads(line))
            if seen[-1]["kind"] == "early":
                coord("job", "cancel", job)
    assert [row["kind"] for row in seen if row["kind"] != "phase"] == ["early", "end"]
    assert seen[-2]["verdict"]["recommendation"] == "STOP"
    assert "cancelled" in seen[-1]["text"]


def test_who_waits_says_what_for_until_time_is_up(coord: Coord) -> None:
    """Nobody has so many CPUs: the reason, and 124."""
    job = coord("submit", "-o", "name", "--cpus", "64", "--", "true").out.strip()
    done = coord("watch", job, "--within", "2s")
    assert done.code == 124
    assert "waits:" in done.out and "not running in time" in done.out
    coord("job", "cancel", job)


@pytest.mark.parametrize("name", ["slurm:12;reboot", "slurm:", "ray:a/b", "12x", "slurm:-1"])
def test_what_names_no_launch_is_refused(coord: Coord, name: str) -> None:
    """By name, with how to say it; nothing of it reaches a command line or a URL."""
    done = coord("watch", name)
    assert done.code in (2, 66)
    assert "Traceback" not in done.err


def test_ctrl_c_leaves_the_job_alone(coord: Coord) -> None:
    """It detaches, and says so."""
    job = coord("submit", "-o", "name", "--cpus", "64", "--", "true").out.strip()
    argv = [sys.executable, "-m", "cli", "watch", job]
    with subprocess.Popen(argv, env=coord.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as watching:
        assert watching.stdout is not None and watching.stderr is not None
        watching.stdout.readline()
        watching.send_signal(signal.SIGINT)
        assert b"detached" in watching.stderr.read()
        assert watching.wait(GUARD_S) == 130
    assert json.loads(coord("job", "show", job, "-o", "json").out)["job"]["state"] == "pending"
    coord("job", "cancel", job)


def test_slurm_a_job_that_runs(slurm: OneSlurm) -> None:
    """States and log, by the job's number; and the next command."""
    job = slurm.submit(TRAINS)
    here = Coord(slurm.root / "data", slurm.env)
    done = here("watch", f"slurm:{job}", "--until", "finished", "-o", "jsonl")
    assert done.code == 0, done.err
    assert kinds(done)[:2] == ["submitted", "queued"]
    assert kinds(done)[-1] == "end" and remarks(done)[-1]["text"] == "completed"


def test_slurm_a_job_that_dies(slurm: OneSlurm) -> None:
    """Its own exit status, and the line."""
    job = slurm.submit(f"{LACKS}; exit 7")
    done = Coord(slurm.root / "data", slurm.env)("watch", f"slurm:{job}", "--until", "finished", "-o", "jsonl")
    assert done.code == 7, done.err
    verdicts = [row["verdict"] for row in remarks(done) if row["verdict"] is not None]
    assert verdicts and verdicts[-1]["cause"] == "env_dependency"


def test_slurm_a_fatal_line_comes_before_the_end(slurm: OneSlurm) -> None:
    """Slurm says RUNNING of it for ten minutes."""
    job = slurm.submit(HANGS)
    slurm.when(job, "RUNNING")
    began_s = time.monotonic()
    argv = [sys.executable, "-m", "cli", "watch", f"slurm:{job}", "--until", "finished", "-o", "jsonl"]
    early = ""
    with subprocess.Popen(argv, env={**slurm.env, "PYTHONPATH": str(Path.cwd())}, stdout=subprocess.PIPE) as watching:
        assert watching.stdout is not None
        for line in watching.stdout:
            row = json.loads(line)
            if row["kind"] == "early":
                early = row["verdict"]["cause"]
                slurm.say("scancel", job)
        assert watching.wait() != 0
    assert early == "env_dependency"
    assert time.monotonic() - began_s < 40


def test_slurm_one_that_is_held_says_how_to_release_it(slurm: OneSlurm) -> None:
    """It waits, and may begin: no failure."""
    job = slurm.submit("true", "--hold")
    done = Coord(slurm.root / "data", slurm.env)("watch", f"slurm:{job}", "--within", "3s")
    assert done.code == 124
    assert f"scontrol release {job}" in done.out
    slurm.say("scancel", job)


def test_slurm_an_array_and_a_job_that_is_none(slurm: OneSlurm) -> None:
    """One task of an array is one launch; a number that Slurm does not know is told so, never taken for another."""
    here = Coord(slurm.root / "data", slurm.env)
    array = slurm.submit("true", "--array=1-2", "--hold")
    assert "is an array" in here("watch", f"slurm:{array}").err
    assert here("watch", f"slurm:{array}_2", "--until", "submitted").code == 0
    slurm.say("scancel", array)
    assert here("watch", "slurm:987654").code == 66


def test_ray_jobs(ray: str, tmp_path: Path) -> None:
    """One that completes, and one that dies with its line and its exit status; one that is none."""
    here = Coord(tmp_path / "data", {"RAY_API_SERVER_ADDRESS": ray})
    done = here("watch", f"ray:{ray_submit(ray, TRAINS)}", "--until", "finished", "-o", "jsonl", within_s=90)
    assert done.code == 0, done.err
    assert remarks(done)[-1]["text"] == "completed"
    job = ray_submit(ray, "echo loading; python3 -c 'import no_such_module_here'; exit 7")
    done = here("watch", f"ray:{job}", "--until", "finished", "-o", "jsonl", within_s=90)
    assert done.code == 7, done.err
    verdicts = [row["verdict"] for row in remarks(done) if row["verdict"] is not None]
    assert verdicts and verdicts[-1]["cause"] == "env_dependency"
    assert here("watch", "ray:raysubmit_none").code == 66
