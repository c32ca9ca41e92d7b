"""Pools in the truth."""

from __future__ import annotations

from coordinator.core.amounts import Price
from coordinator.core.ids import PoolName
from coordinator.core.rows import PoolRow
from store.table import Columns, Table, one_column, upsert

COLUMNS = ("name", "created_at_ms", "note", "price_cpu", "price_gpu", "price_memory")
ALL = f"SELECT {', '.join(COLUMNS)} FROM pool"  # noqa: S608  names are constants of ours
"""Every pool: read at start, bounded by Policy.pools_max."""


def to_columns(row: PoolRow) -> Columns:
    return (row.name, row.created_at_ms, row.note, row.price.cpu, row.price.gpu, row.price.memory)


def from_columns(c: Columns) -> PoolRow:
    return PoolRow(name=PoolName(c[0]), created_at_ms=c[1], note=c[2], price=Price(cpu=c[3], gpu=c[4], memory=c[5]))


TABLE = Table(
    name="pool",
    columns=COLUMNS,
    put=upsert("pool", COLUMNS, ("name",)),
    delete="DELETE FROM pool WHERE name = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
