"""Writers, their bounds, and what happens on a disk that is full or fails."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Awaitable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from msgspec.structs import replace

from coordinator.core.commands import Delete, Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, PoolName, ProviderId
from coordinator.core.rows import AttemptState, EndCause, ExitInfo, MetaRow, OutageRow, PoolRow, WorkState
from coordinator.ports.store import HeartbeatRow, Store
from store.durable import DiskStore
from store.sqlite import open_reader, sqlite3
from tests.conformance.homes import (
    NOON_MS,
    DiskHome,
    a_beat,
    a_job,
    a_provider,
    a_rank,
    a_session,
    a_spec,
    a_step,
    a_task,
    a_token,
    an_attempt,
    an_audit,
)

FULL_HINT = "free some space"


async def code_of(attempt: Awaitable[object]) -> Code | None:
    """The code of the refusal of an attempt; None when it succeeds."""
    try:
        await attempt
    except CoordError as error:
        return error.code
    return None


def test_a_batch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """One write that cannot be takes its whole batch with it, counters included; the writer goes on."""

    async def story(store: DiskStore) -> None:
        await store.commit([Put(a_token("one"))])
        clash = Put(replace(a_token("two"), digest="digest one"))
        with pytest.raises(sqlite3.IntegrityError):
            await store.commit([Put(a_session(9)), clash, Put(a_provider())])
        loaded = await store.load()
        assert ([a_token("one")], 1, 1) == (loaded.rows, loaded.next_session_id, loaded.next_key)
        await store.commit([Delete("token", "one"), clash])
        assert [clash.row] == (await store.load()).rows

    DiskHome(tmp_path / "data").run(story)


def test_every_change_of_a_session_gets_the_next_sequence(tmp_path: Path) -> None:
    """Also within a batch, after a restart, and for imported ones: analytics misses no change."""
    home = DiskHome(tmp_path / "data")

    def sequence() -> list[tuple[int, int]]:
        with closing(open_reader(home.data.truth)) as connection:
            return connection.execute("SELECT session_id, change_seq FROM session ORDER BY change_seq").fetchall()

    async def first(store: Store) -> None:
        await store.commit([Put(a_session(1)), Put(a_session(2))])
        await store.commit([Put(a_session(1, ended_ms=NOON_MS + 5)), Put(a_provider())])

    async def second(store: Store) -> None:
        await store.commit([Delete("session", 1)])
        await store.commit([Put(a_session(3))])

    home.run(first)
    assert [(2, 2), (1, 3)] == sequence()
    home.run(second)
    assert [(2, 2), (3, 4)] == sequence()


def test_a_reader_that_stays_cannot_grow_the_log_without_bound(tmp_path: Path) -> None:
    """Beyond the bound both databases refuse with STORE_FULL, and go on by themselves when the reader has gone."""
    home = DiskHome(tmp_path / "data")
    home.settings = type(home.settings)(wal_bytes_max=512 * 1024)

    def batch(number: int) -> list[HeartbeatRow]:
        return [a_beat(NOON_MS + n, backend_state=f"{number}" * 200) for n in range(500)]

    async def story(store: DiskStore) -> None:
        await store.append_heartbeats(batch(0))
        with closing(open_reader(home.data.telemetry)) as stuck, closing(open_reader(home.data.truth)) as stuck_too:
            for reader in (stuck, stuck_too):
                reader.execute("BEGIN")
                reader.execute("SELECT count(*) FROM sqlite_schema").fetchall()
            refused = 0
            for n in range(40):
                refused += await code_of(store.append_heartbeats(batch(n))) is Code.STORE_FULL
                pool = PoolRow(name=PoolName("p"), created_at_ms=n, note=f"{n}" * 40_000)
                refused += await code_of(store.commit([Put(pool)])) is Code.STORE_FULL
            assert refused > 20
            for path in (home.data.telemetry, home.data.truth):
                assert path.with_name(path.name + "-wal").stat().st_size < 1024 * 1024
            # What happened to the fleet is written all the same.
            await store.commit([Put(a_session(1, NOON_MS, NOON_MS + 1))])
        assert await code_of(store.append_heartbeats(batch(99))) is None
        assert await code_of(store.commit([Put(a_token())])) is None

    home.run(story)


def test_a_read_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    """A reader of ours cannot hold the log for long: it is interrupted and says TIMEOUT; the pool is whole after."""
    home = DiskHome(tmp_path / "data")
    home.settings = type(home.settings)(read_s_max=0.05, readers=1)

    async def story(store: DiskStore) -> None:
        endless = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT count(*) FROM n"
        with pytest.raises(CoordError) as refusal:
            await store._truth_readers.rows(endless)
        assert Code.TIMEOUT is refusal.value.code
        assert not await store.has_history(ProviderId("a"))

    home.run(story)


def test_a_reader_that_goes_away_leaves_no_transaction_behind(tmp_path: Path) -> None:
    """Cancelled before its transaction has begun: the next one on that connection begins its own."""
    home = DiskHome(tmp_path / "data")
    home.settings = type(home.settings)(readers=1)

    async def story(store: DiskStore) -> None:
        busy = threading.Event()
        (connection,) = store._truth_readers._all
        standing = asyncio.ensure_future(connection._execute(busy.wait, 10))  # type: ignore[no-untyped-call]
        reading = asyncio.ensure_future(store.has_history(ProviderId("a")))
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.sleep(0)
        busy.set()
        await standing
        with pytest.raises(asyncio.CancelledError):
            await reading
        assert not await store.has_history(ProviderId("a"))

    home.run(story)


def test_a_caller_that_goes_away_leaves_the_writer_working(tmp_path: Path) -> None:
    """A cancelled commit is done all the same, in its order; the next one is answered."""

    async def story(store: DiskStore) -> None:
        async with store._truth.paused():
            waiting = asyncio.ensure_future(store.commit([Put(a_token("left alone"))]))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await store.commit([Put(a_token("next"))])
        assert [a_token("left alone"), a_token("next")] == (await store.load()).rows

    DiskHome(tmp_path / "data").run(story)


def test_closing_finishes_what_was_handed_over(tmp_path: Path) -> None:
    """Close waits for the writers, folds the logs back, and may be called again."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        pending = asyncio.ensure_future(store.append_heartbeats([a_beat(NOON_MS)]))
        await asyncio.sleep(0)
        await store.close()
        await pending
        await store.close()
        assert ["telemetry.sqlite", "truth.sqlite"] == sorted(p.name for p in home.data.path.glob("*.sqlite*"))

    home.run(story)


