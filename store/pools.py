"""Pools in the truth."""

from __future__ import annotations

from coordinator.core.ids import PoolName
from coordinator.core.rows import PoolRow
from store.table import Columns, Table, one_column, upsert

COLUMNS = ("name", "created_at_ms", "note")
ALL = "SELECT name, created_at_ms, note FROM pool"
"""Every pool: read at start, bounded by Policy.pools_max."""


def to_columns(row: PoolRow) -> Columns:
    return (row.name, row.created_at_ms, row.note)


def from_columns(c: Columns) -> PoolRow:
    return PoolRow(name=PoolName(c[0]), created_at_ms=c[1], note=c[2])


TABLE = Table(
    name="pool",
    columns=COLUMNS,
    put=upsert("pool", COLUMNS, ("name",)),
    delete="DELETE FROM pool WHERE name = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
