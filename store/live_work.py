"""The live work as a coordinator starts from it: jobs that have not ended and attempts that hold something.

Whatever of a job cannot be read, the job is set aside as a whole and reported: the core meets no job with a hole in
it. Agents that still run something of it are told that nobody knows it.
"""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.ids import JobId
from coordinator.core.rows import ENDED, AttemptRow, JobRow, SpecRow, StepRow, TaskRow
from store import attempts, bundles, jobs, steps, tasks
from store.bundles import Bundle
from store.row_reading import read_row
from store.sqlite import sqlite3

WorkRow = JobRow | SpecRow | StepRow | TaskRow | AttemptRow
QUESTIONS = (
    ("job", jobs.ALL_LIVE),
    ("job", jobs.ENDED_HOLDING),
    ("spec", jobs.SPECS_LIVE),
    ("step", steps.ALL_LIVE),
    ("task", tasks.ALL_LIVE),
    ("attempt", attempts.ALL_HELD),
)
"""Live jobs come in the order of their ids, which is that of their submission. Ended ones that hold something are there
with their row alone."""


def live_work(connection: sqlite3.Connection, set_aside: list[str]) -> list[WorkRow]:
    """Jobs first, then their specifications, steps, tasks and attempts. What is left out has a line in `set_aside`."""
    rows: list[WorkRow] = []
    spoiled: set[JobId] = set()
    for table, sql in QUESTIONS:
        for columns in connection.execute(sql):
            row = read_row(table, columns, set_aside)
            if row is not None:
                rows.append(row)
            else:
                spoiled.add(columns[0])
    rows += _bundled(connection, set_aside, spoiled)
    for job_id, missing in _holes(rows):
        if job_id not in spoiled:
            spoiled.add(job_id)
            set_aside.append(f"job {job_id} has lost {missing}")
    if not spoiled:
        return rows
    set_aside.append(f"set aside with all that they have: jobs {', '.join(map(str, sorted(spoiled)))}")
    return [row for row in rows if row.job_id not in spoiled]


def _bundled(
    connection: sqlite3.Connection, set_aside: list[str], spoiled: set[JobId]
) -> Iterator[TaskRow | AttemptRow]:
    """Tasks that have no row of their own, and first attempts that have none."""
    found: list[Bundle] = []
    for columns in connection.execute(bundles.ALL_LIVE):
        bundle = read_row("bundle", columns, set_aside)
        if bundle is not None:
            found.append(bundle)
        else:
            spoiled.add(columns[0])
    return bundles.stood_for(connection, found)


def _holes(rows: list[WorkRow]) -> list[tuple[JobId, str]]:
    """Live jobs without a specification, or with other steps than it has."""
    specified: dict[JobId, int] = {}
    stepped: dict[JobId, int] = {}
    for row in rows:
        match row:
            case SpecRow(job_id=job_id):
                specified[job_id] = len(row.spec.steps)
            case StepRow(job_id=job_id):
                stepped[job_id] = stepped.get(job_id, 0) + 1
            case _:
                pass
    found: list[tuple[JobId, str]] = []
    for row in rows:
        if isinstance(row, JobRow) and row.state not in ENDED:
            if row.job_id not in specified:
                found.append((row.job_id, "its specification"))
            elif stepped.get(row.job_id, 0) != specified[row.job_id]:
                found.append((row.job_id, "a step"))
    return found
