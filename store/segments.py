"""Segments as the coordinator handles them: sealing an hour, and sweeping what a crash left.

The order of a sealing: temporary file, fsync (the child); rename, fsync of the directory, rollup; then one
transaction that inserts the manifest and drops the hour's table. A crash before it leaves a file that no
manifest names, while the rows are still there: it is removed at the next start and the hour sealed again.
"""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from typing import Any

import msgspec

from coordinator.core.ids import Ms
from store import heartbeats, hours, manifest
from store.children import run_child
from store.failpoints import FailPoints
from store.layout import DataDir, sync_directory
from store.manifest import Segment, file_name
from store.seal import SealAnswer, SealRequest
from store.settings import StoreSettings
from store.sqlite import sqlite3
from store.writer import Writer, in_transaction

ROLLUP_BATCH_ROWS = 2_000
"""Rollup rows of one transaction: about 5 ms, between which heartbeats are written."""


class Sealing:
    """Rollup and sealing of unsealed hours, one at a time."""

    def __init__(self, data: DataDir, writer: Writer, settings: StoreSettings, points: FailPoints) -> None:
        self._data = data
        self._writer = writer
        self._settings = settings
        self._points = points

    async def roll_up(self, hour_ms: Ms) -> None:
        """Compute the rollup of an hour that is still going on, or not long over."""
        answer = await self._ask_child(hour_ms, seal=False)
        await self._write_hours(hour_ms, answer)

    async def seal(self, hour_ms: Ms, now_ms: Ms) -> None:
        """Turn an hour that is over into its segment. Afterwards its rows are there and nowhere else.

        Nothing is changed when heartbeats of that hour came in meanwhile: the next call takes them along.
        """
        answer = await self._ask_child(hour_ms, seal=True)
        if not answer.rows:
            await self._writer.transact(lambda connection: connection.execute(heartbeats.drop(hour_ms)) and None)
            return
        part = await self._next_part(hour_ms)
        name = file_name(hour_ms, part)
        await asyncio.to_thread(self._publish, answer.temporary, name)
        await self._write_hours(hour_ms, answer)
        segment = Segment(
            hour_ms=hour_ms,
            part=part,
            file=name,
            digest=answer.digest,
            bytes=answer.bytes,
            rows=answer.rows,
            first_ms=answer.first_ms,
            last_ms=answer.last_ms,
            sealed_at_ms=now_ms,
        )
        if not await self._writer.run(lambda connection: self._adopt(connection, segment)):
            (self._data.segments / name).unlink()

    async def _next_part(self, hour_ms: Ms) -> int:
        return len(await self._parts(hour_ms))

    async def _parts(self, hour_ms: Ms) -> list[Segment]:
        rows = await self._writer.run(lambda c: c.execute(manifest.OF_HOUR, (hour_ms,)).fetchall())
        return [Segment(*row) for row in rows]

    async def _ask_child(self, hour_ms: Ms, seal: bool) -> SealAnswer:
        parts = await self._parts(hour_ms)
        request = SealRequest(
            telemetry=str(self._data.telemetry),
            segments=str(self._data.segments),
            hour_ms=hour_ms,
            seal=seal,
            part=len(parts),
            earlier=tuple(str(self._data.segments / part.file) for part in parts),
            memory=self._settings.duckdb_memory,
            failpoint=self._settings.failpoint,
        )
        out = await run_child("store.seal", (), msgspec.msgpack.encode(request), self._settings.child_s_max)
        return msgspec.msgpack.decode(out, type=SealAnswer)

    def _publish(self, temporary: str, name: str) -> None:
        (self._data.segments / temporary).rename(self._data.segments / name)
        sync_directory(self._data.segments)
        self._points.reach("seal.renamed")

    async def _write_hours(self, hour_ms: Ms, answer: SealAnswer) -> None:
        rows = [(hour_ms, *row) for row in answer.hours]
        for at in range(0, len(rows), ROLLUP_BATCH_ROWS):
            batch = rows[at : at + ROLLUP_BATCH_ROWS]
            await self._writer.transact(partial(_put_hours, batch=batch))
            self._points.reach("rollup.between_batches")

    def _adopt(self, connection: sqlite3.Connection, segment: Segment) -> bool:
        """The one transaction by which the hour's rows go over from the table to the segment."""

        def adopt(connection: sqlite3.Connection) -> bool:
            (rows,) = connection.execute(heartbeats.count(segment.hour_ms)).fetchone()
            if rows != segment.rows:
                return False
            connection.execute(manifest.PUT, segment)
            connection.execute(heartbeats.drop(segment.hour_ms))
            self._points.reach("seal.before_manifest")
            return True

        adopted = in_transaction(connection, adopt)
        self._points.reach("seal.after_manifest")
        return adopted


def _put_hours(connection: sqlite3.Connection, batch: list[tuple[Any, ...]]) -> None:
    connection.executemany(hours.PUT, batch)


def sweep(data: DataDir, connection: sqlite3.Connection) -> list[str]:
    """At start: remove what an interrupted sealing left. Returns what is wrong and was left alone.

    A segment without a manifest is removed only while its rows are still in their table: otherwise it may be
    the only copy of that hour.
    """
    listed = {Segment(*row).file for row in connection.execute(manifest.ALL)}
    unsealed = heartbeats.unsealed_hours(name for (name,) in connection.execute(heartbeats.TABLES))
    copies = tuple(file_name(hour_ms, 0).removesuffix(".parquet") for hour_ms in unsealed)
    strays = []
    for path in sorted(data.segments.iterdir()):
        if path.name.startswith(manifest.TEMPORARY):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        elif path.suffix == ".parquet" and path.name not in listed:
            if copies and path.name.startswith(copies):
                path.unlink()
            else:
                strays.append(f"segments/{path.name} is in no manifest")
    return strays
