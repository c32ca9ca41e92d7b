"""Verdicts in the truth: what attempts died of, as analytics said."""

from __future__ import annotations

import msgspec

from coordinator.core.verdict.rows import HISTORY_MAX, VerdictRow
from store.jobs import LIVE
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("job_id", "step", "task", "attempt", "body", "at_ms")
"""The key, the row as JSON, and its time: there are no more of these than failures."""
_NAMES = ", ".join(COLUMNS)
ONE = f"SELECT {_NAMES} FROM verdict WHERE job_id = ? AND step = ? AND task = ? AND attempt = ?"  # noqa: S608  names of ours
OF_JOB = f"SELECT {_NAMES} FROM verdict WHERE job_id = ? ORDER BY step DESC, task DESC, attempt DESC LIMIT ?"  # noqa: S608  names of ours
OF_LIVE = f"""
SELECT {", ".join(f"verdict.{name}" for name in COLUMNS)} FROM job CROSS JOIN verdict ON verdict.job_id = job.job_id
WHERE job.{LIVE} AND verdict.at_ms >= coalesce(
    (SELECT at_ms FROM verdict AS last WHERE last.job_id = job.job_id
     ORDER BY at_ms DESC LIMIT 1 OFFSET {HISTORY_MAX - 1}), 0)
"""  # noqa: S608  names of ours
"""Of jobs that have not ended those that a job remembers, read at start; all of one moment where that is the first."""
PRUNE = (
    "DELETE FROM verdict WHERE job_id = ?1 AND (job_id, step, task, attempt) IN "
    "(SELECT job_id, step, task, attempt FROM verdict WHERE job_id = ?1 LIMIT ?2)"
)


def among(attempts: int) -> str:
    """((step, task, attempt) of each, job): those of so many attempts; a seek each."""
    wanted = ", ".join(["(?, ?, ?)"] * attempts)
    return (
        f"SELECT {_NAMES} FROM (VALUES {wanted}) AS wanted CROSS JOIN verdict "  # noqa: S608  names of ours
        "ON job_id = ? AND step = wanted.column1 AND task = wanted.column2 AND attempt = wanted.column3 "
        "ORDER BY step, task, attempt"
    )


_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(VerdictRow)


def to_columns(row: VerdictRow) -> Columns:
    return (row.job_id, row.step, row.task, row.attempt, _encode(row).decode(), row.at_ms)


def from_columns(c: Columns) -> VerdictRow:
    """Raises ValueError (msgspec's errors are) for a body that is no verdict."""
    return _decoder.decode(c[4])


TABLE = Table(
    name="verdict",
    columns=COLUMNS,
    put=upsert("verdict", COLUMNS, ("job_id", "step", "task", "attempt")),
    delete="DELETE FROM verdict WHERE job_id = ? AND step = ? AND task = ? AND attempt = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
