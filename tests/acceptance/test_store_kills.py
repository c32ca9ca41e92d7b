"""The store under kill -9 and a failing disk: what was acknowledged is there, and nothing is there twice."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from blake3 import blake3

from coordinator.core.ids import JobId, ProviderId, ProviderKey, TenantName
from coordinator.core.rows import AttemptRow, AttemptState, ProviderRow
from store.durable import DiskStore
from store.failpoints import FAIL_POINTS
from store.layout import DataDir
from tests.acceptance.store_process import BLOBS, EXIT_BROKEN, LEASED, ROUNDS, bytes_of
from tests.conformance.homes import DAY_MS, HOUR_MS, NOON_MS, DiskHome, a_beat

ONE = ProviderKey(1)
STORIES = {
    "truth.before_commit": ("write", 7),
    "truth.after_commit": ("write", 7),
    "telemetry.before_commit": ("write", 7),
    "telemetry.after_commit": ("write", 7),
    "seal.written": ("seal", 1),
    "seal.renamed": ("seal", 2),
    "rollup.between_batches": ("seal", 1),
    "seal.before_manifest": ("seal", 1),
    "seal.after_manifest": ("seal", 1),
    "retention.unlinked": ("seal", 1),
    "import.before_commit": ("bring", 1),
    "backup.copied": ("save", 1),
    "restore.set_aside": ("restore", 1),
    "blob.written": ("keep", 2),
    "blob.verified": ("keep", 2),
    "blob.synced": ("keep", 3),
    "blob.renamed": ("keep", 2),
    "blob.published": ("keep", 3),
    "blob.refused": ("keep", 1),
    "blob.dropped": ("keep", 1),
    "blob.removed": ("keep", 1),
    "blob.tidied": ("keep", 1),
}
"""Where to be killed, telling which story, at which passage."""


def tell(directory: Path, story: str, failpoint: str = "", wrapped: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Run a story in a process of its own; (exit status, acknowledgements)."""
    command = [*wrapped, sys.executable, "-m", "tests.acceptance.store_process", str(directory), failpoint, story]
    told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    return told.returncode, told.stdout.splitlines()


def test_every_fail_point_is_visited() -> None:
    """A place that can be named is a place where we were killed."""
    assert set(FAIL_POINTS) == set(STORIES)


@pytest.mark.parametrize("place", [place for place in STORIES if STORIES[place][0] == "write"])
def test_what_was_acknowledged_survives_a_kill(tmp_path: Path, place: str) -> None:
    """Killed three times at one place of writing: no acknowledged session or heartbeat is missing, none doubled,
    none half there (its provider is committed with it)."""
    directory = tmp_path / "data"
    ledger: set[tuple[str, int]] = set()
    for nth in (1, 7, 20):
        status, said = tell(directory, "write", f"{place}:{nth}")
        assert -signal.SIGKILL == status
        ledger |= {(line.split()[0], int(line.split()[1])) for line in said}
        assert len(said) < 2 * ROUNDS

    async def look(store: DiskStore) -> None:
        providers = {row.provider_id for row in (await store.load()).rows if isinstance(row, ProviderRow)}
        sessions = Counter[str]()
        for provider_id in providers:
            sessions.update(row.provider_id for row in await store.sessions(provider_id, 0, 100))
        assert {f"p{n}" for kind, n in ledger if kind == "session"} <= providers
        assert dict.fromkeys(providers, 1) == dict(sessions)
        for key in (1, 2):
            beats = [row.observed_at_ms for row in await store.heartbeats(ProviderKey(key), 0, 10_000)]
            assert len(beats) == len(set(beats))
            assert {NOON_MS + n * 1_000 for kind, n in ledger if kind == "beat"} <= set(beats)
        assert () == (await store.check()).problems

    DiskHome(directory).run(look)


