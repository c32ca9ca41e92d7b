"""Questions about work, asked of the twin's rows: the same answers as store.work_history gives."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase

from coordinator.core.amounts import UNIT
from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, HoldRow, OutputRow
from coordinator.core.ids import JobId, Ms, TenantName
from coordinator.core.rows import (
    ENDED,
    AttemptRow,
    AuditRow,
    JobRow,
    LedgerRow,
    OutageRow,
    Row,
    SessionRow,
    SpecRow,
    StepRow,
    TaskRow,
    WorkState,
)
from coordinator.core.verdict.rows import VerdictRow
from coordinator.ports.store import UsageSum
from store.attempts import is_held
from store.holds import job_of
from store.jobs import pattern
from store.settings import StoreSettings
from store.work_history import LAST_ID
from store.work_retention import logs_keep_ms


def of_a_start(rows: Iterable[Row]) -> Iterator[Row]:
    """What a coordinator starts from, but for its open sessions. Jobs in the order of their submission."""
    rows = sorted(rows, key=lambda row: row.job_id if isinstance(row, JobRow) else 0)
    live = {row.job_id for row in rows if isinstance(row, JobRow) and row.state not in ENDED}
    holding = {row.job_id for row in rows if isinstance(row, AttemptRow) and is_held(row)}
    for row in rows:
        match row:
            case JobRow(job_id=job_id) if job_id in holding:
                yield row
            case SessionRow() | OutageRow() | AuditRow() | LedgerRow():
                continue
            case BlobRow() | HoldRow() | ArtifactRow() | OutputRow() | CheckpointRow():
                continue
            case VerdictRow() if row.job_id not in live:
                continue
            case JobRow(job_id=job_id) | SpecRow(job_id=job_id) | StepRow(job_id=job_id) if job_id not in live:
                continue
            case TaskRow() if row.job_id not in live or row.state in ENDED:
                continue
            case AttemptRow() if not is_held(row):
                continue
            case _:
                yield row


def prunable(rows: Iterable[Row], now_ms: Ms, settings: StoreSettings) -> tuple[list[Row], list[JobId]]:
    """(rows that retention removes, jobs whose logs it removes)."""
    rows = list(rows)
    holding = {row.job_id for row in rows if isinstance(row, AttemptRow) and is_held(row)}
    ended = {
        row.job_id: row.ended_at_ms
        for row in rows
        if isinstance(row, JobRow) and row.state in ENDED and row.ended_at_ms is not None
    }
    old = {
        job_id for job_id, at_ms in ended.items() if at_ms < now_ms - settings.jobs_keep_ms and job_id not in holding
    }
    owners = {row.job_id: row.tenant for row in rows if isinstance(row, JobRow) and row.job_id in old}
    gone: list[Row] = []
    old_ns = (now_ms - settings.audit_keep_ms) * 1_000_000
    old_ms = now_ms - settings.ledger_keep_ms
    audit_goes_on = ledger_goes_on = True
    for row in sorted(rows, key=lambda row: row.seq if isinstance(row, AuditRow | LedgerRow) else 0):
        match row:
            case JobRow() | SpecRow() | StepRow() | TaskRow() | AttemptRow() if row.job_id in old:
                gone.append(row)
            case OutputRow() | CheckpointRow() | VerdictRow() if row.job_id in old:
                gone.append(row)
            case HoldRow(holder=holder, tenant=tenant) if owners.get(job_of(holder) or JobId(0)) == tenant:
                gone.append(row)
            case AuditRow():
                audit_goes_on = audit_goes_on and row.wall_ns < old_ns
                if audit_goes_on:
                    gone.append(row)
            case LedgerRow():
                ledger_goes_on = ledger_goes_on and row.at_ms < old_ms
                if ledger_goes_on:
                    gone.append(row)
            case _:
                pass
    before_ms = now_ms - logs_keep_ms(settings)
    # The store on disk looks once at the logs of a job that ended, and once more when the job itself goes.
    return gone, [job_id for job_id, at_ms in ended.items() if at_ms < before_ms]


def jobs(
    rows: Iterable[Row],
    tenant: TenantName | None,
    limit: int,
    before: JobId | None,
    states: tuple[WorkState, ...],
    name: str,
) -> list[JobRow]:
    """See ports.store.Store.jobs."""
    found = [
        row
        for row in rows
        if isinstance(row, JobRow)
        and (tenant is None or row.tenant == tenant)
        and (before is None or row.job_id < before)
        and (not states or row.state in states)
        and (not name or fnmatchcase(row.name, pattern(name)))
    ]
    return sorted(found, key=lambda row: row.job_id, reverse=True)[:limit]


def steps(rows: Iterable[Row], job_id: JobId) -> list[StepRow]:
    """See ports.store.Store.job_steps."""
    return sorted((row for row in rows if isinstance(row, StepRow) and row.job_id == job_id), key=lambda row: row.step)


def tasks(
    rows: Iterable[Row],
    job_id: JobId,
    limit: int,
    step: int | None,
    after: tuple[int, int] | None,
    states: tuple[WorkState, ...],
) -> list[TaskRow]:
    """See ports.store.Store.job_tasks."""
    found = [
        row
        for row in rows
        if isinstance(row, TaskRow)
        and row.job_id == job_id
        and (step is None or row.step == step)
        and (after is None or (row.step, row.task) > after)
        and (not states or row.state in states)
    ]
    return sorted(found, key=lambda row: row.task_id)[:limit]


def attempts(rows: Iterable[Row], job_id: JobId, limit: int, step: int | None, task: int | None) -> list[AttemptRow]:
    """See ports.store.Store.job_attempts."""
    found = [
        row
        for row in rows
        if isinstance(row, AttemptRow)
        and row.job_id == job_id
        and (step is None or row.step == step)
        and (task is None or row.task == task)
    ]
    return sorted(found, key=lambda row: row.attempt_id)[:limit]


def attempts_of(rows: Iterable[Row], job_id: JobId, tasks: Sequence[tuple[int, int, int]]) -> list[AttemptRow]:
    """See ports.store.Store.attempts_of."""
    after = {(step, task): number for step, task, number in tasks}
    found = [row for row in rows if isinstance(row, AttemptRow) and row.job_id == job_id]
    found = [row for row in found if row.attempt > after.get((row.step, row.task), row.attempt)]
    return sorted(found, key=lambda row: row.attempt_id)


def verdicts(rows: Iterable[Row], job_id: JobId) -> list[VerdictRow]:
    """Those of a job, by (step, task, attempt) rising."""
    found = [row for row in rows if isinstance(row, VerdictRow) and row.job_id == job_id]
    return sorted(found, key=lambda row: (row.step, row.task, row.attempt))


def audit(
    rows: Iterable[Row],
    limit: int,
    tenant: TenantName | None,
    job_id: JobId | None,
    entity: str,
    subject: str,
    before: int | None,
    after: int | None,
) -> list[AuditRow]:
    """See ports.store.Store.audit."""
    rising = after is not None
    found = [
        row
        for row in rows
        if isinstance(row, AuditRow)
        and (tenant is None or row.tenant == tenant)
        and (job_id is None or row.job_id == job_id)
        and (not entity or row.entity == entity)
        and (not subject or row.subject == subject)
        and (row.seq > after if after is not None else row.seq < (before if before is not None else LAST_ID))
    ]
    return sorted(found, key=lambda row: row.seq, reverse=not rising)[:limit]


def ledger(
    rows: Iterable[Row],
    limit: int,
    tenant: TenantName | None,
    month: int | None,
    job_id: JobId | None,
    before: int | None,
) -> list[LedgerRow]:
    """See ports.store.Store.ledger."""
    found = [row for row in _charges(rows, tenant, month, job_id) if before is None or row.seq < before]
    return sorted(found, key=lambda row: row.seq, reverse=True)[:limit]


def usage_by(
    rows: Iterable[Row], by: str, limit: int, tenant: TenantName | None, month: int | None, job_id: JobId | None
) -> list[UsageSum]:
    """See ports.store.Store.usage_by."""
    sums: dict[str, list[int]] = {}
    for row in _charges(rows, tenant, month, job_id):
        if row.kind != "run" and by in ("pool", "job", "provider"):
            continue
        sum_ = sums.setdefault(_KEYS[by](row), [0] * 8)
        ran = (row.cost, row.ran_ms, row.cpus * row.ran_ms // UNIT, row.gpus * row.ran_ms // UNIT, row.kind == "run")
        sum_[:] = map(operator.add, sum_, (*ran, *(row.amount * (row.kind == kind) for kind in _BYTES)))
    found = [UsageSum(key, *sum_) for key, sum_ in sums.items()]
    if by in ("month", "day"):
        return sorted(found, key=lambda sum_: sum_.key, reverse=True)[:limit]
    return sorted(found, key=lambda sum_: (-sum_.cost, sum_.key))[:limit]


_BYTES = ("ingress", "egress", "storage")
_KEYS: Mapping[str, Callable[[LedgerRow], str]] = {
    "tenant": lambda row: row.tenant,
    "month": lambda row: str(row.month),
    "pool": lambda row: row.pool,
    "job": lambda row: str(row.job_id),
    "provider": lambda row: row.provider_id,
    "day": lambda row: datetime.fromtimestamp(row.at_ms // 1_000, UTC).date().isoformat(),
}


def _charges(
    rows: Iterable[Row], tenant: TenantName | None, month: int | None, job_id: JobId | None
) -> Iterator[LedgerRow]:
    for row in rows:
        if (
            isinstance(row, LedgerRow)
            and tenant in (None, row.tenant)
            and month in (None, row.month)
            and job_id in (None, row.job_id)
        ):
            yield row
