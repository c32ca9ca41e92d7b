"""Blobs that this machine has, by digest: bounded, the least recently used go first, each tenant's apart.

    cache/TENANT/AA/DIGEST   0400, verified; its time of modification says so (`seal`)
    cache/.parts/            what is being fetched, or was cut off: a later fetch goes on behind it
    cache/.boot              the boot of the machine in which all of this was written

Nothing is synced: a cache may be lost. What must not happen is that a file counts whose bytes never reached the disk,
so after another boot, and whenever a time or a size is not what we set, a file is read and compared before it is used.

The book below is the event loop's; what touches the disk is in functions that run in threads and know no book.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from blake3 import blake3
from msgspec import Struct

from coordinator.agent.log import logger
from coordinator.core.errors import CoordError
from coordinator.core.ids import check_name, digest_named

PARTS, BOOT = ".parts", ".boot"
SPARE_BYTES = 16 << 20
"""Of the file system, that is never filled: others write there, too. A small one keeps a sixteenth."""
READ_BYTES = 1 << 20
TOLD_MAX = 512
T = TypeVar("T")

BlobKey = tuple[str, str]
"""Tenant and digest."""


class NoRoom(Exception):
    """The disk is full, or so small that this cannot be brought here. No job is to blame for it."""

    def __init__(self, need: int, free: int, where: str | Path) -> None:
        super().__init__(f"{need} bytes are needed and {max(0, free)} are free on {where}")
        self.need = need
        self.free = free


class Entry(Struct):
    """One blob, or the beginning of one."""

    size: int
    """That it takes on the disk."""
    used_s: float
    """Unix time."""
    whole: bool
    pins: int = 0
    """It is being used, or fetched: it stays."""


class CacheStatus(Struct, frozen=True, kw_only=True):
    """The cache in the answer of `coord agent status`."""

    files: int = 0
    size: int = 0
    """Bytes, beginnings included."""
    bytes_max: int = 0
    problem: str = ""
    """Why an attempt could not be staged here, if that was our disk, and no later one could."""


def seal_ns(digest: str) -> int:
    """The time of modification that a verified file is given: one that no write leaves behind."""
    return int(digest[:7], 16) * 1_000_000_000


class Cache:
    """The book. `load` comes first."""

    def __init__(self, root: Path, bytes_max: int, boot_id: str) -> None:
        self.root = root
        self._bytes_max = bytes_max
        self._boot_id = boot_id
        self.problem = ""
        self._entries: dict[BlobKey, Entry] = {}
        self._total = 0
        self._coming = 0
        """Bytes that fetches were promised, written or not."""
        self._going: set[BlobKey] = set()
        """What was forgotten to make room, and whose file is not unlinked yet."""
        self._released = asyncio.Event()
        self.changed = asyncio.Event()
        """What is told of it (`digests`) may be another since somebody cleared this."""

    async def load(self) -> None:
        """Find what an earlier daemon left. Where that cannot be read, nothing is there, and fetches will say why."""
        try:
            found = await asyncio.to_thread(scan, self.root, self._boot_id)
        except OSError as error:
            logger.error("the cache cannot be used: %s: %s", error.filename, error.strerror)
            return
        self._entries = found
        self._total = sum(entry.size for entry in found.values())
        if found:
            self.changed.set()

    # ---- the book

    def path(self, key: BlobKey) -> Path:
        """Where it is, or will be."""
        tenant, digest = key
        return self.root / tenant / digest[:2] / digest

    def part(self, key: BlobKey) -> Path:
        """Where it is while it comes."""
        tenant, digest = key
        return self.root / PARTS / f"{digest}.{tenant}"

    def has(self, key: BlobKey) -> bool:
        entry = self._entries.get(key)
        return entry is not None and entry.whole

    @contextmanager
    def pinned(self, key: BlobKey) -> Iterator[None]:
        """It stays while the block runs, and counts as used now."""
        entry = self._entries.get(key)
        if entry is None:
            yield
            return
        entry.pins += 1
        entry.used_s = time.time()
        try:
            yield
        finally:
            entry.pins -= 1
            self._released.set()

    def digests(self, most: int = TOLD_MAX) -> tuple[str, ...]:
        """The whole ones, the last used first."""
        whole = [(entry.used_s, key[1]) for key, entry in self._entries.items() if entry.whole]
        whole.sort(reverse=True)
        return tuple(dict.fromkeys(digest for _, digest in whole[: 2 * most]))[:most]

    @property
    def bytes_max(self) -> int:
        return self._bytes_max

    def status(self) -> CacheStatus:
        """For people."""
        files = sum(entry.whole for entry in self._entries.values())
        return CacheStatus(files=files, size=self._total, bytes_max=self._bytes_max, problem=self.problem)

    def forget(self, key: BlobKey) -> None:
        """Its files are gone."""
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._total -= entry.size
            self._news(entry)

    def put(self, key: BlobKey, size: int, whole: bool) -> None:
        """It takes so much now; `whole`: it was verified, and is in its place."""
        before = self._entries.get(key)
        if before is not None:
            self._total -= before.size
        self._entries[key] = entry = Entry(
            size=size, used_s=time.time(), whole=whole, pins=before.pins if before else 0
        )
        self._total += size
        self._news(entry)

    def _news(self, entry: Entry) -> None:
        self._released.set()
        if entry.whole:
            self.changed.set()

    # ---- room

    async def promise(self, size: int, there: int = 0) -> None:
        """Have room for a blob of so many bytes, in the bound and on the disk, of which so many lie `there` already;
        `keep` gives it back.

        What nobody uses goes for it, the least recently used first. While others fetch or use something their end is
        awaited. One blob that is larger than the whole bound is let in alone. NoRoom when the disk has none.
        """
        while True:
            free = await asyncio.to_thread(free_bytes, self.root) - self._coming
            over = self._total + self._coming + size - self._bytes_max
            if await self.make_room(max(over, size - there - free)):
                continue
            busy = self._coming or any(entry.pins for entry in self._entries.values())
            if size - there <= free and (over <= 0 or not busy):
                self._coming += size
                return
            if not busy:
                raise NoRoom(size - there, free, self.root)
            self._released.clear()
            await self._released.wait()

    async def promise_at_once(self, size: int) -> bool:
        """The same for what is worth no waiting: False, and nothing was removed, where there is no room for it now."""
        while True:
            free = await asyncio.to_thread(free_bytes, self.root) - self._coming
            short = max(self._total + self._coming + size - self._bytes_max, size - free)
            if short <= 0:
                self._coming += size
                return True
            idle = sum(entry.size for entry in self._entries.values() if not entry.pins)
            if size > self._bytes_max or idle < short or not await self.make_room(short):
                return False

    def keep(self, size: int) -> None:
        """What was promised is written, and was `put`; or it will not be."""
        self._coming -= size
        self._released.set()

    async def make_room(self, size: int) -> bool:
        """Have so many bytes more free on the disk, if others are not used; whether anything was removed."""
        victims = self._victims(size)
        files = [self._file(key) for key in victims]
        for key in victims:  # from now on nobody is given it; and nobody fetches it before its file is gone
            self.forget(key)
        self._going.update(victims)
        try:
            if victims:
                await to_its_end(asyncio.to_thread(_unlink_all, files))
        finally:
            self._going.difference_update(victims)
            self._released.set()
        return bool(victims)

    def is_going(self, key: BlobKey) -> bool:
        """What was removed under this name is on the disk still."""
        return key in self._going

    async def gone(self, key: BlobKey) -> None:
        """Wait until what was removed under this name is off the disk."""
        while key in self._going:
            self._released.clear()
            await self._released.wait()

    def _victims(self, size: int) -> list[BlobKey]:
        """Those that go for so many bytes: beginnings first, then by their last use."""
        if size <= 0:
            return []
        idle = sorted(
            ((entry.whole, entry.used_s, key) for key, entry in self._entries.items() if not entry.pins),
        )
        victims: list[BlobKey] = []
        for _, _, key in idle:
            if size <= 0:
                break
            victims.append(key)
            size -= self._entries[key].size
        return victims

    def _file(self, key: BlobKey) -> Path:
        return self.path(key) if self._entries[key].whole else self.part(key)


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """`work`, which a caller that is cancelled waits for all the same: nothing of it goes on afterwards."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


