"""Attempts in the truth, each with its lease and what its ranks hold."""

from __future__ import annotations

import msgspec

from coordinator.core.ids import JobId
from coordinator.core.rows import LIVE_ATTEMPT, AttemptRow, AttemptState, Choice, LeaseToken, RankRow
from store.table import Columns, Table, several_columns, upsert

COLUMNS = (
    "job_id",
    "step",
    "task",
    "attempt",
    "state",
    "created_at_ms",
    "ranks",
    "token_generation",
    "token_number",
    "term_ms",
    "started_at_ms",
    "ended_at_ms",
    "doubted_at_ms",
    "lease_over_ms",
    "reason",
    "unblocked_by",
    "forecast",
    "held",
    "choice",
    "prefetched",
    "metered_ms",
)
_NAMES = ", ".join(COLUMNS)
ALL_HELD = f"SELECT {_NAMES} FROM attempt WHERE held = 1"  # noqa: S608
"""Live, or still holding capacity: read at start, bounded by what the fleet can hold."""
ONE = f"""
SELECT {_NAMES} FROM attempt WHERE job_id = ? AND step = ? AND task = ? AND attempt = ?
"""  # noqa: S608
PRUNE = (
    "DELETE FROM attempt WHERE job_id = ?1 AND (job_id, step, task, attempt) IN "
    "(SELECT job_id, step, task, attempt FROM attempt WHERE job_id = ?1 LIMIT ?2)"
)


def listing(*, step: bool, task: bool) -> str:
    """(job, [step,] [task,] limit): attempts of a job by (step, task, attempt) rising. A task stands in a step."""
    conditions = ["job_id = ?"] + ["step = ?"] * step + ["task = ?"] * task
    return f"SELECT {_NAMES} FROM attempt WHERE {' AND '.join(conditions)} ORDER BY step, task, attempt LIMIT ?"  # noqa: S608


def of_tasks(tasks: int) -> str:
    """((step, task, after) of each, job): attempts of so many tasks, each those above `after`; a seek a task."""
    wanted = ", ".join(["(?, ?, ?)"] * tasks)
    return (
        f"SELECT {_NAMES} FROM (VALUES {wanted}) AS wanted CROSS JOIN attempt "  # noqa: S608
        "ON job_id = ? AND step = wanted.column1 AND task = wanted.column2 AND attempt > wanted.column3 "
        "ORDER BY step, task, attempt"
    )


_json = msgspec.json.Encoder()
_ranks = msgspec.json.Decoder(tuple[RankRow, ...])
_choice = msgspec.json.Decoder(Choice)


def is_held(row: AttemptRow) -> bool:
    """Whether a coordinator that starts must know of it."""
    return row.state in LIVE_ATTEMPT or not all(rank.released for rank in row.ranks)


def to_columns(row: AttemptRow) -> Columns:
    return (
        row.job_id,
        row.step,
        row.task,
        row.attempt,
        row.state.value,
        row.created_at_ms,
        _json.encode(row.ranks).decode(),
        row.token.generation,
        row.token.number,
        row.term_ms,
        row.started_at_ms,
        row.ended_at_ms,
        row.doubted_at_ms,
        row.lease_over_ms,
        row.reason,
        row.unblocked_by,
        row.forecast,
        int(is_held(row)),
        _json.encode(row.choice).decode() if row.choice is not None else None,
        int(row.prefetched),
        row.metered_ms,
    )


def from_columns(c: Columns) -> AttemptRow:
    """Raises ValueError (msgspec's errors are) for columns that cannot be an attempt."""
    return AttemptRow(
        job_id=JobId(c[0]),
        step=c[1],
        task=c[2],
        attempt=c[3],
        state=AttemptState(c[4]),
        created_at_ms=c[5],
        ranks=_ranks.decode(c[6]),
        token=LeaseToken(c[7], c[8]),
        term_ms=c[9],
        started_at_ms=c[10],
        ended_at_ms=c[11],
        doubted_at_ms=c[12],
        lease_over_ms=c[13],
        reason=c[14],
        unblocked_by=c[15],
        forecast=c[16],
        choice=_choice.decode(c[18]) if c[18] is not None else None,
        prefetched=bool(c[19]),
        metered_ms=c[20],
    )


TABLE = Table(
    name="attempt",
    columns=COLUMNS,
    put=upsert("attempt", COLUMNS, ("job_id", "step", "task", "attempt")),
    delete="DELETE FROM attempt WHERE job_id = ? AND step = ? AND task = ? AND attempt = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
