"""Facts about the coordinator, the counters of numbers given, and the epoch, in the truth."""

from __future__ import annotations

import uuid

from coordinator.core.rows import Meta, MetaRow
from store.sqlite import sqlite3
from store.table import Columns, Table, one_column, upsert

COLUMNS = ("name", "value")
ALL = "SELECT name, value FROM meta"
EPOCH = "SELECT value FROM identity WHERE name = 'epoch'"
SET_EPOCH = (
    "INSERT INTO identity (name, value) VALUES ('epoch', ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
)
LOGS_REMOVED_TO = "SELECT value FROM identity WHERE name = 'logs_removed_to'"
SET_LOGS_REMOVED_TO = "UPDATE identity SET value = ? WHERE name = 'logs_removed_to'"
COUNTERS = "SELECT name, value FROM counter"
SET_COUNTER = "UPDATE counter SET value = ? WHERE name = ?"


def to_columns(row: MetaRow) -> Columns:
    return (row.name, row.value)


def from_columns(c: Columns) -> MetaRow:
    """Raises ValueError for a number that is none: the state could not be loaded with it."""
    if c[0] in (Meta.ALIVE_AT_MS, Meta.GENERATION):
        int(c[1])
    return MetaRow(name=c[0], value=c[1])


TABLE = Table(
    name="meta",
    columns=COLUMNS,
    put=upsert("meta", COLUMNS, ("name",)),
    delete="DELETE FROM meta WHERE name = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)


def new_epoch(connection: sqlite3.Connection) -> str:
    """Have everything that was derived from this database before be void. Within the caller's transaction."""
    epoch = uuid.uuid4().hex
    connection.execute(SET_EPOCH, (epoch,))
    return epoch
