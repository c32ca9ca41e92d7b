"""Brings a database to this program's schema: numbered files, one transaction each; never backwards."""

from __future__ import annotations

from pathlib import Path

from coordinator.core.errors import Code, CoordError
from store.sqlite import sqlite3

MIGRATIONS = Path(__file__).parent / "migrations"


def scripts(database: str) -> list[str]:
    """The SQL that leads from version 0 to the newest, one script a version, for `truth` or `telemetry`."""
    found = sorted(MIGRATIONS.glob(f"{database}_[0-9][0-9][0-9][0-9].sql"))
    assert [int(path.stem[-4:]) for path in found] == list(range(1, len(found) + 1)), "a migration is missing"
    return [path.read_text(encoding="utf-8") for path in found]


def migrate(connection: sqlite3.Connection, database: str, steps: list[str] | None = None) -> int:
    """Apply what is missing and return the version. CoordError(SCHEMA_NEWER) when the file is ahead of us.

    A step that fails leaves the version before it.
    """
    steps = scripts(database) if steps is None else steps
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(steps):
        raise CoordError(
            Code.SCHEMA_NEWER,
            f"{database}.sqlite has schema version {version}, this program knows {len(steps)}",
            "run the newer coord that wrote it, or restore a backup made by this version",
        )
    for number, step in enumerate(steps[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in _statements(step):
                connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
    return len(steps)


def _statements(script: str) -> list[str]:
    """The statements of a script. `executescript` would commit on its own and is no transaction."""
    found, begun = [], ""
    for piece in script.split(";")[:-1]:
        begun += piece + ";"
        if sqlite3.complete_statement(begun):
            found.append(begun)
            begun = ""
    assert not begun, "a migration ends in the middle of a statement"
    return found
