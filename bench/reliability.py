"""Reliability of a whole fleet from a warm warehouse, beside a Python loop and DuckDB's unnest, in one run.

    python -m bench.reliability [--quick]

The fleet is 100,000 providers with 40 sessions each in 14 days (--quick: 10,000), made from a seed. Prints JSON;
exits 1 when a floor is missed. Seconds are a wall clock's; `cpu` is the processor time of the whole, all threads
together, which other work on the machine disturbs less: the floor asks for the lesser of both.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np

from analytics.figures import Figures
from analytics.memory import keep_freed_memory
from analytics.reliability import features
from analytics.reliability.columns import HOUR_MS, NONE, REASONS, WINDOW_MS, Ints, Sessions
from analytics.reliability.learning import LOOKBACK_MS
from analytics.warehouse import Warehouse
from store.columns import SessionColumns

NOW_MS = 1_795_000_000_000
FLOOR_S = 2.5
FLOOR_UNNEST = 0.4
SESSIONS_EACH = 40
LOOP_ROWS = 100_000
"""The Python loop runs over this many sessions, and its time is scaled to all."""
UNNEST_PROVIDERS = 20_000
"""So is unnest's, over this many providers: all of them at once need more memory than the cap."""


class Generated:
    """A made-up truth in columns, with what the warehouse reads of one."""

    def __init__(self, providers: int, seed: int = 7) -> None:
        rng = np.random.default_rng(seed)
        n = providers * SESSIONS_EACH
        self._names = [f"node-{i:06d}" for i in range(providers)]
        self._provider = np.repeat(np.arange(providers), SESSIONS_EACH)
        parts = rng.exponential(1.0, (providers, 2 * SESSIONS_EACH))
        parts[:, 1::2] *= rng.uniform(0.02, 0.5, (providers, 1))
        edges = np.cumsum(parts, axis=1)
        edges *= (WINDOW_MS - 60_000) / edges[:, -1:]
        times = (NOW_MS - WINDOW_MS + edges).astype(np.int64)
        self._start = np.concatenate((np.full((providers, 1), NOW_MS - WINDOW_MS), times[:, 1:-1:2] + 60_000), axis=1)
        self._start = self._start.reshape(n)
        self._end = np.maximum(times[:, 0::2].reshape(n), self._start + 1000)
        open_ = (np.arange(n) % SESSIONS_EACH == SESSIONS_EACH - 1) & (rng.random(n) < 0.7)
        self._end[open_] = -1
        self._reason = np.where(open_, NONE, rng.integers(0, len(REASONS), n)).astype(np.int8)
        self._order = np.argsort(self._start, kind="stable")

    def epoch(self) -> str:
        return "bench"

    def sessions_since(self, change_seq: int, limit: int) -> SessionColumns:
        """In the order they began, as a coordinator would have written them."""
        pick = self._order[change_seq : change_seq + limit]
        return SessionColumns(
            np.arange(change_seq + 1, change_seq + 1 + len(pick)),
            pick.astype(np.int64) + 1,
            [self._names[i] for i in self._provider[pick].tolist()],
            self._start[pick],
            self._end[pick],
            np.where(self._end[pick] >= 0, self._end[pick], -1),
            self._reason[pick],
            ["boot"] * len(pick),
            ["bench"] * len(pick),
        )

    def outages(self) -> tuple[Ints, Ints]:
        """Three short ones."""
        began = NOW_MS - np.array([300, 200, 100], np.int64) * HOUR_MS
        return began, began + 600_000

    def alive_at_ms(self) -> int | None:
        return None


def timed(work: Callable[[], object], n: int) -> list[float]:
    """Seconds of each of `n` runs."""
    took = []
    for _ in range(n):
        began = time.perf_counter()
        work()
        took.append(time.perf_counter() - began)
    return took


def loop(rows: Sessions, count: int) -> float:
    """Seconds for uptime, counts, survival and the 7x24 grid by a Python loop over `count` sessions."""
    provider, start = rows.provider[:count].tolist(), rows.start[:count].tolist()
    end, reason = rows.end[:count].tolist(), rows.reason[:count].tolist()
    from_ms = NOW_MS - WINDOW_MS
    grid: dict[int, list[float]] = {}
    online: dict[int, int] = {}
    failures: dict[int, int] = {}
    lengths: dict[int, list[tuple[int, bool]]] = {}
    began = time.perf_counter()
    for p, a, b, r in zip(provider, start, end, reason, strict=True):
        cells, start_of = grid.setdefault(p, [0.0] * 168), a
        a, b = max(a, from_ms), NOW_MS if b < 0 else b
        online[p] = online.get(p, 0) + b - a
        failures[p] = failures.get(p, 0) + (r in (2, 3, 6))
        while a < b:
            hour = a // HOUR_MS
            step = min((hour + 1) * HOUR_MS, b)
            cells[(hour - 96) % 168] += step - a
            a = step
        lengths.setdefault(p, []).append((b - max(start_of, 0), r >= 0))
    for ages in lengths.values():
        ages.sort()
        s = 1.0
        for i, (_, left) in enumerate(ages):
            if left:
                s *= 1.0 - 1.0 / (len(ages) - i)
    return time.perf_counter() - began


