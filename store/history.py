"""Reading heartbeats and rollups: what is not sealed yet from telemetry, the rest from segments in a child."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import groupby

import msgspec

from coordinator.core.ids import Ms, ProviderKey
from coordinator.ports.store import HeartbeatRow, HourRow
from store import heartbeats, hours, manifest
from store.children import run_child
from store.heartbeats import HOUR_MS, hour_of
from store.layout import DataDir
from store.manifest import Segment
from store.readers import Readers, fetch
from store.segment_reader import ReadAnswer, ReadRequest
from store.settings import StoreSettings

END_OF_TIME_MS: Ms = 2**62


class History:
    """Answers about one provider's past. `report` is told of segments that could not be read."""

    def __init__(self, data: DataDir, readers: Readers, settings: StoreSettings, report: Callable[[str], None]) -> None:
        self._data = data
        self._readers = readers
        self._settings = settings
        self._report = report
        # Everybody beyond this waits; each child has DuckDB's memory cap to itself.
        self._children = asyncio.Semaphore(settings.segment_reads)

    async def heartbeats(self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None) -> list[HeartbeatRow]:
        """Newest first, in [since, before). Rows and manifest are read in one transaction: an hour that is
        sealed meanwhile is seen once."""
        before = END_OF_TIME_MS if before_ms is None else before_ms
        found: list[HeartbeatRow] = []
        async with self._readers.transaction() as connection:
            listed = await fetch(connection, manifest.IN_WINDOW, (hour_of(since_ms), before))
            sealed = [Segment(*row) for row in listed]
            tables = await fetch(connection, heartbeats.TABLES)
            open_hours = heartbeats.unsealed_hours(name for (name,) in tables)
            for hour_ms in reversed(open_hours):
                if len(found) < limit and hour_of(since_ms) <= hour_ms < before:
                    wanted = (since_ms, before, key, limit - len(found))
                    rows = await fetch(connection, heartbeats.newest(hour_ms), wanted)
                    found += [HeartbeatRow._make(row) for row in rows]
        late = bool(sealed and open_hours and open_hours[0] <= sealed[0].hour_ms)
        if sealed and (late or len(found) < limit):
            # Heartbeats that came after their hour was sealed are interleaved with those of segments.
            found += await self._sealed(sealed, key, since_ms, before, limit if late else limit - len(found))
            found.sort(key=lambda row: (row.observed_at_ms, row.n), reverse=True)
        return found[:limit]

    async def _sealed(
        self, segments: list[Segment], key: ProviderKey, since_ms: Ms, before_ms: Ms, limit: int
    ) -> list[HeartbeatRow]:
        request = ReadRequest(
            segments=str(self._data.segments),
            hours=tuple(
                tuple(part.file for part in parts) for _, parts in groupby(segments, lambda part: part.hour_ms)
            ),
            key=key,
            since_ms=since_ms,
            before_ms=before_ms,
            limit=limit,
            memory=self._settings.duckdb_memory,
        )
        async with self._children:
            out = await run_child(
                "store.segment_reader", (), msgspec.msgpack.encode(request), self._settings.child_s_max
            )
        answer = msgspec.msgpack.decode(out, type=ReadAnswer)
        for problem in answer.unreadable:
            self._report(f"segments/{problem}")
        return [HeartbeatRow._make(row) for row in answer.rows]

    async def hours(self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None) -> list[HourRow]:
        """Newest first: the hours that overlap [since, before)."""
        async with self._readers.transaction() as connection:
            ((newest,),) = await fetch(connection, hours.NEWEST_HOUR)
            if newest is None:
                return []
            if before_ms is not None:
                newest = min(newest, hour_of(before_ms - 1))
            oldest = max(hour_of(since_ms), newest - self._settings.history_keep_ms - HOUR_MS)
            rows = await fetch(connection, hours.NEWEST, (newest, oldest, key, limit))
        return [hours.from_columns(row) for row in rows]
