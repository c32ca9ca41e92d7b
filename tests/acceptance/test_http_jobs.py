"""Jobs over HTTP, from submission to logs, against a real coordinator and a real agent, which may be killed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coordinator.api_types.work import JobEntry
from coordinator.client import Client
from coordinator.client.jobs import bytes_of
from coordinator.core.errors import Code, CoordError
from tests.acceptance.processes import Agent, Head, wait_for, when_online

ROOT = Path(__file__).parents[2]


class Running(NamedTuple):
    """A coordinator and its agent `w1`, which offers four CPUs."""

    head: Head
    client: Client

    def run(self, *command: str, **more: Any) -> JobEntry:
        """Submit, and wait for the end."""
        job = self.client.jobs.submit({"command": command} | more)
        return self.client.jobs.wait(job.job_id, timeout_s=30.0)

    def logged(self, job_id: int, **which: Any) -> bytes:
        return b"".join(self.client.jobs.logs(job_id, **which))


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    directory = tmp_path_factory.mktemp("http-jobs")
    with Head(directory) as head:
        client = head.start()
        with Agent(directory, head, "w1", "--cpus", "4") as agent:
            try:
                when_online(client, agent)
                yield Running(head, client)
            finally:
                client.close()


def test_a_job_goes_from_submission_to_its_log(running: Running) -> None:
    """State, counts, attempt, exit and every byte of both streams."""
    job = running.run("sh", "-c", r"printf 'a\377b\n'; printf err >&2; echo $COORD_JOB_ID")
    assert ("completed", 1) == (job.state, job.counts.completed)
    details = running.client.jobs.show(job.job_id)
    (task,) = details.tasks
    (attempt,) = task.tries
    assert ("completed", 0, "w1") == (task.state, task.exit_code, attempt.ranks[0].provider_id)
    wait_for(lambda: len(running.logged(job.job_id)) == 4 + 3 + len(f"{job.job_id}\n"), "the log being whole")
    assert b"a\xffb\n%d\n" % job.job_id == running.logged(job.job_id, stream="stdout")
    assert b"err" == running.logged(job.job_id, stream="stderr")
    followed = list(running.client.jobs.follow(job.job_id, stream="stdout"))
    assert b"a\xffb\n%d\n" % job.job_id == b"".join(map(bytes_of, followed))


def test_what_is_written_arrives_while_the_job_runs(running: Running, tmp_path: Path) -> None:
    """A line comes long before the program ends; the stream ends with the job."""
    gate = tmp_path / "gate"
    script = f"echo first; while [ ! -e {gate} ]; do sleep 0.05; done; echo last"
    job = running.client.jobs.submit({"command": ["sh", "-c", script]})
    seen = []
    for event in running.client.jobs.follow(job.job_id):
        seen.append(bytes_of(event))
        if not gate.exists():
            assert "running" == running.client.jobs.show(job.job_id).job.state
            gate.touch()
    assert b"first\nlast\n" == b"".join(seen)


def test_followed_arrays_come_whole_and_tails_are_of_each_log(running: Running) -> None:
    """Every line of forty tasks once; the end of the last attempt of each."""
    job = running.client.jobs.submit({"command": ["sh", "-c", "echo a{item}; echo b{item}"], "array": "1-40"})
    lines = b"".join(map(bytes_of, running.client.jobs.follow(job.job_id))).split()
    assert sorted(f"{letter}{i}".encode() for letter in "ab" for i in range(1, 41)) == sorted(lines)
    job = running.client.jobs.wait(job.job_id)
    assert 40 == job.counts.completed
    assert b"".join(f"b{i}\n".encode() for i in range(1, 41)) == running.logged(job.job_id, tail=1)
    assert b"a7\nb7\n" == running.logged(job.job_id, task="0.6")
    tail = b"".join(map(bytes_of, running.client.jobs.follow(job.job_id, tail=1))).split()
    assert 32 == len(tail) and all(line.startswith(b"b") for line in tail)
    pages = running.client.jobs.tasks(job.job_id, limit=30)
    assert pages.next_page is not None
    rest = running.client.jobs.tasks(job.job_id, limit=30, page=pages.next_page, attempts=True)
    assert (30, 10, None) == (len(pages.entries), len(rest.entries), rest.next_page)
    assert {"index": "40", "item": "40"} == rest.entries[-1].values and 1 == len(rest.entries[-1].tries)


def test_one_key_makes_one_job_also_after_kill_9(running: Running) -> None:
    """Twice at once, again, with another body, and after the coordinator was killed."""
    body = {"command": ["true"], "name": "keyed"}
    found: list[int] = []

    def submit() -> None:
        with running.head.client() as client:
            found.append(client.jobs.submit(body, idempotency_key="nightly-1").job_id)

    both = [threading.Thread(target=submit) for _ in range(4)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    submit()
    running.client.jobs.wait(found[0], timeout_s=30.0)
    running.head.kill()
    running.head.start().close()
    submit()
    assert 1 == len(set(found)) and 6 == len(found)
    with pytest.raises(CoordError) as caught:
        running.client.jobs.submit(body | {"name": "other"}, idempotency_key="nightly-1")
    assert Code.CONFLICT is caught.value.code
    assert [found[0]] == [entry.job_id for entry in running.client.jobs.list(name="key*").entries]


def test_followers_go_on_over_a_kill_of_the_coordinator(running: Running, tmp_path: Path) -> None:
    """The log that was followed across a kill -9 is the log, byte for byte, and each event came once."""
    count = 300
    gate = tmp_path / "gate"
    pause = f"[ $i -ne 100 ] || while [ ! -e {gate} ]; do sleep 0.05; done"
    script = f"i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); {pause}; done"
    job = running.client.jobs.submit({"command": ["sh", "-c", script]})
    seen: list[bytes] = []
    happened: list[int] = []

    def follow() -> None:
        with running.head.client() as client:
            seen.extend(map(bytes_of, client.jobs.follow(job.job_id)))

    def watch() -> None:
        with running.head.client() as client:
            for event in client.events(job_id=job.job_id, after=0):
                happened.append(event.seq)
                if event.entity == "job" and event.after == "completed":
                    return

    threads = [threading.Thread(target=one) for one in (follow, watch)]
    for one in threads:
        one.start()
    wait_for(lambda: b"line 99\n" in b"".join(seen), "the first hundred lines")
    running.head.kill()
    running.head.start().close()
    gate.touch()
    for one in threads:
        one.join(40.0)
        assert not one.is_alive()
    assert b"".join(b"line %d\n" % i for i in range(count)) == b"".join(seen)
    assert sorted(set(happened)) == happened
    stored = running.client.audit(job_id=job.job_id, limit=1000).entries
    assert [entry.seq for entry in reversed(stored)] == happened


def test_a_cancelled_job_ends_and_a_retry_runs_it_again(running: Running, tmp_path: Path) -> None:
    """The reason stands there; the retry is a new attempt of the same task."""
    flag = tmp_path / "flag"
    job = running.client.jobs.submit({"command": ["sh", "-c", f"[ -e {flag} ] || sleep 600"]})
    running.client.jobs.wait(job.job_id, until="running", timeout_s=20.0)
    running.client.jobs.cancel(job.job_id, why="not today")
    ended = running.client.jobs.wait(job.job_id, timeout_s=20.0)
    assert "cancelled" == ended.state and "not today" in ended.reason
    assert {"ended"} == {step.verdict for step in running.client.jobs.why(job.job_id).steps}
    flag.touch()
    running.client.jobs.retry(job.job_id)
    again = running.client.jobs.wait(job.job_id, timeout_s=20.0)
    assert ("completed", 1) == (again.state, again.retries)
    (task,) = running.client.jobs.tasks(job.job_id, attempts=True).entries
    assert ["cancelled", "completed"] == [attempt.state for attempt in task.tries]


def test_why_and_preview_say_what_is_in_the_way(running: Running) -> None:
    """Too large for ever; and who could run the graph, before it is submitted."""
    job = running.client.jobs.submit({"command": ["true"], "resources": {"cpus": 64}})
    (step,) = running.client.jobs.why(job.job_id).steps
    assert ("never", 1, 0, 0) == (step.verdict, step.waiting, step.able_now, step.able_ever)
    assert "cpus" in {obstacle.constraint for obstacle in step.obstacles}
    running.client.jobs.cancel(job.job_id)
    found = running.client.jobs.preview(
        {
            "step": [
                {"name": "b", "needs": ["a"], "command": ["echo", "{item}"], "array": "1-5"},
                {"name": "a", "command": ["true"], "resources": {"cpus": 2}},
            ]
        }
    )
    assert ["a", "b"] == [step.name for step in found.steps] and ("a",) == found.steps[1].needs
    assert (("echo", "1"), ("echo", "2"), ("echo", "3")) == found.steps[1].commands
    assert (6, 1, 1) == (found.tasks, found.why[0].able_now, found.why[0].able_ever)
    (pool,) = running.client.nodepools().entries
    assert ("default", 1, 1, 4.0, 4.0) == (pool.name, pool.providers, pool.online, pool.cpus, pool.cpus_free)
    assert pool.eta is not None and 0 == pool.queued


def test_a_stream_ends_with_its_token(running: Running) -> None:
    """Revoked or expired: it is cut within a moment, and the client says why."""
    job = running.client.jobs.submit({"command": ["sleep", "600"]})
    try:
        for life_s, revoke in ((None, True), (2.0, False)):
            made = running.client.create_token(role="read-only", expires_in_s=life_s)
            with Client(running.head.url, made.token) as reader:
                began_s = time.monotonic()
                if revoke:
                    threading.Timer(0.5, running.client.revoke_token, (made.entry.token_id,)).start()
                with pytest.raises(CoordError) as caught:
                    list(reader.jobs.follow(job.job_id))
                assert Code.UNAUTHENTICATED is caught.value.code and time.monotonic() - began_s < 8.0
    finally:
        running.client.jobs.cancel(job.job_id)


def test_the_example_of_the_python_client_s_page_runs(running: Running, tmp_path: Path) -> None:
    """What people copy works, as it stands there."""
    page = (ROOT / "docs" / "howto" / "python-client.md").read_text()
    (example,) = re.findall(r"^```python\n# example\.py\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    script = tmp_path / "example.py"
    script.write_text(example)
    env = {
        **os.environ,
        "COORD_URL": running.head.url,
        "COORD_TOKEN": running.head.token("admin"),
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run([sys.executable, script], env=env, capture_output=True, text=True, timeout=60, check=False)
    assert 0 == done.returncode, done.stderr
    (shown,) = re.findall(r"^```\n\$ python example\.py\n(.*?)^```$", page, flags=re.MULTILINE | re.DOTALL)
    plain = re.compile(r"\d+")
    assert plain.sub("N", shown) == plain.sub("N", done.stdout)


def test_a_job_that_is_wrong_comes_back_with_every_slip(running: Running) -> None:
    """Over HTTP as from the parser: path, words and what was meant."""
    with pytest.raises(CoordError) as caught:
        running.client.jobs.submit({"command": ["true"], "resources": {"cpu": 1}, "nods": 2})
    assert Code.BAD_JOB is caught.value.code
    assert "resources.cpu" in caught.value.message and "did you mean nodes?" in caught.value.message
    assert json.dumps(caught.value.message)