@pytest.mark.parametrize("place", ["truth.before_commit", "truth.after_commit"])
def test_acknowledged_leases_survive_a_kill(tmp_path: Path, place: str) -> None:
    """Killed as leases are given together, and as a part of them is launched: whoever was told of is there as he was
    told, nobody twice, and what was not committed is not there at all."""
    directory = tmp_path / "data"
    ledger: dict[str, set[int]] = {"leased": set(), "launched": set()}
    for nth in (8, 9, 25):
        status, said = tell(directory, "lease", f"{place}:{nth}")
        assert -signal.SIGKILL == status
        for line in said:
            ledger[line.split()[0]].add(int(line.split()[1]))

    async def look(store: DiskStore) -> None:
        attempts = await store.job_attempts(JobId(1), 10_000)
        tasks = await store.job_tasks(JobId(1), 10_000)
        assert list(range(len(tasks))) == [row.task for row in tasks] == [row.task for row in attempts]
        assert 0 == len(tasks) % LEASED
        assert max(ledger["leased"]) + LEASED <= len(tasks) <= max(ledger["leased"]) + 2 * LEASED
        begun = {row.task for row in attempts if row.state is AttemptState.STAGING}
        assert ledger["launched"] <= begun
        parts = {
            task: task // LEASED * LEASED + (LEASED // 3 if task % LEASED < LEASED // 3 else LEASED) for task in begun
        }
        assert all(begun.issuperset(range(task, end)) for task, end in parts.items())
        assert len({row.token for row in attempts}) == len(attempts)
        assert set(attempts) == {row for row in (await store.load()).rows if isinstance(row, AttemptRow)}
        assert () == (await store.check()).problems

    DiskHome(directory).run(look)


@pytest.mark.parametrize("place", [place for place in STORIES if STORIES[place][0] == "seal"])
def test_sealing_survives_a_kill_at_any_step(tmp_path: Path, place: str) -> None:
    """Every heartbeat is there exactly once after a restart, and sealed and pruned by the next round; no stray
    file stays. (A kill of the sealing child alone is an error of that round.)"""
    directory = tmp_path / "data"
    status, _ = tell(directory, "seal", f"{place}:{STORIES[place][1]}")
    assert (EXIT_BROKEN if place == "seal.written" else -signal.SIGKILL) == status
    home = DiskHome(directory)
    expected = [] if place == "retention.unlinked" else [a_beat(NOON_MS + n * 60_000) for n in reversed(range(120))]

    async def look(store: DiskStore) -> None:
        found = await store.heartbeats(ONE, 0, 10_000)
        # Retention was killed with one file gone: what is left of it is as old.
        assert expected == found or (place == "retention.unlinked" and len(found) == 60)
        await store.maintain(NOON_MS + 3 * HOUR_MS)
        if place != "retention.unlinked":
            assert expected == await store.heartbeats(ONE, 0, 10_000)
            assert [60, 60] == [hour.heartbeats for hour in await store.hours(ONE, 0, 10)]
            assert 2 == len(list(home.data.segments.iterdir()))
            assert () == (await store.check()).problems
        await store.maintain(NOON_MS + 40 * DAY_MS)
        assert [] == list(home.data.segments.iterdir())
        assert () == (await store.check()).problems

    home.run(look)


def test_an_import_that_was_killed_was_not(tmp_path: Path) -> None:
    """Killed as it commits, nothing of it is there; told again it is there once."""
    directory = tmp_path / "data"
    status, said = tell(directory, "bring", "import.before_commit:1")
    assert (-signal.SIGKILL, []) == (status, said)

    async def count(store: DiskStore) -> int:
        return sum([len(await store.sessions(ProviderId(f"q{n}"), 0, 1_000)) for n in range(7)])

    assert 0 == DiskHome(directory).run(count)
    for _ in range(2):
        assert (0, ["imported"]) == tell(directory, "bring")
        assert 499 == DiskHome(directory).run(count)


def test_a_backup_or_restore_that_was_killed_is_done_again(tmp_path: Path) -> None:
    """A killed backup is no backup; a killed restore leaves a store that refuses to start, until it is repeated."""
    directory = tmp_path / "data"
    tell(directory, "write")
    status, _ = tell(directory, "save", "backup.copied:1")
    assert -signal.SIGKILL == status
    (leftover,) = DataDir(directory).backups.iterdir()
    assert leftover.name.endswith(".partial")
    assert 0 == tell(directory, "save")[0]
    assert not leftover.exists()
    status, _ = tell(directory, "restore", "restore.set_aside:1")
    assert -signal.SIGKILL == status
    assert (EXIT_BROKEN, ["refused store_broken"]) == tell(directory, "write")
    assert (0, []) == tell(directory, "restore")

    async def count(store: DiskStore) -> int:
        return sum(isinstance(row, ProviderRow) for row in (await store.load()).rows)

    assert ROUNDS == DiskHome(directory).run(count)


