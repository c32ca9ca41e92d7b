"""Opening a data directory: made when it is new, refused when it is damaged, never emptied.

A new directory is made in an order that a crash cannot disguise: the truth under a temporary name and renamed,
then telemetry, then the coordinator's id. Where a later one is there without an earlier one, something is lost.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from store import meta
from store.layout import DataDir, sync_directory
from store.migrate import migrate, scripts
from store.sqlite import Durability, broken, open_writer, sqlite3, translated
from store.wal_damage import examine
from store.writer import in_transaction


def prepare(data: DataDir) -> str:
    """Make what a new directory lacks, or check what is there; returns the coordinator's id.

    Raises STORE_BROKEN, with how to restore, for a file that is missing, cut or damaged; SCHEMA_NEWER.
    """
    known = data.read_coordinator_id()
    if known is None and data.restoring.exists():
        raise broken(f"a restore into {data.path} was interrupted")
    segments = next(data.segments.glob("*.parquet"), None)
    _need(data.truth, known is not None or segments is not None or data.telemetry.exists())
    if not data.truth.exists():
        _make(data.truth, "truth", meta.new_epoch)
    _need(data.telemetry, known is not None or segments is not None)
    if not data.telemetry.exists():
        _make(data.telemetry, "telemetry", lambda connection: None)
    examine(data.truth, synced=True)
    examine(data.telemetry, synced=False)
    return known or data.make_coordinator_id()


def _need(path: Path, existed: bool) -> None:
    if existed and not path.exists():
        raise broken(f"{path} is missing, but other files of this data directory say that it existed")


def _make(path: Path, database: str, fill: Callable[[sqlite3.Connection], object]) -> None:
    temporary = path.with_name(path.name + ".new")
    for leftover in path.parent.glob(temporary.name + "*"):
        leftover.unlink()
    try:
        connection = open_writer(temporary, Durability.FULL)
        try:
            migrate(connection, database)
            in_transaction(connection, fill)
        finally:
            connection.close()
    except (sqlite3.Error, OSError) as error:
        raise translated(error, temporary) from error
    fd = os.open(temporary, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
    temporary.rename(path)
    sync_directory(path.parent)


def open_database(path: Path, database: str, durability: Durability) -> sqlite3.Connection:
    """The writing connection of a database that is there, migrated, its schema as it must be."""
    try:
        connection = open_writer(path, durability)
    except (sqlite3.Error, OSError) as error:
        raise translated(error, path) from error
    try:
        migrate(connection, database)
        _compare_schema(connection, path, database)
    except BaseException as error:
        connection.close()
        failure = translated(error, path)
        if failure is error:
            raise
        raise failure from error
    return connection


_SCHEMA = "SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL AND name NOT GLOB 'heartbeat_[0-9]*'"


def _compare_schema(connection: sqlite3.Connection, path: Path, database: str) -> None:
    model = sqlite3.connect(":memory:", isolation_level=None)
    try:
        migrate(model, database, scripts(database))
        expected = dict(model.execute(_SCHEMA).fetchall())
    finally:
        model.close()
    found = dict(connection.execute(_SCHEMA).fetchall())
    wrong = sorted(name for name, sql in expected.items() if found.get(name) != sql)
    if wrong:
        raise broken(f"the schema of {path} is damaged: {', '.join(wrong)}")
