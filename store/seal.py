"""The sealing child: one unsealed hour becomes its rollup and, when it is over, a Parquet segment.

    python -m store.seal < request > answer          (both MessagePack)

Reads telemetry, writes one temporary file; the parent's writer renames it and owns the manifest. A segment is
sorted by (key, observed_at_ms, n) in small row groups, so that statistics lead to one provider's rows.
"""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
from msgspec import Struct

from store.children import EXIT_FULL, become_child
from store.failpoints import FailPoints
from store.heartbeats import COLUMNS, table_of
from store.layout import FILE_MODE
from store.manifest import TEMPORARY, digest_of, file_name
from store.sqlite import open_reader, sqlite3

if TYPE_CHECKING:
    from duckdb import DuckDBPyConnection

ROW_GROUP_ROWS = 8_192
"""A provider's hour is 720 rows: it is found in one group or two."""
FETCH_ROWS = 50_000
TYPES = {
    "key": "INTEGER",
    "observed_at_ms": "BIGINT",
    "n": "SMALLINT",
    "status": "TINYINT",
    "thermal_state": "TINYINT",
    "backend_state": "VARCHAR",
    "active_model": "VARCHAR",
}
"""Of the other columns: DOUBLE."""
_REALS = tuple(name for name in COLUMNS if name not in TYPES)

ROLLED_UP = ("key", "memory_pressure", "cpu_usage", "thermal_state", "memory_available_gb")
ROLLUP = """
SELECT key, count(*), avg(memory_pressure), avg(cpu_usage), max(thermal_state), avg(memory_available_gb)
  FROM {source} GROUP BY key ORDER BY key
"""
"""Per provider of one hour. Means are over the rows that have a value: SQL's own rule."""


class SealRequest(Struct, frozen=True, kw_only=True):
    """What to do with one hour."""

    telemetry: str
    segments: str
    hour_ms: int
    seal: bool
    """False: only the rollup of what is there so far."""
    part: int = 0
    earlier: tuple[str, ...] = ()
    """Segments of the same hour, sealed before heartbeats came late: they count in the rollup."""
    memory: str = "512MB"
    failpoint: str = ""


class SealAnswer(Struct, frozen=True, kw_only=True):
    """`hours`: (key, heartbeats, mean_memory_pressure, mean_cpu_usage, worst_thermal_state, mean memory)."""

    hours: list[tuple[int, int, float | None, float | None, int | None, float | None]]
    rows: int
    first_ms: int = 0
    last_ms: int = 0
    temporary: str = ""
    digest: str = ""
    bytes: int = 0


def work(request: SealRequest) -> SealAnswer:
    """Carry out one request. Raises OSError, sqlite3.Error or duckdb.Error; leaves no file behind then."""
    points = FailPoints(request.failpoint)
    connection = in_memory(request.memory, Path(request.segments))
    rows = load(connection, Path(request.telemetry), request.hour_ms, COLUMNS if request.seal else ROLLED_UP)
    source = "beats"
    if request.earlier:
        sealed = f"read_parquet({_literal(request.earlier)})"
        connection.execute(f"CREATE VIEW whole AS FROM beats UNION ALL BY NAME FROM {sealed}")
        source = "whole"
    hours = connection.execute(ROLLUP.format(source=source)).fetchall()
    if not request.seal or not rows:
        return SealAnswer(hours=hours, rows=rows)
    low, high = connection.execute("SELECT min(observed_at_ms), max(observed_at_ms) FROM beats").fetchall()[0]
    temporary = Path(request.segments) / f"{TEMPORARY}{os.getpid()}-{file_name(request.hour_ms, request.part)}"
    try:
        write(connection, temporary)
        points.reach("seal.written")
        return SealAnswer(
            hours=hours,
            rows=rows,
            first_ms=low,
            last_ms=high,
            temporary=temporary.name,
            digest=digest_of(temporary),
            bytes=temporary.stat().st_size,
        )
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def in_memory(memory: str, spill: Path) -> DuckDBPyConnection:
    """A DuckDB of our own, one thread, memory capped; what does not fit spills beside the segments."""
    import duckdb

    return duckdb.connect(
        ":memory:",
        config={
            "memory_limit": memory,
            "threads": 1,
            "temp_directory": str(spill / f"{TEMPORARY}{os.getpid()}-spill"),
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
        },
    )


def load(connection: DuckDBPyConnection, telemetry: Path, hour_ms: int, wanted: tuple[str, ...]) -> int:
    """Copy columns of an unsealed hour into the table `beats`; returns its rows. One read transaction.

    About 3 us a row of all columns, half of that for a rollup's.
    """
    declared = ", ".join(f"{name} {TYPES.get(name, 'DOUBLE')}" for name in wanted)
    connection.execute(f"CREATE TABLE beats ({declared})")
    names = ", ".join("coalesce(thermal_state, -1)" if c == "thermal_state" else c for c in wanted)
    # NaN stands for null on the way: SQLite itself stores no NaN.
    back = ", ".join(
        f"nullif({c}, 'nan'::DOUBLE)" if c in _REALS else "nullif(thermal_state, -1)" if c == "thermal_state" else c
        for c in wanted
    )
    reader = open_reader(telemetry)
    total = 0
    try:
        cursor = reader.execute(f"SELECT {names} FROM {table_of(hour_ms)}")  # noqa: S608  names of ours
        while chunk := cursor.fetchmany(FETCH_ROWS):
            columns = dict(zip(wanted, zip(*chunk, strict=True), strict=True))
            arrays = {name: _array(name, values) for name, values in columns.items()}
            connection.register("chunk", arrays)
            connection.execute(f"INSERT INTO beats SELECT {back} FROM chunk")  # noqa: S608  names of ours
            connection.unregister("chunk")
            total += len(chunk)
    finally:
        reader.close()
    return total


def _array(name: str, values: tuple[Any, ...]) -> np.ndarray[Any, Any]:
    if name in _REALS:
        return np.array(values, np.float64)
    return np.array(values, object if TYPES[name] == "VARCHAR" else np.int64)


def write(connection: DuckDBPyConnection, path: Path) -> None:
    """Write `beats` as a segment, private and durable under this name."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    order = ["key", "observed_at_ms", "n"]
    names = ", ".join(order + [c for c in COLUMNS if c not in order])
    connection.execute(
        f"COPY (SELECT {names} FROM beats ORDER BY key, observed_at_ms, n) TO {_literal(str(path))}"  # noqa: S608  names of ours
        f" (FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE {ROW_GROUP_ROWS}, USE_TMP_FILE false)"
    )
    fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _literal(value: str | tuple[str, ...]) -> str:
    """A path, or a list of paths, as a literal of SQL: COPY and views take no parameters."""
    if isinstance(value, tuple):
        return f"[{', '.join(_literal(one) for one in value)}]"
    return "'" + value.replace("'", "''") + "'"


def main() -> int:
    become_child()
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=SealRequest)
    import duckdb

    try:
        answer = work(request)
    except (OSError, sqlite3.Error, duckdb.Error) as error:
        print(f"{type(error).__name__}: {error}".replace("\n", " "), file=sys.stderr)
        full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or "No space left" in str(error)
        return EXIT_FULL if full else 1
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