# ---- the disk: in threads


def scan(root: Path, boot_id: str) -> dict[BlobKey, Entry]:
    """What lies there. After another boot nothing counts as verified; what is no blob of ours is removed."""
    (root / PARTS).mkdir(mode=0o700, parents=True, exist_ok=True)
    marker = root / BOOT
    try:
        same_boot = marker.read_text() == boot_id
    except OSError:
        same_boot = False
    entries: dict[BlobKey, Entry] = {}
    for tenant in root.iterdir():
        if tenant.name in (BOOT, f"{BOOT}.new"):
            continue
        if tenant.name == PARTS:
            found = {key: entry for part in tenant.iterdir() if (key := _part_key(part.name)) for entry in _entry(part)}
        else:
            found = {
                key: entry
                for file in tenant.glob("??/*")
                if (key := _key(tenant.name, file.name)) is not None and file.parent.name == file.name[:2]
                for entry in _entry(file, whole=True)
            }
            for _, digest in found if not same_boot else ():
                os.utime(tenant / digest[:2] / digest, ns=(time.time_ns(), 0))
        if not found and tenant.name != PARTS:
            _remove(tenant)
        entries |= found
    if not same_boot:
        fresh = root / f"{BOOT}.new"
        fresh.write_text(boot_id)
        fresh.rename(marker)
    return entries


