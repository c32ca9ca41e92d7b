"""Jobs through the API: submit, look, wait, cancel, retry, and read what they print."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from coordinator.api_types.data import DataFile, JobData
from coordinator.api_types.happenings import LogEvent
from coordinator.api_types.why import JobWhy, Preview
from coordinator.api_types.work import JobDetails, JobEntry, Tasks
from coordinator.api_types.work import Jobs as JobsAnswer
from coordinator.client.downloads import Wanted, fetch
from coordinator.client.hashing import Moved
from coordinator.client.requests import Query, Requests, decoded, with_query
from coordinator.client.stream import MEDIA, events_of, follow
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from coordinator.api_types.verdict import VerdictEntry

POLL_S = 30.0
"""One request for a job's end waits so long; then the next one is sent."""
ENDED = frozenset({"completed", "failed", "cancelled"})
_UNNAMED = frozenset("%\\")


class Jobs:
    """What a tenant does with jobs. An admin may name the `tenant`; without one an admin's own is `default`, and
    lists are of every tenant."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests

    def submit(
        self, job: Mapping[str, Any], *, tenant: str | None = None, idempotency_key: str | None = None
    ) -> JobEntry:
        """Have a job run: `job` is the job file's model (docs/reference/jobfile.md). It is durable when this returns.

        The same key again gives the same job. CoordError(BAD_JOB) lists everything that is wrong with it.
        """
        query: Query = {"tenant": tenant}
        return self._requests.post("/v1/jobs", job, JobEntry, query=query, key=idempotency_key)

    def preview(self, job: Mapping[str, Any], *, tenant: str | None = None) -> Preview:
        """What the job consists of, and who could run it now. Nothing is submitted."""
        return self._requests.post("/v1/jobs/preview", job, Preview, query={"tenant": tenant})

    def list(
        self,
        *,
        state: str | None = None,
        name: str | None = None,
        tenant: str | None = None,
        limit: int = 100,
        page: str | None = None,
    ) -> JobsAnswer:
        """One page of jobs, newest first. `state`: one or more, with commas; `name` may hold * and ?."""
        query: Query = {"state": state, "name": name, "tenant": tenant, "limit": limit, "page": page}
        return self._requests.get("/v1/jobs", JobsAnswer, query)

    def show(self, job_id: int) -> JobDetails:
        """A job with its steps and the first of its tasks."""
        return self._requests.get(_of(job_id), JobDetails)

    def tasks(
        self,
        job_id: int,
        *,
        step: int | None = None,
        state: str | None = None,
        attempts: bool = False,
        limit: int = 100,
        page: str | None = None,
    ) -> Tasks:
        """One page of a job's tasks that were launched or are about to be; with `attempts` each with its tries."""
        query: Query = {
            "step": step,
            "state": state,
            "attempts": "true" if attempts else None,
            "limit": limit,
            "page": page,
        }
        return self._requests.get(_of(job_id, "tasks"), Tasks, query)

    def data(
        self,
        job_id: int,
        *,
        step: int | None = None,
        limit: int = 100,
        page: str | None = None,
    ) -> JobData:
        """One page of a job's inputs by step, and of what its tasks made: results and checkpoints."""
        query: Query = {"step": step, "limit": limit, "page": page}
        return self._requests.get(_of(job_id, "data"), JobData, query)

    def get_output(
        self,
        job_id: int,
        task: str,
        file: DataFile,
        root: Path,
        path: str | None = None,
        *,
        force: bool = False,
        moved: Moved | None = None,
    ) -> bool:
        """Have one file of a task's result (`STEP.TASK`) beneath the directory `root`, under `path` or its own;
        verified. False when it was there already."""
        if _UNNAMED.isdisjoint(file.path):
            target = with_query(_of(job_id, f"outputs/{quote(file.path)}"), {"task": task})
        else:  # no path of a URL may hold these: by its digest
            tenant = self.show(job_id).job.tenant
            target = with_query(f"/v1/artifacts/blake3:{file.digest}/content", {"tenant": tenant})
        wanted = Wanted(target, path or file.path, file.digest, file.size, file.executable)
        return fetch(self._requests.transport, wanted, root, force=force, moved=moved)

    def verdict(self, attempt: str) -> VerdictEntry:
        """What an attempt (`JOB.STEP.TASK.ATTEMPT`) died of. NOT_FOUND while nothing is known of it."""
        from coordinator.api_types.verdict import VerdictEntry

        return self._requests.get(f"/v1/attempts/{quote(attempt)}/verdict", VerdictEntry)

    def why(self, job_id: int) -> JobWhy:
        """Why it stands as it does: per constraint how many providers it rules out, and the nearest thing to change."""
        return self._requests.get(_of(job_id, "why"), JobWhy)

    def wait(self, job_id: int, *, until: str = "ended", timeout_s: float | None = None) -> JobEntry:
        """The job when it has ended (or `running`: has begun); as it stands when `timeout_s` is over before.

        A coordinator that restarts meanwhile is waited for, two minutes at most.
        """
        give_up_s = time.monotonic() + timeout_s if timeout_s is not None else None
        away_since_s: float | None = None
        while True:
            left_s = POLL_S if give_up_s is None else min(POLL_S, max(0.0, give_up_s - time.monotonic()))
            try:
                job: JobEntry = self._requests.get(
                    _of(job_id, "wait"), JobEntry, {"until": until, "timeout": f"{left_s:.3f}s"}, POLL_S + 30.0
                )
                away_since_s = None
            except CoordError as error:
                now_s = time.monotonic()
                away_since_s = away_since_s if away_since_s is not None else now_s
                if error.code not in (Code.UNREACHABLE, Code.SHUTTING_DOWN) or now_s - away_since_s > 120.0:
                    raise
                if give_up_s is not None and now_s >= give_up_s:
                    raise
                time.sleep(0.5)
                continue
            if job.state in ENDED or (until == "running" and job.state == "running"):
                return job
            if give_up_s is not None and time.monotonic() >= give_up_s:
                return job

    def cancel(self, job_id: int, *, task: str | None = None, why: str | None = None) -> JobEntry:
        """Cancel it, or one task of it (`STEP.TASK`). Waiting tasks end at once, running ones when they are stopped."""
        return decoded(self._requests.delete(_of(job_id), {"task": task, "why": why}), JobEntry)

    def retry(self, job_id: int) -> JobEntry:
        """Run again what failed, was lost or cancelled; what completed stays."""
        return self._requests.post(_of(job_id, "retry"), None, JobEntry)

    def logs(
        self,
        job_id: int,
        *,
        tail: int | str | None = None,
        task: str | None = None,
        attempt: int | None = None,
        rank: int | None = None,
        stream: str | None = None,
    ) -> Iterator[bytes]:
        """What is stored of its logs now, piece by piece, byte for byte.

        Of each task the last attempt, unless `attempt` names one. `tail`: lines (100) or a time ("1m").
        """
        query = _selection(tail, task, attempt, rank, stream)
        with self._requests.transport.reading(
            with_query(_of(job_id, "logs"), query), "text/plain", self._requests.transport.timeout_s
        ) as response:
            while piece := response.read1(256 * 1024):
                yield piece

    def pieces(
        self,
        job_id: int,
        *,
        tail: int | str | None = None,
        task: str | None = None,
        attempt: int | None = None,
        rank: int | None = None,
        stream: str | None = None,
    ) -> Iterator[LogEvent]:
        """What `logs` gives, each piece with whose it is and when it came."""
        query = _selection(tail, task, attempt, rank, stream)
        with self._requests.transport.reading(
            with_query(_of(job_id, "logs"), query), MEDIA, self._requests.transport.timeout_s
        ) as response:
            for event in events_of(response):
                if event.name not in ("end", "here"):
                    yield decoded(event.data, LogEvent)

    def follow(
        self,
        job_id: int,
        *,
        tail: int | str | None = None,
        task: str | None = None,
        attempt: int | None = None,
        rank: int | None = None,
        stream: str | None = None,
    ) -> Iterator[LogEvent]:
        """Its logs as they are written, until it has ended; `bytes_of` gives a piece's bytes.

        A broken connection is made again: no byte is missed and none comes twice.
        """
        query = {**_selection(tail, task, attempt, rank, stream), "follow": "true"}
        for event in follow(self._requests, _of(job_id, "logs"), query):
            yield decoded(event.data, LogEvent)


def bytes_of(event: LogEvent) -> bytes:
    """The bytes that a piece of a log stands for."""
    return base64.b64decode(event.data) if event.encoding == "base64" else event.data.encode()


def _of(job_id: int, what: str = "") -> str:
    path = f"/v1/jobs/{int(job_id)}"
    return f"{path}/{what}" if what else path


def _selection(
    tail: int | str | None, task: str | None, attempt: int | None, rank: int | None, stream: str | None
) -> dict[str, str | int | float | None]:
    return {"tail": tail, "task": task, "attempt": attempt, "rank": rank, "stream": stream}
