"""A start of the store with a million finished jobs in the file and ten thousand live ones.

    python -m bench.restart [--quick]

Every finished job has its specification, step, task, attempt and four rows of audit; every live one a task and an
attempt that runs. Measured are opening the data directory and reading what a coordinator starts from, the same with
no finished jobs, and the questions that people ask of a file of that size.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

from bench.commit import Ledger, a_job, attempt, puts
from bench.judging import judged
from coordinator.core.commands import Together
from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import AttemptState, AuditRow, EndCause, ExitInfo, Row, TaskRow, WorkState, row_key
from store import audit
from store.durable import DiskStore
from store.layout import DataDir
from store.sqlite import Durability, open_writer, sqlite3
from store.table import Columns, put_rows
from store.truth import TABLES

FLOORS = {"open_s": 3.0}
"""Opening and reading take at most so many seconds."""
LIVE = 10_000
FINISHED = 1_000_000
AT_ONCE = 5_000
ROUNDS = 5
DONE = ExitInfo(cause=EndCause.EXITED, code=0, ran_ms=9, out_bytes=5)


def finished(number: int, ledger: Ledger) -> list[Row]:
    """A job that ran and is over, all of its rows."""
    names = f"{number}.0.0", f"{number}.0.0.1"
    return [
        *a_job(1, number, WorkState.COMPLETED),
        TaskRow(job_id=JobId(number), step=0, task=0, state=WorkState.COMPLETED, attempts=1, exit_code=0),
        attempt(0, AttemptState.COMPLETED, DONE, job=number),
        ledger.audit("task", names[0], "pending", "staging"),
        ledger.audit("attempt", names[1], "", "leased", "node-0"),
        ledger.audit("attempt", names[1], "running", "completed", "node-0"),
        ledger.audit("task", names[0], "running", "completed"),
    ]


def live(number: int) -> list[Row]:
    return [
        *a_job(1, number),
        TaskRow(job_id=JobId(number), step=0, task=0, state=WorkState.RUNNING, attempts=1),
        attempt(0, AttemptState.RUNNING, job=number),
    ]


def fill(data: DataDir, jobs: Iterator[list[Row]]) -> None:
    """Put the rows of these jobs into the closed store, faster than commits would."""
    with closing(open_writer(data.truth, Durability.NORMAL)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA cache_size = -400000")
        while some := list(islice(jobs, AT_ONCE)):
            _put(connection, [row for rows in some for row in rows])


def _put(connection: sqlite3.Connection, rows: list[Row]) -> None:
    by_table: dict[str, list[Columns]] = {}
    told: list[AuditRow | Together] = []
    for row in rows:
        name = row_key(row)[0]
        if isinstance(row, AuditRow):
            told.append(row)
        else:
            by_table.setdefault(name, []).append(TABLES[name].to_columns(row))
    connection.execute("BEGIN IMMEDIATE")
    if told:
        audit.write(connection, told)
    for name, columns in by_table.items():
        put_rows(connection, TABLES[name].put, columns)
    connection.execute("COMMIT")


async def make(data: DataDir) -> None:
    """A new directory whose counters stand where the jobs to come will have left them."""
    store = await DiskStore.open(data)
    await store.commit(puts([*live(FINISHED + LIVE)]))
    await store.close()


async def started(data: DataDir, times: list[float], ask: dict[str, list[float]] | None = None) -> int:
    """Open and load once; returns how many live jobs there were."""
    began = time.perf_counter()
    store = await DiskStore.open(data)
    loaded = await store.load()
    times.append(time.perf_counter() - began)
    try:
        for name, question in (questions(store) if ask is not None else {}).items():
            began = time.perf_counter()
            await question()
            assert ask is not None
            ask.setdefault(name, []).append(time.perf_counter() - began)
        return sum(row_key(row)[0] == "job" for row in loaded.rows)
    finally:
        await store.close()


def questions(store: DiskStore) -> dict[str, Callable[[], Awaitable[object]]]:
    """What people ask."""
    tenant = TenantName("tenant-3")
    return {
        "newest_jobs": lambda: store.jobs(None, 100),
        "jobs_of_tenant": lambda: store.jobs(tenant, 100),
        "failed_of_tenant": lambda: store.jobs(tenant, 100, None, (WorkState.FAILED,)),
        "jobs_by_name": lambda: store.jobs(tenant, 100, None, (), "sweep-3"),
        "one_job": lambda: store.job(JobId(FINISHED // 2), tenant),
        "its_attempts": lambda: store.job_attempts(JobId(FINISHED // 2), 100),
        "its_audit": lambda: store.audit(100, job_id=JobId(FINISHED // 2)),
        "audit_of_a_subject": lambda: store.audit(100, subject="77.0.0.1"),
    }


def measure(directory: Path, quick: bool) -> dict[str, object]:
    many = 20_000 if quick else FINISHED
    few_data, data = DataDir(directory / "few"), DataDir(directory / "many")
    ledger = Ledger()
    began = time.perf_counter()
    for place, count in ((few_data, 0), (data, many)):
        asyncio.run(make(place))
        fill(place, (finished(number, ledger) for number in range(1, count + 1)))
        fill(place, (live(number) for number in range(FINISHED + 1, FINISHED + LIVE)))
    filled_s = time.perf_counter() - began
    spent: dict[str, list[float]] = {"few": [], "many": []}
    asked: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        assert asyncio.run(started(few_data, spent["few"])) == LIVE
        assert asyncio.run(started(data, spent["many"], asked)) == LIVE
    return {
        "figures": {
            "finished_jobs": many,
            "live_jobs": LIVE,
            "file_gb": round(data.truth.stat().st_size / 1e9, 2),
            "bytes_a_job": data.truth.stat().st_size // (many + LIVE),
            "filled_s": round(filled_s, 1),
            "open_s": round(statistics.median(spent["many"]), 3),
            "open_without_finished_s": round(statistics.median(spent["few"]), 3),
            **{f"{name}_ms": round(statistics.median(times) * 1_000, 2) for name, times in asked.items()},
        },
        "ratios": {"open_s": round(statistics.median(spent["many"]), 3)},
        "floors": FLOORS,
        "n": {name: len(times) for name, times in spent.items()},
    }


if __name__ == "__main__":
    sys.exit(judged(measure, FLOORS, at_most=FLOORS))
