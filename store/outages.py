"""Times that the coordinator did not observe, in the truth."""

from __future__ import annotations

from coordinator.core.rows import OutageRow
from store.table import Columns, Table, several_columns, upsert

COLUMNS = ("coordinator_id", "began_at_ms", "ended_at_ms", "cause")
PRUNE = """
DELETE FROM outage WHERE (coordinator_id, began_at_ms) IN (
    SELECT coordinator_id, began_at_ms FROM outage WHERE began_at_ms < ? AND ended_at_ms < ? LIMIT ?)
"""


def to_columns(row: OutageRow) -> Columns:
    return (row.coordinator_id, row.began_at_ms, row.ended_at_ms, row.cause)


def from_columns(c: Columns) -> OutageRow:
    return OutageRow(coordinator_id=c[0], began_at_ms=c[1], ended_at_ms=c[2], cause=c[3])


TABLE = Table(
    name="outage",
    columns=COLUMNS,
    put=upsert("outage", COLUMNS, ("coordinator_id", "began_at_ms")),
    delete="DELETE FROM outage WHERE coordinator_id = ? AND began_at_ms = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=several_columns,
)
