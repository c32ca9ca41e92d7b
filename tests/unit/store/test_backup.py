"""A backup fits together, is verified, and brings back what was; a restore is never half done."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.core.commands import Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.core.rows import AttemptState, EndCause, ExitInfo, Meta, MetaRow, Row, WorkState
from coordinator.ports.logs import LogKey, LogWrite
from coordinator.ports.store import Store
from store.backup import CONTENTS, read_contents
from store.columns import TruthReader
from store.durable import DiskStore
from store.restore import restore
from store.sqlite import open_reader
from tests.conformance.homes import (
    HOUR_MS,
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

SAID = LogKey((JobId(1), 0, 0, 1), 0, 0)
SAYS = LogKey((JobId(2), 0, 0, 1), 0, 1)
DONE = ExitInfo(cause=EndCause.EXITED, code=0, out_bytes=5)
WORK: list[Row] = [
    a_job(1, WorkState.COMPLETED, ended_at_ms=NOON_MS),
    a_spec(1),
    a_step(1, state=WorkState.COMPLETED),
    a_task(1, state=WorkState.COMPLETED),
    an_attempt(1, state=AttemptState.COMPLETED, ranks=(a_rank(released=True, exit=DONE),)),
    a_job(2, WorkState.RUNNING),
    a_spec(2),
    a_step(2, state=WorkState.RUNNING),
    a_task(2, state=WorkState.RUNNING),
    an_attempt(2, token=7),
    an_audit(1),
]
"""One job over and done with, whose log is complete, and one that runs."""
BEATS = [a_beat(NOON_MS + n * 60_000) for n in range(90)]


async def fill(store: DiskStore) -> None:
    await store.commit([Put(a_provider()), Put(a_session(1, NOON_MS, NOON_MS + 5)), Put(a_token())])
    await store.commit([Put(row) for row in WORK])
    await store.logs.append([LogWrite(SAID, 0, b"hello", 1), LogWrite(SAYS, 0, b"so far", 2)])
    await store.append_heartbeats(BEATS)
    await store.maintain(NOON_MS + HOUR_MS + 400_000)


async def contents_of(store: DiskStore) -> tuple[object, ...]:
    loaded = await store.load()
    rows = [row for row in loaded.rows if not isinstance(row, MetaRow)]
    beats = await store.heartbeats(BEATS[0].key, 0, 1_000)
    logs = [await store.logs.read(key, 0, 99) for key in (SAID, SAYS)]
    marks = [await store.logs.marks(key.attempt_id, 0, 0, 99) for key in (SAID, SAYS)]
    told = await store.sessions(a_provider().provider_id, 0, 9), await store.hours(BEATS[0].key, 0, 9)
    return rows, beats, told, logs, marks, await store.jobs(None, 9), await store.audit(9)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A backup, and beside it in `data` the directory it was taken of."""
    base = tmp_path_factory.mktemp("saved")

    async def story(store: DiskStore) -> Path:
        await fill(store)
        return await store.backup(base / "backups")

    return DiskHome(base / "data").run(story)


def test_a_restored_store_is_what_it_was(saved: Path, tmp_path: Path) -> None:
    """Rows, unsealed and sealed heartbeats and rollups come back; the generation rises, the epoch is new."""
    original = DiskHome(saved.parent.parent / "data")
    home = DiskHome(tmp_path / "data")
    assert restore(saved, home.data.path) is None
    assert original.run(contents_of) == home.run(contents_of)
    assert original.data.read_coordinator_id() == home.data.read_coordinator_id()
    with closing(TruthReader(original.data.path)) as one, closing(TruthReader(home.data.path)) as other:
        assert one.epoch() != other.epoch()

    async def generation(store: Store) -> str:
        return next(r.value for r in (await store.load()).rows if isinstance(r, MetaRow) and r.name == Meta.GENERATION)

    assert "2" == home.run(generation)
    restore(saved, home.data.path)
    second = home.data.path
    with closing(open_reader(home.data.truth)) as connection:
        assert [("2",)] == connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchall()
    assert 1 == len(list(second.glob("before-restore-*")))


