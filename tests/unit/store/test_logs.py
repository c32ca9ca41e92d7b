"""Stored logs on a real disk: what a crash, a full disk and damage leave of them, and who may read them."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coordinator.core.commands import Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, JobId
from coordinator.ports.logs import LogKey, LogMark, LogWrite
from store import log_files
from store.durable import DiskStore
from store.log_files import INDEX, log_path
from store.log_index import RECORD_BYTES, Arrival, arrivals, decoded, encoded, mended
from store.logs import DiskLogs
from store.settings import StoreSettings
from tests.conformance.homes import DiskHome, a_job, a_spec, a_step

ATTEMPT: AttemptId = (JobId(1_234), 0, 7, 2)
RANK = (ATTEMPT, 0)
OUT, ERR = LogKey(ATTEMPT, 0, 0), LogKey(ATTEMPT, 0, 1)


async def talk(logs: DiskLogs, words: str = "o1 e22 o333 e4444 o5") -> None:
    """One append for each word, to stdout or stderr, a millisecond apart."""
    for at_ms, word in enumerate(words.split()):
        key = OUT if word[0] == "o" else ERR
        await logs.append([LogWrite(key, await logs.length(key), word.encode(), at_ms)])


def tiles(marks: list[LogMark]) -> tuple[int, int]:
    """Both streams' lengths as the marks have them; each mark begins where the one before it of its stream ended."""
    lengths = [0, 0]
    for mark in marks:
        assert mark.offset == lengths[mark.stream] or mark.length == 0
        lengths[mark.stream] += mark.length
    return lengths[0], lengths[1]


# ---- files


def test_files_lie_where_they_are_said_to_and_are_private(tmp_path: Path) -> None:
    """logs/<job // 1000>/<job>/<step>.<task>.<attempt>.<rank>.{out,err,idx}; nobody else may read them."""
    home = DiskHome(tmp_path / "data")
    before = os.umask(0)
    try:
        home.run(lambda store: talk(store.logs))
    finally:
        os.umask(before)
    directory = home.data.logs / "1" / "1234"
    assert {"0.7.2.0.out", "0.7.2.0.err", "0.7.2.0.idx"} == {path.name for path in directory.iterdir()}
    assert b"o1o333o5" == (directory / "0.7.2.0.out").read_bytes()
    assert {0o600} == {path.stat().st_mode & 0o777 for path in directory.iterdir()}
    assert {0o700} == {path.stat().st_mode & 0o777 for path in (directory, directory.parent, home.data.logs)}


def test_a_reader_never_sees_an_arrival_without_its_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whenever the writer touches the disk: what is told to have arrived can be read, and what is durable is told to
    have arrived. A follower that went by one of them alone would pass over bytes that came just then."""
    keys = [LogKey((JobId(1), 0, task, 1), 0, 0) for task in range(3)]
    home = DiskHome(tmp_path / "data")
    seen: list[tuple[int, int, int]] = []

    async def told(logs: DiskLogs, key: LogKey) -> tuple[int, int, int]:
        """Its length, then what arrived, then the bytes of that."""
        length = await logs.length(key)
        said = sum(mark.length for mark in await logs.marks(key.attempt_id, 0, 0, 100))
        return length, said, len(await logs.read(key, 0, said))

    async def story(store: DiskStore) -> None:
        logs, loop, write = store.logs, asyncio.get_running_loop(), log_files._write_at
        for key in keys:  # their files are open: no reader needs the writer for that
            await logs.append([LogWrite(key, 0, b"abc", 1)])

        def looked_at(fd: int, data: bytes | memoryview, offset: int) -> None:
            write(fd, data, offset)
            for key in keys:
                seen.append(asyncio.run_coroutine_threadsafe(told(logs, key), loop).result(60))

        monkeypatch.setattr(log_files, "_write_at", looked_at)
        await logs.append([LogWrite(key, 3, b"defgh", 2) for key in keys])
        assert [(8, 8, 8)] * 3 == [await told(logs, key) for key in keys]

    home.run(story)
    assert len(seen) == 18
    assert {(3, 3, 3)} == set(seen)


def open_files() -> list[Path]:
    """What this process has open."""
    return [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if fd.is_symlink()]


def test_a_bounded_number_of_files_is_open(tmp_path: Path) -> None:
    """Beyond the bound the one not written for longest is closed; nothing of it is lost."""
    home = DiskHome(tmp_path / "data", StoreSettings(logs_open=4))

    async def story(store: DiskStore) -> None:
        keys = [LogKey((JobId(1), 0, task, 1), 0, 0) for task in range(30)]
        for turn in range(3):
            for key in keys:
                await store.logs.append([LogWrite(key, turn * 3, b"abc", turn)])
        together = await store.logs.append([LogWrite(key, 9, b"d", 9) for key in keys])
        assert {10} == set(together.values())
        await store.logs.length(keys[0])
        assert 4 * 2 == sum(path.is_relative_to(home.data.logs) for path in open_files())
        for key in keys:
            assert b"abcabcabcd" == await store.logs.read(key, 0, 100)
            assert 4 == await store.logs.marks_count(key.attempt_id, 0)

    home.run(story)


def test_what_was_on_its_way_out_is_gone_after_a_start(tmp_path: Path) -> None:
    """A process killed while it deleted a job's logs leaves them to the next one."""
    home = DiskHome(tmp_path / "data")
    home.run(lambda store: talk(store.logs))
    leftover = home.data.logs / ".removed-7.abcd"
    (home.data.logs / "1" / "1234").rename(leftover)

    async def story(store: DiskStore) -> None:
        await store.logs.close()

    home.run(story)
    assert not leftover.exists()


