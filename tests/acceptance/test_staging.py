"""Inputs on their way to a program, with a real coordinator and agents: there before it starts, whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator.agent.control import AgentControl
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, wait_for, when_online
from tests.acceptance.tollgate import LARGE, TollGate

MB = 1 << 20
PIECES = 8


def stored(client: Client, tmp_path: Path, data: bytes, name: str = "in") -> str:
    """Have these bytes at the coordinator; their digest."""
    file = tmp_path / name
    file.write_bytes(data)
    return client.artifacts.put(file, name).digest


def a_job(digest: str, script: str, **more: Any) -> dict[str, Any]:
    """One that finds the blob at data/in.bin."""
    inputs = [{"from": f"artifact:{digest}", "to": "data/in.bin"}]
    return {"command": ["sh", "-ec", script], "inputs": inputs, **more}


def completed(client: Client, job: dict[str, Any], size: int = 1) -> bytes:
    """Its output, which has so many bytes at least."""
    entry = client.jobs.submit(job)
    ended = client.jobs.wait(entry.job_id, timeout_s=30.0)
    said = b"".join(client.jobs.logs(entry.job_id, stream="stderr"))
    assert ended.state == "completed", (ended, said)
    wait_for(lambda: len(b"".join(client.jobs.logs(entry.job_id))) >= size, "the output")
    return b"".join(client.jobs.logs(entry.job_id))


def cached(agent: Agent) -> list[Path]:
    """The files of its cache, by tenant."""
    return sorted(path for path in (agent.state / "cache").glob("[!.]*/*/*"))


@contextmanager
def gated(tmp_path: Path) -> Iterator[tuple[Head, Client, TollGate, Agent]]:
    """A coordinator, and an agent that reaches it by the gate alone."""
    with Head(tmp_path) as head, head.start() as client, TollGate(head.url) as gate:
        agent = Agent(tmp_path, head, "w1")
        agent.env = {**agent.env, "COORD_URL": gate.url}
        with agent:
            when_online(client, agent)
            yield head, client, gate, agent


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Client, TollGate, Agent]]:
    """One that several tests may use, one after the other."""
    with gated(tmp_path_factory.mktemp("site")) as (_, client, gate, agent):
        yield client, gate, agent


def test_inputs_are_there_when_the_program_starts_and_travel_once(
    tmp_path: Path, site: tuple[Client, TollGate, Agent]
) -> None:
    """Each task has a copy of its own; the next one has it from the cache, unless the cached file was damaged."""
    client, gate, agent = site
    data = os.urandom(6 * MB)
    digest = stored(client, tmp_path, data)
    script = "cat data/in.bin; printf changed | dd of=data/in.bin conv=notrunc 2>&1; rm -r data"
    before = gate.brought
    for _ in range(2):
        assert completed(client, a_job(digest, script), len(data))[: len(data)] == data
    assert len(data) <= gate.brought - before <= 1.02 * len(data) + 100_000
    kept = next(path for path in cached(agent) if path.name == digest)
    assert kept.read_bytes() == data
    kept.chmod(0o600)
    with kept.open("r+b") as file:
        file.write(b"rotten")
    assert completed(client, a_job(digest, script), len(data))[: len(data)] == data
    assert kept.read_bytes() == data
    assert gate.brought - before >= 2 * len(data)


def test_a_job_that_is_cancelled_while_it_is_staged_ends_cleanly(
    tmp_path: Path, site: tuple[Client, TollGate, Agent]
) -> None:
    """Nothing of it starts; the agent holds nothing any more and takes the next one."""
    client, gate, agent = site
    digest = stored(client, tmp_path, os.urandom(8 * MB))
    before = gate.brought
    gate.hold_up()
    mark = tmp_path / "started"
    job = client.jobs.submit(a_job(digest, f"touch {mark}"))
    wait_for(lambda: gate.brought - before >= LARGE, "the transfer")
    client.jobs.cancel(job.job_id)
    assert client.jobs.wait(job.job_id, timeout_s=20.0).state == "cancelled"
    wait_for(lambda: AgentControl(agent.state).status().attempts == (), "the agent holding nothing")
    gate.let_go()
    assert completed(client, {"command": ["echo", "next"]}) == b"next\n"
    assert not mark.exists()


def test_a_transfer_goes_on_over_cuts_a_killed_daemon_and_a_killed_coordinator(tmp_path: Path) -> None:
    """The link breaks every 8 MB, the daemon is killed, then the coordinator: one attempt, and hardly a byte twice."""
    with gated(tmp_path) as (head, client, gate, agent):
        data = os.urandom(48 * MB)
        digest = stored(client, tmp_path, data)
        before, gate.cut_at = gate.brought, 8 * MB
        gate.hold_up()
        job = client.jobs.submit(a_job(digest, "cksum < data/in.bin"))
        wait_for(lambda: gate.brought - before >= LARGE, "the transfer")
        (shown,) = AgentControl(agent.state).status().attempts
        assert shown.phase == "staging"
        wait_for(lambda: client.jobs.show(job.job_id).tasks[0].state == "staging", "the job being staged")
        killed = agent.daemon_pid()
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: agent.daemon_pid() != killed, "the next daemon")
        gate.let_go()
        wait_for(lambda: gate.brought - before >= 20 * MB, "more of the transfer")
        gate.hold_up()
        head.kill()
        with head.start() as client:
            gate.let_go()
            assert client.jobs.wait(job.job_id, timeout_s=40.0).state == "completed"
            (task,) = client.jobs.tasks(job.job_id).entries
            assert (task.attempts, task.failures, task.losses) == (1, 0, 0)
            told = subprocess.run(["cksum"], input=data, capture_output=True, check=True).stdout
            assert wait_for(lambda: b"".join(client.jobs.logs(job.job_id)), "the output") == told
        assert gate.cuts >= 4
        twice = gate.brought - before - len(data)
        # of the killed daemon nothing below a piece was written; heartbeats and the like are no part of the transfer
        assert twice <= 0.01 * len(data) + LARGE + 200_000, twice


def test_a_replacement_finds_its_inputs_fetched_ahead(tmp_path: Path) -> None:
    """While the first provider is in doubt, the one that is reserved brings the input: nothing runs there yet."""
    with Head(tmp_path) as head, head.start() as client, Agent(tmp_path, head, "w1") as first:
        when_online(client, first)
        digest = stored(client, tmp_path, os.urandom(MB))
        job = client.jobs.submit(a_job(digest, "sleep 600", on_lost="retry"))
        wait_for(lambda: client.jobs.show(job.job_id).tasks[0].state == "running", "the first attempt")
        first.signal_all(signal.SIGSTOP)
        with Agent(tmp_path, head, "w2") as second:
            wait_for(lambda: cached(second), "the input at the other provider")
            (task,) = client.jobs.tasks(job.job_id, attempts=True).entries
            assert task.tries[-1].state == "reserved"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    mount = tmp_path / "small"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=700", "small", str(mount)], check=False, capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("no file system of our own can be made here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_the_providers_failure_not_the_jobs(tmp_path: Path, small_disk: Path) -> None:
    """It says what was needed and what is free, and the job completes on another provider, without a failure. What is
    larger than the whole disk is not even tried there."""
    (small_disk / "others").write_bytes(bytes(6 * MB))
    with Head(tmp_path) as head, head.start() as client, Agent(small_disk, head, "small") as small:
        when_online(client, small)
        job = client.jobs.submit(a_job(stored(client, tmp_path, os.urandom(8 * MB)), "wc -c < data/in.bin"))
        huge = client.jobs.submit(a_job(stored(client, tmp_path, os.urandom(20 * MB)), "wc -c < data/in.bin"))
        (step,) = client.jobs.why(huge.job_id).steps
        assert step.verdict == "never" and "more than the whole disk" in (step.hint or ""), step

        def tried() -> list[str]:
            entries = client.jobs.tasks(job.job_id, attempts=True).entries
            return [attempt.reason for task in entries for attempt in task.tries]

        # an agent that is starved may miss a heartbeat or answer a grant too late: another one that is there takes it
        wait_for(lambda: any("bytes are needed" in reason for reason in tried()), "the disk being full")
        with Agent(tmp_path, head, "large"):
            for one in (job, huge):
                assert client.jobs.wait(one.job_id, timeout_s=40.0).state == "completed"
        (task,) = client.jobs.tasks(huge.job_id, attempts=True).entries
        assert ["large"] == [attempt.ranks[0].provider_id for attempt in task.tries]
        (task,) = client.jobs.tasks(job.job_id, attempts=True).entries
        assert task.failures == 0
        assert ["small"] * (len(task.tries) - 1) + ["large"] == [each.ranks[0].provider_id for each in task.tries]
        assert "the disk of this provider is full" in AgentControl(small.state).status().cache.problem


@pytest.fixture
def open_path() -> Iterator[Path]:
    """A directory that every user can pass."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made)
        path.chmod(0o755)
        yield path


