"""What is removed when it is old enough, in batches that let other writes through."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from coordinator.core.ids import Ms
from store import hours, manifest, outages, providers, sessions
from store.failpoints import FailPoints
from store.heartbeats import hour_of
from store.layout import DataDir
from store.manifest import Segment
from store.settings import StoreSettings
from store.sqlite import sqlite3
from store.writer import Writer

BATCH_ROWS = 1_000
"""Rows of one transaction: a commit that waits behind it waits for a few milliseconds."""
BATCH_FILES = 24


class Retention:
    """Prunes both databases and the segments."""

    def __init__(
        self, data: DataDir, truth: Writer, telemetry: Writer, settings: StoreSettings, points: FailPoints
    ) -> None:
        self._data = data
        self._truth = truth
        self._telemetry = telemetry
        self._settings = settings
        self._points = points
        self._keys_from = 0

    async def prune(self, now_ms: Ms) -> None:
        """Remove what is older than its retention. Idempotent; a crash in between leaves nothing half gone."""
        await self._segments(hour_of(now_ms - self._settings.heartbeats_keep_ms))
        old_ms = now_ms - self._settings.history_keep_ms
        await _repeat(self._telemetry, lambda c: c.execute(hours.PRUNE, (hour_of(old_ms), BATCH_ROWS)).rowcount)
        await _repeat(self._truth, lambda c: _sessions(c, sessions.ENDED_BEFORE, old_ms))
        await self._imports()
        await _repeat(self._truth, lambda c: c.execute(outages.PRUNE, (old_ms, old_ms, BATCH_ROWS)).rowcount)
        self._keys_from = await self._truth.transact(lambda c: _keys(c, self._keys_from))

    async def _imports(self) -> None:
        """History from elsewhere ages from its own end: it was brought here to be looked at, however old it is."""
        end_ms = await self._truth.run(lambda c: c.execute(sessions.IMPORT_END).fetchone()[0])
        if end_ms is not None:
            old_ms = end_ms - self._settings.history_keep_ms
            await _repeat(self._truth, lambda c: _sessions(c, sessions.IMPORT_ENDED_BEFORE, old_ms))

    async def _segments(self, before_ms: Ms) -> None:
        """Whole hours that ended before `before_ms`. The file goes first: a manifest without its file is
        finished by the next run, a file without a manifest would be nobody's."""
        while True:
            rows = await self._telemetry.run(lambda c: c.execute(manifest.BEFORE, (before_ms, BATCH_FILES)).fetchall())
            old = [Segment(*row) for row in rows]
            for segment in old:
                await asyncio.to_thread((self._data.segments / segment.file).unlink, missing_ok=True)
                self._points.reach("retention.unlinked")
            if old:
                gone = [(segment.hour_ms, segment.part) for segment in old]
                await self._telemetry.transact(partial(_forget, gone=gone))
            if len(old) < BATCH_FILES:
                return


def _forget(connection: sqlite3.Connection, gone: list[tuple[int, int]]) -> None:
    connection.executemany(manifest.REMOVE, gone)


async def _repeat(writer: Writer, batch: Callable[[sqlite3.Connection], int]) -> None:
    while await writer.transact(batch) >= BATCH_ROWS:
        pass


def _sessions(connection: sqlite3.Connection, ended_before: str, old_ms: Ms) -> int:
    ended = connection.execute(ended_before, (old_ms, BATCH_ROWS)).fetchall()
    connection.executemany(sessions.PRUNE, ended)
    return len(ended)


def _keys(connection: sqlite3.Connection, begin: int) -> int:
    """Let go of keys whose provider is forgotten and has no session left; returns where to go on."""
    looked = [key for (key,) in connection.execute(providers.KEYS_FROM, (begin, BATCH_ROWS))]
    if looked:
        connection.execute(providers.PRUNE_KEYS, (begin, looked[-1]))
    return looked[-1] + 1 if len(looked) == BATCH_ROWS else 0
