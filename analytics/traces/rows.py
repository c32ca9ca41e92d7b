"""The stored rows of a job, read at one moment from the coordinator's database."""

from __future__ import annotations

from contextlib import closing
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from coordinator.core.data.rows import OutputRow
from coordinator.core.ids import JobId, ProviderId
from coordinator.core.rows import AttemptRow, AuditRow, JobRow, Resources, StepRow, TaskRow
from coordinator.core.work.jobspec import JobSpec
from store import attempts, audit, bundles, jobs, outputs, providers, steps, tasks
from store.row_reading import read_rows
from store.sqlite import open_reader, sqlite3

EVERY_TASK = (-1, -1)
_of_task, _of_attempt = attrgetter("task_id"), attrgetter("attempt_id")
NO_LIMIT = -1


class Moments(Struct):
    """When an attempt changed its state, by its audit rows; milliseconds as nanoseconds."""

    leased_ns: int | None = None
    staging_ns: int | None = None
    frozen: list[tuple[int, int]] = field(default_factory=list)
    """From when to when it stood still; an end of -1: until now."""


class JobRows(Struct, kw_only=True):
    """What is known of a job. Rows that cannot be read are left out."""

    job: JobRow
    spec: JobSpec
    steps: list[StepRow]
    tasks: list[TaskRow]
    attempts: list[AttemptRow]
    moments: dict[str, Moments]
    """By attempt."""
    results: list[OutputRow]
    offers: dict[ProviderId, Resources]


def version(truth: Path, job_id: JobId) -> tuple[JobRow, int] | None:
    """Its row, and the number of the last pack of audit rows that has any of it. None: there is no such job."""
    with closing(open_reader(truth)) as db:
        job = _job(db, job_id)
        if job is None:
            return None
        (last,) = db.execute("SELECT max(first) FROM audit_of_job WHERE job_id = ?", (job_id,)).fetchone()
        return job, last or 0


def rows_of(truth: Path, job_id: JobId) -> JobRows | None:
    """None: there is no such job. O(its attempts)."""
    with closing(open_reader(truth)) as db:
        db.execute("BEGIN")  # one state of the database
        job = _job(db, job_id)
        specs = _many(db, "spec", jobs.SPEC, (job_id,))
        if job is None or not specs:
            return None
        every = (job_id, *EVERY_TASK, NO_LIMIT)
        own_tasks = _many(db, "task", tasks.listing((), step=False), every)
        own_attempts = _many(db, "attempt", attempts.listing(step=False, task=False), (job_id, NO_LIMIT))
        bundled = list(bundles.stood_for(db, _many(db, "bundle", bundles.OF_JOB, (job_id,))))
        return JobRows(
            job=job,
            spec=specs[0].spec,
            steps=_many(db, "step", steps.OF_JOB, (job_id,)),
            tasks=sorted(chain(own_tasks, (row for row in bundled if isinstance(row, TaskRow))), key=_of_task),
            attempts=sorted(
                chain(own_attempts, (row for row in bundled if isinstance(row, AttemptRow))), key=_of_attempt
            ),
            moments=_moments(db, job_id),
            results=_many(db, "output", outputs.listing(step=False), every),
            offers={row.provider_id: row.resources for row in _many(db, "provider", providers.ALL, ())},
        )


def _job(db: sqlite3.Connection, job_id: JobId) -> JobRow | None:
    found = _many(db, "job", jobs.ONE, (job_id, None))
    return found[0] if found else None


def _many(db: sqlite3.Connection, table: str, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
    return read_rows(table, db.execute(sql, parameters).fetchall(), lambda _: None)


def _moments(db: sqlite3.Connection, job_id: JobId) -> dict[str, Moments]:
    """Of every attempt of this job: its packs of audit rows, one after the other. A retry of the job by hand adds to
    what was there."""
    sql, asked = audit.listing(audit.Wanted(job_id=job_id), rising=True)
    found: dict[str, Moments] = {}
    with closing(db.execute(sql, (0, NO_LIMIT, *asked))) as packs:
        for columns in packs:
            for rows in read_rows("audit", [columns], lambda _: None):
                for row in rows:
                    if row.job_id == job_id and row.entity == "attempt":
                        _note(found.setdefault(row.subject, Moments()), row)
    return found


def _note(moments: Moments, row: AuditRow) -> None:
    at_ns = row.wall_ns // 1_000_000 * 1_000_000
    if moments.frozen and moments.frozen[-1][1] < 0:
        moments.frozen[-1] = moments.frozen[-1][0], at_ns
    match row.after:
        case "leased":
            moments.leased_ns = at_ns
        case "staging":
            moments.staging_ns = at_ns
        case "frozen":
            moments.frozen.append((at_ns, -1))
