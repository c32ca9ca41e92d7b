"""Ended work that is old enough: logs first, then jobs with all that they have, then the audit and the ledger.

And bundles that stand for nothing any more: what is walked in vain is at most what ended since the last look.
"""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from coordinator.core.ids import JobId, Ms, TenantName
from store import attempts, audit, bundles, checkpoints, holds, jobs, ledger, meta, outputs, steps, tasks, verdicts
from store.logs import DiskLogs
from store.settings import StoreSettings
from store.sqlite import sqlite3
from store.traces import places as traces
from store.writer import Writer

BATCH_ROWS = 1_000
"""Rows of one transaction: a commit that waits behind it waits for a few milliseconds."""
BATCH_JOBS = 200
_END = tuple[Ms, int]
"""(ended_at_ms, job_id): where a walk over ended jobs stands."""
_BUNDLE = tuple[int, int, int]
"""(job_id, step, last): where a walk over bundles stands."""
BATCH_BUNDLES = 200
"""Some 64 tasks each, which are counted."""


class WorkRetention:
    """Prunes jobs with logs and traces, the audit and the ledger. Idempotent; interrupted, it goes on where it was."""

    def __init__(self, truth: Writer, logs: DiskLogs, traces_root: Path, settings: StoreSettings) -> None:
        self._truth = truth
        self._logs = logs
        self._traces_root = traces_root
        self._settings = settings
        self._orphans_gone = False

    async def prune(self, now_ms: Ms) -> None:
        if not self._orphans_gone:
            await self._remove_orphans()
            self._orphans_gone = True
        await self._remove_logs(now_ms - logs_keep_ms(self._settings))
        before_ms = now_ms - self._settings.jobs_keep_ms
        at: _END | None = (0, 0)
        while at is not None:
            at, gone = await self._truth.transact(partial(_remove_jobs, after=at, before_ms=before_ms))
            for job_id in gone:
                await self._logs.remove(job_id)  # what an agent sent later than anybody waited for
                await asyncio.to_thread(traces.remove, self._traces_root, job_id)
        bundle: _BUNDLE | None = (0, 0, -1)
        while bundle is not None:
            bundle = await self._truth.transact(partial(_drop_bundles, after=bundle))
        old_ns = (now_ms - self._settings.audit_keep_ms) * 1_000_000
        while not await self._truth.transact(lambda c: audit.prune(c, old_ns, BATCH_ROWS)):
            pass
        old_ms = now_ms - self._settings.ledger_keep_ms
        while (
            await self._truth.transact(lambda c: c.execute(ledger.PRUNE, (old_ms, BATCH_ROWS)).rowcount) == BATCH_ROWS
        ):
            pass

    async def _remove_orphans(self) -> None:
        """Once a start: traces that a removal left half way, or that came while their job was removed."""
        kept = await asyncio.to_thread(traces.jobs_kept, self._traces_root)
        for at in range(0, len(kept), BATCH_ROWS):
            some = kept[at : at + BATCH_ROWS]
            for job_id in await self._truth.run(partial(_missing, wanted=some)):
                await asyncio.to_thread(traces.remove, self._traces_root, job_id)

    async def _remove_logs(self, before_ms: Ms) -> None:
        """How far it came is kept: the logs of a job are looked for once, not every five minutes for 90 days."""
        while True:
            ended = await self._truth.run(lambda c: _ended(c, _logs_removed_to(c), before_ms))
            for _, job_id in ended:
                await self._logs.remove(JobId(job_id))
            if ended:
                await self._truth.transact(partial(_note_logs_removed, upto=ended[-1]))
            if len(ended) < BATCH_JOBS:
                return


def logs_keep_ms(settings: StoreSettings) -> Ms:
    """No log is kept longer than its job."""
    return min(settings.logs_keep_ms, settings.jobs_keep_ms)


def _missing(connection: sqlite3.Connection, wanted: list[JobId]) -> list[JobId]:
    return [job_id for job_id in wanted if connection.execute(jobs.THERE, (job_id,)).fetchone() is None]


def _logs_removed_to(connection: sqlite3.Connection) -> _END:
    (text,) = connection.execute(meta.LOGS_REMOVED_TO).fetchone()
    ended_at_ms, job_id = text.split()
    return int(ended_at_ms), int(job_id)


def _note_logs_removed(connection: sqlite3.Connection, upto: _END) -> None:
    connection.execute(meta.SET_LOGS_REMOVED_TO, ("{} {}".format(*upto),))


def _ended(connection: sqlite3.Connection, after: _END, before_ms: Ms) -> list[_END]:
    return connection.execute(jobs.ENDED_BETWEEN, (*after, before_ms, BATCH_JOBS)).fetchall()


def _remove_jobs(connection: sqlite3.Connection, after: _END, before_ms: Ms) -> tuple[_END | None, list[JobId]]:
    """A bounded share of what has to go, within the caller's transaction; returns where to go on, None at the end, and
    which jobs are gone.

    A large job goes in several of them, its own row last. One that holds capacity still is passed over.
    """
    ended = _ended(connection, after, before_ms)
    left = BATCH_ROWS
    gone: list[JobId] = []
    for end in ended:
        owner = connection.execute(jobs.MAY_GO, (end[1], before_ms)).fetchone()
        if owner is None:
            after = end
            continue
        left -= _let_go(connection, owner[0], JobId(end[1]), left)
        if left <= 0:
            return after, gone
        # Bundles first: they stand for tasks and attempts that have no row.
        for of_many in (bundles.PRUNE, attempts.PRUNE, tasks.PRUNE, outputs.PRUNE, checkpoints.PRUNE, verdicts.PRUNE):
            left -= connection.execute(of_many, (end[1], left)).rowcount
            if left <= 0:
                return after, gone
        for of_one in (steps.PRUNE, jobs.SPEC_TABLE.delete, jobs.TABLE.delete):
            left -= connection.execute(of_one, (end[1],)).rowcount
        gone.append(JobId(end[1]))
        after = end
        if left <= 0:
            return after, gone
    return after if len(ended) == BATCH_JOBS else None, gone


def _drop_bundles(connection: sqlite3.Connection, after: _BUNDLE) -> _BUNDLE | None:
    """Remove those of the next few that stand for nothing any more; returns where to go on, None at the end."""
    some: list[_BUNDLE] = connection.execute(bundles.SOME, (*after, BATCH_BUNDLES)).fetchall()
    if some:
        connection.execute(bundles.DROP, (*after, *some[-1]))
    return some[-1] if len(some) == BATCH_BUNDLES else None


def _let_go(connection: sqlite3.Connection, tenant: TenantName, job_id: JobId, left: int) -> int:
    """End a bounded share of what a job holds; returns how many rows that took, one a blob: at least `left` if there is
    more. The blobs stay until a sweep finds them held by nobody."""
    taken = 0
    for holder, count in connection.execute(holds.OF_JOB, (tenant, job_id, left)).fetchall():
        connection.execute(holds.TABLE.delete, (tenant, holder))
        taken += 1 + count
        if taken >= left:
            break
    return taken
