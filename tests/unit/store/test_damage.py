"""A damaged, cut or missing file is refused at start, with the way out named, and never replaced by an empty one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any

import pytest
from msgspec.structs import replace

from coordinator.core.commands import Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.core.rows import MetaRow, Row, WorkState, row_key
from coordinator.ports.store import Store
from store.check import check_files
from store.durable import DiskStore
from store.layout import DataDir
from store.sqlite import Durability, open_writer, sqlite3
from store.wal_damage import examine
from tests.conformance.homes import (
    HOUR_MS,
    NOON_MS,
    DiskHome,
    a_beat,
    a_job,
    a_provider,
    a_session,
    a_spec,
    a_step,
    a_task,
    an_attempt,
)
from tests.conformance.test_usage import a_charge, an_account

PAGE = 4_096
FRAME = PAGE + 24


async def fill(store: Store) -> None:
    """A store with some of everything, a sealed hour included."""
    await store.commit([Put(a_provider(f"p{n}", n, labels={"x": "y" * 500})) for n in range(1, 200)])
    await store.commit([Put(a_session(n, NOON_MS + n, NOON_MS + n + 1, provider=f"p{n}")) for n in range(1, 200)])
    await store.append_heartbeats([a_beat(NOON_MS + n * 60_000, 1) for n in range(90)])
    await store.maintain(NOON_MS + HOUR_MS + 400_000)


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("filled") / "data"
    DiskHome(path).run(fill)
    return path


def refusal_of(home: DiskHome) -> CoordError:
    async def nothing(store: Store) -> None:
        """Never told."""

    with pytest.raises(CoordError) as refusal:
        home.run(nothing)
    return refusal.value


def cut(name: str, keep: float) -> Callable[[DataDir], object]:
    def do(data: DataDir) -> None:
        path = data.path / name
        with path.open("r+b") as file:
            file.truncate(int(path.stat().st_size * keep) // PAGE * PAGE)

    return do


def overwrite(name: str, at: int, text: bytes) -> Callable[[DataDir], object]:
    def do(data: DataDir) -> None:
        with (data.path / name).open("r+b") as file:
            file.seek(at)
            file.write(text)

    return do


@pytest.mark.parametrize(
    "damage",
    [
        cut("truth.sqlite", 0.5),
        cut("truth.sqlite", 0.0),
        cut("telemetry.sqlite", 0.5),
        cut("telemetry.sqlite", 0.0),
        overwrite("truth.sqlite", 0, b"no database any more"),
        overwrite("truth.sqlite", 16, b"\x00\x03"),
        overwrite("truth.sqlite", 110, b"\xff" * 500),
        overwrite("telemetry.sqlite", 100, b"\xff" * 500),
        lambda data: data.truth.unlink(),
        lambda data: data.telemetry.unlink(),
        lambda data: (data.truth.unlink(), data.telemetry.unlink()),
        lambda data: (data.truth.unlink(), data.coordinator_id.unlink()),
        lambda data: (data.truth.unlink(), data.telemetry.unlink(), data.coordinator_id.unlink()),
        lambda data: (data.telemetry.unlink(), data.coordinator_id.unlink()),
    ],
)
def test_a_damaged_store_is_refused_and_left_as_it_is(
    filled: Path, tmp_path: Path, damage: Callable[[DataDir], Any]
) -> None:
    """STORE_BROKEN, a hint that names the restore command, no file made or changed; and the lock is free again."""
    home = DiskHome(Path(shutil.copytree(filled, tmp_path / "data")))
    damage(home.data)
    before = {path.name: path.read_bytes() for path in home.data.path.glob("*.sqlite")}
    for _ in range(2):
        error = refusal_of(home)
        assert Code.STORE_BROKEN is error.code
        assert "coord db restore" in error.hint
    assert before == {path.name: path.read_bytes() for path in home.data.path.glob("*.sqlite")}


def test_a_table_that_is_gone_is_damage(filled: Path, tmp_path: Path) -> None:
    """A schema that is not what its version says is refused before anything is written."""
    home = DiskHome(Path(shutil.copytree(filled, tmp_path / "data")))
    with closing(sqlite3.connect(str(home.data.truth))) as connection:
        connection.execute("DROP INDEX session_changed")
    error = refusal_of(home)
    assert (Code.STORE_BROKEN, True) == (error.code, "session_changed" in error.message)


def test_a_start_that_was_cut_short_is_finished(tmp_path: Path) -> None:
    """A first start killed at any point between its files is taken up again, not refused."""
    home = DiskHome(tmp_path / "data")

    async def the_id(store: Store) -> str:
        return str(store.coordinator_id)  # type: ignore[attr-defined]

    home.run(the_id)
    home.data.coordinator_id.unlink()
    home.run(the_id)
    home.data.coordinator_id.unlink()
    home.data.telemetry.unlink()
    (home.data.path / "telemetry.sqlite.new").write_bytes(b"half a file")
    home.run(the_id)
    assert home.data.read_coordinator_id() == home.run(the_id)
    assert [] == list(home.data.path.glob("*.new*"))


def test_a_row_that_cannot_be_read_is_set_aside(tmp_path: Path) -> None:
    """One bad record does not keep the coordinator from starting; it is reported, the rest goes on."""
    home = DiskHome(tmp_path / "data")

    async def write(store: Store) -> None:
        await store.commit(
            [Put(a_provider("good", 1)), Put(a_provider("bad", 2)), Put(a_session(1, 5, 6)), Put(a_session(2, 7, 8))]
        )

    home.run(write)
    with closing(sqlite3.connect(str(home.data.truth))) as connection:
        connection.execute("UPDATE provider SET labels = '{not json' WHERE provider_id = 'bad'")
        connection.execute("UPDATE session SET disconnect_reason = 'vanished' WHERE session_id = 2")
        connection.commit()

    async def look(store: Store) -> None:
        rows = (await store.load()).rows
        assert [a_provider("good", 1)] == rows
        assert [1] == [row.session_id for row in await store.sessions(rows[0].provider_id and "a", 0, 10)]  # type: ignore[arg-type,union-attr]
        problems = (await store.check()).problems
        assert any("provider 'bad'" in problem for problem in problems)
        assert any("session 2" in problem for problem in problems)

    home.run(look)


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        ("UPDATE job SET state = 'running', reason = '' WHERE job_id = 2", None),
        ("UPDATE spec SET spec = '{' WHERE job_id = 2", "spec 2 cannot be read"),
        ("DELETE FROM spec WHERE job_id = 2", "job 2 has lost its specification"),
        ("DELETE FROM step WHERE job_id = 2", "job 2 has lost a step"),
        ("UPDATE step SET state = 'pending ' WHERE job_id = 2", "step 2.0 cannot be read"),
        ("UPDATE task SET body = substr(body, 1, length(body) - 3) WHERE job_id = 2", "task 2.0.4 cannot be read"),
        ('UPDATE task SET body = \'{"row":"task"}\' WHERE job_id = 2', "task 2.0.4 cannot be read"),
        (
            "UPDATE attempt SET body = unhex(replace(hex(body), hex('provider_id'), hex('provider_ix')))"
            " WHERE job_id = 2",
            "attempt 2.0.4.1 cannot be read",
        ),
        (
            "UPDATE attempt SET body = unhex(replace(hex(body), hex('running'), hex('runnyng'))) WHERE job_id = 2",
            "attempt 2.0.4.1 cannot be read",
        ),
    ],
)
def test_a_job_with_a_hole_in_it_is_set_aside_whole(tmp_path: Path, harm: str, said: str | None) -> None:
    """Whatever row of a live job is damaged or gone: the core meets nothing of that job, and the others go on."""
    home = DiskHome(tmp_path / "data")

    def work(job: int) -> list[Row]:
        rows: list[Row] = [a_job(job, WorkState.RUNNING), a_spec(job), a_step(job, state=WorkState.RUNNING)]
        return [*rows, a_task(job, 0, 4, WorkState.RUNNING), an_attempt(job, 0, 4)]

    async def write(store: Store) -> None:
        await store.commit([Put(row) for job in (1, 2, 3) for row in work(job)])

    home.run(write)
    with closing(sqlite3.connect(str(home.data.truth))) as connection:
        connection.execute(harm)
        connection.commit()
    whole = (1, 2, 3) if said is None else (1, 3)

    async def look(store: DiskStore) -> None:
        expected = {row_key(row) for job in whole for row in work(job)}
        assert expected == {row_key(row) for row in (await store.load()).rows}
        problems = [problem for problem in store.set_aside if said is not None and said in problem]
        assert (said is not None) == bool(problems)
        assert 4 == (await store.load()).next_job_id
        # People still see what can be seen of it.
        assert "job 2" == (await store.jobs(None, 9))[1].name

    home.run(look)


def test_a_damaged_row_of_a_page_is_left_out_and_reported(tmp_path: Path) -> None:
    """A listing of work shows the others; the check names it."""
    home = DiskHome(tmp_path / "data")

    async def write(store: Store) -> None:
        await store.commit([Put(a_job(n, WorkState.FAILED, ended_at_ms=5)) for n in (1, 2, 3)])

    home.run(write)
    with closing(sqlite3.connect(str(home.data.truth))) as connection:
        connection.execute("UPDATE job SET state = 'vanished' WHERE job_id = 2")
        connection.commit()

    async def look(store: DiskStore) -> None:
        assert [3, 1] == [row.job_id for row in await store.jobs(None, 9)]
        assert await store.job(JobId(2), None) is None
        assert any(problem.startswith("job 2 cannot be read") for problem in store.set_aside)
        assert any(problem.startswith("job 2 cannot be read") for problem in (await store.check()).problems)

    home.run(look)


def test_the_full_check_finds_damage_that_a_start_does_not(filled: Path, tmp_path: Path) -> None:
    """A page of history, a segment and a missing segment are found by the digests and the integrity check."""
    data = DataDir(Path(shutil.copytree(filled, tmp_path / "data")))
    clean = check_files(data.path)
    assert ((), 1) == (clean.problems, clean.segments)
    (segment,) = data.segments.glob("*.parquet")
    content = bytearray(segment.read_bytes())
    content[len(content) // 2] ^= 1
    segment.write_bytes(content)
    assert [f"segments/{segment.name} is damaged: it is not what its manifest says"] == list(
        check_files(data.path).problems
    )
    segment.unlink()
    assert (f"segments/{segment.name} is missing",) == check_files(data.path).problems
    with closing(sqlite3.connect(str(data.truth))) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'session_by_end'").fetchone()
    overwrite("truth.sqlite", (root - 1) * PAGE + 8, b"\x00" * 64)(data)
    assert any(problem.startswith("truth.sqlite") for problem in check_files(data.path).problems)


def test_an_account_that_is_not_the_sum_of_its_ledger_is_found(tmp_path: Path) -> None:
    """Of its month, in money and in bytes; charges of other months and tenants are none of its sum."""
    home = DiskHome(tmp_path / "data")
    account = replace(an_account(cost=3), storage=0)
    amounts = {"ingress": account.ingress, "egress": account.egress, "storage": account.storage_mb_s}
    bytes_moved = [
        replace(a_charge(5 + n, Random(n)), tenant="physics", month=202_511, cost=0, kind=kind, amount=amount)
        for n, (kind, amount) in enumerate(amounts.items())
    ]
    charges = [replace(a_charge(seq, Random(seq)), tenant="physics", month=202_511, cost=seq) for seq in (1, 2)]
    others = [replace(a_charge(3, Random(3)), month=202_510), replace(a_charge(4, Random(4)), tenant="b")]

    async def write(store: DiskStore) -> None:
        rows: list[Row] = [account, *charges, *bytes_moved, *others]
        await store.commit([Put(row) for row in rows])
        assert () == (await store.check()).problems
        for wrong, problem in (
            (replace(account, cost=4), "cost 4 in 202511, its ledger adds up to 3"),
            (replace(account, egress=8), "egress 8 in 202511, its ledger adds up to 7"),
            (replace(account, storage=9), "storage 9, its blobs add up to 0"),
        ):
            await store.commit([Put(wrong)])
            assert (f"truth.sqlite: account physics has {problem}",) == (await store.check()).problems

    home.run(write)


# ---- the write-ahead log


@pytest.fixture
def logged(tmp_path: Path) -> Path:
    """A truth with ten committed transactions in its log, copied as a kill would leave it."""
    source = DataDir(tmp_path / "source")
    DiskHome(source.path).run(_nothing)
    with closing(open_writer(source.truth, Durability.FULL)) as connection:
        for number in range(10):
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (f"m{number}", "x" * 3_000))
        return Path(shutil.copytree(source.path, tmp_path / "data"))


async def _nothing(store: Store) -> None:
    """A start and a stop."""


def frames(path: Path) -> int:
    return (path.stat().st_size - 32) // FRAME


def test_a_whole_log_is_accepted(logged: Path) -> None:
    """What a killed process left is no damage: everything committed is there after the start."""
    examine(logged / "truth.sqlite", synced=True)

    async def names(store: Store) -> int:
        return sum(isinstance(row, MetaRow) for row in (await store.load()).rows)

    assert 10 == DiskHome(logged).run(names)


@pytest.mark.parametrize("frame", [0, 3, 9])
def test_a_log_damaged_in_the_middle_is_refused(logged: Path, frame: int) -> None:
    """Committed transactions that follow a bad frame show that it was not torn by a power cut."""
    log = logged / "truth.sqlite-wal"
    (logged / "truth.sqlite-shm").unlink()
    overwrite(log.name, 32 + frame * FRAME + 2_000, b"damage")(DataDir(logged))
    error = refusal_of(DiskHome(logged))
    assert (Code.STORE_BROKEN, True) == (error.code, "-wal is damaged" in error.message)


def test_a_torn_last_transaction_is_what_a_power_cut_leaves(logged: Path) -> None:
    """Without the log's index, which a power cut takes, a bad last frame is the end of the log."""
    log = logged / "truth.sqlite-wal"
    (logged / "truth.sqlite-shm").unlink()
    overwrite(log.name, 32 + (frames(log) - 1) * FRAME + 2_000, b"damage")(DataDir(logged))
    examine(logged / "truth.sqlite", synced=True)


