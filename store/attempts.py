"""Attempts in the truth, each with its lease and what its ranks hold."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from coordinator.core.rows import LIVE_ATTEMPT, AttemptRow
from store import older_bodies
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("job_id", "step", "task", "attempt", "held", "body")
"""The key, whether a start must know of it (1), and the row as MessagePack. See `tasks.COLUMNS`."""
_NAMES = ", ".join(COLUMNS)
ALL_HELD = f"SELECT {_NAMES} FROM attempt WHERE held = 1"  # noqa: S608  names of ours
"""Live, or still holding capacity: read at start, bounded by what the fleet can hold."""
ONE = f"""
SELECT {_NAMES} FROM attempt WHERE job_id = ? AND step = ? AND task = ? AND attempt = ?
"""  # noqa: S608  names of ours
PRUNE = (
    "DELETE FROM attempt WHERE job_id = ?1 AND (job_id, step, task, attempt) IN "
    "(SELECT job_id, step, task, attempt FROM attempt WHERE job_id = ?1 LIMIT ?2)"
)


def listing(*, step: bool, task: bool) -> str:
    """(job, [step,] [task,] limit): attempts of a job by (step, task, attempt) rising. A task stands in a step."""
    conditions = ["job_id = ?"] + ["step = ?"] * step + ["task = ?"] * task
    return f"SELECT {_NAMES} FROM attempt WHERE {' AND '.join(conditions)} ORDER BY step, task, attempt LIMIT ?"  # noqa: S608  names of ours


def of_tasks(tasks: int) -> str:
    """((step, task, after) of each, job): attempts of so many tasks, each those above `after`; a seek a task."""
    wanted = ", ".join(["(?, ?, ?)"] * tasks)
    return (
        f"SELECT {_NAMES} FROM (VALUES {wanted}) AS wanted CROSS JOIN attempt "  # noqa: S608  names of ours
        "ON job_id = ? AND step = wanted.column1 AND task = wanted.column2 AND attempt > wanted.column3 "
        "ORDER BY step, task, attempt"
    )


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(AttemptRow)


def is_held(row: AttemptRow) -> bool:
    """Whether a coordinator that starts must know of it."""
    return row.state in LIVE_ATTEMPT or not all(rank.released for rank in row.ranks)


def to_columns(row: AttemptRow) -> Columns:
    return (row.job_id, row.step, row.task, row.attempt, int(is_held(row)), _encode(row))


def live_columns(rows: Iterable[AttemptRow]) -> list[Columns]:
    """`to_columns` of attempts that live, a call for each of which would cost as much again."""
    return [(row.job_id, row.step, row.task, row.attempt, 1, _encode(row)) for row in rows]


def from_columns(c: Columns) -> AttemptRow:
    """Raises ValueError (msgspec's errors are) for a body that is no attempt."""
    return older_bodies.attempt(c[5]) if isinstance(c[5], str) else _decoder.decode(c[5])


TABLE = Table(
    name="attempt",
    columns=COLUMNS,
    put=upsert("attempt", COLUMNS, ("job_id", "step", "task", "attempt")),
    delete="DELETE FROM attempt WHERE job_id = ? AND step = ? AND task = ? AND attempt = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
