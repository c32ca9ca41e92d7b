"""Bundles in the truth: first leases that were given together, as one row.

Most tasks are leased, and launched, in the company of others that are like them; to write each of these rows cost more
than all else about a lease. A bundle stands for the row of each of its tasks, and for that of its first attempt, as
long as there is no such row: whatever is put of one by itself counts from then on. Whoever reads tasks or attempts has
to look into both (`store.bundled_work`).
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from coordinator.core.commands import FirstLeases
from coordinator.core.ids import JobId
from coordinator.core.rows import AttemptRow, Choice, LeaseToken, TaskRow
from store.jobs import LIVE
from store.sqlite import sqlite3
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("job_id", "step", "last", "first", "body", "launched_to", "launched")
TASKS_MAX = 256
"""Of one bundle: who looks for one task reads them all."""
AT_ONCE = 200
"""So many are read, and looked into, together."""
_NAMES = ", ".join(COLUMNS)
_OF_BUNDLE = ", ".join(f"bundle.{name}" for name in COLUMNS)
_SIZE = "bundle.last - bundle.first + 1"
_TASKS_LEFT = f"""
{_SIZE} > (SELECT count(*) FROM task WHERE task.job_id = bundle.job_id AND task.step = bundle.step
              AND task.task BETWEEN bundle.first AND bundle.last)
"""  # noqa: S608  names of ours; likewise below
"""It stands for the row of a task yet."""
_ATTEMPTS_LEFT = f"""
{_SIZE} > (SELECT count(*) FROM attempt WHERE attempt.job_id = bundle.job_id AND attempt.step = bundle.step
              AND attempt.task BETWEEN bundle.first AND bundle.last AND attempt.attempt = 1)
"""  # noqa: S608
ALL_LIVE = f"""
SELECT {_OF_BUNDLE} FROM job CROSS JOIN bundle ON bundle.job_id = job.job_id
 WHERE job.{LIVE} AND ({_TASKS_LEFT} OR {_ATTEMPTS_LEFT})
"""  # noqa: S608
"""Read at start: of jobs that have not ended. What is live of an ended one has a row of its own."""
LAUNCH = """
UPDATE bundle SET launched = ?, launched_to = ?
 WHERE job_id = ? AND step = ? AND last = ? AND coalesce(launched_to + 1, first) = ?
"""
"""(an attempt as it is now, its last one of them, job, step, last, the first one of them)."""
OF_JOB = f"SELECT {_NAMES} FROM bundle WHERE job_id = ? ORDER BY step, last"  # noqa: S608
PRUNE = (
    "DELETE FROM bundle WHERE job_id = ?1 AND (job_id, step, last) IN "
    "(SELECT job_id, step, last FROM bundle WHERE job_id = ?1 LIMIT ?2)"
)
SOME = """
SELECT job_id, step, last FROM bundle WHERE (job_id, step, last) > (?, ?, ?) ORDER BY job_id, step, last LIMIT ?
"""
DROP = f"""
DELETE FROM bundle
 WHERE (job_id, step, last) > (?, ?, ?) AND (job_id, step, last) <= (?, ?, ?)
   AND NOT ({_TASKS_LEFT} OR {_ATTEMPTS_LEFT})
"""  # noqa: S608
"""(after, up to): of these those that stand for nothing any more."""


def listing(*, of_tasks: bool, step: bool) -> str:
    """(job, step, after, up to, limit): bundles of a job, or of a step, that stand for tasks behind the one and up to
    the other, or for first attempts of such, by (step, task) rising. A few behind these may be among them."""
    where = "job_id = ? AND step = ? AND last > ? AND last <= ?"
    if not step:
        where = "job_id = ? AND (step, last) > (?, ?) AND (step, last) <= (?, ?)"
    left = _TASKS_LEFT if of_tasks else _ATTEMPTS_LEFT
    return f"SELECT {_NAMES} FROM bundle WHERE {where} AND {left} ORDER BY step, last LIMIT ?"  # noqa: S608


def of_tasks(tasks: int) -> str:
    """((step, task) of each, job, job): bundles that so many tasks are in, or that come behind them; a seek a task."""
    return f"""
WITH wanted(step, task) AS (VALUES {", ".join(["(?, ?)"] * tasks)})
SELECT {_NAMES} FROM bundle
 WHERE (step, last) IN (
       SELECT wanted.step, (SELECT min(of.last) FROM bundle AS of
                             WHERE of.job_id = ? AND of.step = wanted.step AND of.last >= wanted.task)
         FROM wanted)
   AND job_id = ?
 ORDER BY step, last
