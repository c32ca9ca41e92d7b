"""The one SQLite library of this process and the only place that opens connections to it.

`pysqlite3` takes the name `sqlite3` before aiosqlite is imported, so that every connection, ours and the
readers', is of one library: two libraries in a process on one file break each other's POSIX locks.
"""

from __future__ import annotations

import errno
import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import pysqlite3

if TYPE_CHECKING:
    import sqlite3 as sqlite3
else:
    sqlite3 = pysqlite3

from coordinator.core.errors import Code, CoordError
from store.layout import FILE_MODE

BUSY_MS = 2_000
"""How long a writer waits for somebody else's lock. Only a person with a shell can hold one."""
WAL_CHECKPOINT_PAGES = 4_000
"""16 MB: a checkpoint costs two fsyncs, at 1,000 pages telemetry paid them four times as often."""
WAL_KEPT_BYTES = 32 * 1024 * 1024
"""A write-ahead log that grew larger is cut back to this when it begins anew."""
CACHE_KIB = 16_384
RESTORE_HINT = "put a backup in its place: coord db restore BACKUP"

_PRIMARY = 0xFF
_IOERR_SHMSIZE = 10 | (19 << 8)
_ROOM_BYTES = 1024 * 1024


class Durability(StrEnum):
    """What a commit promises: FULL survives a power cut, NORMAL a killed process."""

    FULL = "FULL"
    NORMAL = "NORMAL"


def _adopt() -> None:
    """Refuse a library that can corrupt a database; make ours the one that others import."""
    version = tuple(int(part) for part in pysqlite3.sqlite_version.split("."))
    if not wal_reset_is_fixed(version):
        raise ImportError(
            f"SQLite {pysqlite3.sqlite_version} can lose a write-ahead log that is reset while it is folded back "
            "(fixed in 3.51.3, 3.50.7 and 3.44.6): install pysqlite3 0.6.1 or newer"
        )
    asynchronous = sys.modules.get("aiosqlite.core")
    if asynchronous is not None and asynchronous.__dict__["sqlite3"] is not pysqlite3:
        raise ImportError("aiosqlite was imported before store.sqlite: it would use another SQLite library")
    sys.modules["sqlite3"] = pysqlite3
    sys.modules["sqlite3.dbapi2"] = pysqlite3.dbapi2


def wal_reset_is_fixed(version: tuple[int, ...]) -> bool:
    """Whether this release of SQLite has the fix of the WAL-reset bug or a backport of it."""
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51) or (3, 44, 6) <= version < (3, 45)


_adopt()


def open_writer(path: Path, durability: Durability) -> sqlite3.Connection:
    """The connection of the one writer of this file; the file is made, private, where it is missing.

    Autocommit: transactions are begun and ended by whoever writes. No mmap: a read error in a mapped page
    would end the process by a signal instead of an error that can be told.
    """
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    connection = sqlite3.connect(
        str(path), isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1_000, cached_statements=512
    )
    try:
        _settle(connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute(f"PRAGMA synchronous = {durability.value}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_CHECKPOINT_PAGES}")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_KEPT_BYTES}")
    except BaseException:
        connection.close()
        raise
    return connection


def reader_uri(path: Path) -> str:
    """The URI under which a file is opened for reading only; it is never made."""
    return f"file:{quote(str(path.absolute()))}?mode=ro"


def open_reader(path: Path) -> sqlite3.Connection:
    """A read-only connection for one thread at a time; CoordError when the file cannot be read."""
    try:
        connection = sqlite3.connect(
            reader_uri(path), uri=True, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1_000
        )
    except sqlite3.Error as error:
        raise translated(error, path) from error
    try:
        _settle(connection)
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchall()
    except sqlite3.Error as error:
        connection.close()
        raise translated(error, path) from error
    return connection


def _settle(connection: sqlite3.Connection) -> None:
    """What holds for every connection: schemas are data, damaged pages are noticed when they are read."""
    for pragma in READER_PRAGMAS:
        connection.execute(pragma)


READER_PRAGMAS = (
    "PRAGMA trusted_schema = OFF",
    "PRAGMA cell_size_check = ON",
    "PRAGMA mmap_size = 0",
    f"PRAGMA cache_size = -{CACHE_KIB}",
)


def translated(error: BaseException, path: Path) -> BaseException:
    """The CoordError that this failure of a database means, or the error itself when it is a mistake of ours."""
    if isinstance(error, OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return _full(path, error)
        return broken(f"{path} failed: {error.strerror or error}")
    if not isinstance(error, sqlite3.Error):
        return error
    extended = getattr(error, "sqlite_errorcode", 0) or 0
    match extended & _PRIMARY:
        case 13 | 7:  # FULL, NOMEM
            return _full(path, error)
        case 5 | 6:  # BUSY, LOCKED
            return CoordError(
                Code.STORE_FULL,
                f"{path} is locked by another process",
                "close the program that has it open for writing; nothing was changed",
            )
        case 10 if extended == _IOERR_SHMSIZE and _free_bytes(path.parent) < _ROOM_BYTES:
            return _full(path, error)  # the log's index could not grow: a full disk by another name
        case 9:  # INTERRUPT: a read that took too long
            return CoordError(Code.TIMEOUT, f"reading {path.name} took too long", "ask for less at a time")
        case 10 | 11 | 26 | 14 | 8 | 3:  # IOERR, CORRUPT, NOTADB, CANTOPEN, READONLY, PERM
            return broken(f"{path} cannot be used: {error}")
        case _:
            return error


def broken(message: str) -> CoordError:
    return CoordError(Code.STORE_BROKEN, message, f"if a restart does not help, {RESTORE_HINT}")


def _full(path: Path, error: BaseException) -> CoordError:
    return CoordError(
        Code.STORE_FULL,
        f"no room to write {path.name}: {error}",
        f"free some space on the disk of {path.parent}; nothing was changed",
    )


def _free_bytes(directory: Path) -> int:
    try:
        room = os.statvfs(directory)
    except OSError:
        return 0
    return room.f_bavail * room.f_frsize