# ---- after a crash


def test_an_index_that_lies_behind_is_made_whole(tmp_path: Path) -> None:
    """Bytes without a record get one when the log is opened next; a torn record is cut; later ones follow on."""
    home = DiskHome(tmp_path / "data")
    home.run(lambda store: talk(store.logs))
    index = log_path(home.data.logs, RANK, INDEX)
    whole = index.read_bytes()
    assert 5 * RECORD_BYTES == len(whole)
    for cut in (*range(0, len(whole), 7), len(whole)):
        index.write_bytes(whole[:cut])
        kept = cut // RECORD_BYTES

        async def check(store: DiskStore, kept: int = kept) -> None:
            marks = await store.logs.marks(ATTEMPT, 0, 0, 100)
            assert (8, 8) == tiles(marks)
            assert [decoded(whole[n * 32 : n * 32 + 32]).mark for n in range(kept)] == marks[:kept]  # type: ignore[union-attr]
            assert sorted(mark.at_ms for mark in marks) == [mark.at_ms for mark in marks]

        home.run(check)
    index.unlink()
    home.run(check_tiles_and_goes_on)


async def check_tiles_and_goes_on(store: DiskStore) -> None:
    assert (8, 8) == tiles(await store.logs.marks(ATTEMPT, 0, 0, 100))
    await talk(store.logs, "o6 e7")
    marks = await store.logs.marks(ATTEMPT, 0, 0, 100)
    assert (10, 10) == tiles(marks)
    assert [(0, 8, 2), (1, 8, 2)] == [mark[1:] for mark in marks[-2:]]


def test_a_stream_is_as_long_as_its_file(tmp_path: Path) -> None:
    """After a power cut took bytes that nobody was promised, the agent goes on from what is there."""
    home = DiskHome(tmp_path / "data")
    home.run(lambda store: talk(store.logs))
    os.truncate(log_path(home.data.logs, RANK, "out"), 4)

    async def story(store: DiskStore) -> None:
        assert (4, 8) == tiles(await store.logs.marks(ATTEMPT, 0, 0, 100))
        assert (4, 8) == (await store.logs.length(OUT), await store.logs.length(ERR))
        assert {OUT: 8} == await store.logs.append([LogWrite(OUT, 4, b"33o5", 9)])
        assert b"o1o333o5" == await store.logs.read(OUT, 0, 100)
        assert (8, 8) == tiles(await store.logs.marks(ATTEMPT, 0, 0, 100))

    home.run(story)


