"""Where verdicts are made: a few threads, a bound on what waits for them, and what a job's earlier cycles were."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

from analytics.attribution.desk import passes
from analytics.attribution.desk.contract import ErrorCode, Refused
from analytics.attribution.desk.jobs import Final, Job, order_of
from analytics.attribution.desk.making import Maker
from analytics.attribution.desk.settings import DeskSettings
from coordinator.core.verdict.rows import PastVerdict

log = logging.getLogger("coord.attribution")


class Workshop:
    """Has verdicts made, one of a job at a time. `lock` and `jobs` are the desk's."""

    def __init__(self, maker: Maker, settings: DeskSettings, lock: threading.RLock, jobs: Mapping[str, Job]) -> None:
        self._maker, self._settings, self._lock, self._jobs = maker, settings, lock, jobs
        self._pool = ThreadPoolExecutor(settings.threads, thread_name_prefix="attribute")
        self.waiting = 0
        """Verdicts that are asked for and not made yet."""

    def close(self) -> None:
        """End the threads; what has not begun is dropped."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def begin(self, job: Job) -> None:
        """Have it made; the lock is held. Refused(UNAVAILABLE) when too many wait."""
        if self.waiting >= self._settings.waiting_max:
            raise Refused(ErrorCode.UNAVAILABLE, f"{self.waiting} analyses wait already; ask again in a moment")
        self.waiting += 1
        job.failed = ""
        if job.answered is not None and job.followed is None and job.why_not == "missing":
            job.why_not = "stale"
        job.final = job.answered = None  # of a file that was another one: who asks meanwhile is not told of that
        history = self._history(job)
        job.making = self._pool.submit(self._make, job, history, time.perf_counter())

    def _make(self, job: Job, history: tuple[PastVerdict, ...], began: float) -> Final:
        try:
            made = self._maker.make(job, history, began)
            with self._lock:
                job.final, job.answered, job.recorder = made, None, None
            if self._maker.to_be_checked(made):
                with contextlib.suppress(RuntimeError):  # it is closing
                    self._pool.submit(self._check, job, made, history)
            return made
        except BaseException as error:
            log.exception("an analysis failed")
            with self._lock:
                job.failed = f"the analysis failed: {type(error).__name__}"
            raise
        finally:
            with self._lock:
                self.waiting -= 1
                job.making = None

    def _check(self, job: Job, made: Final, history: tuple[PastVerdict, ...]) -> None:
        right = self._maker.corrected(job, made, history)
        if right is None:
            return
        with self._lock:
            job.final = right if job.final is made else job.final
            job.answered = right if job.answered is made else job.answered

    def _history(self, job: Job) -> tuple[PastVerdict, ...]:
        """Earlier cycles of the same job, the latest first."""
        if job.job_id is None:
            return ()
        mine = order_of(job)
        others = [
            other
            for other in self._jobs.values()
            if other.job_id == job.job_id and other is not job and order_of(other) < mine
        ]
        past = []
        for other in sorted(others, key=order_of, reverse=True)[: passes.HISTORY_MAX]:
            final = other.answered or other.final
            if final is not None and final.verdicts:
                past.append(passes.past_of(final.verdicts[-1], f"cycle {order_of(other)[0]}"))
        return tuple(past)