# ---- a full disk


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


def fill_up(path: Path) -> Path:
    """Take all the room that is left."""
    filler = path / "filler"
    with filler.open("wb") as file:
        for size in (65_536, 4_096, 512):
            try:
                while True:
                    os.write(file.fileno(), b"\0" * size)
            except OSError:
                continue
    return filler


def test_a_full_disk_refuses_and_recovers(small_disk: Path) -> None:
    """STORE_FULL and nothing half written; ends of sessions are paid for by the ballast; with room, all goes on."""
    home = DiskHome(small_disk / "data")
    home.settings = type(home.settings)(ballast_bytes=256 * 1024)
    notes = {"x": "y" * 8_000}

    async def story(store: DiskStore) -> None:
        ours = store.coordinator_id
        await store.commit([Put(a_session(n, NOON_MS, provider=f"p{n}", coordinator=ours)) for n in range(1, 21)])
        assert home.data.ballast.exists()
        filler = fill_up(small_disk)
        enrolled = 0
        for n in range(1, 200):
            row = a_provider(f"p{n}", n, labels=notes)
            if await code_of(store.commit([Put(row), Put(a_token(f"t{row.key}"))])) is Code.STORE_FULL:
                break
            enrolled += 1
        else:
            raise AssertionError("the disk never filled")
        assert home.data.ballast.exists()
        refused = [
            await code_of(store.append_heartbeats([a_beat(NOON_MS + n, backend_state="z" * 900) for n in range(2_000)]))
            for _ in range(3)
        ]
        assert [Code.STORE_FULL] * 3 == refused
        loaded = await store.load()
        assert (enrolled, 20) == (
            sum(hasattr(row, "machine_id") for row in loaded.rows),
            sum(hasattr(row, "connected_at_ms") for row in loaded.rows),
        )
        # Each end is a commit of its own, far beyond the room that was left.
        for n in range(1, 21):
            ended = a_session(n, NOON_MS, NOON_MS + n, provider=f"p{n}", coordinator=ours, boot_id="b" * 2_000)
            await store.commit([Put(ended), Put(MetaRow(name="alive_at_ms", value="5"))])
        await store.commit([Put(OutageRow(coordinator_id=ours, began_at_ms=1, ended_at_ms=2, cause="stall"))])
        assert await code_of(store.commit([Put(a_provider("newcomer", 999, labels=notes))])) is Code.STORE_FULL
        filler.unlink()
        await store.commit([Put(a_provider("newcomer", 999, labels=notes))])
        await store.append_heartbeats([a_beat(NOON_MS)])
        assert home.data.ballast.exists()

    home.run(story)

    async def after(store: DiskStore) -> None:
        assert not [row for row in (await store.load()).rows if hasattr(row, "connected_at_ms")]
        assert (await store.check()).problems == ()

    home.run(after)


