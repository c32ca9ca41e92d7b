"""Heartbeats that are not sealed yet: one table per hour, by (observed_at_ms, key, n), in telemetry.

Why a table per hour and not one for all: when an hour was sealed its table is dropped, which frees its pages
without touching its rows. For 720,000 rows that took 12 ms and wrote nothing, where deleting them took 357 ms
and wrote 37 MB of log; and it is one transaction with the manifest either way. Time first in the key keeps
writes at the end of the tree. `observed_at_ms` never goes back, so there are seldom more than two tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import chain, compress

from coordinator.core.ids import Ms
from coordinator.ports.store import HeartbeatRow
from store.sqlite import sqlite3

HOUR_MS: Ms = 3_600_000
CHUNK_ROWS = 50
"""Rows of one INSERT: beside a busy event loop 50 were best, fewer calls lose to longer waits for the GIL."""
COLUMNS = HeartbeatRow._fields
_NAME = re.compile(r"heartbeat_([0-9]+)")
TABLES = "SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 'heartbeat_[0-9]*'"
"""A walk over the schema, which has a handful of rows."""


def hour_of(at_ms: Ms) -> Ms:
    """The beginning of the hour that holds this moment."""
    return at_ms - at_ms % HOUR_MS


def table_of(hour_ms: Ms) -> str:
    return f"heartbeat_{hour_ms // HOUR_MS}"


def unsealed_hours(names: Iterable[str]) -> list[Ms]:
    """The hours that these tables hold, oldest first."""
    return sorted(int(match[1]) * HOUR_MS for name in names if (match := _NAME.fullmatch(name)))


def create(hour_ms: Ms) -> str:
    return f"""
CREATE TABLE IF NOT EXISTS {table_of(hour_ms)} (
    observed_at_ms       INTEGER NOT NULL,
    key                  INTEGER NOT NULL,
    n                    INTEGER NOT NULL,
    status               INTEGER NOT NULL,   -- index into wire.STATUSES
    memory_pressure      REAL,
    cpu_usage            REAL,
    thermal_state        INTEGER,            -- index into wire.THERMALS
    memory_available_gb  REAL,
    gpu_memory_active_gb REAL,
    gpu_memory_cache_gb  REAL,
    backend_state        TEXT,
    active_model         TEXT,
    capacity             REAL,
    PRIMARY KEY (observed_at_ms, key, n)
) STRICT, WITHOUT ROWID"""


def drop(hour_ms: Ms) -> str:
    return f"DROP TABLE IF EXISTS {table_of(hour_ms)}"


@lru_cache(maxsize=256)
def insert(hour_ms: Ms, rows: int, given: tuple[bool, ...]) -> str:
    """INSERT of so many rows, null in the columns that are not given; a row with an existing key is replaced."""
    one = f"({', '.join('?' if value else 'NULL' for value in given)})"
    return f"INSERT OR REPLACE INTO {table_of(hour_ms)} VALUES {', '.join([one] * rows)}"  # noqa: S608  names of ours


def newest(hour_ms: Ms) -> str:
    """(since_ms, before_ms, key, limit): one provider's heartbeats of this hour in [since, before), newest first.

    Walks the hour backwards along the key and stops at the limit: 3 ms for 50 rows of one among 1,000
    providers, 26 ms for a provider that is not there.
    """
    return (
        f"SELECT {', '.join(COLUMNS)} FROM {table_of(hour_ms)}"  # noqa: S608  names of ours
        " WHERE observed_at_ms >= ? AND observed_at_ms < ? AND key = ?"
        " ORDER BY observed_at_ms DESC, n DESC LIMIT ?"
    )


def last_beats(hour_ms: Ms) -> str:
    """(since_ms): the newest heartbeat of every provider that sent one since then."""
    return (
        f"SELECT key, max(observed_at_ms) FROM {table_of(hour_ms)}"  # noqa: S608  names of ours
        " WHERE observed_at_ms >= ? GROUP BY key"
    )


def count(hour_ms: Ms) -> str:
    """How many heartbeats the hour holds: a walk over its pages, about 10 ms for 720,000."""
    return f"SELECT count(*) FROM {table_of(hour_ms)}"  # noqa: S608  names of ours


def append(connection: sqlite3.Connection, rows: Sequence[HeartbeatRow]) -> set[Ms]:
    """Insert these rows within the caller's transaction; returns the hours that they belong to."""
    hours = {hour_of(rows[0].observed_at_ms), hour_of(rows[-1].observed_at_ms)}
    by_hour: dict[Ms, Sequence[HeartbeatRow]]
    if len(hours) == 1:
        # The writer's front hands rows over in the order of their time; others are sorted into their hours below.
        (hour,) = hours
        by_hour = {hour: rows}
        if any(not hour <= row.observed_at_ms < hour + HOUR_MS for row in rows):
            by_hour = _split(rows)
    else:
        by_hour = _split(rows)
    for hour_ms, some in by_hour.items():
        connection.execute(create(hour_ms))
        for at in range(0, len(some), CHUNK_ROWS):
            chunk = some[at : at + CHUNK_ROWS]
            columns = list(zip(*chunk, strict=True))
            # A None that is bound costs a microsecond, the library looks for an adapter of it: columns that
            # nobody of the chunk has a value in are written as NULL.
            given = tuple(column.count(None) < len(chunk) for column in columns)
            if not all(given):
                columns = list(compress(columns, given))
            values = tuple(chain.from_iterable(zip(*columns, strict=True)))
            connection.execute(insert(hour_ms, len(chunk), given), values)
    return set(by_hour)


def _split(rows: Sequence[HeartbeatRow]) -> dict[Ms, Sequence[HeartbeatRow]]:
    found: dict[Ms, list[HeartbeatRow]] = {}
    for row in rows:
        found.setdefault(hour_of(row.observed_at_ms), []).append(row)
    return dict(found)
