"""Blobs in a backup, back from one, and in a check: what rows say there is, is there, or it is told."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random

import pytest
from blake3 import blake3

from coordinator.core.commands import Delete, Put, Write
from coordinator.core.data.rows import BlobRow, HoldRow, UploadRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest, TenantName, UploadId
from coordinator.core.rows import AccountRow
from store import blob_check
from store.backup import read_contents
from store.blob_check import check_blobs
from store.check import check_files
from store.durable import DiskStore
from store.layout import DataDir
from store.restore import restore
from store.sqlite import open_reader, sqlite3
from tests.conformance.homes import DiskHome

A, B = TenantName("a:x"), TenantName("b")
CONTENTS = [b"", *(Random(n).randbytes(1_000 * n) for n in range(1, 6))]


def digest_of(content: bytes) -> Digest:
    return Digest(blake3(content).hexdigest())


def place_of(home: DiskHome, content: bytes, tenant: str = A) -> Path:
    digest = digest_of(content)
    return home.data.blobs / tenant / digest[:2] / digest


async def publish(store: DiskStore, content: bytes, tenant: TenantName = A) -> BlobRow:
    """Bytes, row and account, as a service does it; nobody holds it."""
    upload_id = secrets.token_hex(16)
    await store.blob_files.begin(upload_id, len(content))
    await store.blob_files.write(upload_id, 0, [content])
    digest, _, size = await store.blob_files.finish(upload_id, tenant, "", "")
    row = BlobRow(tenant=tenant, digest=Digest(digest), size=size, created_at_ms=1, touched_ms=1)
    storage = {account.tenant: account.storage for account in await store.accounts()}.get(tenant, 0) + size
    await store.commit([Put(row), Put(AccountRow(tenant=tenant, month=202_611, storage=storage))])
    return row


async def fill(store: DiskStore) -> None:
    """Five blobs of one tenant, held; one of them another's too; one that is on its way."""
    rows = [await publish(store, content) for content in CONTENTS]
    await publish(store, CONTENTS[1], B)
    digests = tuple(sorted(row.digest for row in rows))
    upload = UploadRow(upload_id=UploadId("f" * 32), tenant=A, size=9, opened_at_ms=1, expires_at_ms=2, by="x")
    holds: list[Write] = [Put(HoldRow(tenant=A, holder="job:1", digests=digests)), Put(upload)]
    await store.commit(holds)
    await store.blob_files.begin("f" * 32, 9)
    await store.blob_files.write("f" * 32, 0, [b"half"])


async def read_all(store: DiskStore) -> list[bytes]:
    assert CONTENTS[1] == await store.blob_files.read(B, digest_of(CONTENTS[1]), 9_999)
    return [await store.blob_files.read(A, digest_of(content), 9_999) for content in CONTENTS]


def test_a_backup_brings_every_blob_back(tmp_path: Path) -> None:
    """Linked, not copied, on one file system; an open upload begins anew; what is collected later stays in the backup,
    and what is removed from the restored store stays there too."""
    home, again = DiskHome(tmp_path / "data"), DiskHome(tmp_path / "again")

    async def save(store: DiskStore) -> Path:
        await fill(store)
        path = await store.backup(tmp_path / "backups")
        digest = digest_of(CONTENTS[2])
        assert len(CONTENTS[2]) == await store.blob_files.remove([(A, digest)])
        return path

    backup = home.run(save)
    assert () == read_contents(backup).missing
    assert not any(file.path.startswith("blobs/") for file in read_contents(backup).files)
    assert place_of(home, CONTENTS[3]).stat().st_nlink == 2
    assert restore(backup, again.data.path) is None

    async def look(store: DiskStore) -> None:
        assert CONTENTS == await read_all(store)
        assert 0 == await store.blob_files.begin("f" * 32, 9)
        assert () == (await store.check()).problems
        await store.blob_files.remove([(A, digest_of(content)) for content in CONTENTS])

    again.run(look)
    read_contents(backup)
    assert CONTENTS[4] == (backup / "blobs" / place_of(home, CONTENTS[4]).relative_to(home.data.blobs)).read_bytes()
    assert {0o700} == {path.stat().st_mode & 0o777 for path in again.data.blobs.rglob("*") if path.is_dir()}


def test_the_blobs_of_before_a_restore_are_kept_beside(tmp_path: Path) -> None:
    """They belong to the store that was replaced."""
    home, other = DiskHome(tmp_path / "data"), DiskHome(tmp_path / "other")

    async def save(store: DiskStore) -> Path:
        await fill(store)
        return await store.backup(tmp_path / "backups")

    async def before(store: DiskStore) -> None:
        await publish(store, b"of before")

    backup = home.run(save)
    other.run(before)
    aside = restore(backup, other.data.path)
    assert aside is not None
    place = place_of(other, b"of before").relative_to(other.data.path)
    assert b"of before" == (aside / place).read_bytes()
    assert not (other.data.path / place).exists()
    assert CONTENTS == other.run(read_all)


