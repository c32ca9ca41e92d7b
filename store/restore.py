"""Putting a backup in the place of a data directory's store. Offline: the coordinator must not run."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

from coordinator.core.errors import CoordError
from coordinator.core.rows import Meta
from store import meta
from store.backup import read_contents
from store.blob_backup import copy_blobs
from store.failpoints import FailPoints
from store.layout import DIRECTORY_MODE, FILE_MODE, DataDir, link_or_copy, make_directory, sync_directory
from store.migrate import migrate
from store.sqlite import Durability, open_reader, open_writer, sqlite3, translated
from store.writer import in_transaction

UNKNOWN_AFTER = {"job_id": 10_000, "audit": 10_000_000, "ledger": 1_000_000}
"""So many numbers are taken as given after the backup where the store of before cannot be asked."""


def restore(
    backup_dir: Path, data_dir: Path, failpoint: str = "", report: Callable[[str], None] | None = None
) -> Path | None:
    """Verify a backup and make it the store of `data_dir`; returns where the files before it were put, if any.

    The generation rises by one, so that agents refuse leases of before; numbers of jobs, of audit rows and of charges
    that were given after the backup stay used; the epoch is new, so that everything derived is computed anew.
    Interrupted, it is to be run again: the coordinator's id is the first file to go and the last to come, and without
    it a directory with a restore on its way is refused at start. `report` is told of blobs that the backup has lost.

    Raises CoordError: BAD_REQUEST for a backup that is not whole, DATA_LOCKED for a directory in use,
    STORE_FULL, SCHEMA_NEWER.
    """
    points = FailPoints(failpoint)
    contents = read_contents(backup_dir)
    data = DataDir(data_dir)
    data.make()
    lock = data.lock_exclusively()
    staged = DataDir(data.restoring)
    try:
        shutil.rmtree(staged.path, ignore_errors=True)
        for directory in (staged.path, staged.segments, staged.logs, staged.traces):
            directory.mkdir(mode=DIRECTORY_MODE)
        for file in contents.files:
            make_directory(staged.path, Path(file.path).parent)
            # Segments never change; logs and traces may grow, and the backup with them if they were the same files.
            copy = link_or_copy if file.path.startswith(f"{data.segments.name}/") else shutil.copyfile
            copy(backup_dir / file.path, staged.path / file.path)
        _raise_numbers(staged, data)
        for path in staged.path.rglob("*"):
            if path.is_file():
                _settle(path)
        saved = DataDir(backup_dir)
        with closing(open_reader(saved.truth)) as truth:
            lost = copy_blobs(saved.blobs, staged.blobs, truth)  # synced, each of them
        for path in (path for path in staged.path.rglob("*") if path.is_dir()):
            sync_directory(path)
        sync_directory(staged.path)
        before = _set_aside(data)
        points.reach("restore.set_aside")
        # The coordinator's id comes last: it vouches that the databases are there.
        for name in (
            data.segments.name,
            data.logs.name,
            data.traces.name,
            data.blobs.name,
            data.telemetry.name,
            data.truth.name,
            data.coordinator_id.name,
        ):
            (staged.path / name).rename(data.path / name)
        sync_directory(data.path)
        staged.path.rmdir()
        shutil.rmtree(data.analytics, ignore_errors=True)  # derived from what is no more
        if report is not None:
            for place in lost:
                report(f"blobs/{place} is lost: the backup does not have it whole")
    except (sqlite3.Error, OSError) as error:
        failure = translated(error, data.path)
        raise failure from error
    finally:
        lock.release()
    return before


def _raise_numbers(staged: DataDir, data: DataDir) -> None:
    """No number that was given after the backup is given again: to a lease, a job, a row of the audit or a charge."""
    given = _numbers_given(data)
    connection = open_writer(staged.truth, Durability.FULL)
    try:
        migrate(connection, "truth")

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT value FROM meta WHERE name = ?", (Meta.GENERATION.value,)).fetchone()
            generation = int(row[0]) if row is not None else 1
            connection.execute(meta.TABLE.put, (Meta.GENERATION.value, str(generation + 1)))
            meta.new_epoch(connection)
            for name, count in connection.execute(meta.COUNTERS).fetchall():
                if name in UNKNOWN_AFTER:
                    last = max(count, given.get(name, count + UNKNOWN_AFTER[name]))
                    connection.execute(meta.SET_COUNTER, (last, name))

        in_transaction(connection, work)
    finally:
        connection.close()


def _numbers_given(data: DataDir) -> dict[str, int]:
    """Of the store that is to be replaced; empty where there is none, or none that can be read."""
    try:
        with closing(open_reader(data.truth)) as connection:
            return dict(connection.execute(meta.COUNTERS).fetchall())
    except (sqlite3.Error, CoordError):
        return {}


def _settle(path: Path) -> None:
    path.chmod(FILE_MODE)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _set_aside(data: DataDir) -> Path | None:
    """Move what is there into a directory of its own; nothing is deleted. Logs go with their databases: they
    would be applied to the restored ones. The id goes first, so that no moment looks like a whole store."""
    directories = [path for path in (data.segments, data.logs, data.traces, data.blobs) if path.exists()]
    names = [data.coordinator_id.name]
    for path in (data.truth, data.telemetry):
        names += [path.name, f"{path.name}-wal", f"{path.name}-shm"]
    there = [name for name in names if (data.path / name).exists()]
    if not there and not any(any(directory.iterdir()) for directory in directories):
        for directory in directories:
            directory.rmdir()
        return None
    stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = data.path / f"before-restore-{stamp}-{os.getpid()}"
    aside.mkdir(mode=DIRECTORY_MODE)
    for name in there:
        (data.path / name).rename(aside / name)
    for directory in directories:
        directory.rename(aside / directory.name)
    sync_directory(aside)
    sync_directory(data.path)
    return aside