@pytest.mark.parametrize("place", [place for place in STORIES if STORIES[place][0] == "keep"])
def test_blobs_survive_a_kill_at_any_step(tmp_path: Path, place: str) -> None:
    """Whatever was acknowledged as published has its row and its bytes; no row is without bytes, ever. The next life
    goes on with what had arrived, and once what has no row is collected nothing is left over."""
    directory = tmp_path / "data"
    status, said = tell(directory, "keep", f"{place}:{STORIES[place][1]}")
    assert -signal.SIGKILL == status
    DiskHome(directory).run(lambda store: _whole(store, said))
    status, more = tell(directory, "keep")
    assert (0, "kept") == (status, more[-1])
    under_way = 1 + sum(line.startswith("published") for line in said)
    arrived = place in ("blob.written", "blob.verified", "blob.synced")
    assert ([f"resumed {under_way}"] if arrived else []) == [line for line in more if line.startswith("resumed")]

    async def collect(store: DiskStore) -> None:
        await _whole(store, [])
        rows = {(row.tenant, row.digest) for row in await store.list_blobs(None, 99)}
        assert BLOBS - BLOBS // 3 == len(rows)
        there = await store.blob_files.stored(1 << 60, 99)
        await store.blob_files.remove([found for found in there if found not in rows])
        assert rows == set(await store.blob_files.stored(1 << 60, 99))
        assert [] == list((DataDir(directory).blobs / ".uploads").iterdir())
        report = await store.check()
        assert ((), BLOBS - BLOBS // 3, 0, 0) == (report.problems, report.blobs, report.unread, report.ownerless)

    DiskHome(directory).run(collect)


async def _whole(store: DiskStore, said: list[str]) -> None:
    tenant = TenantName("t")
    forgotten = {line.split()[1] for line in said if line.startswith("forgotten")}
    for line in said:
        if line.startswith("published") and int(line.split()[1]) % 3 and line.split()[1] not in forgotten:
            data = bytes_of(int(line.split()[1]))
            (row,) = await store.blobs(tenant, [blake3(data).hexdigest()])
            assert data == await store.blob_files.read(tenant, row.digest, len(data))
    for row in await store.list_blobs(None, 99):
        assert row.size == len(await store.blob_files.read(tenant, row.digest, row.size))
    assert () == (await store.check()).problems


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which makes fsync fail, is not installed")
@pytest.mark.parametrize("nth", [9, 14])
def test_a_failed_fsync_publishes_no_blob(tmp_path: Path, nth: int) -> None:
    """Of the file, its directory or the row's commit: the store refuses from then on; what was said before is there."""
    directory = tmp_path / "data"
    assert 0 == tell(directory, "write")[0]
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync")
    failing = (*inject, "-e", f"inject=fsync,fdatasync:error=EIO:when={nth}+")
    status, said = tell(directory, "keep", wrapped=failing)
    if status not in (0, EXIT_BROKEN) and not said:
        pytest.skip(f"strace cannot trace here (exit {status})")
    assert (EXIT_BROKEN, "refused store_broken") == (status, said[-1])
    assert f"published {BLOBS}" not in said
    DiskHome(directory).run(lambda store: _whole(store, said))


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace, which makes fsync fail, is not installed")
@pytest.mark.parametrize("nth", [1, 3, 9])
def test_a_failed_fsync_ends_all_acknowledgements(tmp_path: Path, nth: int) -> None:
    """From the first commit whose fsync fails, the store refuses; after a restart all that was said is there."""
    directory = tmp_path / "data"
    assert 0 == tell(directory, "write")[0]
    inject = ("strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync")
    failing = (*inject, "-e", f"inject=fsync,fdatasync:error=EIO:when={nth}+")
    status, said = tell(directory, "write", wrapped=failing)
    if status not in (0, EXIT_BROKEN) and not said:
        pytest.skip(f"strace cannot trace here (exit {status})")
    assert EXIT_BROKEN == status
    assert "refused store_broken" == said[-1]
    acknowledged = {int(line.split()[1]) for line in said[:-1] if line.startswith("session")}
    assert len(acknowledged) < ROUNDS

    async def look(store: DiskStore) -> None:
        known = {row.key for row in (await store.load()).rows if isinstance(row, ProviderRow)}
        assert acknowledged <= known
        assert () == (await store.check()).problems

    DiskHome(directory).run(look)