def test_a_collection_beside_a_backup_takes_nothing_from_it(tmp_path: Path) -> None:
    """Rows that go, and bytes that are removed, while a backup is made: it has every blob that its rows name."""
    home = DiskHome(tmp_path / "data")
    contents = [Random(n).randbytes(200 + n) for n in range(60)]

    async def story(store: DiskStore) -> Path:
        rows = [await publish(store, content) for content in contents]

        async def collect() -> None:
            for row in rows:
                await store.commit([Delete("blob", (row.tenant, row.digest))])
                await store.blob_files.remove([(row.tenant, row.digest)])

        async with asyncio.TaskGroup() as group:
            saving = group.create_task(store.backup(tmp_path / "backups"))
            group.create_task(collect())
        assert [] == await store.blob_files.stored(1 << 60, 99)
        return saving.result()

    backup = home.run(story)
    assert () == read_contents(backup).missing
    with closing(open_reader(backup / "truth.sqlite")) as truth:
        (saved,) = truth.execute("SELECT count(*) FROM blob").fetchone()
    assert saved == sum(1 for path in (backup / "blobs").rglob("*") if path.is_file())


def test_a_lost_blob_keeps_nothing_else_from_being_saved(tmp_path: Path) -> None:
    """It is named in the backup and reported; a restore brings everything else."""
    home, again = DiskHome(tmp_path / "data"), DiskHome(tmp_path / "again")
    lost = digest_of(CONTENTS[2])

    async def save(store: DiskStore) -> Path:
        await fill(store)
        place_of(home, CONTENTS[2]).unlink()
        os.truncate(place_of(home, CONTENTS[3]), 10)
        path = await store.backup(tmp_path / "backups")
        assert any(f"blobs/{A}/{lost} is lost" in problem for problem in store.set_aside)
        return path

    backup = home.run(save)
    assert {f"{A}/{lost}", f"{A}/{digest_of(CONTENTS[3])}"} == set(read_contents(backup).missing)
    told: list[str] = []
    restore(backup, again.data.path, report=told.append)
    assert 2 == len(told) and all("is lost" in line for line in told)

    async def look(store: DiskStore) -> None:
        assert CONTENTS[4] == await store.blob_files.read(A, digest_of(CONTENTS[4]), 9_999)
        with pytest.raises(CoordError):
            await store.blob_files.read(A, lost, 9_999)

    again.run(look)


@pytest.mark.parametrize("spoil", ["missing", "cut"])
def test_a_backup_without_all_its_blobs_is_refused(tmp_path: Path, spoil: str) -> None:
    """Before anything of the data directory is touched."""
    home = DiskHome(tmp_path / "data")

    async def save(store: DiskStore) -> Path:
        await fill(store)
        return await store.backup(tmp_path / "backups")

    backup = Path(shutil.copytree(home.run(save), tmp_path / "copied"))
    file = backup / "blobs" / place_of(home, CONTENTS[4]).relative_to(home.data.blobs)
    if spoil == "missing":
        file.unlink()
    else:
        os.truncate(file, 10)
    with pytest.raises(CoordError) as refusal:
        restore(backup, home.data.path)
    assert Code.BAD_REQUEST is refusal.value.code
    assert file.name in refusal.value.message
    assert CONTENTS == home.run(read_all)


