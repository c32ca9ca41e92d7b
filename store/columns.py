"""The truth as columns, for the analytics worker: another process, which only reads.

Every call is one short read transaction; none is held open between calls, so that the write-ahead log can be
folded back. Needs numpy and the SQLite library, nothing else of the store.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from coordinator.core.rows import EndReason
from store.layout import DataDir
from store.sqlite import open_reader, sqlite3, translated

REASONS: tuple[str, ...] = tuple(reason.value for reason in EndReason)
"""What `SessionColumns.reason` indexes."""

Int64s = NDArray[np.int64]
Float64s = NDArray[np.float64]


class SessionColumns(NamedTuple):
    """Sessions in the order of their change sequence; all columns have one length."""

    change_seq: Int64s
    session_id: Int64s
    """Negative: imported."""
    provider_id: list[str]
    connected_at_ms: Int64s
    disconnected_at_ms: Int64s
    """-1: open."""
    last_heartbeat_at_ms: Int64s
    """-1: none."""
    reason: NDArray[np.int8]
    """Index into REASONS; -1: none."""
    boot_id: list[str]
    coordinator_id: list[str]


class HourColumns(NamedTuple):
    """Hourly rollups in the order of (hour, key); a mean that is not known is NaN, a thermal state -1."""

    key: Int64s
    hour_ms: Int64s
    heartbeats: Int64s
    mean_memory_pressure: Float64s
    mean_cpu_usage: Float64s
    worst_thermal_state: NDArray[np.int8]
    mean_memory_available_gb: Float64s


class ProviderFacts(NamedTuple):
    """One enrolled provider. `labels` is JSON text."""

    provider_id: str
    pool: str
    key: int
    enrolled_at_ms: int
    labels: str


class SegmentFacts(NamedTuple):
    """One sealed segment: an hour's heartbeats in Parquet, by (key, observed_at_ms, n)."""

    path: Path
    hour_ms: int
    rows: int


SESSIONS_SINCE = f"""
SELECT change_seq, session_id, provider_id, connected_at_ms, coalesce(disconnected_at_ms, -1),
       coalesce(last_heartbeat_at_ms, -1),
       CASE disconnect_reason {" ".join(f"WHEN '{name}' THEN {i}" for i, name in enumerate(REASONS))} ELSE -1 END,
       boot_id, coordinator_id
  FROM session WHERE change_seq > ? ORDER BY change_seq LIMIT ?
"""  # noqa: S608  names of ours
OUTAGES = "SELECT began_at_ms, ended_at_ms FROM outage ORDER BY began_at_ms"
PROVIDERS = "SELECT provider_id, pool, key, enrolled_at_ms, labels FROM provider ORDER BY provider_id"
KEYS = "SELECT key, provider_id FROM provider_key ORDER BY key"
EPOCH = "SELECT value FROM identity WHERE name = 'epoch'"
ALIVE_AT = "SELECT value FROM meta WHERE name = 'alive_at_ms'"
SEGMENTS = "SELECT file, hour_ms, rows FROM segment ORDER BY hour_ms, part"
HOURS = """
SELECT key, hour_ms, heartbeats, mean_memory_pressure, mean_cpu_usage, coalesce(worst_thermal_state, -1),
       mean_memory_available_gb
  FROM hour WHERE hour_ms >= ? ORDER BY hour_ms, key
"""


class TruthReader:
    """Reads a data directory whose coordinator may be running. Use from one thread.

    Raises CoordError(STORE_BROKEN) for a damaged database, STORE_FULL when it is locked for long.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data = DataDir(data_dir)
        self._truth = open_reader(self._data.truth)
        try:
            self._telemetry = open_reader(self._data.telemetry)
        except BaseException:
            self._truth.close()
            raise

    def epoch(self) -> str:
        """Changes when a backup was restored: what was derived before is void."""
        return str(self._rows(self._truth, EPOCH)[0][0])

    def sessions_since(self, change_seq: int, limit: int) -> SessionColumns:
        """The next `limit` sessions that changed after `change_seq`, each in its present state. 0: from the start.

        Pruned sessions are not told. About 3 us a row.
        """
        rows = self._rows(self._truth, SESSIONS_SINCE, (change_seq, limit))
        columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * 9
        return SessionColumns(
            change_seq=np.array(columns[0], np.int64),
            session_id=np.array(columns[1], np.int64),
            provider_id=list(columns[2]),
            connected_at_ms=np.array(columns[3], np.int64),
            disconnected_at_ms=np.array(columns[4], np.int64),
            last_heartbeat_at_ms=np.array(columns[5], np.int64),
            reason=np.array(columns[6], np.int8),
            boot_id=list(columns[7]),
            coordinator_id=list(columns[8]),
        )

    def outages(self) -> tuple[Int64s, Int64s]:
        """When the coordinator did not observe: (began_ms, ended_ms), by beginning; they may touch or overlap."""
        rows = self._rows(self._truth, OUTAGES)
        both = np.array(rows, np.int64).reshape(-1, 2)
        return both[:, 0].copy(), both[:, 1].copy()

    def providers(self) -> list[ProviderFacts]:
        """Everybody enrolled now, by id."""
        return [ProviderFacts(*row) for row in self._rows(self._truth, PROVIDERS)]

    def keys(self) -> list[tuple[int, str]]:
        """(key, provider_id) of every key that telemetry may name, forgotten providers' too."""
        return [(int(key), str(name)) for key, name in self._rows(self._truth, KEYS)]

    def alive_at_ms(self) -> int | None:
        """When the coordinator last said that it serves; None before it ever did."""
        rows = self._rows(self._truth, ALIVE_AT)
        return int(rows[0][0]) if rows else None

    def segments(self) -> list[SegmentFacts]:
        """Every sealed segment, oldest first. Retention may remove a file at any time after this."""
        rows = self._rows(self._telemetry, SEGMENTS)
        return [SegmentFacts(self._data.segments / file, hour_ms, count) for file, hour_ms, count in rows]

    def hours(self, since_ms: int = 0) -> HourColumns:
        """The hourly rollup of every provider from the hour that holds `since_ms` on."""
        rows = self._rows(self._telemetry, HOURS, (since_ms - since_ms % 3_600_000,))
        columns: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * 7
        return HourColumns(
            key=np.array(columns[0], np.int64),
            hour_ms=np.array(columns[1], np.int64),
            heartbeats=np.array(columns[2], np.int64),
            mean_memory_pressure=np.array(columns[3], np.float64),
            mean_cpu_usage=np.array(columns[4], np.float64),
            worst_thermal_state=np.array(columns[5], np.int8),
            mean_memory_available_gb=np.array(columns[6], np.float64),
        )

    def close(self) -> None:
        self._truth.close()
        self._telemetry.close()

    def _rows(self, connection: sqlite3.Connection, sql: str, parameters: tuple[int, ...] = ()) -> list[Any]:
        try:
            return connection.execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            path = self._data.truth if connection is self._truth else self._data.telemetry
            raise translated(error, path) from error