def test_ends_of_work_are_written_on_a_full_disk(small_disk: Path) -> None:
    """A submission is refused, an end is not: the ballast pays for it, with its audit; after that all goes on."""
    home = DiskHome(small_disk / "data")
    home.settings = type(home.settings)(ballast_bytes=256 * 1024)
    done = ExitInfo(cause=EndCause.EXITED, code=0, text="t" * 1_000)

    def ended(task: int) -> list[Put]:
        attempt = an_attempt(1, 0, task, state=AttemptState.COMPLETED, ranks=(a_rank(released=True, exit=done),))
        row = a_task(1, 0, task, WorkState.COMPLETED, ended_at_ms=NOON_MS)
        audit = an_audit(task + 1, "attempt", f"1.0.{task}.1", job_id=JobId(1), why="w" * 2_000)
        return [Put(attempt), Put(row), Put(audit)]

    async def story(store: DiskStore) -> None:
        await store.commit([Put(a_job(1, WorkState.RUNNING)), Put(a_spec(1)), Put(a_step(1))])
        await store.commit([Put(an_attempt(1, 0, task)) for task in range(25)])
        filler = fill_up(small_disk)
        for number in range(2, 400):
            new = [Put(a_job(number, name="n" * 4_000)), Put(a_spec(number)), Put(a_step(number))]
            if await code_of(store.commit(new)) is Code.STORE_FULL:
                break
        else:
            raise AssertionError("the disk never filled")
        for task in range(25):
            await store.commit(ended(task))
        assert not home.data.ballast.exists()
        assert await code_of(store.commit([Put(a_job(999))])) is Code.STORE_FULL
        assert await code_of(store.commit([Put(an_attempt(1, 0, 99))])) is Code.STORE_FULL
        await store.commit([Put(a_step(1, state=WorkState.COMPLETED))])
        await store.commit([Put(a_job(1, WorkState.COMPLETED, ended_at_ms=NOON_MS))])
        filler.unlink()
        await store.commit([Put(a_job(999)), Put(a_spec(999)), Put(a_step(999))])
        assert home.data.ballast.exists()

    home.run(story)

    async def after(store: DiskStore) -> None:
        rows = await store.job_attempts(JobId(1), 99)
        assert [AttemptState.COMPLETED] * 25 == [row.state for row in rows]
        assert 25 == len(await store.audit(99))
        assert WorkState.COMPLETED is (await store.jobs(None, 1, JobId(2)))[0].state
        assert (await store.check()).problems == ()

    home.run(after)


def test_two_jobs_cannot_have_one_key(tmp_path: Path) -> None:
    """Whatever decides: the file itself holds one job for each key of a tenant, and any number without one."""

    async def story(store: DiskStore) -> None:
        await store.commit([Put(a_job(1, idempotency_key="k")), Put(a_job(2, tenant="other", idempotency_key="k"))])
        await store.commit([Put(a_job(3)), Put(a_job(4))])
        with pytest.raises(sqlite3.IntegrityError):
            await store.commit([Put(a_job(5, idempotency_key="k"))])
        assert [4, 3, 2, 1] == [row.job_id for row in await store.jobs(None, 9)]

    DiskHome(tmp_path / "data").run(story)


def test_a_start_on_a_full_disk_says_so(small_disk: Path) -> None:
    """A new directory on a full disk is refused with STORE_FULL, and made once there is room."""
    home = DiskHome(small_disk / "data")
    home.settings = type(home.settings)(ballast_bytes=64 * 1024)
    filler = fill_up(small_disk)

    async def nothing(store: Store) -> None:
        await store.commit([])

    with pytest.raises(CoordError) as refusal:
        home.run(nothing)
    assert Code.STORE_FULL is refusal.value.code
    assert FULL_HINT in refusal.value.hint
    filler.unlink()
    home.run(nothing)


def test_sealing_on_a_full_disk_keeps_the_rows(small_disk: Path) -> None:
    """A segment that does not fit is no segment: STORE_FULL, the hour stays readable and is sealed later."""
    home = DiskHome(small_disk / "data")
    home.settings = type(home.settings)(ballast_bytes=0)
    rows = [a_beat(NOON_MS + n * 100, backend_state=os.urandom(40).hex()) for n in range(3_000)]

    async def story(store: DiskStore) -> None:
        await store.append_heartbeats(rows)
        filler = fill_up(small_disk)
        assert await code_of(store.maintain(NOON_MS + 2 * 3_600_000)) is Code.STORE_FULL
        assert len(rows) == len(await store.heartbeats(rows[0].key, 0, 10_000))
        assert [] == list(home.data.segments.iterdir())
        filler.unlink()
        await store.maintain(NOON_MS + 2 * 3_600_000)
        assert 1 == len(list(home.data.segments.iterdir()))
        assert len(rows) == len(await store.heartbeats(rows[0].key, 0, 10_000))

    home.run(story)