def unnest(rows: Sessions, providers: int) -> float:
    """Seconds for the grid alone by DuckDB's unnest over each session's hours, 2 threads, warm table."""
    stop = int(np.searchsorted(rows.provider, providers))
    con = duckdb.connect(":memory:", config={"threads": 2, "memory_limit": "4GB"})
    table = {
        "provider": rows.provider[:stop],
        "a": np.maximum(rows.start[:stop], NOW_MS - WINDOW_MS),
        "b": np.where(rows.end[:stop] < 0, NOW_MS, rows.end[:stop]),
    }
    con.register("given", table)
    con.execute("CREATE TABLE s AS FROM given")
    text = f"""
        SELECT provider, (h - 96) % 168 AS cell, sum(least(b, (h + 1) * {HOUR_MS}) - greatest(a, h * {HOUR_MS}))
          FROM (SELECT provider, a, b, unnest(range(a // {HOUR_MS}, b // {HOUR_MS} + 1)) AS h FROM s)
         GROUP BY ALL"""
    began = time.perf_counter()
    con.execute(text).fetchnumpy()
    took = time.perf_counter() - began
    con.close()
    return took


def main() -> int:
    """Measure, print, and say by the exit status whether the floors were reached."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a tenth of the fleet")
    given = parser.parse_args()
    providers = 10_000 if given.quick else 100_000
    runs = 5
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as directory:
        truth = Generated(providers)
        warehouse = Warehouse(Path(directory) / "warehouse.duckdb", Path(directory) / "views", truth, "2GB")
        filling = timed(warehouse.sync, 1)[0]
        dark = warehouse.outages(NOW_MS)

        parts: dict[str, list[float]] = {
            "read": [],
            "features": [],
            "grid": [],
            "whole": [],
            "cpu": [],
            "unnest": [],
            "loop": [],
        }
        for _ in range(runs):
            spent = time.process_time()
            began = time.perf_counter()
            fleet = warehouse.fleet(NOW_MS, NOW_MS - WINDOW_MS - LOOKBACK_MS, dark)
            read = time.perf_counter()
            figures = Figures(warehouse.ids, fleet, NOW_MS, NOW_MS, dict)
            done = time.perf_counter()
            features.hourly(figures.window)
            end = time.perf_counter()
            for name, took in (("read", read - began), ("features", done - read), ("grid", end - done)):
                parts[name].append(took)
            parts["whole"].append(end - began)
            parts["cpu"].append(time.process_time() - spent)
            some = min(UNNEST_PROVIDERS, providers)
            parts["unnest"].append(unnest(fleet.sessions, some) * providers / some)
            count = min(LOOP_ROWS, len(fleet.sessions.provider))
            parts["loop"].append(loop(fleet.sessions, count) * len(fleet.sessions.provider) / count)
        rows = len(fleet.sessions.provider)
        warehouse.close()

    best = {name: min(took) for name, took in parts.items()}
    floor_s = FLOOR_S * (providers / 100_000 if not given.quick else 0.2)
    report = {
        "bench": "reliability",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "load": [round(x, 1) for x in os.getloadavg()],
        "machine": {"cpus": os.cpu_count(), "python": platform.python_version(), "numpy": np.__version__},
        "n": {"providers": providers, "sessions": rows, "runs": runs},
        "filling_s": round(filling, 2),
        "seconds": {name: [round(t, 3) for t in took] for name, took in parts.items()},
        "ratios": {
            "grid_to_duckdb_unnest": round(best["grid"] / best["unnest"], 3),
            "python_loop_to_whole": round(best["loop"] / best["whole"], 1),
        },
        "floors": {"whole_s": floor_s, "grid_to_duckdb_unnest": FLOOR_UNNEST},
    }
    print(json.dumps(report, indent=1))
    met = min(best["whole"], best["cpu"]) <= floor_s and best["grid"] <= FLOOR_UNNEST * best["unnest"]
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
