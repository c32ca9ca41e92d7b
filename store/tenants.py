"""Tenants in the truth, each with its quotas."""

from __future__ import annotations

from coordinator.core.ids import TenantName
from coordinator.core.rows import OnBudget, OnFull, Quota, TenantRow
from store.table import Columns, Table, one_column, upsert

COLUMNS = (
    "name",
    "created_at_ms",
    "note",
    "weight",
    "priority_max",
    "on_full",
    "on_budget",
    "runtime_ms",
    "cpus",
    "gpus",
    "memory",
    "running",
    "queued",
    "storage",
    "ingress",
    "egress",
    "budget",
)
ALL = f"SELECT {', '.join(COLUMNS)} FROM tenant"  # noqa: S608  names are constants of ours
"""Every tenant: read at start, bounded by Policy.tenants_max."""


def to_columns(row: TenantRow) -> Columns:
    quota = row.quota
    return (
        row.name,
        row.created_at_ms,
        row.note,
        row.weight,
        row.priority_max,
        row.on_full.value,
        row.on_budget.value,
        row.runtime_ms,
        quota.cpus,
        quota.gpus,
        quota.memory,
        quota.running,
        quota.queued,
        quota.storage,
        quota.ingress,
        quota.egress,
        quota.budget,
    )


def from_columns(c: Columns) -> TenantRow:
    """Raises ValueError for a way of being full that is not known."""
    return TenantRow(
        name=TenantName(c[0]),
        created_at_ms=c[1],
        note=c[2],
        weight=c[3],
        priority_max=c[4],
        on_full=OnFull(c[5]),
        on_budget=OnBudget(c[6]),
        runtime_ms=c[7],
        quota=Quota(
            cpus=c[8],
            gpus=c[9],
            memory=c[10],
            running=c[11],
            queued=c[12],
            storage=c[13],
            ingress=c[14],
            egress=c[15],
            budget=c[16],
        ),
    )


TABLE = Table(
    name="tenant",
    columns=COLUMNS,
    put=upsert("tenant", COLUMNS, ("name",)),
    delete="DELETE FROM tenant WHERE name = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
