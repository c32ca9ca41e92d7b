"""The process behind one `query sql`: reads a request on standard input, writes the reply to standard output.

An in-memory DuckDB with views over Parquet files in two directories; external access is shut and the
configuration locked before the statement is even parsed.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import math
import os
import re
import resource
import signal
import sys
import time
import uuid
from pathlib import Path

import duckdb
import msgspec

from analytics.snapshots import HEARTBEATS, SCHEMAS, STATUSES, THERMALS
from analytics.sqlbox import SqlReply, SqlRequest
from analytics.warehouse import literal
from coordinator.api_types.operations import SqlAnswer
from coordinator.core.errors import Code

NICENESS = 10
BYTES_MAX = 64 * 1024 * 1024
"""Of the answer's JSON; what is beyond is cut off like rows beyond the limit."""
FETCH_ROWS = 1_000
DEPTH_MAX = 16
BEYOND_DUCKDB_BYTES = 768 * 1024 * 1024
"""Of memory, for what DuckDB's own cap does not count: long strings, Python's values, the answer's JSON."""
_EXPLAIN = re.compile(r"\s*EXPLAIN\s+(ANALYZE\s+)?(?=[^\s])", re.ASCII | re.IGNORECASE)
_UNITS = {"bytes": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}


def main() -> None:
    """One request, one reply."""
    request = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=SqlRequest)
    confine(request.timeout_s)
    sys.stdout.buffer.write(msgspec.msgpack.encode(answer(request, capped=True)))


def confine(timeout_s: float) -> None:
    """Be nice, write no file, leave no core, and end by ourselves should the parent be gone."""
    os.nice(NICENESS)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, 512))
    signal.setitimer(signal.ITIMER_REAL, timeout_s)


def answer(request: SqlRequest, *, capped: bool = False) -> SqlReply:
    """Run the statement. What is wrong with it is told in the reply. `capped`: bound the memory of this process too."""
    views = Path(request.views)
    try:
        computed_at_ms = int(min((views / f"{name}.parquet").stat().st_mtime for name in SCHEMAS) * 1000)
    except FileNotFoundError:
        # Not even a query of what is there: half of the views beside no rows of the others would be a wrong answer.
        error, hint = "the views that SQL reads are not published yet", "try again in a few seconds"
        return SqlReply(code=Code.ANALYTICS_UNAVAILABLE, error=error, hint=hint)
    began = time.monotonic()
    try:
        con = open_box(request, capped=capped)
        refusal, statement = look_at(con, request.statement)
        if refusal:
            return SqlReply(error=refusal, hint="one SELECT over the documented views; see docs/reference/views.md")
        con.execute(statement)
        columns = tuple(str(column[0]) for column in con.description or ())
        types = tuple(str(column[1]) for column in con.description or ())
        entries, truncated = fetch(con, request.rows_max)
    except duckdb.PermissionException as error:
        return SqlReply(error=first_line(error), hint="files, network and settings are out of reach of a query")
    except (MemoryError, duckdb.OutOfMemoryException):
        return SqlReply(error="the query's memory cap was reached", hint="ask for less at once")
    except (duckdb.Error, UnicodeError, ValueError, OverflowError) as error:
        return SqlReply(error=first_line(error), hint="SHOW TABLES lists the views; DuckDB's dialect of SQL is spoken")
    found = SqlAnswer(
        columns=columns,
        types=types,
        entries=tuple(entries),
        truncated=truncated,
        elapsed_s=round(time.monotonic() - began, 6),
    )
    return SqlReply(json=msgspec.json.encode(found), computed_at_ms=computed_at_ms)


def first_line(error: Exception) -> str:
    """What went wrong, without DuckDB's drawings."""
    return str(error).strip().splitlines()[0][:500] if str(error).strip() else type(error).__name__


def open_box(request: SqlRequest, *, capped: bool) -> duckdb.DuckDBPyConnection:
    """An in-memory DuckDB with the views, locked."""
    con = duckdb.connect(
        ":memory:",
        config={
            "memory_limit": request.memory,
            "threads": 2,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "python_enable_replacements": "false",
        },
    )
    con.execute("SET temp_directory = ''")
    if capped:
        cap_memory(con)
    con.execute("SET TimeZone = 'UTC'")
    allowed = ", ".join(literal(path.rstrip("/") + "/") for path in (request.views, request.segments))
    con.execute(f"SET allowed_directories = [{allowed}]")
    con.execute("SET enable_external_access = false")
    con.execute("SET lock_configuration = true")
    for name in SCHEMAS:
        con.execute(view_of(name, Path(request.views)))
    con.execute(heartbeats_view(Path(request.segments)))
    return con