@pytest.mark.parametrize("kept", [0, 20, 32, 32 + FRAME, 32 + 5 * FRAME + 100])
def test_a_log_that_was_cut_is_refused(logged: Path, kept: int) -> None:
    """The index that a killed process left counts more committed frames than the log still has."""
    log = logged / "truth.sqlite-wal"
    with log.open("r+b") as file:
        file.truncate(kept)
    error = refusal_of(DiskHome(logged))
    assert (Code.STORE_BROKEN, True) == (error.code, "was cut" in error.message)


def test_a_damaged_header_of_the_log_is_refused(logged: Path) -> None:
    """A log whose header cannot be read, with frames behind it, hides what was committed."""
    (logged / "truth.sqlite-shm").unlink()
    overwrite("truth.sqlite-wal", 16, b"\x00\x00\x00\x00")(DataDir(logged))
    error = refusal_of(DiskHome(logged))
    assert (Code.STORE_BROKEN, True) == (error.code, "header" in error.message)


def test_telemetry_may_lose_its_last_seconds(logged: Path) -> None:
    """A hole in the log of telemetry is what a power cut may leave: the start goes on without what follows."""
    examine(logged / "truth.sqlite", synced=True)
    overwrite("truth.sqlite-wal", 32 + 4 * FRAME + 2_000, b"damage")(DataDir(logged))
    examine(logged / "truth.sqlite", synced=False)


def test_what_a_rolled_back_transaction_left_is_no_damage(tmp_path: Path) -> None:
    """Frames of a large transaction that was rolled back, half overwritten by a later commit, are just old."""
    data = DataDir(tmp_path / "source")
    DiskHome(data.path).run(_nothing)
    with closing(open_writer(data.truth, Durability.FULL)) as connection:
        connection.execute("PRAGMA cache_size = 5")
        connection.execute("INSERT INTO meta VALUES ('first', 'x')")
        connection.execute("BEGIN")
        connection.executemany("INSERT INTO meta VALUES (?, ?)", [(f"m{n}", "x" * 3_000) for n in range(60)])
        connection.execute("ROLLBACK")
        assert frames(data.path / "truth.sqlite-wal") > 20
        connection.execute("INSERT INTO meta VALUES ('second', 'x')")
        examine(data.truth, synced=True)
        copy = Path(shutil.copytree(data.path, tmp_path / "data"))
    (copy / "truth.sqlite-shm").unlink()
    examine(copy / "truth.sqlite", synced=True)
