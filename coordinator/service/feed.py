"""The feed of what became durable: audit rows in their order, and changes of jobs for those who wait for them.

A follower is a number, not a queue: what it has not read yet is in the ring, and behind that in the store. A slow one
costs nobody anything. Bound: RING_MAX rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing
from typing import get_args
from weakref import WeakValueDictionary

from coordinator.core import commands
from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import AuditRow
from coordinator.ports.store import Store
from coordinator.service.bells import Bell, heard
from coordinator.service.views import LiveViews

RING_MAX = 20_000
PAGE = 500
"""Rows that a follower takes at a time."""
GATHER_S = 0.01
"""Told one by one, the eight rows of a task that runs for a millisecond cost their reader and us more than the task."""


class Feed:
    """Listens to the notes. `last_seq` is the newest row that is durable; 0 before the first since the start."""

    def __init__(self, views: LiveViews, store: Store, last_seq: int = 0) -> None:
        """`last_seq` of what the state was loaded with: what comes is numbered on from there."""
        self.last_seq = last_seq
        self.followers = 0
        self._store = store
        self._ring: list[AuditRow | commands.Together] = []
        """By number, up to `last_seq`. What was put together is here once for each of its rows: few are ever read."""
        self._bell = Bell()
        self._jobs: WeakValueDictionary[JobId, asyncio.Future[None]] = WeakValueDictionary()
        """Gone by itself with the last who waits for it."""
        self._closed = False
        views.listen_audit(self._on_audited)
        views.listen(self._on_change, commands.JobChanged, commands.AttemptChanged, *get_args(commands.Together))

    def close(self) -> None:
        """End every follower, and wake who waits for a job."""
        self._closed = True
        self._bell.ring()
        for job_id in tuple(self._jobs):
            self._ring_job(job_id)

    def _on_audited(self, rows: list[AuditRow]) -> None:
        self._take(rows, rows[-1].seq)

    def _take(self, rows: Sequence[AuditRow | commands.Together], last_seq: int) -> None:
        self._ring += rows
        if len(self._ring) > 2 * RING_MAX:
            del self._ring[:-RING_MAX]
        self.last_seq = last_seq
        self._bell.ring()

    def _on_change(self, note: commands.Note) -> None:
        if isinstance(note, commands.JobChanged | commands.AttemptChanged):
            self._ring_job(note.row.job_id)
        elif isinstance(note, commands.Together):
            self._take([note] * (note.last_seq - note.seq + 1), note.last_seq)
            self._ring_job(note.attempts[0].job_id)

    def _ring_job(self, job_id: JobId) -> None:
        change = self._jobs.pop(job_id, None)
        if change is not None and not change.done():
            change.set_result(None)

    # ---- audit rows

    async def follow(
        self, after: int, *, tenant: TenantName | None = None, job_id: JobId | None = None
    ) -> AsyncIterator[AuditRow]:
        """Every row above `after`, of this tenant (None: of all) and job, for ever: what there is, then what comes."""
        async with aclosing(self.pages(after, tenant=tenant, job_id=job_id)) as pages:
            async for rows in pages:
                for row in rows:
                    yield row

    async def pages(
        self, after: int, *, tenant: TenantName | None = None, job_id: JobId | None = None
    ) -> AsyncGenerator[list[AuditRow], None]:
        """The same, as many rows at a time as there are; after each lot those that follow gather for a moment."""
        self.followers += 1
        try:
            while not self._closed:
                ring = self._bell.next()
                if after >= self.last_seq:
                    await heard(ring)
                    continue
                rows, after = await self._page(after, tenant, job_id)
                if rows:
                    yield rows
                    await asyncio.sleep(GATHER_S if len(rows) < PAGE else 0)
        finally:
            self.followers -= 1

    async def _page(self, after: int, tenant: TenantName | None, job_id: JobId | None) -> tuple[list[AuditRow], int]:
        """The next rows of this kind, and up to where there are no others: from the ring where it reaches so far."""
        until = self.last_seq - len(self._ring)
        if until <= after:
            page = rows_of(self._ring[after - until : after - until + PAGE], after + 1)
            wanted = [row for row in page if tenant in (None, row.tenant) and job_id in (None, row.job_id)]
            return wanted, page[-1].seq
        found = await self._store.audit(limit=PAGE, tenant=tenant, job_id=job_id, after=after)
        rows = [row for row in found if row.seq <= until]
        return rows, rows[-1].seq if len(rows) == PAGE else until

    # ---- jobs

    def next_change(self, job_id: JobId) -> asyncio.Future[None]:
        """Done at the next durable change of the job or of an attempt of it: for `bells.heard`. Take it, look, wait."""
        change = self._jobs.get(job_id)
        if change is None:
            change = self._jobs[job_id] = asyncio.get_running_loop().create_future()
        return change


def rows_of(page: Sequence[AuditRow | commands.Together], first: int) -> list[AuditRow]:
    """These entries of the ring as rows, the first of which has this number."""
    found: list[AuditRow] = []
    while len(found) < len(page):
        entry = page[len(found)]
        if isinstance(entry, commands.Together):
            found += entry.audited()[first + len(found) - entry.seq :][: len(page) - len(found)]
        else:
            found.append(entry)
    return found
