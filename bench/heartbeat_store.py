"""Storing heartbeats into a table that has 8.64 million, and what they take sealed, against the usual schema.

    python -m bench.heartbeat_store [--quick]

Both sides store the same batches of 1,000 rows, one transaction each, in turns; log folded back after each turn
and counted. Bytes are what the kernel says this process had written to disk (/proc/self/io, write_bytes).
"""

from __future__ import annotations

import asyncio
import random
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bench.heartbeat_data import USUAL_INSERT, as_usual, batch, fill_ours, fill_usual, per_hour, seal_all
from bench.judging import judged
from coordinator.ports.store import HeartbeatRow
from store import heartbeats
from store.layout import DataDir
from store.sqlite import sqlite3
from store.writer import in_transaction

FLOORS = {"rows_per_s": 7.0, "bytes_written": 1 / 12, "sealed_size": 0.15}
"""rows/s: at least so many times the usual schema's; the others: at most so much of its."""
TURNS = 8
BATCHES = 20
BATCH_ROWS = 1_000


def written() -> int:
    """Bytes that this process has caused to be written to disk."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


class Turn(NamedTuple):
    """What one side's turn took."""

    seconds: float
    cpu_s: float
    bytes: int


def turn(connection: sqlite3.Connection, store: Callable[[sqlite3.Connection], object], count: int) -> Turn:
    """So many transactions, and folding the log back."""
    bytes_before, began, cpu = written(), time.perf_counter(), time.process_time()
    for _ in range(count):
        in_transaction(connection, store)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    return Turn(time.perf_counter() - began, time.process_time() - cpu, written() - bytes_before)


def measure(directory: Path, quick: bool) -> dict[str, object]:
    rows = per_hour(quick) * 12
    data = DataDir(directory / "data")
    usual = fill_usual(directory / "usual.sqlite", rows)
    ours = fill_ours(data, rows)
    usual_bytes = (directory / "usual.sqlite").stat().st_size
    seed = random.Random(1)
    spent: dict[str, list[Turn]] = {"usual": [], "ours": []}
    for number in range(TURNS):
        batches = [batch(number * BATCHES + i, BATCH_ROWS, seed) for i in range(BATCHES)]
        for_usual = iter([as_usual(some) for some in batches])
        for_ours = iter(batches)

        def store_usual(c: sqlite3.Connection, source: object = for_usual) -> None:
            c.executemany(USUAL_INSERT, next(source))  # type: ignore[call-overload]

        def store_ours(c: sqlite3.Connection, source: object = for_ours) -> None:
            some: list[HeartbeatRow] = next(source)  # type: ignore[call-overload]
            heartbeats.append(c, some)

        sides = [("usual", usual, store_usual), ("ours", ours, store_ours)]
        for name, connection, store in sides if number % 2 else sides[::-1]:
            spent[name].append(turn(connection, store, BATCHES))
    usual.close()
    ours.close()
    sealed_bytes = asyncio.run(seal_all(data))
    return figures(spent, rows, usual_bytes / rows, sealed_bytes / rows)


def figures(spent: dict[str, list[Turn]], rows: int, usual_row: float, sealed_row: float) -> dict[str, object]:
    """What is printed. `usual_row`, `sealed_row`: bytes that a row takes up."""
    per_turn = BATCHES * BATCH_ROWS
    speed = {name: [per_turn / one.seconds for one in turns] for name, turns in spent.items()}
    cost = {name: sum(one.bytes for one in turns) / (per_turn * TURNS) for name, turns in spent.items()}
    # On a machine that others use too, processor time says what the wall clock cannot.
    cpu = {name: sum(one.cpu_s for one in turns) / (per_turn * TURNS) * 1e6 for name, turns in spent.items()}
    ratios = {
        "rows_per_s": statistics.median(o / u for o, u in zip(speed["ours"], speed["usual"], strict=True)),
        "bytes_written": cost["ours"] / cost["usual"],
        "sealed_size": sealed_row / usual_row,
    }
    return {
        "figures": {
            "rows_in_table": rows,
            "usual_rows_per_s": round(statistics.median(speed["usual"])),
            "ours_rows_per_s": round(statistics.median(speed["ours"])),
            "usual_cpu_us_per_row": round(cpu["usual"], 2),
            "ours_cpu_us_per_row": round(cpu["ours"], 2),
            "usual_bytes_written_per_row": round(cost["usual"]),
            "ours_bytes_written_per_row": round(cost["ours"]),
            "usual_bytes_per_row": round(usual_row, 1),
            "sealed_bytes_per_row": round(sealed_row, 1),
        },
        "ratios": {name: round(value, 4) for name, value in ratios.items()},
        "floors": FLOORS,
        "n": {"turns": TURNS, "rows_per_turn": per_turn},
        "sqlite": sqlite3.sqlite_version,
    }


# A small table flatters the usual schema: its indexes fit the cache. Floors are for the full size.
if __name__ == "__main__":
    sys.exit(judged(measure, FLOORS, at_most=("bytes_written", "sealed_size")))
