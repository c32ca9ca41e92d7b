"""Results in the truth: one a task, written with the end of the attempt that made it."""

from __future__ import annotations

import msgspec

from coordinator.core.data.rows import OutputRow
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("job_id", "step", "task", "body")
_NAMES = ", ".join(COLUMNS)
PRUNE = (
    "DELETE FROM output WHERE job_id = ?1 AND (job_id, step, task) IN "
    "(SELECT job_id, step, task FROM output WHERE job_id = ?1 LIMIT ?2)"
)


def listing(*, step: bool) -> str:
    """(job, [step,] after, limit): results of a job by (step, task) rising; `after` is (step, task), or a task."""
    conditions = ["job_id = ?", "step = ?", "task > ?"] if step else ["job_id = ?", "(step, task) > (?, ?)"]
    return f"SELECT {_NAMES} FROM output WHERE {' AND '.join(conditions)} ORDER BY step, task LIMIT ?"  # noqa: S608  names of ours


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(OutputRow)


def to_columns(row: OutputRow) -> Columns:
    return (row.job_id, row.step, row.task, _encode(row).decode())


def from_columns(c: Columns) -> OutputRow:
    """Raises ValueError (msgspec's errors are) for a body that is no result."""
    return _decoder.decode(c[3])


TABLE = Table(
    name="output",
    columns=COLUMNS,
    put=upsert("output", COLUMNS, ("job_id", "step", "task")),
    delete="DELETE FROM output WHERE job_id = ? AND step = ? AND task = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
