"""A gigabyte of log through the store, against the same writes and syncs by hand.

    python -m bench.log_store [--quick]

Writes of 256 kB, as agents send them, by one stream and by sixteen at once; each caller waits for its answer before it
sends on. The bare side writes and syncs one file in the same way. They take turns on the same disk.
"""

from __future__ import annotations

import asyncio
import os
import random
import statistics
import sys
import time
from pathlib import Path

from bench.judging import judged
from coordinator.core.ids import JobId
from coordinator.ports.logs import LogKey, LogWrite
from store.durable import DiskStore
from store.layout import DataDir

FLOORS = {"one_stream": 0.5, "mb_per_s": 200.0}
"""At least this share of the bare side's speed; the faster of the two ways at least so many MB/s."""
WRITE_BYTES = 256 * 1024
ROUNDS = 3


async def through(store: DiskStore, job: int, streams: int, total: int, data: bytes) -> float:
    """MB/s of `total` bytes in `streams` streams of a job; every byte is there afterwards."""

    async def one(task: int) -> None:
        key, offset = LogKey((JobId(job), 0, task, 1), 0, 0), 0
        while offset < total // streams:
            offset = (await store.logs.append([LogWrite(key, offset, data, offset)]))[key]
        assert await store.logs.read(key, offset - len(data), len(data)) == data

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for task in range(streams):
            group.create_task(one(task))
    speed = total / 1e6 / (time.perf_counter() - began)
    await store.logs.remove(JobId(job))
    return speed


def bare(path: Path, total: int, data: bytes) -> float:
    """MB/s of a loop that writes and syncs."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        began = time.perf_counter()
        for offset in range(0, total, len(data)):
            os.pwrite(fd, data, offset)
            os.fdatasync(fd)
        return total / 1e6 / (time.perf_counter() - began)
    finally:
        os.close(fd)
        path.unlink()


async def measured(directory: Path, total: int, rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {"bare": [], "one_stream": [], "sixteen_streams": []}
    data = random.Random(2).randbytes(WRITE_BYTES)
    store = await DiskStore.open(DataDir(directory / "data"))
    try:
        for number in range(rounds):
            found["bare"].append(await asyncio.to_thread(bare, directory / "bare", total, data))
            found["one_stream"].append(await through(store, 2 * number + 1, 1, total, data))
            found["sixteen_streams"].append(await through(store, 2 * number + 2, 16, total, data))
    finally:
        await store.close()
    return found


def measure(directory: Path, quick: bool) -> dict[str, object]:
    total = (32 if quick else 1_024) * 1024 * 1024
    found = asyncio.run(measured(directory, total, 1 if quick else ROUNDS))
    speed = {name: statistics.median(speeds) for name, speeds in found.items()}
    return {
        "figures": {"bytes": total, **{f"{name}_mb_per_s": round(value) for name, value in speed.items()}},
        "ratios": {
            "one_stream": round(speed["one_stream"] / speed["bare"], 2),
            "mb_per_s": round(max(speed["one_stream"], speed["sixteen_streams"])),
        },
        "floors": FLOORS,
        "n": {name: len(speeds) for name, speeds in found.items()},
    }


if __name__ == "__main__":
    sys.exit(judged(measure, FLOORS))
