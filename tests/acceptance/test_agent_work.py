"""A running job and its log, while the daemon, the coordinator or people take the agent away."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from coordinator.agent.control import AgentControl
from coordinator.client import Client
from tests.acceptance.processes import Agent, Head, wait_for, when_online

COUNT = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; [ $((i % 4)) = 0 ] && sleep 0.02; done; echo end >&2"
LOG = b"".join(b"line %d\n" % n for n in range(1, 401))


def log(client: Client, job_id: int, stream: str = "stdout") -> bytes:
    return b"".join(client.jobs.logs(job_id, stream=stream))


def test_a_log_is_whole_when_daemon_and_coordinator_were_killed_in_the_middle(tmp_path: Path) -> None:
    """One attempt, one result, every line once and in order: neither death cost the program anything."""
    with Head(tmp_path) as head:
        client = head.start()
        with Agent(tmp_path, head, "w1") as agent:
            when_online(client, agent)
            job = client.jobs.submit({"command": ["sh", "-c", COUNT]})
            wait_for(lambda: b"line 40\n" in log(client, job.job_id), "the first lines")
            os.kill(agent.daemon_pid(), signal.SIGKILL)
            wait_for(lambda: b"line 120\n" in log(client, job.job_id), "lines from the next daemon")
            client.close()
            head.kill()
            client = head.start()
            assert client.jobs.wait(job.job_id, timeout_s=30.0).state == "completed"
            wait_for(lambda: len(log(client, job.job_id)) >= len(LOG), "the whole log")
            assert (log(client, job.job_id), log(client, job.job_id, "stderr")) == (LOG, b"end\n")
            (task,) = client.jobs.tasks(job.job_id).entries
            assert (task.attempts, task.state) == (1, "completed")
            wait_for(lambda: AgentControl(agent.state).status().attempts == (), "the agent holding nothing any more")
            client.close()


def test_an_agent_that_goes_away_ends_what_it_runs_and_works_again_when_it_is_back(tmp_path: Path) -> None:
    """The attempt is lost to the leaving at once, without a failure charged; the next one runs after the return."""
    with Head(tmp_path) as head, head.start() as client, Agent(tmp_path, head, "w1") as agent:
        when_online(client, agent)
        gate = tmp_path / "gate"
        job = client.jobs.submit({"command": ["sh", "-c", f"echo up; [ -e {gate} ] || sleep 600"]})
        wait_for(lambda: log(client, job.job_id) == b"up\n", "the program")
        control = AgentControl(agent.state)
        control.away(4_000_000_000_000)
        wait_for(lambda: client.provider("w1").liveness != "online", "the good-bye")
        (task,) = client.jobs.tasks(job.job_id).entries
        assert (task.state, task.losses, task.failures) == ("pending", 1, 0)
        gate.touch()
        control.back()
        assert client.jobs.wait(job.job_id, timeout_s=30.0).state == "completed"
        (task,) = client.jobs.tasks(job.job_id).entries
        assert (task.losses, task.failures) == (1, 0)


def test_the_endpoint_answers_a_program_by_its_token(tmp_path: Path) -> None:
    """The program finds URL and token in its environment, and learns who it is; the coordinator is not asked."""
    program = (
        "import os, urllib.request as u; url = os.environ['COORD_ATTEMPT_URL'] + '/v1/attempt';"
        "token = open(os.environ['COORD_ATTEMPT_TOKEN_FILE']).read();"
        "print(u.urlopen(u.Request(url, headers={'Authorization': 'Bearer ' + token})).read().decode())"
    )
    with Head(tmp_path) as head, head.start() as client, Agent(tmp_path, head, "w1") as agent:
        when_online(client, agent)
        job = client.jobs.submit({"command": ["python3", "-c", program]})
        assert client.jobs.wait(job.job_id, timeout_s=30.0).state == "completed"
        told = f'{{"attempt":"{job.job_id}.0.0.1","job":{job.job_id},"task":"{job.job_id}.0.0","rank":0,"nodes":1,'
        wait_for(lambda: log(client, job.job_id), "the answer")
        assert log(client, job.job_id).decode() == told + '"state":"running"}\n'
