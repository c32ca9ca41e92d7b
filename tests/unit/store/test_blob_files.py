"""Bytes of blobs on local disk: no link is followed, a full disk keeps what fitted, modes are as promised."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from store import blob_upload
from store.blob_files import DiskBlobs
from store.failpoints import FailPoints
from store.layout import DataDir
from store.settings import StoreSettings

A = TenantName("a")
ID = "1" * 32


def digest_of(data: bytes) -> str:
    return blake3(data).hexdigest()


def on(data: DataDir, story: Callable[[DiskBlobs], Awaitable[None]], settings: StoreSettings | None = None) -> None:
    data.make()

    async def told() -> None:
        blobs = DiskBlobs(data, settings or StoreSettings(), FailPoints())
        try:
            await story(blobs)
        finally:
            await blobs.close()
            await blobs.close()

    asyncio.run(told())


async def put(blobs: DiskBlobs, content: bytes, upload_id: str = ID) -> str:
    await blobs.begin(upload_id, len(content))
    await blobs.write(upload_id, 0, [content])
    return (await blobs.finish(upload_id, A, "", ""))[0]


async def refused(asked: Awaitable[object]) -> CoordError:
    with pytest.raises(CoordError) as refusal:
        await asked
    return refusal.value


def test_nobody_else_may_read_what_lies_there(tmp_path: Path) -> None:
    """Directories 0700, files 0600, at the place that the module names; no other file is left over."""
    data = DataDir(tmp_path / "data")

    async def story(blobs: DiskBlobs) -> None:
        digest = await put(blobs, b"x")
        assert (data.blobs / "a" / digest[:2] / digest).read_bytes() == b"x"
        await blobs.begin("2" * 32, 4)

    old = os.umask(0)
    try:
        on(data, story)
    finally:
        os.umask(old)
    files = [path for path in data.blobs.rglob("*") if path.is_file()]
    assert {0o600} == {path.stat().st_mode & 0o777 for path in files}
    assert {0o700} == {path.stat().st_mode & 0o777 for path in (data.blobs, *data.blobs.rglob("*")) if path.is_dir()}
    assert 2 == len(files)


@pytest.mark.parametrize("part", ["tenant", "directory", "file", "upload"])
def test_a_link_in_the_way_is_not_followed(tmp_path: Path, part: str) -> None:
    """Whoever could put one there reads, writes and removes nothing outside through us."""
    data = DataDir(tmp_path / "data")
    outside = tmp_path / "outside"
    content = b"secret"
    digest = digest_of(content)
    place = {
        "tenant": "a",
        "directory": f"a/{digest[:2]}",
        "file": f"a/{digest[:2]}/{digest}",
        "upload": f".uploads/{ID}",
    }

    async def story(blobs: DiskBlobs) -> None:
        link = data.blobs / place[part]
        target = outside / {"tenant": "", "directory": digest[:2]}.get(part, f"{digest[:2]}/{digest}")
        (outside / digest[:2]).mkdir(parents=True)
        (outside / digest[:2] / digest).write_bytes(content)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
        if part == "upload":
            assert Code.CONFLICT is (await refused(blobs.begin(ID, 6))).code
            return
        for asked in (blobs.open_blob(A, digest), blobs.read(A, digest, 99)):
            assert Code.CONFLICT is (await refused(asked)).code
        if part == "file":
            await blobs.remove([(A, digest)])  # the link, not what it leads to
            assert not link.is_symlink()
            return
        assert Code.CONFLICT is (await refused(blobs.remove([(A, digest)]))).code
        await blobs.begin(ID, len(content))
        await blobs.write(ID, 0, [content])
        assert Code.CONFLICT is (await refused(blobs.finish(ID, A, digest, ""))).code
        link.unlink()
        assert digest == (await blobs.finish(ID, A, digest, ""))[0], "nothing of it was lost"

    on(data, story)
    assert content == (outside / digest[:2] / digest).read_bytes()


def test_what_is_no_plain_file_is_no_blob(tmp_path: Path) -> None:
    """A FIFO in its place does not hold a reader up; a directory is none."""
    data = DataDir(tmp_path / "data")

    async def story(blobs: DiskBlobs) -> None:
        digest = await put(blobs, b"x")
        path = data.blobs / "a" / digest[:2] / digest
        for make in (os.mkfifo, os.mkdir):
            path.rename(path.with_name("before")) if path.is_file() else None
            make(path)
            error = await refused(asyncio.wait_for(blobs.read(A, digest, 9), 60))
            assert Code.CONFLICT is error.code
            path.rmdir() if path.is_dir() else path.unlink()

    on(data, story)


def test_damaged_bytes_are_not_handed_out_as_what_they_were(tmp_path: Path) -> None:
    """Read as a whole they are verified; published anew they are mended."""
    data = DataDir(tmp_path / "data")

    async def story(blobs: DiskBlobs) -> None:
        digest = await put(blobs, b"right")
        (data.blobs / "a" / digest[:2] / digest).write_bytes(b"wrong")
        assert Code.BAD_DIGEST is (await refused(blobs.read(A, digest, 9))).code
        assert digest == await put(blobs, b"right", "2" * 32)
        assert b"right" == await blobs.read(A, digest, 9)

    on(data, story)


def test_a_file_that_others_changed_is_taken_as_it_is(tmp_path: Path) -> None:
    """Cut short, an upload goes on where its file ends; with other bytes in it, its digest is theirs; longer than was
    announced, it begins anew."""
    data = DataDir(tmp_path / "data")
    file = data.blobs / ".uploads" / ID

    async def story(blobs: DiskBlobs) -> None:
        await blobs.begin(ID, 10)
        await blobs.write(ID, 0, [b"12345678"])
        os.truncate(file, 4)
        assert Code.BAD_OFFSET is (await refused(blobs.write(ID, 8, [b"90"]))).code
        assert 4 == await blobs.begin(ID, 10)
        assert 10 == await blobs.write(ID, 4, [b"567890"])
        assert digest_of(b"1234567890") == (await blobs.finish(ID, A, "", ""))[0]
        await blobs.begin(ID, 4)
        file.write_bytes(b"longer than four")
        assert 0 == await blobs.begin(ID, 4)
        file.unlink()
        assert Code.UPLOAD_GONE is (await refused(blobs.write(ID, 0, [b"abcd"]))).code

    on(data, story)


def test_one_upload_is_written_by_one_at_a_time(tmp_path: Path) -> None:
    """Of many writes at one offset one counts; the bytes are those of that one, and the digest is theirs."""
    data = DataDir(tmp_path / "data")

    async def story(blobs: DiskBlobs) -> None:
        await blobs.begin(ID, 600_000)
        pieces = [bytes([number]) * 300_000 for number in range(20)]
        told = await asyncio.gather(*(blobs.write(ID, 0, [piece]) for piece in pieces), return_exceptions=True)
        assert 1 == told.count(300_000)
        assert {Code.BAD_OFFSET} == {error.code for error in told if isinstance(error, CoordError)}
        assert 600_000 == await blobs.write(ID, 300_000, [pieces[0]])
        won = pieces[told.index(300_000)]
        assert digest_of(won + pieces[0]) == (await blobs.finish(ID, A, digest_of(won + pieces[0]), ""))[0]

    on(data, story)


def test_a_caller_that_goes_away_leaves_whole_pieces(tmp_path: Path) -> None:
    """Cancelled amid a write, that piece arrives all the same or not at all; the upload goes on behind it."""
    data = DataDir(tmp_path / "data")
    content = Random(4).randbytes(5_000_000)

    async def story(blobs: DiskBlobs) -> None:
        await blobs.begin(ID, len(content))
        writing = asyncio.ensure_future(blobs.write(ID, 0, [content[:3_000_000]]))
        await asyncio.sleep(0)
        writing.cancel()
        end = await blobs.begin(ID, len(content))
        assert end in (0, 3_000_000)
        await blobs.write(ID, end, [content[end:]])
        await blobs.finish(ID, A, digest_of(content), "")

    on(data, story)


def test_more_pieces_than_one_call_of_the_kernel_takes(tmp_path: Path) -> None:
    """Thousands of small ones are one write."""
    data = DataDir(tmp_path / "data")
    pieces = [bytes([n % 251]) * (n % 7) for n in range(3 * blob_upload.IOV_MAX)]
    content = b"".join(pieces)

    async def story(blobs: DiskBlobs) -> None:
        await blobs.begin(ID, len(content))
        assert len(content) == await blobs.write(ID, 0, pieces)
        assert digest_of(content) == (await blobs.finish(ID, A, "", ""))[0]
        assert content == await blobs.read(A, digest_of(content), len(content))

    on(data, story)


def test_bytes_go_away_only_when_no_backup_needs_them(tmp_path: Path) -> None:
    """Removed meanwhile their files stay until it is done, found by nobody else; published anew they are there."""
    data = DataDir(tmp_path / "data")

    async def story(blobs: DiskBlobs) -> None:
        one, two = await put(blobs, b"one", "1" * 32), await put(blobs, b"two", "2" * 32)
        async with blobs.kept(), blobs.kept():
            assert 0 == await blobs.remove([(A, one), (A, two)])
            assert (data.blobs / A / one[:2] / one).exists()
            assert Code.NOT_FOUND is (await refused(blobs.open_blob(A, one))).code, (
                "whose row is gone may not count on it"
            )
            assert [] == await blobs.stored(1 << 60, 9)
            await put(blobs, b"two", "3" * 32)
            assert b"two" == await blobs.read(A, two, 9)
        assert not (data.blobs / A / one[:2] / one).exists()
        assert b"two" == await blobs.read(A, two, 9)
        assert 3 == await blobs.remove([(A, two)])

    on(data, story)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MB."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip() or 'mount failed'}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_keeps_what_fitted(small_disk: Path) -> None:
    """STORE_FULL amid a piece: the upload ends somewhere in it, goes on there when there is room, and is right."""
    data = DataDir(small_disk / "data")
    content = Random(5).randbytes(3_500_000)

    async def story(blobs: DiskBlobs) -> None:
        filler = small_disk / "filler"
        await blobs.begin(ID, len(content))
        await blobs.write(ID, 0, [content[:1_000_000]])
        filler.write_bytes(bytes(2_000_000))
        blobs._leave_room = lambda length: None  # type: ignore[method-assign]  # as if the others took it meanwhile
        error = await refused(blobs.write(ID, 1_000_000, [content[1_000_000:]]))
        assert Code.STORE_FULL is error.code
        filler.unlink()
        end = await blobs.begin(ID, len(content))
        assert 1_000_000 < end < len(content)
        await blobs.write(ID, end, [content[end:]])
        assert digest_of(content) == (await blobs.finish(ID, A, digest_of(content), ""))[0]
        assert None is blobs.broken

    on(data, story)


def test_blobs_leave_room_for_everything_else(small_disk: Path) -> None:
    """An upload that cannot fit is refused at its beginning, a piece before anything of it is written."""
    data = DataDir(small_disk / "data")

    async def story(blobs: DiskBlobs) -> None:
        assert Code.STORE_FULL is (await refused(blobs.begin(ID, 5_000_000))).code
        assert 0 == await blobs.begin("2" * 32, 2_000_000)
        (small_disk / "filler").write_bytes(bytes(3_800_000))
        error = await refused(blobs.write("2" * 32, 0, [bytes(400_000)]))
        assert Code.STORE_FULL is error.code
        assert "leave" in error.message
        assert 0 == (data.blobs / ".uploads" / ("2" * 32)).stat().st_size

    on(data, story, StoreSettings(blobs_leave_bytes=150_000))


def test_a_broken_disk_refuses_everything_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a sync that failed nothing is promised any more."""
    data = DataDir(tmp_path / "data")

    async def story(blobs: DiskBlobs) -> None:
        other = await put(blobs, b"other", "2" * 32)
        await blobs.begin(ID, 1)
        await blobs.write(ID, 0, [b"x"])

        def failing(fd: int) -> None:
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", failing)
            assert Code.STORE_BROKEN is (await refused(blobs.finish(ID, A, "", ""))).code
        for asked in (blobs.finish(ID, A, "", ""), blobs.read(A, other, 9), blobs.begin("3" * 32, 1)):
            assert Code.STORE_BROKEN is (await refused(asked)).code
        assert blobs.broken is not None and Code.STORE_BROKEN is blobs.broken.code

    on(data, story)
