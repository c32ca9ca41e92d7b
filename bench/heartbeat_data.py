"""Twelve hours of heartbeats of 1,000 providers (8.64 million), in the store's tables and in the usual schema.

The usual schema is what one writes without thinking twice: a rowid table with the provider's name and the states
as text, and indexes on (provider, time) and (time). Both are opened with the same pragmas. Values are random
within the precision that agents report (4 decimals of a share, 3 of GB), which is the worst case for compression.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from coordinator.core.ids import ProviderKey
from coordinator.ports.store import HeartbeatRow
from store import heartbeats
from store.durable import DiskStore
from store.heartbeats import HOUR_MS
from store.layout import DataDir
from store.settings import StoreSettings
from store.sqlite import Durability, open_writer, sqlite3

PROVIDERS = 1_000
BASE_MS = 490_000 * HOUR_MS

USUAL = """
CREATE TABLE heartbeats (
    id INTEGER PRIMARY KEY, provider_id TEXT NOT NULL, observed_at INTEGER NOT NULL, status TEXT NOT NULL,
    memory_pressure REAL, cpu_usage REAL, thermal_state TEXT, memory_available_gb REAL, gpu_memory_active_gb REAL,
    gpu_memory_cache_gb REAL, backend_state TEXT, active_model TEXT, capacity REAL)
"""
NOMINAL = "'nominal'"
USUAL_INDEXES = (
    "CREATE INDEX heartbeats_provider ON heartbeats (provider_id, observed_at)",
    "CREATE INDEX heartbeats_time ON heartbeats (observed_at)",
)
USUAL_INSERT = f"INSERT INTO heartbeats VALUES (NULL, {', '.join('?' * 12)})"
NUMBERS = "WITH RECURSIVE n (i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i + 1 < {last})"
VALUES = """abs(random()) % 10000 / 10000.0, abs(random()) % 10000 / 10000.0, {thermal},
       abs(random()) % 64000 / 1000.0, NULL, NULL, 'ready', NULL, NULL"""


def per_hour(quick: bool) -> int:
    """Heartbeats of one hour: a twelfth when it should be quick."""
    return 720_000 // (12 if quick else 1)


def fill_usual(path: Path, rows: int) -> sqlite3.Connection:
    """The usual table with so many rows, its indexes built last, which packs them best."""
    connection = open_writer(path, Durability.NORMAL)
    connection.execute(USUAL)
    step = 12 * HOUR_MS / rows
    connection.execute("BEGIN")
    connection.execute(
        f"{NUMBERS.format(first=0, last=rows)} INSERT INTO heartbeats"
        f" SELECT NULL, printf('provider-%04d', i * 377 % {PROVIDERS} + 1), {BASE_MS} + CAST(i * {step} AS INTEGER),"
        f" 'idle', {VALUES.format(thermal=NOMINAL)} FROM n"
    )
    for index in USUAL_INDEXES:
        connection.execute(index)
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return connection


def fill_ours(data: DataDir, rows: int) -> sqlite3.Connection:
    """The store's telemetry with the same rows, none sealed, as it lies after twelve hours without sealing."""
    asyncio.run(_made(data))
    connection = open_writer(data.telemetry, Durability.NORMAL)
    step = 12 * HOUR_MS / rows
    for hour in range(12):
        first, last = rows * hour // 12, rows * (hour + 1) // 12
        hour_ms = BASE_MS + hour * HOUR_MS
        connection.execute(heartbeats.create(hour_ms))
        connection.execute(
            f"{NUMBERS.format(first=first, last=last)} INSERT OR REPLACE INTO {heartbeats.table_of(hour_ms)}"
            f" SELECT {BASE_MS} + CAST(i * {step} AS INTEGER), i * 377 % {PROVIDERS} + 1, 0, 1,"
            f" {VALUES.format(thermal='0')} FROM n"
        )
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return connection


async def _made(data: DataDir) -> None:
    store = await DiskStore.open(data)
    await store.close()


async def seal_all(data: DataDir) -> int:
    """Seal every hour as the store does; returns the bytes of the segments."""
    store = await DiskStore.open(data, StoreSettings(child_s_max=3_600.0))
    try:
        await store.maintain(BASE_MS + 13 * HOUR_MS)
    finally:
        await store.close()
    return sum(path.stat().st_size for path in data.segments.glob("*.parquet"))


def batch(number: int, rows: int, seed: random.Random) -> list[HeartbeatRow]:
    """The heartbeats of one flush in the thirteenth hour, in the order of their time."""
    start_ms = BASE_MS + 12 * HOUR_MS + number * 5_000
    return [
        HeartbeatRow(
            start_ms + i * 5_000 // rows,
            ProviderKey(i * 377 % PROVIDERS + 1),
            0,
            1,
            seed.randrange(10_000) / 10_000,
            seed.randrange(10_000) / 10_000,
            0,
            seed.randrange(64_000) / 1_000,
            None,
            None,
            "ready",
            None,
            None,
        )
        for i in range(rows)
    ]


def as_usual(rows: list[HeartbeatRow]) -> list[tuple[object, ...]]:
    """The same heartbeats for the usual schema."""
    return [(f"provider-{row.key:04d}", row.observed_at_ms, "idle", *row[4:6], "nominal", *row[7:]) for row in rows]
