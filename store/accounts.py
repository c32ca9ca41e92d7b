"""What each tenant has used, in the truth."""

from __future__ import annotations

from coordinator.core.ids import TenantName
from coordinator.core.rows import AccountRow
from store.table import Columns, Table, one_column, upsert

COLUMNS = (
    "tenant",
    "month",
    "cost",
    "ingress",
    "egress",
    "storage",
    "share",
    "share_at_ms",
    "storage_mb_s",
    "storage_at_ms",
)
ALL = f"SELECT {', '.join(COLUMNS)} FROM account"  # noqa: S608  names are constants of ours
"""Every account, one a tenant: read at start."""


def to_columns(row: AccountRow) -> Columns:
    return (
        row.tenant,
        row.month,
        row.cost,
        row.ingress,
        row.egress,
        row.storage,
        row.share,
        row.share_at_ms,
        row.storage_mb_s,
        row.storage_at_ms,
    )


def from_columns(c: Columns) -> AccountRow:
    return AccountRow(
        tenant=TenantName(c[0]),
        month=c[1],
        cost=c[2],
        ingress=c[3],
        egress=c[4],
        storage=c[5],
        share=c[6],
        share_at_ms=c[7],
        storage_mb_s=c[8],
        storage_at_ms=c[9],
    )


TABLE = Table(
    name="account",
    columns=COLUMNS,
    put=upsert("account", COLUMNS, ("tenant",)),
    delete="DELETE FROM account WHERE tenant = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