"""  # noqa: S608


class Bundle(NamedTuple):
    """First leases as they are stored: these tasks of a step, each with its first attempt."""

    job_id: JobId
    step: int
    first: int
    last: int
    task: TaskRow
    """The first one."""
    attempt: AttemptRow
    """Its attempt as it was leased."""
    choices: tuple[Choice | None, ...]
    launched_to: int
    """Up to this task they were launched."""
    launched: AttemptRow | None
    """One of these as it is since then."""

    def tasks(self, own: Container[tuple[int, ...]]) -> Iterator[TaskRow]:
        """Rows of those that are not among `own`."""
        for number in range(self.first, self.last + 1):
            if (self.job_id, self.step, number) not in own:
                yield replace(self.task, task=number)

    def attempts(self, own: Container[tuple[int, ...]]) -> Iterator[AttemptRow]:
        """Rows of the first attempts of those that are not among `own`."""
        for number in range(self.first, self.last + 1):
            if (self.job_id, self.step, number) not in own:
                yield self.first_attempt(number)

    def first_attempt(self, number: int) -> AttemptRow:
        """Of this task, which is one of these."""
        at, token = number - self.first, self.attempt.token
        token = LeaseToken(token.generation, token.number + at)
        like = self.launched if self.launched is not None and number <= self.launched_to else self.attempt
        return replace(like, task=number, token=token, choice=self.choices[at])


def own_tasks(bundles: Sequence[Bundle]) -> tuple[str, list[int]]:
    """Asks which of these tasks have a row of their own."""
    return _own("task", "", bundles)


def own_attempts(bundles: Sequence[Bundle]) -> tuple[str, list[int]]:
    """Asks of which of these tasks the first attempt has a row of its own."""
    return _own("attempt", " AND attempt = 1", bundles)


def _own(table: str, also: str, bundles: Sequence[Bundle]) -> tuple[str, list[int]]:
    spans = ", ".join(["(?, ?, ?, ?)"] * len(bundles))
    sql = (
        f"SELECT job_id, step, task FROM (VALUES {spans}) AS wanted CROSS JOIN {table} "  # noqa: S608
        f"ON job_id = column1 AND step = column2 AND task BETWEEN column3 AND column4{also}"
    )
    return sql, [number for bundle in bundles for number in (bundle.job_id, bundle.step, bundle.first, bundle.last)]


def stood_for(connection: sqlite3.Connection, found: Sequence[Bundle]) -> Iterator[TaskRow | AttemptRow]:
    """Tasks of these that have no row of their own, and first attempts that have none."""
    for begin in range(0, len(found), AT_ONCE):
        some = found[begin : begin + AT_ONCE]
        own = set(connection.execute(*own_tasks(some)))
        for bundle in some:
            yield from bundle.tasks(own)
        own = set(connection.execute(*own_attempts(some)))
        for bundle in some:
            yield from bundle.attempts(own)


class _Body(Struct, frozen=True, array_like=True):
    task: TaskRow
    attempt: AttemptRow
    choices: tuple[Choice | None, ...]


_encode = msgspec.msgpack.Encoder().encode
_decode_body = msgspec.msgpack.Decoder(_Body).decode
_decode_attempt = msgspec.msgpack.Decoder(AttemptRow).decode


def first_columns(given: Iterable[FirstLeases]) -> list[Columns]:
    """Of all of them, none larger than TASKS_MAX."""
    found: list[Columns] = []
    for leases in given:
        for begin in range(0, len(leases.tasks), TASKS_MAX):
            tasks, attempts = leases.tasks[begin : begin + TASKS_MAX], leases.attempts[begin : begin + TASKS_MAX]
            first = tasks[0]
            body = _encode((first, attempts[0], [row.choice for row in attempts]))
            found.append((first.job_id, first.step, tasks[-1].task, first.task, body, None, None))
    return found


def launch_columns(first: AttemptRow, to: int, last: int) -> Columns:
    """The parameters of LAUNCH: from this attempt on up to that of this task they go on together, in the bundle that
    ends with the last one."""
    return _encode(first), to, first.job_id, first.step, last, first.task


def from_columns(c: Columns) -> Bundle:
    """Raises ValueError (msgspec's errors are) for bodies that are none."""
    last, first, body = c[2], c[3], _decode_body(c[4])
    if first != body.task.task or first != body.attempt.task or last - first + 1 != len(body.choices):
        raise ValueError(f"it has other tasks than {first} to {last}")
    launched = _decode_attempt(c[6]) if c[6] is not None else None
    to = c[5] if c[5] is not None else first - 1
    return Bundle(JobId(c[0]), c[1], first, last, body.task, body.attempt, body.choices, to, launched)


def _to_columns(leases: FirstLeases) -> Columns:
    (columns,) = first_columns([leases])
    return columns


TABLE = Table(
    name="bundle",
    columns=COLUMNS,
    put=upsert("bundle", COLUMNS, ("job_id", "step", "last")),
    delete="DELETE FROM bundle WHERE job_id = ? AND step = ? AND last = ?",
    to_columns=_to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
