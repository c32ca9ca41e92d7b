"""Reading work, live and ended: one page of it at a time, from snapshots of the truth, never on the loop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from heapq import merge
from itertools import chain, islice
from operator import attrgetter
from typing import Any, TypeVar

from coordinator.core.ids import AttemptId, JobId, ProviderId, TenantName
from coordinator.core.rows import AccountRow, AttemptRow, AuditRow, JobRow, LedgerRow, StepRow, TaskRow, WorkState
from coordinator.core.verdict.rows import SuspicionRow, VerdictRow
from coordinator.core.work.jobspec import JobSpec
from coordinator.ports.store import UsageSum
from store import accounts, attempts, audit, jobs, ledger, steps, suspicions, tasks, verdicts
from store.bundled_work import BundledWork
from store.history import END_OF_TIME_MS
from store.readers import Readers, fetch
from store.row_reading import read_rows

# After store.sqlite, which gives the name sqlite3 to our library before aiosqlite takes it.
import aiosqlite  # isort: skip

R = TypeVar("R")
LAST_ID = END_OF_TIME_MS
"""Above every number that was ever given."""
PACKS = 16
"""Of audit, read at a time: some 4,000 rows at most, which hold the loop for 4 ms."""


class WorkHistory:
    """What ports.store.Store answers about work. `report` is told of rows that cannot be read."""

    def __init__(self, readers: Readers, report: Callable[[str], None]) -> None:
        self._readers = readers
        self._report = report

    async def job(self, job_id: JobId, tenant: TenantName | None) -> JobRow | None:
        row: JobRow | None = await self._one("job", jobs.ONE, (job_id, tenant))
        return row

    async def job_by_key(self, tenant: TenantName, idempotency_key: str) -> JobRow | None:
        row: JobRow | None = await self._one("job", jobs.BY_KEY, (tenant, idempotency_key))
        return row

    async def jobs(
        self,
        tenant: TenantName | None,
        limit: int,
        before: JobId | None = None,
        states: tuple[WorkState, ...] = (),
        name: str = "",
    ) -> list[JobRow]:
        """Each state's newest come from an index of their own, and the newest of all of these are the answer."""
        behind = (before if before is not None else LAST_ID, *((jobs.pattern(name),) if name else ()), limit)
        if not states and tenant is None:
            sql = jobs.listing(tenant=False, state=False, name=bool(name))
            return await self._many("job", sql, behind)
        sql = jobs.listing(tenant=tenant is not None, state=True, name=bool(name))
        whose = () if tenant is None else (tenant,)
        found: list[tuple[Any, ...]] = []
        async with self._readers.transaction() as connection:
            for state in set(states or WorkState):
                found += await fetch(connection, sql, (*whose, state.value, *behind))
        found.sort(key=lambda columns: int(columns[0]), reverse=True)
        return read_rows("job", found[:limit], self._report)

    async def job_spec(self, job_id: JobId) -> JobSpec | None:
        row = await self._one("spec", jobs.SPEC, (job_id,))
        return row.spec if row is not None else None

    async def job_steps(self, job_id: JobId) -> list[StepRow]:
        return await self._many("step", steps.OF_JOB, (job_id,))

    async def job_tasks(
        self,
        job_id: JobId,
        limit: int,
        step: int | None = None,
        after: tuple[int, int] | None = None,
        states: tuple[WorkState, ...] = (),
    ) -> list[TaskRow]:
        if after is not None and step is not None and after[0] != step:
            if after[0] > step:
                return []
            after = None
        last_step, last_task = behind = after if after is not None else (-1, -1)
        place = (job_id, last_step, last_task) if step is None else (job_id, step, last_task)
        sql = tasks.listing(states, step=step is not None)
        async with self._readers.transaction() as connection:
            columns = await fetch(connection, sql, (*place, limit))
            own: list[TaskRow] = read_rows("task", columns, self._report)
            if states and WorkState.STAGING not in states:
                return own
            bundled = await self._bundled(connection).tasks(job_id, step, behind, _up_to(columns, limit), limit)
        return _merged(own, bundled, limit, key=_of_task)

    async def job_attempts(
        self, job_id: JobId, limit: int, step: int | None = None, task: int | None = None
    ) -> list[AttemptRow]:
        sql = attempts.listing(step=step is not None, task=task is not None)
        asked = (job_id, *(n for n in (step, task) if n is not None), limit)
        async with self._readers.transaction() as connection:
            columns = await fetch(connection, sql, asked)
            own: list[AttemptRow] = read_rows("attempt", columns, self._report)
            if step is not None and task is not None:
                wanted = {(step, task)} - _first_attempts(columns)
                bundled = await self._bundled(connection).attempts_of(job_id, list(wanted))
            else:
                bundled = await self._bundled(connection).attempts(job_id, step, _up_to(columns, limit), limit)
        return _merged(own, bundled, limit, key=_of_attempt)

    async def attempts_of(self, job_id: JobId, wanted: Sequence[tuple[int, int, int]]) -> list[AttemptRow]:
        if not wanted:
            return []
        sql, asked = attempts.of_tasks(len(wanted)), (*chain.from_iterable(wanted), job_id)
        async with self._readers.transaction() as connection:
            columns = await fetch(connection, sql, asked)
            own: list[AttemptRow] = read_rows("attempt", columns, self._report)
            there = _first_attempts(columns)
            missing = [(step, task) for step, task, after in wanted if after < 1 and (step, task) not in there]
            bundled = await self._bundled(connection).attempts_of(job_id, missing)
        return _merged(own, bundled, len(own) + len(bundled), key=_of_attempt)

    async def attempt(self, attempt_id: AttemptId) -> AttemptRow | None:
        job_id, step, task, attempt = attempt_id
        async with self._readers.transaction() as connection:
            columns = await fetch(connection, attempts.ONE, attempt_id)
            found: list[AttemptRow] = read_rows("attempt", columns, self._report)
            if not columns and attempt == 1:
                found = await self._bundled(connection).attempts_of(job_id, [(step, task)])
        return found[0] if found else None

    async def verdict(self, attempt_id: AttemptId) -> VerdictRow | None:
        row: VerdictRow | None = await self._one("verdict", verdicts.ONE, attempt_id)
        return row

    async def verdicts(self, job_id: JobId, limit: int) -> list[VerdictRow]:
        return await self._many("verdict", verdicts.OF_JOB, (job_id, limit))

    async def verdicts_among(self, job_id: JobId, wanted: Sequence[tuple[int, int, int]]) -> list[VerdictRow]:
        if not wanted:
            return []
        return await self._many("verdict", verdicts.among(len(wanted)), (*chain.from_iterable(wanted), job_id))

    async def suspicions(self, provider_id: ProviderId) -> list[SuspicionRow]:
        return await self._many("suspicion", suspicions.OF_PROVIDER, (provider_id,))

    async def audit(
        self,
        limit: int,
        tenant: TenantName | None = None,
        job_id: JobId | None = None,
        entity: str = "",
        subject: str = "",
        before: int | None = None,
        after: int | None = None,
    ) -> list[AuditRow]:
        """Packs that may hold what is asked for, one handful after the other, until there is enough."""
        wanted, rising = audit.Wanted(tenant, job_id, entity, subject), after is not None
        sql, asked = audit.listing(wanted, rising=rising)
        last = after if after is not None else before if before is not None else LAST_ID
        found: list[AuditRow] = []
        start = last
        async with self._readers.transaction() as connection:
            if rising:
                ((first,),) = await fetch(connection, audit.FIRST_OF, (last,))
                start = first or 0
            while True:
                packs = await fetch(connection, sql, (start, PACKS, *asked))
                for rows in read_rows("audit", packs, self._report):
                    rows = rows if rising else reversed(rows)
                    found += [row for row in rows if (row.seq > last if rising else row.seq < last) and wanted.has(row)]
                if len(found) >= limit or len(packs) < PACKS:
                    return found[:limit]
                start = packs[-1][0] + rising

    async def accounts(self) -> list[AccountRow]:
        rows: list[AccountRow] = await self._many("account", accounts.ALL, ())
        return sorted(rows, key=lambda row: row.tenant)

    async def ledger(
        self, limit: int, tenant: TenantName | None, month: int | None, job_id: JobId | None, before: int | None
    ) -> list[LedgerRow]:
        sql = ledger.listing(tenant=tenant is not None, month=month is not None, job=job_id is not None)
        return await self._many(
            "ledger", sql, (*ledger.asked(tenant, month, job_id), before if before is not None else LAST_ID, limit)
        )

    async def usage_by(
        self, by: str, limit: int, tenant: TenantName | None, month: int | None, job_id: JobId | None
    ) -> list[UsageSum]:
        sql = ledger.sums(by, tenant=tenant is not None, month=month is not None, job=job_id is not None)
        return [
            UsageSum(*columns)
            for columns in await self._readers.rows(sql, (*ledger.asked(tenant, month, job_id), limit))
        ]

    def _bundled(self, connection: aiosqlite.Connection) -> BundledWork:
        return BundledWork(connection, self._report)

    async def _one(self, table: str, sql: str, parameters: tuple[Any, ...]) -> Any:
        rows = await self._many(table, sql, parameters)
        return rows[0] if rows else None

    async def _many(self, table: str, sql: str, parameters: tuple[Any, ...]) -> list[Any]:
        return read_rows(table, await self._readers.rows(sql, parameters), self._report)


def _merged(own: list[R], bundled: list[R], limit: int, key: Callable[[R], tuple[int, ...]]) -> list[R]:
    """The first of both; each is in order already."""
    return list(islice(merge(own, bundled, key=key), limit)) if bundled else own


def _up_to(own: Sequence[tuple[Any, ...]], limit: int) -> tuple[int, int]:
    """The last task of a page: where rows of their own fill it, nothing behind them is looked for."""
    return (own[-1][1], own[-1][2]) if len(own) == limit else (LAST_ID, LAST_ID)


def _first_attempts(own: Sequence[tuple[Any, ...]]) -> set[tuple[int, int]]:
    """(step, task) of those that have a row of their own, whether it can be read or not: no bundle counts for these."""
    return {(step, task) for _, step, task, attempt, *_ in own if attempt == 1}


_of_task = attrgetter("step", "task")
_of_attempt = attrgetter("step", "task", "attempt")
