"""The hourly rollup of 8.64 million heartbeats: from sealed segments, against the same SQL in SQLite.

python -m bench.rollup [--quick]
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from pathlib import Path

import duckdb

from bench.heartbeat_data import fill_ours, fill_usual, per_hour, seal_all
from bench.judging import judged
from store.heartbeats import HOUR_MS
from store.layout import DataDir
from store.sqlite import sqlite3

FLOORS = {"seconds": 40.0}
"""At least so many times faster than SQLite."""
ROUNDS = 5
SQL = """
SELECT {key} AS key, {at} / {hour} AS hour, count(*), avg(memory_pressure), avg(cpu_usage), max(thermal_state),
       avg(memory_available_gb)
  FROM {source} GROUP BY 1, 2
"""


def measure(directory: Path, quick: bool) -> dict[str, object]:
    rows = per_hour(quick) * 12
    data = DataDir(directory / "data")
    usual = fill_usual(directory / "usual.sqlite", rows)
    fill_ours(data, rows).close()
    asyncio.run(seal_all(data))
    in_sqlite = SQL.format(key="provider_id", at="observed_at", hour=HOUR_MS, source="heartbeats")
    segments = f"read_parquet('{data.segments}/*.parquet')"
    in_segments = SQL.format(key="key", at="observed_at_ms", hour=HOUR_MS, source=segments).replace(" / ", " // ")
    spent: dict[str, list[float]] = {"sqlite": [], "segments": []}
    groups: set[int] = set()
    # SQLite once more takes as long again: two rounds of it, the cheap side around each.
    for number in range(ROUNDS):
        with duckdb.connect(":memory:") as connection:
            began = time.perf_counter()
            groups.add(len(connection.execute(in_segments).fetchall()))
            spent["segments"].append(time.perf_counter() - began)
        if number % 3 == 0:
            began = time.perf_counter()
            groups.add(len(usual.execute(in_sqlite).fetchall()))
            spent["sqlite"].append(time.perf_counter() - began)
    usual.close()
    assert len(groups) == 1, f"the two disagree: {groups} groups"
    seconds = {name: statistics.median(values) for name, values in spent.items()}
    return {
        "figures": {
            "rows": rows,
            "groups": groups.pop(),
            "sqlite_s": round(seconds["sqlite"], 3),
            "segments_s": round(seconds["segments"], 3),
        },
        "ratios": {"seconds": round(seconds["sqlite"] / seconds["segments"], 1)},
        "floors": FLOORS,
        "n": {name: len(values) for name, values in spent.items()},
        "sqlite": sqlite3.sqlite_version,
    }


if __name__ == "__main__":
    sys.exit(judged(measure, FLOORS))
