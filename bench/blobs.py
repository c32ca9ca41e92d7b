"""A gigabyte into the blob store, hashed and published, against the same store without the hash and a bare file.

    python -m bench.blobs [--quick]

Pieces of 1 MiB as a PUT brings them: each is asked for when the one before is written, and the next is made meanwhile.
`hashed` and `unhashed` take turns on the same disk, sync and rename included. `arriving` is the part before the sync,
where hashing and writing share two cores; in memory as well, where no disk hides what hashing costs.
"""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from blake3 import blake3

from bench.judging import judged
from coordinator.core.ids import TenantName
from store import blob_upload
from store.blob_files import DiskBlobs
from store.failpoints import FailPoints
from store.layout import DataDir
from store.settings import StoreSettings

FLOORS = {"published": 0.95, "arriving": 0.95, "arriving_in_memory": 0.85}
"""Of hashed to unhashed speed; the middle of the rounds, each a pair."""
PIECE_BYTES = 1 << 20
TENANT = TenantName("bench")
ROUNDS = 11
SMALL = 300


class Unhashed:
    """A hasher that looks at nothing."""

    def update(self, data: object) -> None:
        return None

    def hexdigest(self) -> str:
        return "0" * 64


@contextmanager
def hashing(how: str) -> Iterator[None]:
    """Have uploads begun meanwhile be hashed, or not."""
    with mock.patch.object(blob_upload, "blake3", blake3 if how == "hashed" else Unhashed):
        yield


async def put(blobs: DiskBlobs, how: str, pieces: list[bytes], total: int) -> tuple[float, float]:
    """MB/s until all has arrived, and until it is published."""
    upload_id = secrets.token_hex(16)
    with hashing(how):
        await blobs.begin(upload_id, total)
    began = time.perf_counter()
    offset = number = 0
    while offset < total:
        offset = await blobs.write(upload_id, offset, [pieces[number % len(pieces)]])
        number += 1
    arrived = time.perf_counter()
    digest, _, size = await blobs.finish(upload_id, TENANT, "", "")
    published = time.perf_counter()
    assert size == total
    await blobs.remove([(TENANT, digest)])
    return total / 1e6 / (arrived - began), total / 1e6 / (published - began)


def bare(path: Path, pieces: list[bytes], total: int) -> float:
    """MB/s of a loop that writes, and syncs at the end."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        began = time.perf_counter()
        for number, offset in enumerate(range(0, total, PIECE_BYTES)):
            os.pwrite(fd, pieces[number % len(pieces)], offset)
        os.fsync(fd)
        return total / 1e6 / (time.perf_counter() - began)
    finally:
        os.close(fd)
        path.unlink()


async def small_ones(blobs: DiskBlobs) -> float:
    """Milliseconds from nothing to published, of 4 kB; the middle one."""
    took = []
    for _ in range(SMALL):
        content, upload_id = secrets.token_bytes(4_096), secrets.token_hex(16)
        began = time.perf_counter()
        await blobs.begin(upload_id, len(content))
        await blobs.write(upload_id, 0, [content])
        await blobs.finish(upload_id, TENANT, blake3(content).hexdigest(), "")
        took.append(time.perf_counter() - began)
    return 1_000 * statistics.median(took)


async def measured(directory: Path, total: int, rounds: int, *, quick: bool, bare_too: bool) -> dict[str, list[float]]:
    data = DataDir(directory / "data")
    data.make()
    dice = random.Random(3)
    pieces = [dice.randbytes(PIECE_BYTES) for _ in range(64)]
    found: dict[str, list[float]] = {}
    blobs = DiskBlobs(data, StoreSettings(blobs_leave_bytes=0), FailPoints())
    try:
        for number in range(rounds):
            for how in ("hashed", "unhashed") if number % 2 else ("unhashed", "hashed"):
                arriving, published = await put(blobs, how, pieces, total)
                found.setdefault(f"{how} arriving", []).append(arriving)
                found.setdefault(f"{how} published", []).append(published)
            if bare_too:
                bare_speed = await asyncio.to_thread(bare, directory / "bare", pieces, total)
                found.setdefault("bare", []).append(bare_speed)
        if bare_too and not quick:
            found["small"] = [await small_ones(blobs)]
    finally:
        await blobs.close()
    return found


def ratio(found: dict[str, list[float]], what: str) -> float:
    pairs = zip(found[f"hashed {what}"], found[f"unhashed {what}"], strict=True)
    return round(statistics.median(hashed / unhashed for hashed, unhashed in pairs), 3)


def measure(directory: Path, quick: bool) -> dict[str, object]:
    total = (32 if quick else 1_024) * 1024 * 1024
    rounds = 1 if quick else ROUNDS
    on_disk = asyncio.run(measured(directory, total, rounds, quick=quick, bare_too=True))
    with memory_directory(total) as memory:
        in_memory = asyncio.run(measured(memory, total, rounds, quick=quick, bare_too=False))
    speed = {name: statistics.median(speeds) for name, speeds in on_disk.items() if name != "small"}
    return {
        "figures": {
            "bytes": total,
            **{f"{name.replace(' ', '_')}_mb_per_s": round(value) for name, value in speed.items()},
            **{
                f"{name.replace(' ', '_')}_in_memory_mb_per_s": round(statistics.median(speeds))
                for name, speeds in in_memory.items()
            },
            **({"small_ms": round(on_disk["small"][0], 2)} if "small" in on_disk else {}),
        },
        "ratios": {
            "published": ratio(on_disk, "published"),
            "arriving": ratio(on_disk, "arriving"),
            "arriving_in_memory": ratio(in_memory, "arriving"),
            "published_to_bare": round(speed["hashed published"] / speed["bare"], 3),
        },
        "floors": FLOORS,
        "n": {"on disk": rounds, "in memory": len(in_memory["hashed arriving"])},
    }


@contextmanager
def memory_directory(total: int) -> Iterator[Path]:
    """On a file system in memory with room for one file and a half; else where temporary files go."""
    shared = Path("/dev/shm")  # the directory made there is private
    roomy = shared.is_dir() and shutil.disk_usage(shared).free > total * 3 // 2
    with tempfile.TemporaryDirectory(prefix="coord-bench-", dir=shared if roomy else None) as directory:
        yield Path(directory)


if __name__ == "__main__":
    sys.exit(judged(measure, FLOORS))
