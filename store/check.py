"""The full check: integrity of both databases, digests of segments, traces and blobs, lengths of logs. Changes nothing.

    python -m store.check DATA SECONDS          (MessagePack of ports.store.CheckReport)

Reads everything once, of blobs as many as it can in SECONDS; beside a running coordinator it is a niced process of
its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec

from coordinator.core.errors import CoordError
from coordinator.ports.store import CheckReport
from store import heartbeats, manifest
from store.blob_check import BlobsChecked, check_blobs
from store.children import become_child
from store.layout import DataDir
from store.log_backup import check_logs
from store.manifest import Segment, digest_of
from store.migrate import scripts
from store.row_reading import read_row
from store.sqlite import open_reader, sqlite3, translated
from store.traces.check import check_traces
from store.truth import TABLES

PROBLEMS_MAX = 100
UNBALANCED = """
SELECT tenant, month, account.cost, coalesce(charged, 0)
  FROM account LEFT JOIN (SELECT tenant, month, sum(cost) AS charged FROM ledger GROUP BY tenant, month)
       USING (tenant, month)
 WHERE account.cost <> coalesce(charged, 0)
"""
"""Accounts whose cost is not the sum of their charges of the month."""


def check_files(data_dir: Path, blobs_s: float | None = None) -> CheckReport:
    """Check a data directory, whether its coordinator runs or not. Problems are told, not raised.

    `blobs_s`: for how long bytes of blobs are read; None: all of them, however long that takes.
    """
    data = DataDir(data_dir)
    problems: list[str] = []
    files = check_traces(data.traces, problems)
    rows = segments = 0
    blobs = BlobsChecked()
    for path, database in ((data.truth, "truth"), (data.telemetry, "telemetry")):
        files += 1
        try:
            connection = open_reader(path)
        except CoordError as error:
            problems.append(error.message)
            continue
        try:
            rows += _check_database(connection, database, problems)
            if database == "truth":
                files += check_logs(data.logs, connection, problems)
                blobs = check_blobs(data.blobs, connection, problems, blobs_s)
            else:
                segments = _check_segments(data, connection, problems)
        except sqlite3.Error as error:
            problems.append(str(translated(error, path)))
        finally:
            connection.close()
    return CheckReport(
        files=files + segments + blobs.blobs,
        rows=rows,
        segments=segments,
        problems=tuple(problems[:PROBLEMS_MAX]),
        blobs=blobs.blobs,
        unread=blobs.unread,
        ownerless=blobs.ownerless,
        damaged=tuple(blobs.damaged),
    )


def _check_database(connection: sqlite3.Connection, database: str, problems: list[str]) -> int:
    for (line,) in connection.execute(f"PRAGMA integrity_check({PROBLEMS_MAX})"):
        if line != "ok":
            problems.append(f"{database}.sqlite: {line}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version != len(scripts(database)):
        problems.append(f"{database}.sqlite has schema version {version}, this program knows {len(scripts(database))}")
        return 0
    if database == "telemetry":
        names = [name for (name,) in connection.execute(heartbeats.TABLES)]
        hours = heartbeats.unsealed_hours(names)
        return sum(connection.execute(heartbeats.count(hour_ms)).fetchone()[0] for hour_ms in hours)
    count = 0
    for table, kind in TABLES.items():
        for columns in connection.execute(f"SELECT {', '.join(kind.columns)} FROM {table}"):  # noqa: S608  names of ours
            read_row(table, columns, problems)
            count += 1
    for tenant, month, cost, charged in connection.execute(UNBALANCED):
        problems.append(f"truth.sqlite: account {tenant} has cost {cost} in {month}, its ledger adds up to {charged}")
    return count


def _check_segments(data: DataDir, connection: sqlite3.Connection, problems: list[str]) -> int:
    listed = [Segment(*row) for row in connection.execute(manifest.ALL).fetchall()]
    for segment in listed:
        path = data.segments / segment.file
        try:
            damaged = path.stat().st_size != segment.bytes or digest_of(path) != segment.digest
        except FileNotFoundError:
            # Retention removes a file before its manifest: whoever is still listed now is really missing.
            still = connection.execute(manifest.OF_HOUR, (segment.hour_ms,)).fetchall()
            if any(Segment(*row).file == segment.file for row in still):
                problems.append(f"segments/{segment.file} is missing")
        except OSError as error:
            problems.append(f"segments/{segment.file} cannot be read: {error.strerror or error}")
        else:
            if damaged:
                problems.append(f"segments/{segment.file} is damaged: it is not what its manifest says")
    return len(listed)


def main() -> int:
    become_child()
    sys.stdout.buffer.write(msgspec.msgpack.encode(check_files(Path(sys.argv[1]), float(sys.argv[2]))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
