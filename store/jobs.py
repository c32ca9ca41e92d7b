"""Jobs in the truth, and their specifications, which are written once."""

from __future__ import annotations

import msgspec

from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import JobRow, SpecRow, WorkState
from coordinator.core.work.jobspec import JobSpec
from store.table import Columns, Table, one_column, upsert

COLUMNS = (
    "job_id",
    "tenant",
    "name",
    "state",
    "submitted_at_ms",
    "by_whom",
    "tasks",
    "completed",
    "failed",
    "cancelled",
    "started_at_ms",
    "ended_at_ms",
    "reason",
    "cancelling",
    "retries",
    "idempotency_key",
    "body_digest",
    "priority",
    "estimate",
    "cost",
    "promised_at_ms",
)
_NAMES = ", ".join(COLUMNS)
LIVE = "state IN ('pending', 'staging', 'running')"
"""Of a job or a task: it has not ended."""

ALL_LIVE = f"SELECT {_NAMES} FROM job WHERE {LIVE} ORDER BY job_id"  # noqa: S608  names are constants of ours; likewise below
"""Read at start, in the order of submission; bounded by Policy.jobs_max."""
ENDED_HOLDING = f"""
SELECT {_NAMES} FROM job
 WHERE NOT {LIVE} AND job_id IN (SELECT job_id FROM attempt INDEXED BY attempt_held WHERE held = 1)
"""  # noqa: S608  names of ours
"""Ended jobs of which something still holds capacity: whose that is. Read at start, with the attempts that hold it."""
SPECS_LIVE = f"SELECT spec.job_id, spec.spec FROM job CROSS JOIN spec USING (job_id) WHERE job.{LIVE}"  # noqa: S608  names of ours
THERE = "SELECT 1 FROM job WHERE job_id = ?"
OWNER = "SELECT tenant, ended_at_ms FROM job WHERE job_id = ?"
ONE = f"SELECT {_NAMES} FROM job WHERE job_id = ?1 AND (?2 IS NULL OR tenant = ?2)"  # noqa: S608  names of ours
BY_KEY = f"SELECT {_NAMES} FROM job WHERE tenant = ? AND idempotency_key = ? AND idempotency_key <> ''"  # noqa: S608  names of ours
SPEC = "SELECT job_id, spec FROM spec WHERE job_id = ?"
ENDED_BETWEEN = f"""
SELECT ended_at_ms, job_id FROM job
 WHERE ended_at_ms IS NOT NULL AND (ended_at_ms, job_id) > (?, ?) AND ended_at_ms < ? AND NOT {LIVE}
 ORDER BY ended_at_ms, job_id LIMIT ?
"""  # noqa: S608  names of ours
"""(ended_at_ms, job_id, before_ms, limit): jobs that ended after that one, oldest end first."""
MAY_GO = f"""
SELECT tenant FROM job WHERE job_id = ? AND ended_at_ms < ? AND NOT {LIVE}
   AND NOT EXISTS (SELECT 1 FROM attempt WHERE attempt.job_id = job.job_id AND held = 1)
"""  # noqa: S608  names of ours
"""(job, before_ms): whose that job is, if it has ended by then, also for good, and nothing of it holds capacity."""


def listing(*, tenant: bool, state: bool, name: bool) -> str:
    """([tenant], [state], before, [name], limit): jobs of one state or of any, newest first.

    With a tenant there is a state too: their index has the jobs of each state in order.
    """
    assert state or not tenant
    conditions = ["tenant = ?"] * tenant + ["state = ?"] * state + ["job_id < ?"] + ["name GLOB ?"] * name
    return f"SELECT {_NAMES} FROM job WHERE {' AND '.join(conditions)} ORDER BY job_id DESC LIMIT ?"  # noqa: S608  names of ours


def pattern(name: str) -> str:
    """A shell's pattern of `*` and `?` for GLOB, to which a bracket would mean more."""
    return name.replace("[", "[[]")


def to_columns(row: JobRow) -> Columns:
    return (
        row.job_id,
        row.tenant,
        row.name,
        row.state.value,
        row.submitted_at_ms,
        row.by,
        row.tasks,
        row.completed,
        row.failed,
        row.cancelled,
        row.started_at_ms,
        row.ended_at_ms,
        row.reason,
        row.cancelling,
        row.retries,
        row.idempotency_key,
        row.body_digest,
        row.priority,
        row.estimate,
        row.cost,
        row.promised_at_ms,
    )


def from_columns(c: Columns) -> JobRow:
    """Raises ValueError for a state that is not known."""
    return JobRow(
        job_id=JobId(c[0]),
        tenant=TenantName(c[1]),
        name=c[2],
        state=WorkState(c[3]),
        submitted_at_ms=c[4],
        by=c[5],
        tasks=c[6],
        completed=c[7],
        failed=c[8],
        cancelled=c[9],
        started_at_ms=c[10],
        ended_at_ms=c[11],
        reason=c[12],
        cancelling=c[13],
        retries=c[14],
        idempotency_key=c[15],
        body_digest=c[16],
        priority=c[17],
        estimate=c[18],
        cost=c[19],
        promised_at_ms=c[20],
    )


TABLE = Table(
    name="job",
    columns=COLUMNS,
    put=upsert("job", COLUMNS, ("job_id",)),
    delete="DELETE FROM job WHERE job_id = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)

_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(JobSpec)


def spec_to_columns(row: SpecRow) -> Columns:
    return (row.job_id, _encoder.encode(row.spec).decode())


def spec_from_columns(c: Columns) -> SpecRow:
    """Raises ValueError (msgspec's errors are) for a text that is no specification."""
    return SpecRow(job_id=JobId(c[0]), spec=_decoder.decode(c[1]))


SPEC_TABLE = Table(
    name="spec",
    columns=("job_id", "spec"),
    put=upsert("spec", ("job_id", "spec"), ("job_id",)),
    delete="DELETE FROM spec WHERE job_id = ?",
    to_columns=spec_to_columns,
    from_columns=spec_from_columns,
    key_columns=one_column,
)