@pytest.fixture
def another_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own: nothing can be linked to it."""
    path = tmp_path / "elsewhere"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {mounted.stderr.strip() or 'mount failed'}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_on_another_disk_blobs_are_copied_and_verified(tmp_path: Path, another_disk: Path) -> None:
    """A damaged one is not copied as if it were whole; those that are come back, private."""
    home, again = DiskHome(tmp_path / "data"), DiskHome(tmp_path / "again")

    async def save(store: DiskStore) -> Path:
        await fill(store)
        place_of(home, CONTENTS[2]).write_bytes(b"x" * len(CONTENTS[2]))
        return await store.backup(another_disk / "backups")

    backup = home.run(save)
    assert (f"{A}/{digest_of(CONTENTS[2])}",) == read_contents(backup).missing
    copies = [path for path in (backup / "blobs").rglob("*") if path.is_file()]
    assert (6, {0o600}) == (len(copies), {path.stat().st_mode & 0o777 for path in copies})
    restore(backup, again.data.path)

    async def look(store: DiskStore) -> None:
        assert CONTENTS[5] == await store.blob_files.read(A, digest_of(CONTENTS[5]), 9_999)
        assert CONTENTS[1] == await store.blob_files.read(B, digest_of(CONTENTS[1]), 9_999)

    again.run(look)


# ---- check


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "data"
    DiskHome(path).run(fill)
    return path


@pytest.fixture
def home(filled: Path, tmp_path: Path) -> DiskHome:
    """Its own copy of a data directory with blobs."""
    return DiskHome(Path(shutil.copytree(filled, tmp_path / "data")))


def problems_of(home: DiskHome) -> tuple[str, ...]:
    return check_files(home.data.path).problems


def test_a_check_counts_blobs_and_finds_nothing_wrong(home: DiskHome) -> None:
    """Whether it runs beside a coordinator or on files alone; it changes nothing."""
    before = set(home.data.path.rglob("*"))
    report = check_files(home.data.path)
    assert (7, 0, 0, ()) == (report.blobs, report.unread, report.ownerless, report.problems)
    new = set(home.data.path.rglob("*")) - before
    assert {".sqlite-wal", ".sqlite-shm"} >= {path.suffix for path in new}, "what any reader of a database leaves"
    beside = home.run(lambda store: store.check())
    assert (7, 0, 0, ()) == (beside.blobs, beside.unread, beside.ownerless, beside.problems)


def test_a_check_names_blobs_that_are_lost_or_damaged(home: DiskHome) -> None:
    """A missing one, a short one, one with a wrong bit: each by its place."""
    place_of(home, CONTENTS[1]).unlink()
    os.truncate(place_of(home, CONTENTS[2]), 3)
    content = bytearray(CONTENTS[3])
    content[700] ^= 4
    place_of(home, CONTENTS[3]).write_bytes(content)
    places = {n: place_of(home, CONTENTS[n]).relative_to(home.data.path) for n in (2, 3)}
    assert {
        f"blobs/{A}/{digest_of(CONTENTS[1])} is missing",
        f"{places[2]} has 3 bytes, not 2000",
        f"{places[3]} is damaged: its bytes are not those of its digest",
    } == set(problems_of(home))


def test_a_check_tells_bytes_of_nobody(home: DiskHome) -> None:
    """What a crash left is counted; only what no sweep collected for two days is a problem."""
    stray = place_of(home, b"stray")
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"stray")
    report = check_files(home.data.path)
    assert (7, 1, ()) == (report.blobs, report.ownerless, report.problems)
    later_ms = time.time_ns() // 1_000_000 + blob_check.OWNERLESS_MS + 1_000
    problems: list[str] = []
    with closing(open_reader(home.data.truth)) as truth:
        check_blobs(home.data.blobs, truth, problems, now_ms=later_ms)
    assert [f"{stray.relative_to(home.data.path)} belongs to no row, and was not collected"] == problems


def test_a_check_names_holds_of_what_is_not_there(home: DiskHome) -> None:
    """And sums that are wrong without it."""
    gone = digest_of(CONTENTS[4])

    async def forget(store: DiskStore) -> None:
        await store.commit([Delete("blob", (A, gone))])

    home.run(forget)
    place_of(home, CONTENTS[4]).unlink()
    assert {
        f"hold job:1 of tenant {A} names 1 blobs that are not there, {gone} for one",
        f"truth.sqlite: account {A} has storage 15000, its blobs add up to 11000",
    } == set(problems_of(home))


@pytest.mark.parametrize(
    ("statement", "problem"),
    [
        ("UPDATE blob SET held = 0", "is held is not what the holds say"),
        ("DROP TRIGGER held_ends; DELETE FROM held", "the table of who holds"),
        ("DELETE FROM account", "has storage 0, its blobs add up to"),
    ],
)
def test_a_check_compares_the_books_of_holds(home: DiskHome, statement: str, problem: str) -> None:
    """Derived columns and sums that somebody changed by hand are found."""
    with closing(sqlite3.connect(str(home.data.truth))) as connection:
        connection.executescript(statement)
        connection.commit()
    assert any(problem in told for told in problems_of(home))


def test_a_check_with_little_time_reads_some_and_says_how_many_not(home: DiskHome) -> None:
    """Repeated, it gets to all of them: it begins at random."""
    place_of(home, CONTENTS[3]).write_bytes(b"x" * len(CONTENTS[3]))
    with closing(open_reader(home.data.truth)) as truth:
        problems: list[str] = []
        found = check_blobs(home.data.blobs, truth, problems, seconds=0.0)
        assert (7, 7, []) == (found.blobs, found.unread, problems)
        found = check_blobs(home.data.blobs, truth, problems, seconds=60.0)
        assert (0, 1) == (found.unread, len(problems))


def test_a_data_directory_without_blobs_is_checked_all_the_same(tmp_path: Path) -> None:
    """One of before there were any, that no newer coordinator has opened."""
    home = DiskHome(tmp_path / "data")

    async def nothing(store: DiskStore) -> None:
        await store.load()

    home.run(nothing)
    shutil.rmtree(home.data.blobs)
    assert () == check_files(home.data.path).problems
    assert not home.data.blobs.exists()
    assert DataDir(home.data.path).truth.exists()