def test_a_damaged_record_is_mended_and_told(tmp_path: Path) -> None:
    """Any one record, or several, of an index: every byte is still told of once, in the order of its stream."""
    home = DiskHome(tmp_path / "data")
    home.run(lambda store: talk(store.logs))
    index = log_path(home.data.logs, RANK, INDEX)
    whole = index.read_bytes()
    for damaged in ((0,), (1,), (3,), (0, 1, 2), (1, 2, 3), (4,), (0, 1, 2, 3, 4)):
        broken = bytearray(whole)
        for number in damaged:
            broken[number * RECORD_BYTES + 3] ^= 0x40
        index.write_bytes(broken)

        async def check(store: DiskStore, damaged: tuple[int, ...] = damaged) -> None:
            assert (8, 8) == tiles(await store.logs.marks(ATTEMPT, 0, 0, 100))
            cut_at_the_end = 4 in damaged
            assert cut_at_the_end or ["logs: the index 1/1234/0.7.2.0.idx was damaged and is mended"] == list(
                store.set_aside
            )
            assert (8, 8) == tiles(await store.logs.marks(ATTEMPT, 0, 0, 100))

        home.run(check)


def test_mending_tells_of_every_byte_once() -> None:
    """Whatever is damaged of an index: what is mended has as many records, and they tile both streams."""
    dice = random.Random(3)
    for _ in range(300):
        lengths, records = [0, 0], list[bytes]()
        for _ in range(dice.randrange(1, 12)):
            stream, length = dice.randrange(2), dice.randrange(1, 100)
            records.append(encoded(Arrival(len(records), lengths[stream], lengths[1 - stream], length, stream)))
            lengths[stream] += length
        damaged = [dice.randbytes(RECORD_BYTES) if dice.random() < 0.4 else record for record in records[:-1]]
        index = mended(b"".join([*damaged, records[-1]]))
        assert len(records) * RECORD_BYTES == len(index)
        found = [decoded(index[n * RECORD_BYTES : (n + 1) * RECORD_BYTES]) for n in range(len(records))]
        assert tuple(lengths) == tiles([arrival.mark for arrival in found if arrival is not None])


def test_a_record_never_tells_of_more_than_it_can_hold() -> None:
    """A stream that grew by gigabytes without an index is told of in several records."""
    found = arrivals(5, (0, 7), (3 * 2**30 + 1, 7))
    assert [2**30, 2**30, 2**30, 1] == [arrival.length for arrival in found]
    assert all(arrival == decoded(encoded(arrival)) for arrival in found)