def test_what_was_there_before_a_restore_is_kept(saved: Path, tmp_path: Path) -> None:
    """The files of before, their logs included, lie in a directory that the answer names."""
    home = DiskHome(tmp_path / "data")

    async def other(store: Store) -> None:
        await store.commit([Put(a_provider("other", 5))])

    home.run(other)
    home.data.truth.with_name("truth.sqlite-wal").write_bytes(b"a log that must not be applied to another database")
    home.data.warehouse.write_bytes(b"derived")
    aside = restore(saved, home.data.path)
    assert aside is not None
    assert {"truth.sqlite", "truth.sqlite-wal", "telemetry.sqlite", "segments", "coordinator_id"} <= {
        path.name for path in aside.iterdir()
    }
    assert not home.data.warehouse.exists()
    assert a_provider() in home.run(contents_of)[0]  # type: ignore[operator]


def test_a_directory_in_use_is_not_restored_into(saved: Path, tmp_path: Path) -> None:
    """A running coordinator keeps its store."""
    home = DiskHome(tmp_path / "data")

    async def story(store: Store) -> None:
        with pytest.raises(CoordError) as refusal:
            restore(saved, home.data.path)
        assert Code.DATA_LOCKED is refusal.value.code
        await store.commit([Put(a_token())])

    home.run(story)


