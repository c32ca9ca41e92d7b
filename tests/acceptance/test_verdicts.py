"""Jobs that die in ways which their logs tell, on a real coordinator with real agents: what becomes of them, when."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from coordinator.api_types.verdict import VerdictEntry
from coordinator.api_types.work import TaskEntry
from coordinator.client import Client
from coordinator.core.errors import Code, CoordError
from coordinator.core.verdict.rows import Cause, Recommendation
from tests.acceptance.cli_runs import Coord
from tests.acceptance.processes import Agent, Head, wait_for, when_online
from tests.acceptance.test_fault_analytics import worker

CONFIG_ERROR = "train.py: error: unrecognized arguments: --learning-rate 0.1"
NETWORK_ERROR = "requests.exceptions.ConnectionError: Max retries exceeded: Temporary failure in name resolution"
GPU_ERROR = "NVRM: Xid (PCI:0000:3b:00): 48, pid=1234, name=python, Double Bit ECC Error"
LEFT, SAVED = "coord_attribution_left_bytes_sum", "coord_attribution_saved_seconds_total"
READ = "coord_attribution_read_bytes_total"


class Site(NamedTuple):
    head: Head
    client: Client
    place: Path

    def submit(self, text: str, fails: str = "true", **more: Any) -> int:
        """A job that works for a moment, says `text` and exits 1 where `fails` (a shell's condition) holds."""
        program = f"echo 'step 1 loss 2.5'; if {fails}; then echo '{text}' >&2; exit 1; fi"
        return self.client.jobs.submit({"command": ["sh", "-c", program], **more}).job_id

    def task(self, job_id: int) -> TaskEntry:
        (task,) = self.client.jobs.tasks(job_id, attempts=True).entries
        return task

    def verdict(self, attempt: str) -> VerdictEntry | None:
        """None while there is none."""
        try:
            return self.client.jobs.verdict(attempt)
        except CoordError as error:
            assert error.code is Code.NOT_FOUND
            return None

    def ended(self, job_id: int) -> TaskEntry:
        """Its only task, when the job has ended."""
        assert self.client.jobs.wait(job_id, timeout_s=30.0).state in ("completed", "failed")
        return self.task(job_id)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two agents."""
    place = tmp_path_factory.mktemp("site")
    with (
        Head(place, "--set", "analytics.backoff_first_s=0.1s") as head,
        head.start() as client,
        Agent(place, head, "w1") as first,
        Agent(place, head, "w2") as second,
    ):
        when_online(client, first, second)
        wait_for(lambda: client.readyz().analytics == "up", "the worker being up")
        yield Site(head, client, place)


def test_a_mistake_in_the_configuration_ends_the_job_at_once_with_the_line(site: Site) -> None:
    """No attempt is wasted on it, and the reason says what is wrong and where."""
    task = site.ended(site.submit(CONFIG_ERROR, retry={"limit": 3}))
    assert (task.state, task.attempts) == ("failed", 1)
    assert "stderr line 1" in task.reason
    found = site.verdict(task.tries[0].attempt)
    assert found is not None
    assert (found.verdict.cause, found.late, found.remark) == (Cause.CONFIG_ERROR, False, "")
    assert found.verdict.evidence[0].text.endswith(CONFIG_ERROR.removeprefix("train.py: "))


def test_what_a_program_printed_before_and_python_wrote_after_its_traceback_refutes_nothing(site: Site) -> None:
    """Printed lines are kept back until the interpreter ends: they arrive behind the traceback that came after them."""
    program = "for step in range(100): print('step', step, 'loss 2.5')\nopen('/data/train/tokens.bin')"
    job = {"command": [sys.executable, "-c", program], "retry": {"limit": 3}}
    task = site.ended(site.client.jobs.submit(job).job_id)
    found = site.verdict(task.tries[0].attempt)
    assert found is not None
    assert (found.verdict.recommendation, found.verdict.progress.last_step) == (Recommendation.STOP, 99)
    assert (task.state, task.attempts) == ("failed", 1)


def test_a_transient_error_of_the_network_is_tried_again(site: Site) -> None:
    """After the pause of a retry; the second attempt goes well."""
    once = site.place / "tried-network"
    task = site.ended(site.submit(NETWORK_ERROR, f"! test -e {once} && touch {once}", retry={"limit": 3}))
    assert (task.state, task.attempts, task.failures) == ("completed", 2, 1)


def test_when_its_retries_are_used_up_the_reason_says_what_it_died_of(site: Site) -> None:
    """Of the task, of its job as the list has it, and behind `submit --wait`."""
    task = site.ended(site.submit(NETWORK_ERROR, retry={"limit": 1, "delay": "100ms"}))
    assert (task.state, task.attempts) == ("failed", 2)
    told = next(job for job in site.client.jobs.list().entries if task.task.startswith(f"{job.job_id}."))
    for reason in (task.reason, told.reason):
        assert "exit 1; external_service: " in reason and "(stderr line 1)" in reason
        assert reason.endswith("; its one retry is used up")
    program = f"echo '{NETWORK_ERROR}' >&2; exit 1"
    shown = Coord(site.head.data)("submit", "--wait", "--retry", "0", "--", "sh", "-c", program)
    assert 1 == shown.code and "external_service: " in shown.err and "it is not to be retried" in shown.err


def test_an_error_of_a_gpu_goes_elsewhere(site: Site) -> None:
    """At once, and not to the provider that it happened on."""
    once = site.place / "tried-gpu"
    task = site.ended(site.submit(GPU_ERROR, f"! test -e {once} && touch {once}", retry={"limit": 3}))
    assert (task.state, task.attempts) == ("completed", 2)
    first, second = (attempt.ranks[0].provider_id for attempt in task.tries)
    assert first != second


def test_a_log_is_read_while_it_grows(site: Site) -> None:
    """When its program ends, little of it is left, or nothing; the time spent on it before is counted as saved."""
    left, saved = (metric(site.client, name) for name in (LEFT, SAVED))
    grow = "for i in $(seq 1 20000); do echo this line $i says nothing at all; [ $((i % 200)) = 0 ] && sleep 0.03; done"
    task = site.ended(site.submit(CONFIG_ERROR, f"{grow}; true", retry={"limit": 3}))
    assert (task.state, task.attempts) == ("failed", 1)
    size = task.tries[0].ranks[0].exit.out_bytes if task.tries[0].ranks[0].exit is not None else 0
    wait_for(lambda: metric(site.client, SAVED) > saved, "what was saved")
    assert metric(site.client, LEFT) - left < size / 2


def test_a_worker_that_is_killed_costs_no_verdict(site: Site) -> None:
    """The next one is asked again; the job's end is that of any other, however long the worker was away."""
    os.kill(worker(site.head), signal.SIGKILL)
    task = site.ended(site.submit(CONFIG_ERROR, retry={"limit": 1}))
    found = wait_for(lambda: site.verdict(task.tries[0].attempt), "its verdict")
    assert (task.state, found.verdict.cause) == ("failed", Cause.CONFIG_ERROR)


def test_while_the_worker_stands_still_exit_codes_decide_and_the_verdict_is_added_later(site: Site) -> None:
    """Two seconds are waited for it, no longer; when it goes on its verdict is there all the same."""
    stopped = worker(site.head)
    os.kill(stopped, signal.SIGSTOP)
    try:
        began = time.monotonic()
        task = site.ended(site.submit(CONFIG_ERROR, retry={"limit": 1, "delay": "100ms"}))
        took_s = time.monotonic() - began
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert (task.state, task.attempts) == ("failed", 2)
    assert 3.5 < took_s < 8.0, "for each of the two failures"
    assert "stderr line" not in task.reason
    for attempt in task.tries:
        found = wait_for(lambda attempt=attempt: site.verdict(attempt.attempt), "its verdict")  # type: ignore[misc]
        assert (found.verdict.cause, found.late) == (Cause.CONFIG_ERROR, True)


def test_who_answers_is_not_niced_as_the_rest_of_the_worker_is(site: Site) -> None:
    """Beside busy processes a niced thread gets next to nothing, and a task waits two seconds at most."""
    tasks = Path(f"/proc/{worker(site.head)}/task").iterdir()
    niceness = [int((task / "stat").read_text().rpartition(")")[2].split()[16]) for task in tasks]
    assert niceness.count(0) == 2, "the listener and who answers"
    assert set(niceness) == {0, 10}


def test_a_job_that_wants_no_verdict_waits_for_none(site: Site) -> None:
    """Exit codes decide, at once."""
    began = time.monotonic()
    task = site.ended(site.submit(CONFIG_ERROR, retry={"limit": 0, "verdict": "off"}))
    assert task.state == "failed"
    assert time.monotonic() - began < 1.5
    assert "stderr line" not in task.reason


def killed_while_a_log_grows(place: Path, kills: list[str]) -> None:
    """kill -9 of worker or head again and again, then the end of the log; its verdict is compared with a full pass."""
    gate = place / "gate"
    program = (
        f"i=0; while [ ! -e {gate} ]; do i=$((i+1)); echo iteration $i loss 2.5; [ $((i % 50)) = 0 ] && sleep 0.02; "
        f"done; echo '{CONFIG_ERROR}' >&2; exit 1"
    )
    settings = ("--set", "attribution.check_one_in=1", "--set", "analytics.backoff_max_s=0.5s")
    with Head(place, *settings) as head:
        client = head.start()
        with Agent(place, head, "w1") as agent:
            when_online(client, agent)
            job_id = client.jobs.submit({"command": ["sh", "-c", program], "retry": {"limit": 2}}).job_id
            for killed in kills:
                wait_for(lambda now=client: metric(now, READ) > 10_000, "being followed", 60)  # type: ignore[misc]
                if killed == "head":
                    client.close()
                    head.kill()
                    client = head.start()
                else:
                    before = worker(head)
                    os.kill(before, signal.SIGKILL)
                    wait_for(lambda before=before: worker(head) != before, "the next worker")  # type: ignore[misc]
            wait_for(lambda: metric(client, "coord_attribution_followed_logs") == 1, "being followed again", 60)
            gate.touch()
            assert client.jobs.wait(job_id, timeout_s=60.0).state == "failed"
            (task,) = client.jobs.tasks(job_id, attempts=True).entries
            assert (task.attempts, "stderr line 1" in task.reason) == (1, True), [one.reason for one in task.tries]
            wait_for(lambda: metric(client, 'coord_attribution_checks_total{result="same"}') == 1, "the full pass")
            assert metric(client, 'coord_attribution_checks_total{result="different"}') == 0
            client.close()


def test_worker_and_coordinator_killed_while_a_log_grows_change_no_verdict(tmp_path: Path) -> None:
    """One attempt, one verdict, that of the whole log."""
    killed_while_a_log_grows(tmp_path, ["worker", "head"])


@pytest.mark.soak
def test_twenty_kills_while_a_log_grows_change_no_verdict(tmp_path: Path) -> None:
    """By turns."""
    killed_while_a_log_grows(tmp_path, ["worker", "head"] * 10)


def metric(client: Client, name: str) -> float:
    """Its value; 0 where it is not there."""
    found = [line for line in client.metrics().splitlines() if line.startswith(f"{name} ")]
    return float(found[0].split()[1]) if found else 0.0
