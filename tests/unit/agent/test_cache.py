"""The cache of blobs: its bound, who goes first, who stays, and what of an earlier daemon counts."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.agent import cache
from coordinator.agent.cache import Cache, NoRoom
from tests.unit.agent.data_side import digest_of

A, B, C, D = (digest_of(bytes([number])) for number in range(4))
T = "physics"


def keep(book: Cache, data: bytes, tenant: str = T) -> str:
    """Have a blob in it, as a fetch would."""
    digest = digest_of(data)
    path = book.path((tenant, digest))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    cache.seal(path, digest)
    book.put((tenant, digest), len(data), whole=True)
    return digest


def a_cache(root: Path, bytes_max: int = 1_000, boot_id: str = "boot-1") -> Cache:
    """What is found there after a start."""
    book = Cache(root / "cache", bytes_max, boot_id)
    asyncio.run(book.load())
    return book


def go(steps: Coroutine[Any, Any, None]) -> None:
    asyncio.run(steps)


async def turns() -> None:
    """Let whoever waits for a thread, and nothing else, get on."""
    for _ in range(5):
        await asyncio.to_thread(lambda: None)


async def have(book: Cache, number: int, size: int) -> str:
    """Fetch a blob of `size` bytes into it."""
    await book.promise(size)
    digest = keep(book, bytes([number]) * size)
    book.keep(size)
    return digest


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    """Their files, too, and no more of them than is needed; the sum stays within the bound all the time."""

    async def steps() -> None:
        book = a_cache_now(tmp_path)
        first, second, third = [await have(book, number, 300) for number in range(3)]
        with book.pinned((T, first)):
            pass  # used again
        fourth = await have(book, 3, 400)
        assert [book.has((T, digest)) for digest in (first, second, third, fourth)] == [True, False, True, True]
        assert not book.path((T, second)).exists()
        assert book.status().size == 1_000
        assert book.digests() == (fourth, first, third)

    go(steps())


def a_cache_now(root: Path, bytes_max: int = 1_000) -> Cache:
    """An empty one, inside of a loop."""
    book = Cache(root / "cache", bytes_max, "boot-1")
    cache.scan(book.root, "boot-1")
    return book


def test_what_is_in_use_stays(tmp_path: Path) -> None:
    """Room is made from the others; where there are none, whoever needs it waits until something is let go."""

    async def steps() -> None:
        book = a_cache_now(tmp_path)
        used, idle = await have(book, 0, 500), await have(book, 1, 500)
        with book.pinned((T, used)):
            other = await have(book, 2, 400)
            assert book.has((T, used))
            assert not book.has((T, idle))
            waiting = asyncio.create_task(have(book, 3, 900))
            while book.has((T, other)):
                await turns()
            await turns()
            assert not waiting.done()
            assert book.has((T, used))
        await asyncio.wait_for(waiting, 60)
        assert not book.has((T, used))

    go(steps())


def test_what_is_promised_counts_before_it_is_there(tmp_path: Path) -> None:
    """Two fetches at a time share the bound; a given up one gives it back."""

    async def steps() -> None:
        book = a_cache_now(tmp_path)
        await book.promise(600)
        waiting = asyncio.create_task(book.promise(600))
        await turns()
        assert not waiting.done()
        book.keep(600)
        await asyncio.wait_for(waiting, 60)
        book.keep(600)

    go(steps())


def test_a_blob_above_the_whole_bound_is_let_in_alone(tmp_path: Path) -> None:
    """A small cache fails nobody's job; the next one takes its room."""

    async def steps() -> None:
        book = a_cache_now(tmp_path)
        await have(book, 0, 500)
        large = await have(book, 1, 5_000)
        assert book.digests() == (large,)
        small = await have(book, 2, 10)
        assert book.digests() == (small,)

    go(steps())


def test_tenants_are_apart(tmp_path: Path) -> None:
    """The same bytes of another tenant are not there, and go by themselves."""

    async def steps() -> None:
        book = a_cache_now(tmp_path)
        digest = keep(book, b"same", "chemistry")
        assert book.has(("chemistry", digest))
        assert not book.has((T, digest))
        keep(book, b"same")
        assert book.digests() == (digest,)
        book.forget(("chemistry", digest))
        assert book.has((T, digest))

    go(steps())


