"""Checkpoints in the truth: those that are kept, and those that turned out to be damaged."""

from __future__ import annotations

import msgspec

from coordinator.core.data.rows import CheckpointRow
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("job_id", "step", "task", "number", "body")
_NAMES = ", ".join(COLUMNS)
PRUNE = (
    "DELETE FROM checkpoint WHERE job_id = ?1 AND (job_id, step, task, number) IN "
    "(SELECT job_id, step, task, number FROM checkpoint WHERE job_id = ?1 LIMIT ?2)"
)


def listing(*, step: bool, task: bool) -> str:
    """(job, [step,] [task,] limit): checkpoints of a job by (step, task) rising, each task's newest first."""
    conditions = ["job_id = ?"] + ["step = ?"] * step + ["task = ?"] * task
    return f"SELECT {_NAMES} FROM checkpoint WHERE {' AND '.join(conditions)} ORDER BY step, task, number DESC LIMIT ?"  # noqa: S608  names of ours


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(CheckpointRow)


def to_columns(row: CheckpointRow) -> Columns:
    return (row.job_id, row.step, row.task, row.number, _encode(row).decode())


def from_columns(c: Columns) -> CheckpointRow:
    """Raises ValueError (msgspec's errors are) for a body that is no checkpoint."""
    return _decoder.decode(c[4])


TABLE = Table(
    name="checkpoint",
    columns=COLUMNS,
    put=upsert("checkpoint", COLUMNS, ("job_id", "step", "task", "number")),
    delete="DELETE FROM checkpoint WHERE job_id = ? AND step = ? AND task = ? AND number = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
