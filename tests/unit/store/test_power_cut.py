"""The power goes: what was acknowledged of jobs, logs and blobs is there, on a file system that forgets the rest."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import shutil
import struct
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from blake3 import blake3

from coordinator.core.commands import Put
from coordinator.core.data.rows import BlobRow
from coordinator.core.errors import CoordError
from coordinator.core.ids import Digest, JobId, TenantName
from coordinator.core.rows import WorkState
from coordinator.ports.logs import LogKey, LogWrite
from store.durable import DiskStore
from store.sqlite import sqlite3
from tests.conformance.homes import DiskHome, a_job, a_spec, a_step, a_task, an_attempt, an_audit

SHUT_DOWN = 0x8004587D
"""EXT4_IOC_SHUTDOWN: from now on every write fails, and what was not synced is lost."""
NO_FLUSH = struct.pack("I", 2)
STREAMS = 6
TENANT = TenantName("t")


class Disk:
    """A file system of its own, in a file, whose power can be cut."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "mounted"
        self._image = directory / "image"
        self.path.mkdir()
        with self._image.open("wb") as image:
            image.truncate(64 * 1024 * 1024)
        subprocess.run(["mkfs.ext4", "-q", str(self._image)], check=True, capture_output=True)

    def mount(self) -> None:
        command = ["mount", "-o", "loop", str(self._image), str(self.path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            pytest.skip(f"a file system in a file cannot be mounted here: {done.stderr.strip() or 'mount failed'}")

    def cut_power(self) -> None:
        fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, SHUT_DOWN, NO_FLUSH)
        finally:
            os.close(fd)

    def unmount(self) -> None:
        subprocess.run(["umount", str(self.path)], check=False, capture_output=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("mkfs.ext4 is not installed")
    made = Disk(tmp_path)
    made.mount()
    try:
        yield made
    finally:
        made.unmount()


def said(job: int, task: int) -> bytes:
    """What a task writes in one go: known from its number."""
    return b"%d.%d " % (job, task) * 700


async def write_until(store: DiskStore, disk: Disk, acknowledged: dict[int, dict[LogKey, int]]) -> None:
    """A job, then its logs by several callers at once, again and again; the power goes amid the eighth."""
    for job in range(1, 100):
        rows = (a_job(job, WorkState.RUNNING), a_spec(job), a_step(job), a_task(job), an_attempt(job, token=job))
        await store.commit([Put(row) for row in (*rows, an_audit(job))])
        acknowledged[job] = {}
        keys = [LogKey((JobId(job), 0, task, 1), 0, task % 2) for task in range(STREAMS)]
        calls = [
            asyncio.ensure_future(store.logs.append([LogWrite(key, 0, said(job, key.attempt_id[2]), job)]))
            for key in keys
        ]
        if job == 8:
            disk.cut_power()
        for answer in await asyncio.gather(*calls, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
            acknowledged[job] |= answer


def test_nothing_acknowledged_goes_with_the_power(disk: Disk) -> None:
    """Jobs, leases, their audit and every acknowledged byte of their logs, new files and directories included."""
    home = DiskHome(disk.path / "data")
    acknowledged: dict[int, dict[LogKey, int]] = {}

    async def until_the_cut(store: DiskStore) -> None:
        with pytest.raises((CoordError, sqlite3.Error)):
            await write_until(store, disk, acknowledged)

    with suppress(CoordError, OSError):
        home.run(until_the_cut)
    assert 8 == max(acknowledged)
    disk.unmount()
    disk.mount()

    async def look(store: DiskStore) -> None:
        loaded = await store.load()
        assert set(acknowledged) <= {row.job_id for row in await store.jobs(None, 100)}
        assert loaded.next_token > max(acknowledged)
        assert loaded.next_audit > max(acknowledged)
        for job, streams in acknowledged.items():
            for key, length in streams.items():
                data = await store.logs.read(key, 0, 1_000_000)
                assert len(data) >= length > 0
                assert said(job, key.attempt_id[2]).startswith(data)
                marks = await store.logs.marks(key.attempt_id, 0, 0, 100)
                assert len(data) == sum(mark.length for mark in marks)
        assert 7 * STREAMS <= sum(map(len, acknowledged.values()))
        assert () == (await store.check()).problems

    home.run(look)


def content_of(number: int) -> bytes:
    return random.Random(number).randbytes(150_000 + number)


async def publish_until(store: DiskStore, disk: Disk, acknowledged: list[int]) -> None:
    """Blob after blob, several at once, each counted when its row is durable; the power goes amid the seventh round."""

    async def one(number: int) -> None:
        content, upload_id = content_of(number), f"{number:032x}"
        await store.blob_files.begin(upload_id, len(content))
        await store.blob_files.write(upload_id, 0, [content])
        digest, _, size = await store.blob_files.finish(upload_id, TENANT, "", "")
        row = BlobRow(tenant=TENANT, digest=Digest(digest), size=size, created_at_ms=1, touched_ms=1)
        async with alone:
            await store.commit([Put(row)])
        acknowledged.append(number)

    alone = asyncio.Lock()
    for begin in range(0, 400, STREAMS):
        ones = [asyncio.ensure_future(one(number)) for number in range(begin, begin + STREAMS)]
        if begin == 6 * STREAMS:
            disk.cut_power()
        for answer in await asyncio.gather(*ones, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer


def test_no_published_blob_goes_with_the_power(disk: Disk) -> None:
    """Its row, its name, the directories that lead to it and every byte are there; no row is without its bytes."""
    home = DiskHome(disk.path / "data")
    acknowledged: list[int] = []

    async def until_the_cut(store: DiskStore) -> None:
        with pytest.raises((CoordError, sqlite3.Error)):
            await publish_until(store, disk, acknowledged)

    with suppress(CoordError, OSError):
        home.run(until_the_cut)
    assert 6 * STREAMS <= len(acknowledged) < 400
    disk.unmount()
    disk.mount()

    async def look(store: DiskStore) -> None:
        rows = {row.digest: row for row in await store.list_blobs(None, 999)}
        for number in acknowledged:
            content = content_of(number)
            assert content == await store.blob_files.read(TENANT, blake3(content).hexdigest(), len(content))
            assert blake3(content).hexdigest() in rows
        problems = (await store.check()).problems
        assert [] == [problem for problem in problems if "account" not in problem]

    home.run(look)