def cap_memory(con: duckdb.DuckDBPyConnection) -> None:
    """Bound the process too: DuckDB's cap counts its buffers, not every string that a query can grow."""
    row = con.execute("SELECT current_setting('memory_limit')").fetchone()
    assert row is not None
    number, unit = str(row[0]).split()
    most = int(float(number) * _UNITS[unit]) + BEYOND_DUCKDB_BYTES
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))


def view_of(name: str, views: Path) -> str:
    """The view over a snapshot."""
    return f"CREATE VIEW {name} AS FROM read_parquet({literal(str(views / f'{name}.parquet'))})"


def heartbeats_view(segments: Path) -> str:
    """The view over sealed segments: whole hours, some minutes after their end."""
    if not any(segments.glob("[!.]*.parquet")):
        nothing = ", ".join(f"NULL::{kind} AS {column}" for column, kind in HEARTBEATS.items())
        return f"CREATE VIEW heartbeats AS SELECT {nothing} WHERE false"
    status = ", ".join(literal(name) for name in STATUSES)
    thermal = ", ".join(literal(name) for name in THERMALS)
    plain = ", ".join(
        f"b.{c}" for c in HEARTBEATS if c not in ("provider_id", "observed_at", "status", "thermal_state")
    )
    files = literal(str(segments / "[!.]*.parquet"))
    return f"""
        CREATE VIEW heartbeats AS
        SELECT coalesce(k.provider_id, 'key ' || b.key) AS provider_id,
               epoch_ms(b.observed_at_ms) AS observed_at,
               list_extract([{status}], b.status + 1) AS status,
               list_extract([{thermal}], b.thermal_state + 1) AS thermal_state,
               {plain}
          FROM read_parquet({files}, union_by_name = true) b LEFT JOIN keys k ON k.key = b.key"""  # noqa: S608  names of ours


def look_at(con: duckdb.DuckDBPyConnection, statement: str) -> tuple[str, str]:
    """Why the statement may not run (empty when it may), and what is to be run for it.

    Raises duckdb.Error when it cannot be parsed. An EXPLAIN is put together anew around the SELECT that was found
    behind it: EXPLAIN ANALYZE carries out what it explains, and a comment may hide what that is.
    """
    found = con.extract_statements(statement)
    if len(found) != 1:
        return f"{len(found)} statements were sent; one is taken", ""
    kind = found[0].type
    if kind == duckdb.StatementType.SELECT:
        return "", statement
    if kind != duckdb.StatementType.EXPLAIN:
        return f"{kind.name} was sent; only SELECT (and EXPLAIN of one) may be asked", ""
    words = _EXPLAIN.match(statement)
    behind = con.extract_statements(statement[words.end() :]) if words is not None else []
    if words is None or len(behind) != 1 or behind[0].type != duckdb.StatementType.SELECT:
        return "only EXPLAIN SELECT and EXPLAIN ANALYZE SELECT are taken, and no comment before the SELECT", ""
    return "", f"EXPLAIN {'ANALYZE ' if words.group(1) else ''}{behind[0].query}"


def fetch(con: duckdb.DuckDBPyConnection, rows_max: int) -> tuple[list[tuple[object, ...]], bool]:
    """Rows with JSON-safe values, and whether there were more than may be sent."""
    entries: list[tuple[object, ...]] = []
    size = 0
    while rows := con.fetchmany(FETCH_ROWS):
        for row in rows:
            if len(entries) >= rows_max:
                return entries, True
            safe = tuple(json_safe(value) for value in row)
            size += len(msgspec.json.encode(safe))
            if size > BYTES_MAX:
                return entries, True
            entries.append(safe)
    return entries, False


def json_safe(value: object, depth: int = 0) -> object:
    """The value as JSON has it: times as RFC 3339, bytes as base64, nan and infinities as null, the rest as text."""
    if depth > DEPTH_MAX:
        return str(value)
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case datetime.datetime():
            return value.isoformat(timespec="milliseconds" if value.tzinfo is None else "auto") + (
                "Z" if value.tzinfo is None else ""
            )
        case datetime.date() | datetime.time() | uuid.UUID():
            return str(value)
        case datetime.timedelta():
            return value.total_seconds()
        case decimal.Decimal():
            return float(value) if value.is_finite() else None
        case bytes():
            return base64.b64encode(value).decode()
        case list() | tuple():
            return [json_safe(item, depth + 1) for item in value]
        case dict():
            return {str(key): json_safe(item, depth + 1) for key, item in value.items()}
        case _:
            return str(value)


if __name__ == "__main__":
    main()
