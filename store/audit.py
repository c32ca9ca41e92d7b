"""The audit in the truth: every transition, and what people did, in the order of its happening."""

from __future__ import annotations

from coordinator.core.ids import JobId, ProviderId
from coordinator.core.rows import AuditRow
from store.table import Columns, Table, one_column, upsert

COLUMNS = (
    "seq",
    "wall_ns",
    "mono_ns",
    "entity",
    "subject",
    "after",
    "before",
    "why",
    "by_whom",
    "unblocked_by",
    "tenant",
    "job_id",
    "provider_id",
)
_NAMES = ", ".join(COLUMNS)
FREQUENT = ("task", "attempt")
"""Entities that need no index: most rows are theirs."""
PRUNE = """
DELETE FROM audit WHERE wall_ns < ? AND seq IN (SELECT seq FROM audit ORDER BY seq LIMIT ?)
"""
"""(before_ns, limit): of the oldest rows, those that are older than that."""


def listing(*, subject: bool, job: bool, entity: str, tenant: bool, rising: bool) -> str:
    """([subject], [job], [entity], [tenant], seq, limit): rows behind `seq`, newest first or, rising, oldest first.

    Of several conditions the most selective one chooses the index; a plus keeps the others from it.
    """
    wanted = {"subject": subject, "job_id": job, "entity": bool(entity), "tenant": tenant}
    asked = [column for column, is_wanted in wanted.items() if is_wanted]
    leading = next((column for column in asked if column != "entity" or entity not in FREQUENT), None)
    conditions = [f"{column} = ?" if column == leading else f"+{column} = ?" for column in asked]
    # What a partial index leaves out must be seen to be left out.
    if leading == "entity":
        conditions.append("entity NOT IN ('task', 'attempt')")
    elif leading == "tenant":
        conditions.append("tenant <> ''")
    conditions.append("seq > ?" if rising else "seq < ?")
    order = "ASC" if rising else "DESC"
    return f"SELECT {_NAMES} FROM audit WHERE {' AND '.join(conditions)} ORDER BY seq {order} LIMIT ?"  # noqa: S608


def to_columns(row: AuditRow) -> Columns:
    return (
        row.seq,
        row.wall_ns,
        row.mono_ns,
        row.entity,
        row.subject,
        row.after,
        row.before,
        row.why,
        row.by,
        row.unblocked_by,
        row.tenant,
        row.job_id,
        row.provider_id,
    )


def from_columns(c: Columns) -> AuditRow:
    return AuditRow(
        seq=c[0],
        wall_ns=c[1],
        mono_ns=c[2],
        entity=c[3],
        subject=c[4],
        after=c[5],
        before=c[6],
        why=c[7],
        by=c[8],
        unblocked_by=c[9],
        tenant=c[10],
        job_id=JobId(c[11]) if c[11] is not None else None,
        provider_id=ProviderId(c[12]) if c[12] is not None else None,
    )


TABLE = Table(
    name="audit",
    columns=COLUMNS,
    put=upsert("audit", COLUMNS, ("seq",)),
    delete="DELETE FROM audit WHERE seq = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