def _entry(file: Path, whole: bool = False) -> list[Entry]:
    """One, or none where there is no file of ours."""
    found = file.lstat()
    if not stat.S_ISREG(found.st_mode):
        _remove(file)
        return []
    return [Entry(size=found.st_size, used_s=found.st_atime, whole=whole)]


def _part_key(name: str) -> BlobKey | None:
    return _key(name[65:], name[:64])


def _key(tenant: str, digest: str) -> BlobKey | None:
    try:
        return check_name(tenant, "tenant"), digest_named(digest)[1]
    except CoordError:
        return None


def _remove(path: Path) -> None:
    logger.warning("%s does not belong into the cache: removed", path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _unlink_all(paths: list[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()


def free_bytes(where: Path | int) -> int:
    """What a user without rights could still write there, less what is spared."""
    found = os.statvfs(where)
    spare = min(SPARE_BYTES, found.f_blocks * found.f_frsize // 16)
    return found.f_bavail * found.f_frsize - spare


def is_intact(path: Path, digest: str, size: int) -> bool:
    """Whether the file is what it was when it was verified; one that was touched is read and compared. If it is, its
    use is noted; if not, it is removed."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            good = found.st_size == size
            if good and found.st_mtime_ns != seal_ns(digest):
                good = digest_of(file.fileno()) == digest
                logger.info("%s was touched since it was verified: it is %s", path, "good" if good else "damaged")
    except OSError as error:
        logger.warning("%s cannot be read: %s", path, error.strerror)
        good = False
    if good:
        seal(path, digest)
    else:
        _unlink_all([path])
    return good


def seal(path: Path, digest: str) -> None:
    """Say that it is verified, and was used now."""
    os.utime(path, ns=(time.time_ns(), seal_ns(digest)))


def digest_of(fd: int) -> str:
    """Of all bytes of an open file."""
    hasher, at = blake3(), 0
    while data := os.pread(fd, READ_BYTES, at):
        hasher.update(data)
        at += len(data)
    return hasher.hexdigest()
