"""The bound on a write-ahead log that a reader keeps from being folded back.

SQLite folds the log back by itself as long as readers come and go. One that stays (a shell with an open
transaction) makes it grow with every write. Policy: beyond the bound writes are refused with STORE_FULL until
the reader is gone; telemetry then drops and counts, the truth answers 507.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from coordinator.core.errors import Code, CoordError
from store.sqlite import BUSY_MS, sqlite3, translated
from store.writer import in_transaction

T = TypeVar("T")

WAIT_MS = 50
"""How long a writer waits for readers before it gives up for this time."""


class WalBound:
    """Watches one database's log. Called from the writer's thread, outside a transaction."""

    def __init__(self, database: Path, bytes_max: int) -> None:
        self._log = database.with_name(database.name + "-wal")
        self._bytes_max = bytes_max

    def check(self, connection: sqlite3.Connection) -> None:
        """Return while the log is within its bound, or can be cut; CoordError(STORE_FULL) otherwise."""
        if self._bytes() <= self._bytes_max:
            return
        fold_back(connection)
        if self._bytes() > self._bytes_max:
            raise CoordError(
                Code.STORE_FULL,
                f"{self._log.name} has grown beyond {self._bytes_max // 2**20} MiB: a reader has kept it open for long",
                f"end the program that has a transaction open on it: fuser {self._log.name}",
            )

    def transact(self, connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
        """One transaction; on a full disk the log is folded back, which makes room in it, and it is tried again."""
        try:
            return in_transaction(connection, work)
        except sqlite3.Error as error:
            failure = translated(error, self._log)
            if not (isinstance(failure, CoordError) and failure.code is Code.STORE_FULL):
                raise
        with suppress(sqlite3.Error):  # folding back may need room too: then the second try says so
            fold_back(connection)
        return in_transaction(connection, work)

    def _bytes(self) -> int:
        try:
            return self._log.stat().st_size
        except FileNotFoundError:
            return 0


def fold_back(connection: sqlite3.Connection) -> None:
    """Bring the log into the database and cut it to nothing, unless a reader that stays is in the way."""
    connection.execute(f"PRAGMA busy_timeout = {WAIT_MS}")
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    finally:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
