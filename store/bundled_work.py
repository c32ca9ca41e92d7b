"""Reading what bundles stand for: tasks, and first attempts, that have no row of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain

from coordinator.core.ids import JobId
from coordinator.core.rows import AttemptRow, TaskRow
from store import bundles
from store.bundles import Bundle
from store.readers import fetch
from store.row_reading import read_rows

# After store.sqlite, which gives the name sqlite3 to our library before aiosqlite takes it.
import aiosqlite  # isort: skip


class BundledWork:
    """Within one transaction of a reader. `report` is told of bundles that cannot be read."""

    def __init__(self, connection: aiosqlite.Connection, report: Callable[[str], None]) -> None:
        self._connection = connection
        self._report = report

    async def tasks(
        self, job_id: JobId, step: int | None, after: tuple[int, int], up_to: tuple[int, int], limit: int
    ) -> list[TaskRow]:
        """Tasks of the job, or of a step, behind the one and up to the other, by (step, task) rising."""
        found: list[TaskRow] = []
        while len(found) < limit:
            some, own, end = await self._next(job_id, step, after, up_to, of_tasks=True)
            found += [row for bundle in some for row in bundle.tasks(own) if (row.step, row.task) > after]
            if end is None:
                break
            after = end
        return found[:limit]

    async def attempts(self, job_id: JobId, step: int | None, up_to: tuple[int, int], limit: int) -> list[AttemptRow]:
        """First attempts of tasks of the job, or of a step, up to that one, by (step, task) rising."""
        found: list[AttemptRow] = []
        after = (-1, -1)
        while len(found) < limit:
            some, own, end = await self._next(job_id, step, after, up_to, of_tasks=False)
            found += [row for bundle in some for row in bundle.attempts(own)]
            if end is None:
                break
            after = end
        return found[:limit]

    async def attempts_of(self, job_id: JobId, wanted: Sequence[tuple[int, int]]) -> list[AttemptRow]:
        """First attempts of these tasks (step, task), of which none has a row of its own, by (step, task) rising."""
        if not wanted:
            return []
        sql, asked = bundles.of_tasks(len(wanted)), (*chain.from_iterable(wanted), job_id, job_id)
        found: list[Bundle] = read_rows("bundle", await fetch(self._connection, sql, asked), self._report)
        among = set(wanted)
        numbers = ((one, task) for one in found for task in range(one.first, one.last + 1))
        return [one.first_attempt(task) for one, task in numbers if (one.step, task) in among]

    async def _next(
        self, job_id: JobId, step: int | None, after: tuple[int, int], up_to: tuple[int, int], *, of_tasks: bool
    ) -> tuple[list[Bundle], set[tuple[int, ...]], tuple[int, int] | None]:
        """(the next few bundles behind that task, what of them has its own rows, where to go on; None: at the end)."""
        sql = bundles.listing(of_tasks=of_tasks, step=step is not None)
        last = up_to[1] + bundles.TASKS_MAX - 1  # of the bundle that this task is in, at most
        place = (*after, up_to[0], last) if step is None else (step, after[1], last)
        columns = await fetch(self._connection, sql, (job_id, *place, bundles.AT_ONCE))
        some: list[Bundle] = read_rows("bundle", columns, self._report)
        own: set[tuple[int, ...]] = set()
        if some:
            question = bundles.own_tasks(some) if of_tasks else bundles.own_attempts(some)
            own.update(await fetch(self._connection, *question))
        return some, own, (columns[-1][1], columns[-1][2]) if len(columns) == bundles.AT_ONCE else None