def test_the_next_daemon_finds_it(tmp_path: Path) -> None:
    """With the order of use; what was half fetched is known as that, and goes first."""
    book = a_cache(tmp_path)
    for number in range(3):
        path = book.path((T, keep(book, bytes([number]) * 100)))
        os.utime(path, ns=(number * 10**9, path.stat().st_mtime_ns))
    book.part((T, D)).write_bytes(b"x" * 50)
    after = a_cache(tmp_path)
    newest_first = tuple(digest_of(bytes([number]) * 100) for number in (2, 1, 0))
    assert after.digests() == newest_first
    assert after.status().size == 350
    assert not after.has((T, D))

    async def steps() -> None:
        assert await after.make_room(60)
        assert not after.part((T, D)).exists()
        assert not after.has((T, newest_first[-1]))

    go(steps())


def test_what_is_no_blob_is_removed(tmp_path: Path) -> None:
    """Somebody's file, directory or link in the cache is never given to a job, nor kept."""
    book = a_cache(tmp_path)
    good = keep(book, b"good")
    for name in ("file", "..bad", "physics/00"):
        (book.root / name).mkdir(exist_ok=True)
        (book.root / name / "other").write_text("other")
    (book.root / "physics" / A[:2]).mkdir()
    (book.root / "physics" / A[:2] / A).symlink_to("/etc/passwd")
    (book.root / cache.PARTS / "thing").write_text("thing")
    assert a_cache(tmp_path).digests() == (good,)
    assert not (book.root / "file").exists()
    assert not (book.root / "physics" / A[:2] / A).is_symlink()


def test_a_file_that_was_touched_is_compared_before_it_is_used(tmp_path: Path) -> None:
    """Other bytes under the same name are never given out: neither of another length, nor of the same; a touched file
    that is still right is sealed again."""
    book = a_cache(tmp_path)
    path = book.path((T, keep(book, b"original")))
    digest = path.name
    assert cache.is_intact(path, digest, 8)
    path.write_bytes(b"original")
    assert cache.is_intact(path, digest, 8)
    assert path.stat().st_mtime_ns == cache.seal_ns(digest)
    path.write_bytes(b"0riginal")
    assert not cache.is_intact(path, digest, 8)
    assert not path.exists()
    path.write_bytes(b"orig")
    cache.seal(path, digest)
    assert not cache.is_intact(path, digest, 8)


def test_after_another_boot_every_file_is_compared(tmp_path: Path) -> None:
    """Nothing is synced: what a power cut left is damaged though its times are right. That holds however often the
    daemon is started before it is used."""
    book = a_cache(tmp_path)
    path = book.path((T, keep(book, b"original")))
    digest = path.name
    path.write_bytes(b"\0" * 8)
    cache.seal(path, digest)
    assert cache.is_intact(path, digest, 8), "within one boot the seal is believed"
    for _ in range(2):
        assert a_cache(tmp_path, boot_id="boot-2").has((T, digest))
    assert not cache.is_intact(path, digest, 8)


def test_an_unusable_cache_is_no_end(tmp_path: Path) -> None:
    """The daemon lives without it."""
    (tmp_path / "cache").write_text("a file")
    assert a_cache(tmp_path).digests() == ()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    mount = tmp_path / "disk"
    mount.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "disk", str(mount)], check=False, capture_output=True
    )
    if made.returncode != 0:
        pytest.skip("no file system of our own can be made here")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True)


def test_a_full_disk_is_told_with_figures(small_disk: Path) -> None:
    """What the cache itself holds goes first; then it is said how much is needed, and how much there is."""

    async def steps() -> None:
        book = a_cache_now(small_disk, bytes_max=1 << 30)
        old = await have(book, 0, 2 << 20)
        new = await have(book, 1, 3 << 20)
        assert not book.has((T, old))
        (small_disk / "somebody").write_bytes(b"x" * (700 << 10))
        with pytest.raises(NoRoom) as refused:
            await book.promise(4 << 20)
        assert refused.value.need == 4 << 20
        assert 0 < refused.value.free < 4 << 20
        assert not book.has((T, new)), "everything that could go was tried"

    go(steps())


def test_a_blob_counts_once(tmp_path: Path) -> None:
    """However often it is put or forgotten."""
    book = a_cache(tmp_path)
    digest = keep(book, b"12345")
    book.put((T, digest), 5, whole=True)
    assert (book.status().files, book.status().size) == (1, 5)
    book.forget((T, digest))
    book.forget((T, digest))
    assert (book.status().files, book.status().size) == (0, 0)
