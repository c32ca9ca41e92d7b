"""A small pool of read-only connections to one database, over aiosqlite.

Each read is one short transaction. One that lasts too long is interrupted: a reader that stays would keep the
write-ahead log from being folded back.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from store.sqlite import READER_PRAGMAS, reader_uri, sqlite3, translated

# After store.sqlite, which gives the name sqlite3 to our library before aiosqlite takes it.
import aiosqlite  # isort: skip


class Readers:
    """`size` connections; a further read waits for one. Raises CoordError."""

    def __init__(self, path: Path, size: int, read_s_max: float) -> None:
        self._path = path
        self._size = size
        self._read_s_max = read_s_max
        self._free: asyncio.Queue[aiosqlite.Connection] = asyncio.Queue()
        self._all: list[aiosqlite.Connection] = []

    async def open(self) -> None:
        for _ in range(self._size):
            connection = await aiosqlite.connect(reader_uri(self._path), uri=True, isolation_level=None)
            self._all.append(connection)
            for pragma in (*READER_PRAGMAS, "PRAGMA query_only = ON"):
                await connection.execute(pragma)
            self._free.put_nowait(connection)

    async def rows(self, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one query."""
        async with self.transaction() as connection:
            return await fetch(connection, sql, parameters)

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[aiosqlite.Connection]:
        """Several queries that see one state of the database."""
        connection = await self._free.get()
        watch = asyncio.get_running_loop().call_later(self._read_s_max, connection._conn.interrupt)
        try:
            await connection.execute("BEGIN")
            yield connection
        except sqlite3.Error as error:
            raise translated(error, self._path) from error
        finally:
            watch.cancel()
            try:
                # Without asking whether there is one: a BEGIN of a cancelled caller may still wait for its thread.
                await connection.rollback()
            finally:
                self._free.put_nowait(connection)

    async def close(self) -> None:
        for connection in self._all:
            await connection.close()
        self._all.clear()


async def fetch(connection: aiosqlite.Connection, sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of one query within a transaction of the pool."""
    return list(await connection.execute_fetchall(sql, parameters))  # type: ignore[arg-type]
