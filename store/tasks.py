"""Tasks in the truth: those that were launched at least once, or are about to be; but for those of `bundles`."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from coordinator.core.rows import ENDED, TaskRow, WorkState
from store import older_bodies
from store.jobs import LIVE
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("job_id", "step", "task", "state", "body")
"""The key, what listings ask for, and the row as MessagePack: a column of its own costs 0.4 us a field, and nobody
asks. A body that is text was written by an older version."""
_NAMES = ", ".join(COLUMNS)
_OF_TASK = ", ".join(f"task.{name}" for name in COLUMNS)
_FAILED = "state IN ('failed', 'cancelled')"
ALL_LIVE = f"""
SELECT {_OF_TASK} FROM job CROSS JOIN task INDEXED BY task_live ON task.job_id = job.job_id
 WHERE job.{LIVE} AND task.{LIVE}
"""  # noqa: S608  names of ours
"""Of jobs that have not ended, those that have not; read at start."""
PRUNE = (
    "DELETE FROM task WHERE job_id = ?1 AND (job_id, step, task) IN "
    "(SELECT job_id, step, task FROM task WHERE job_id = ?1 LIMIT ?2)"
)


def listing(states: Collection[WorkState], *, step: bool) -> str:
    """(job, [step,] after, limit): tasks of a job by (step, task) rising. `after` is (step, task), or a task alone.

    Those that failed and those that have not ended are found among any number of completed ones.
    """
    conditions = ["job_id = ?", "step = ?", "task > ?"] if step else ["job_id = ?", "(step, task) > (?, ?)"]
    index = ""
    if states:
        conditions.append(f"state IN ({', '.join(repr(state.value) for state in sorted(states))})")
        # The planner would walk the whole job by its key.
        if ENDED.isdisjoint(states):
            conditions.append(LIVE)
            index = "INDEXED BY task_live"
        elif {WorkState.FAILED, WorkState.CANCELLED}.issuperset(states):
            conditions.append(_FAILED)
            index = "INDEXED BY task_failed"
    return f"SELECT {_NAMES} FROM task {index} WHERE {' AND '.join(conditions)} ORDER BY step, task LIMIT ?"  # noqa: S608  names of ours


_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(TaskRow)


def to_columns(row: TaskRow) -> Columns:
    return (row.job_id, row.step, row.task, row.state._value_, _encode(row))


def from_columns(c: Columns) -> TaskRow:
    """Raises ValueError (msgspec's errors are) for a body that is no task."""
    return older_bodies.task(c[4]) if isinstance(c[4], str) else _decoder.decode(c[4])


TABLE = Table(
    name="task",
    columns=COLUMNS,
    put=upsert("task", COLUMNS, ("job_id", "step", "task")),
    delete="DELETE FROM task WHERE job_id = ? AND step = ? AND task = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