def files_of(home: DiskHome) -> dict[Path, bytes]:
    """Everything in the data directory but the lock, which names its last holder."""
    found = (path for path in home.data.path.rglob("*") if path.is_file() and path != home.data.lock)
    return {path: path.read_bytes() for path in found}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda backup: flip(backup / "truth.sqlite"),
        lambda backup: flip(next((backup / "segments").glob("*.parquet"))),
        lambda backup: (backup / "telemetry.sqlite").unlink(),
        lambda backup: (backup / CONTENTS).unlink(),
        lambda backup: (backup / CONTENTS).write_text("{"),
        lambda backup: (backup / CONTENTS).write_text(
            (backup / CONTENTS).read_text().replace('"truth.sqlite"', '"../../data/truth.sqlite"')
        ),
    ],
    ids=["database", "segment", "missing file", "no contents", "garbled contents", "a path outside"],
)
def test_a_backup_that_is_not_whole_is_refused(saved: Path, tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    """Digests are verified first; the data directory is not touched."""
    backup = Path(shutil.copytree(saved, tmp_path / "backup"))
    spoil(backup)
    home = DiskHome(Path(shutil.copytree(saved.parent.parent / "data", tmp_path / "data")))
    before = files_of(home)
    with pytest.raises(CoordError) as refusal:
        restore(backup, home.data.path)
    assert Code.BAD_REQUEST is refusal.value.code
    assert before == files_of(home)


def test_a_backup_beside_writes_is_of_one_moment(tmp_path: Path) -> None:
    """While commits and heartbeats go on, in step, a backup holds as many of one as of the other."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> Path:
        done = False

        async def write() -> None:
            n = 0
            while not done:
                n += 1
                await store.commit([Put(a_session(n, NOON_MS + n, NOON_MS + n))])
                await store.append_heartbeats([a_beat(NOON_MS + n)])

        async with asyncio.TaskGroup() as group:
            group.create_task(write())
            path = await store.backup(tmp_path / "backups")
            done = True
        return path

    path = home.run(story)
    with closing(open_reader(path / "truth.sqlite")) as truth, closing(open_reader(path / "telemetry.sqlite")) as rows:
        (sessions,) = truth.execute("SELECT count(*) FROM session").fetchone()
        table = rows.execute("SELECT name FROM sqlite_schema WHERE name GLOB 'heartbeat_*'").fetchone()
        beats = rows.execute(f"SELECT count(*) FROM {table[0]}").fetchone()[0] if table else 0
    assert sessions - beats in (0, 1)
    assert {"truth.sqlite", "telemetry.sqlite", "coordinator_id"} == {f.path for f in read_contents(path).files}


def test_a_backup_that_fails_leaves_nothing_behind(saved: Path, tmp_path: Path) -> None:
    """A damaged segment ends the backup with its name; no half backup stays."""
    home = DiskHome(Path(shutil.copytree(saved.parent.parent / "data", tmp_path / "data")))
    flip(next(home.data.segments.glob("*.parquet")))

    async def story(store: DiskStore) -> None:
        with pytest.raises(CoordError) as refusal:
            await store.backup(tmp_path / "backups")
        assert "parquet is damaged" in refusal.value.message

    home.run(story)
    assert [] == list((tmp_path / "backups").iterdir())


# ---- logs and numbers


def test_a_growing_log_leaves_the_backup_alone(tmp_path: Path) -> None:
    """A complete log is a link, a growing one a copy; whatever is written later, also to the complete one by an agent
    that lies, the backup is what it was."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> Path:
        await fill(store)
        backup = await store.backup(tmp_path / "backups")
        links = {path.name: path.stat().st_nlink for path in (backup / "logs").rglob("*.*")}
        assert {"0.0.1.0.out": 2, "0.0.1.0.err": 1, "0.0.1.0.idx": 1} == links
        assert {SAID: 9, SAYS: 10} == await store.logs.append(
            [LogWrite(SAID, 5, b" lie", 3), LogWrite(SAYS, 6, b" and", 3)]
        )
        assert b"hello lie" == await store.logs.read(SAID, 0, 99)
        problems = (await store.check()).problems
        assert ("logs/0/1/0.0.1.0.out is longer than its agent said: 9 bytes",) == problems
        return backup

    backup = home.run(story)
    again = DiskHome(tmp_path / "again")
    restore(backup, again.data.path)

    async def write_on(store: DiskStore) -> None:
        assert (b"hello", b"so far") == (await store.logs.read(SAID, 0, 99), await store.logs.read(SAYS, 0, 99))
        await store.logs.append([LogWrite(SAID, 5, b"!", 3), LogWrite(SAYS, 6, b"!", 3)])

    again.run(write_on)
    read_contents(backup)
    assert {0o700} == {path.stat().st_mode & 0o777 for path in again.data.logs.rglob("*") if path.is_dir()}
    assert {0o600} == {path.stat().st_mode & 0o777 for path in again.data.logs.rglob("*") if path.is_file()}


def test_no_number_of_a_job_is_given_again_after_a_restore(saved: Path, tmp_path: Path) -> None:
    """The store of before knows what was given since; where there is none, a stretch of numbers is left out."""

    async def numbers(store: Store) -> tuple[int, int, int]:
        loaded = await store.load()
        return loaded.next_job_id, loaded.next_token, loaded.next_audit

    async def go_on(store: Store) -> None:
        await store.commit([Put(a_job(30)), Put(an_audit(50))])

    home = DiskHome(tmp_path / "data")
    home.run(go_on)
    restore(saved, home.data.path)
    assert (31, 8, 51) == home.run(numbers)
    elsewhere = DiskHome(tmp_path / "elsewhere")
    restore(saved, elsewhere.data.path)
    assert (10_003, 8, 10_000_002) == elsewhere.run(numbers)


def test_the_logs_of_before_a_restore_are_kept_beside(saved: Path, tmp_path: Path) -> None:
    """They belong to the jobs of the store that was replaced, whose numbers the restored one does not know."""
    home = DiskHome(tmp_path / "data")
    other = LogKey((JobId(77), 0, 0, 1), 0, 0)

    async def before(store: DiskStore) -> None:
        await store.logs.append([LogWrite(other, 0, b"of before", 1)])

    async def after(store: DiskStore) -> tuple[int, bytes]:
        return await store.logs.length(other), await store.logs.read(SAID, 0, 9)

    home.run(before)
    aside = restore(saved, home.data.path)
    assert aside is not None
    assert b"of before" == (aside / "logs" / "0" / "77" / "0.0.1.0.out").read_bytes()
    assert (0, b"hello") == home.run(after)


def test_a_check_names_logs_that_are_damaged(tmp_path: Path) -> None:
    """An index with a wrong bit, and a stream that is shorter than its index tells; a log on its way is fine."""
    home = DiskHome(tmp_path / "data")
    home.run(fill)
    assert () == home.run(lambda store: store.check()).problems
    (home.data.logs / "0" / "2" / "0.0.1.0.err").write_bytes(b"so")
    flip(home.data.logs / "0" / "1" / "0.0.1.0.idx")
    report = home.run(lambda store: store.check())
    assert {
        "logs/0/2/0.0.1.0.err has lost 4 bytes",
        "logs/0/1/0.0.1.0.idx is damaged at byte 0: reading it mends it",
    } == set(report.problems)