@pytest.mark.skipif(os.geteuid() != 0, reason="users of their own need root")
def test_a_program_of_its_own_user_has_its_copy_and_never_the_cache(tmp_path: Path, open_path: Path) -> None:
    """It may change what it was given; what others are given from is out of its reach."""
    with Head(tmp_path) as head, head.start() as client, ExitStack() as stack:
        digest = stored(client, tmp_path, b"input of a user\n")
        agents = {
            level: stack.enter_context(Agent(tmp_path, head, level, *arguments))
            for level in ("uid", "sandbox")
            for arguments in [
                ("--isolation", level, "--work", str(open_path / level), "--cpus", "1", "--label", f"level={level}")
            ]
        }
        when_online(client, *agents.values())
        for level, agent in agents.items():
            assert AgentControl(agent.state).status().promises.isolation == level
            script = "id -u; cat data/in.bin; echo more >> data/in.bin; touch data/new"
            user, *content = completed(client, a_job(digest, script, labels={"level": level})).splitlines()
            assert user != b"0"
            assert content == [b"input of a user"]
            (kept,) = cached(agent)
            script = f"cat data/in.bin; cat {kept} 2>/dev/null || echo out of reach"
            told = completed(client, a_job(digest, script, labels={"level": level}), 29)
            assert told == b"input of a user\nout of reach\n"
