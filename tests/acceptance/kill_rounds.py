"""Work that keeps its own books while the coordinator is killed or its disk is full, and what must be so at the end."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from coordinator.api_types.work import JobEntry, TaskEntry
from coordinator.client import Client, every
from coordinator.core.errors import Code, CoordError
from tests.acceptance.processes import Head

AWAY = (Code.UNREACHABLE, Code.SHUTTING_DOWN, Code.TIMEOUT, Code.STORE_FULL)
FAILS_WITH = 3
SCRIPT = 'echo "begin $COORD_ATTEMPT" >> {file}; sleep {sleep}; echo "end $COORD_ATTEMPT" >> {file}; exit {status}'
"""A line to a file of the task's own (opened with O_APPEND) when it begins and when it ends."""


class Asked(NamedTuple):
    """One job, as it was asked for."""

    tasks: int
    status: int


class Ledger:
    """Jobs that were acknowledged, submitted by a thread of its own; the same key is tried until there is an answer."""

    def __init__(self, books: Path, seed: int, jobs: int, head: Head, but: int = 0) -> None:
        """`but` other jobs were submitted before. None is submitted before `let` allows it."""
        books.mkdir()
        self._where = head.url, head.token("admin")  # the port stays the same over restarts
        self._but = but
        self.asked: dict[str, Asked] = {}
        self.acknowledged: dict[str, int] = {}
        self._books = books
        self._dice = random.Random(seed)
        self._jobs = jobs
        self.refused = 0
        """Answers that the disk was full."""
        self._served = threading.Event()
        self._let = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._submit_all, daemon=True)
        self._thread.start()

    def serve(self) -> None:
        """The coordinator answers now."""
        self._served.set()

    def let(self, jobs: int) -> None:
        """So many more may be submitted."""
        self._let.release(jobs)

    def away(self) -> None:
        """It is killed, or about to be."""
        self._served.clear()

    def done(self) -> bool:
        return not self._thread.is_alive()

    def _submit_all(self) -> None:
        for number in range(self._jobs):
            self._let.acquire()
            key = f"job-{number}"
            tasks = 5 if number % 20 == 7 else 1
            status = FAILS_WITH if number % 10 == 9 else 0
            sleep_s = self._dice.choice((0.02, 0.2, 1.0, 4.0))
            script = SCRIPT.format(file=f"{self._books}/{number}.{{item}}", sleep=sleep_s, status=status)
            job = {
                "command": ["sh", "-c", script],
                "array": f"1-{tasks}",
                "resources": {"cpus": 0.25},
                "retry": {"limit": 0},
            }
            self.asked[key] = Asked(tasks, status)
            while key not in self.acknowledged:
                self._served.wait()
                try:
                    with Client(*self._where) as client:
                        self.acknowledged[key] = client.jobs.submit(job, idempotency_key=key).job_id
                except CoordError as error:
                    if error.code not in AWAY:
                        raise
                    self.refused += error.code is Code.STORE_FULL
                    time.sleep(0.01)

    # ---- the books

    def settled(self, client: Client) -> bool:
        listed = client.jobs.list(state="pending,staging,running", limit=1)
        return self.done() and not listed.entries

    def check(self, client: Client) -> dict[str, int]:
        """Every job once, with the end it was to have, from one attempt that began once and ended once."""
        assert len(set(self.acknowledged.values())) == len(self.acknowledged) == self._jobs
        jobs: dict[int, JobEntry] = {
            entry.job_id: entry
            for page in every(lambda page: client.jobs.list(limit=500, page=page))
            for entry in page.entries
        }
        assert set(self.acknowledged.values()) <= set(jobs), "a job was lost"
        assert len(jobs) == self._jobs + self._but, "a job was made twice"
        tried = 0
        for number, (key, job_id) in enumerate(self.acknowledged.items()):
            asked, job = self.asked[key], jobs[job_id]
            assert job.state == ("failed" if asked.status else "completed"), f"{key} is {job.state}: {job.reason}"
            tasks = client.jobs.tasks(job_id, attempts=True, limit=500).entries
            assert len(tasks) == asked.tasks
            for task in tasks:
                tried += task.attempts
                self._check_task(task, asked, self._books / f"{number}.{task.number + 1}")
        return {"jobs": self._jobs, "tasks": sum(one.tasks for one in self.asked.values()), "attempts": tried}

    def _check_task(self, task: TaskEntry, asked: Asked, book: Path) -> None:
        """A grant that never reached its agent may have made a second attempt; only one of them ran."""
        said = Counter(book.read_text().split("\n")[:-1])
        (ran,) = [one.attempt for one in task.tries if one.ranks[0].exit is not None and one.state != "taken_back"]
        assert said == {f"begin {ran}": 1, f"end {ran}": 1}, f"{task.task}: {said}"
        assert (task.exit_code, task.losses) == (asked.status, 0), f"{task.task} was lost {task.losses} times"
