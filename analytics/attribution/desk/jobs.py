"""What a desk knows of a path that somebody named, and what was found at its end."""

from __future__ import annotations

import threading
import time
from concurrent.futures import Future
from typing import Any, NamedTuple

from analytics.attribution.desk import splitlog
from analytics.attribution.desk.contract import Mode, Status
from analytics.attribution.desk.followed import Followed
from coordinator.core.verdict.rows import Verdict

Key = tuple[int, int, int, int]


class Final(NamedTuple):
    """What was found at an end. It is an answer once somebody has asked for it."""

    verdicts: tuple[Verdict, ...]
    first: int
    """The number of the first cycle among them."""
    key: Key | None
    """Device, inode, size and time of the file; None: there was none."""
    progressive: bool
    fallback: str
    """Why it is a full pass; empty where it is none."""
    remark: str


class Job:
    """A path that somebody named. Its fields change under the desk's lock."""

    def __init__(self, path: str, why_not: str) -> None:
        self.path = path
        self.user = "unknown"
        self.job_id: str | None = None
        self.cycle_id: int | None = None
        self.mode = Mode.SINGLE
        self.touched_s = time.monotonic()
        self.followed: Followed | None = None
        self.why_not = why_not
        """It is not followed: the reason of a full pass."""
        self.over = False
        """A terminal POST has come."""
        self.making: Future[Final] | None = None
        self.final: Final | None = None
        self.answered: Final | None = None
        """The result cache: filled by a GET alone."""
        self.failed = ""
        self.recorder: tuple[str | None, dict[str, Any] | None] | None = None
        self.recorder_lock = threading.Lock()
        self.paths: splitlog.Paths | None = None
        self.part_of: str = ""
        """The scheduler's output that named it."""

    @property
    def name(self) -> str:
        """What evidence calls its file."""
        return self.path.rpartition("/")[2]

    def release(self) -> Followed | None:
        """No longer followed; whoever asks next has it read as a whole."""
        followed, self.followed = self.followed, None
        if followed is not None:
            self.why_not = "missing"
        return followed


def order_of(job: Job) -> tuple[int, str]:
    """Among the logs of one job of a scheduler: its cycle."""
    cycle = job.cycle_id if job.cycle_id is not None else splitlog.cycle_of(job.path)
    return (cycle if cycle is not None else -1, job.path)


def listed(job: Job) -> dict[str, Any]:
    """As `GET /jobs` shows it."""
    status = Status.PENDING
    if job.answered is not None or job.final is not None:
        status = Status.COMPLETED
    elif job.making is not None:
        status = Status.IN_FLIGHT
    elif job.failed:
        status = Status.FAILED
    return {
        "log_path": job.path,
        "user": job.user,
        "job_id": job.job_id,
        "cycle_id": job.cycle_id,
        "mode": job.mode,
        "logs_dir": job.paths.logs_dir if job.paths is not None else None,
        "sched_restarts": job.paths.starts if job.paths is not None else 0,
        "status": status,
        "progressive": job.followed.entry() if job.followed is not None else None,
    }
