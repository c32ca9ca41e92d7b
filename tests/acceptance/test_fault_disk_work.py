"""A coordinator's disk that is full for a while, and one whose fsync fails, while jobs come, run and end."""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from coordinator.client import Client
from tests.acceptance.kill_rounds import Ledger
from tests.acceptance.processes import Agent, Head, wait_for, when_online
from tests.acceptance.test_fault_disk import Filler, metric, small_disk, standing

QUICK = ("--set", "policy.heartbeat_interval_ms=1s", "--set", "upkeep.alerts_s=200ms")
PULSE = "import time\nwhile True:\n    print('%.3f' % time.monotonic(), flush=True)\n    time.sleep(0.1)\n"
"""A program that shows when it did not run."""


def _longest_gap_s(text: bytes) -> float:
    seen = [float(line) for line in text.split()]
    return max(later - earlier for earlier, later in itertools.pairwise(seen))


def _full_disk(directory: Path, full_s: float, jobs: int) -> dict[str, object]:
    """Fill the disk for so long while jobs come, run and end; then look into the books."""
    with (
        small_disk(directory / "disk", "32m") as disk,
        Head(disk, *QUICK) as head,
        head.start() as client,
        contextlib.ExitStack() as stack,
    ):
        agents = [stack.enter_context(Agent(directory, head, name, "--cpus", "4")) for name in ("w1", "w2")]
        when_online(client, *agents)
        pulse = client.jobs.submit({"command": ["python3", "-c", PULSE]}).job_id
        wait_for(lambda: b"".join(client.jobs.logs(pulse)).count(b"\n") > 5, "the pulse")
        work = Ledger(directory / "books", 7, jobs, head, but=1)
        work.serve()
        work.let(jobs)
        wait_for(lambda: len(work.acknowledged) > jobs // 10, "the first jobs")
        filler, began_s = Filler(disk / "filler"), time.monotonic()
        while time.monotonic() - began_s < full_s or not work.refused:
            filler.fill()
            assert time.monotonic() - began_s < full_s + 20, "nobody was refused"
            time.sleep(0.01)

        def full_and_told() -> bool:
            filler.fill()
            return standing(client, "disk")

        wait_for(full_and_told, "the alert")
        filler.free()
        freed_s = time.monotonic()
        held = len(work.acknowledged)
        wait_for(lambda: len(work.acknowledged) > held or work.done(), "jobs being taken again")
        recovered_s = time.monotonic() - freed_s
        wait_for(lambda: not standing(client, "disk"), "the end of the alert")
        wait_for(work.done, "every job being taken", 120)
        assert client.jobs.show(pulse).job.state == "running"
        client.jobs.cancel(pulse)
        wait_for(lambda: work.settled(client), "every job having ended", 120)
        (task,) = client.jobs.tasks(pulse, attempts=True).entries
        assert (task.state, task.attempts, task.losses) == ("cancelled", 1, 0)
        (rank,) = task.tries[0].ranks
        assert rank.exit is not None
        wrote = rank.exit.out_bytes
        wait_for(lambda: len(b"".join(client.jobs.logs(pulse))) == wrote, "the log being whole")
        gap_s = _longest_gap_s(b"".join(client.jobs.logs(pulse)))
        assert gap_s < 2.0, f"the running job stood still for {gap_s:.1f} s"
        found = work.check(client)
        assert client.check().problems == ()
        rollbacks = metric(client, "coord_engine_rollbacks_total")
        return {
            "full_s": full_s,
            **found,
            "refused": work.refused,
            "rollbacks": rollbacks,
            "lost": 0,
            "doubled": 0,
            "recovered_s": round(recovered_s, 2),
            "longest_stop_s": round(gap_s, 2),
        }


def test_a_full_disk_loses_no_job_runs_none_twice_and_freezes_nobody(tmp_path: Path) -> None:
    """What was acknowledged ends once, from one attempt; what ran goes on; its log is whole; it recovers by itself."""
    print(json.dumps(_full_disk(tmp_path, 4.0, 100)))


@pytest.mark.soak
def test_a_disk_full_for_a_minute_under_work(tmp_path: Path) -> None:
    """The same for longer than any lease lasts without a renewal."""
    print(json.dumps(_full_disk(tmp_path, 60.0, 600)))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which makes an fsync fail, is not installed")
def test_a_failed_fsync_under_work_ends_it_with_70_and_the_next_start_goes_on(tmp_path: Path) -> None:
    """The n-th fsync fails while jobs come and run: nothing acknowledged is lost, nothing runs twice, all goes on."""
    with Head(tmp_path, *QUICK) as head, contextlib.ExitStack() as stack:
        client: Client = head.start()
        agent = stack.enter_context(Agent(tmp_path, head, "w1", "--cpus", "4"))
        when_online(client, agent)
        work = Ledger(tmp_path / "books", 9, 60, head)
        work.serve()
        work.let(60)
        wait_for(lambda: len(work.acknowledged) > 10, "the first jobs")
        inject = ("-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=20+")
        trace = tmp_path / "trace"
        tracer = subprocess.Popen(
            ("strace", "-f", "-qq", "-o", str(trace), *inject, "-p", str(head.pid)), stderr=subprocess.PIPE
        )
        try:
            wait_for(lambda: trace.exists() or tracer.poll() is not None, "strace")
            if tracer.poll() is not None:
                assert tracer.stderr is not None
                pytest.skip(f"strace may not attach here: {tracer.stderr.read().decode().strip()}")
            assert head.wait(60) == 70
        finally:
            work.away()
            tracer.kill()
            tracer.communicate()
        client.close()
        with head.start() as client:
            work.serve()
            wait_for(lambda: work.settled(client), "every job having ended", 120)
            work.check(client)
            assert client.check().problems == ()
