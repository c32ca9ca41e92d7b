"""Steps of jobs in the truth."""

from __future__ import annotations

import msgspec

from coordinator.core.ids import Digest, JobId
from coordinator.core.rows import StepRow, WorkState
from store.jobs import LIVE
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("job_id", "step", "state", "cursor", "completed", "failed", "cancelled", "reason", "task_estimate", "made")
_OF_STEP = ", ".join(f"step.{name}" for name in COLUMNS)
ALL_LIVE = f"""
SELECT {_OF_STEP} FROM job CROSS JOIN step ON step.job_id = job.job_id WHERE job.{LIVE}
"""  # noqa: S608  names of ours
"""Of jobs that have not ended, read at start."""
OF_JOB = f"SELECT {', '.join(COLUMNS)} FROM step WHERE job_id = ? ORDER BY step"  # noqa: S608  names of ours
PRUNE = "DELETE FROM step WHERE job_id = ?"


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(tuple[tuple[Digest, int], ...]).decode


def to_columns(row: StepRow) -> Columns:
    return (
        row.job_id,
        row.step,
        row.state.value,
        row.cursor,
        row.completed,
        row.failed,
        row.cancelled,
        row.reason,
        row.task_estimate,
        _encode(row.made).decode() if row.made else "",
    )


def from_columns(c: Columns) -> StepRow:
    """Raises ValueError for a state that is not known, or files that are none (msgspec's errors are)."""
    return StepRow(
        job_id=JobId(c[0]),
        step=c[1],
        state=WorkState(c[2]),
        cursor=c[3],
        completed=c[4],
        failed=c[5],
        cancelled=c[6],
        reason=c[7],
        task_estimate=c[8],
        made=_decode(c[9]) if c[9] else (),
    )


TABLE = Table(
    name="step",
    columns=COLUMNS,
    put=upsert("step", COLUMNS, ("job_id", "step")),
    delete="DELETE FROM step WHERE job_id = ? AND step = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