KILLED = """
import asyncio, sys
from pathlib import Path
from coordinator.core.ids import JobId
from coordinator.ports.logs import LogKey, LogWrite
from store.durable import DiskStore
from store.layout import DataDir

async def main():
    store = await DiskStore.open(DataDir(Path(sys.argv[1])))
    key, offset = LogKey((JobId(1), 0, 0, 1), 0, 0), 0
    while True:
        lengths = await store.logs.append([LogWrite(key, offset, bytes([offset // 4096 % 256]) * 4096, 1)])
        offset = lengths[key]
        print(offset, flush=True)

asyncio.run(main())
"""


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """A writer killed at any moment: at least the acknowledged bytes are there, and each is right."""
    home = DiskHome(tmp_path / "data")
    writer = subprocess.Popen([sys.executable, "-c", KILLED, str(home.data.path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = 0
    for line in writer.stdout:
        acknowledged = int(line)
        if acknowledged >= 40 * 4096:
            break
    writer.kill()
    for line in writer.stdout:
        acknowledged = int(line)
    writer.wait()
    writer.stdout.close()

    async def story(store: DiskStore) -> None:
        key = LogKey((JobId(1), 0, 0, 1), 0, 0)
        length = await store.logs.length(key)
        assert acknowledged <= length <= acknowledged + 4096
        data = await store.logs.read(key, 0, length)
        assert all(data[n] == n // 4096 % 256 for n in range(0, length, 97))
        assert (length, 0) == tiles(await store.logs.marks((JobId(1), 0, 0, 1), 0, 0, 10_000))

    home.run(story)


# ---- a full disk, a broken disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MB."""
    path = tmp_path / "small"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(path)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip() or 'mount failed'}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_full_disk_takes_nothing_of_a_call(small_disk: Path) -> None:
    """STORE_FULL: every stream of the call is as it was; with room again the same call succeeds."""
    home = DiskHome(small_disk / "data", StoreSettings(ballast_bytes=0))

    async def story(store: DiskStore) -> None:
        logs = store.logs
        await talk(logs)
        filler = small_disk / "filler"
        filler.write_bytes(b"\0" * 700_000)
        new = LogKey((JobId(5), 0, 0, 1), 0, 0)
        large = [LogWrite(OUT, 8, b"x" * 4_000, 9), LogWrite(new, 0, b"n", 9), LogWrite(ERR, 8, b"y" * 3_000_000, 9)]
        small = logs.append([LogWrite(OUT, 8, b"z" * 10, 8)])
        first, second = await asyncio.gather(small, logs.append(large), return_exceptions=True)
        assert {OUT: 18} == first
        assert isinstance(second, CoordError) and second.code is Code.STORE_FULL
        assert (18, 8, 0) == (await logs.length(OUT), await logs.length(ERR), await logs.length(new))
        assert (18, 8) == tiles(await logs.marks(ATTEMPT, 0, 0, 100))
        assert b"" == await logs.read(ERR, 8, 100)
        filler.unlink()
        assert {OUT: 4_008, ERR: 8, new: 1} == await logs.append(
            [LogWrite(OUT, 8, b"z" * 10 + b"x" * 3_990, 9), LogWrite(new, 0, b"n", 9), LogWrite(ERR, 8, b"", 9)]
        )

    home.run(story)


def test_logs_leave_room_for_everything_else(small_disk: Path) -> None:
    """They are refused while there is some room yet; jobs and their ends are still written then."""
    home = DiskHome(small_disk / "data", StoreSettings(ballast_bytes=0))

    async def story(store: DiskStore) -> None:
        length = 0
        with pytest.raises(CoordError) as refusal:
            for _ in range(2_000):
                length = (await store.logs.append([LogWrite(OUT, length, b"x" * 4_096, 1)]))[OUT]
        assert Code.STORE_FULL is refusal.value.code
        room = os.statvfs(small_disk)
        assert 2 * 1024 * 1024 // 20 - 16_384 <= room.f_bavail * room.f_frsize
        await store.commit([Put(a_job(1)), Put(a_spec(1)), Put(a_step(1))])
        # What is stored already costs nothing, and is acknowledged.
        assert {OUT: length} == await store.logs.append([LogWrite(OUT, length - 4_096, b"x" * 4_096, 2)])

    home.run(story)


class BadDisk:
    """Has the n-th call of an os function fail."""

    def __init__(self, real: Any, nth: int, number: int) -> None:
        self.real, self.left, self.number = real, nth, number

    def __call__(self, *arguments: Any) -> Any:
        self.left -= 1
        if self.left == 0:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*arguments)


def test_a_sync_that_finds_no_room_takes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems say only then that they are full: all that was waiting is cut back, and may be repeated."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        await talk(store.logs)
        monkeypatch.setattr("store.log_files.os.fdatasync", BadDisk(os.fdatasync, 1, errno.ENOSPC))
        with pytest.raises(CoordError) as refusal:
            await store.logs.append([LogWrite(OUT, 8, b"more", 9), LogWrite(ERR, 8, b"more", 9)])
        assert Code.STORE_FULL is refusal.value.code
        assert (8, 8) == tiles(await store.logs.marks(ATTEMPT, 0, 0, 100))
        assert {OUT: 12} == await store.logs.append([LogWrite(OUT, 8, b"MORE", 9)])
        assert b"o1o333o5MORE" == await store.logs.read(OUT, 0, 100)

    home.run(story)


def test_a_sync_that_fails_is_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """EIO: STORE_BROKEN, and nothing is acknowledged any more: what the kernel dropped nobody can know."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        await talk(store.logs)
        monkeypatch.setattr("store.log_files.os.fdatasync", BadDisk(os.fdatasync, 1, errno.EIO))
        for _ in range(2):
            with pytest.raises(CoordError) as refusal:
                await store.logs.append([LogWrite(OUT, 8, b"more", 9)])
            assert Code.STORE_BROKEN is refusal.value.code
        assert b"o1o333o5" == await store.logs.read(OUT, 0, 100)

    home.run(story)
