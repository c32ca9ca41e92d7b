"""Putting a backup in the place of a data directory's store. Offline: the coordinator must not run."""

from __future__ import annotations

import os
import shutil
import time
from datetime import UTC, datetime
from pathlib import Path

from coordinator.core.rows import Meta
from store import meta
from store.backup import link_or_copy, read_contents
from store.failpoints import FailPoints
from store.layout import DIRECTORY_MODE, FILE_MODE, DataDir, sync_directory
from store.migrate import migrate
from store.sqlite import Durability, open_writer, sqlite3, translated
from store.writer import in_transaction


def restore(backup_dir: Path, data_dir: Path, failpoint: str = "") -> Path | None:
    """Verify a backup and make it the store of `data_dir`; returns where the files before it were put, if any.

    The generation rises by one, so that agents refuse leases of before; the epoch is new, so that everything
    derived is computed anew. Interrupted, it is to be run again: the coordinator's id is the first file to go and
    the last to come, and without it a directory with a restore on its way is refused at start.

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
        staged.segments.mkdir(mode=DIRECTORY_MODE, parents=True)
        for file in contents.files:
            copy = link_or_copy if file.path.startswith(f"{data.segments.name}/") else shutil.copyfile
            copy(backup_dir / file.path, staged.path / file.path)
        _raise_generation(staged)
        for path in staged.path.rglob("*"):
            if path.is_file():
                _settle(path)
        sync_directory(staged.segments)
        sync_directory(staged.path)
        before = _set_aside(data)
        points.reach("restore.set_aside")
        # The coordinator's id comes last: it vouches that the databases are there.
        for name in (data.segments.name, data.telemetry.name, data.truth.name, data.coordinator_id.name):
            (staged.path / name).rename(data.path / name)
        sync_directory(data.path)
        staged.path.rmdir()
        shutil.rmtree(data.analytics, ignore_errors=True)  # derived from what is no more
    except (sqlite3.Error, OSError) as error:
        failure = translated(error, data.path)
        raise failure from error
    finally:
        lock.release()
    return before


def _raise_generation(staged: DataDir) -> None:
    connection = open_writer(staged.truth, Durability.FULL)
    try:
        migrate(connection, "truth")

        def work(connection: sqlite3.Connection) -> None:
            row = connection.execute("SELECT value FROM meta WHERE name = ?", (Meta.GENERATION.value,)).fetchone()
            generation = int(row[0]) if row is not None else 1
            connection.execute(meta.TABLE.put, (Meta.GENERATION.value, str(generation + 1)))
            meta.new_epoch(connection)

        in_transaction(connection, work)
    finally:
        connection.close()


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
    names = [data.coordinator_id.name]
    for path in (data.truth, data.telemetry):
        names += [path.name, f"{path.name}-wal", f"{path.name}-shm"]
    there = [name for name in names if (data.path / name).exists()]
    segments = any(data.segments.iterdir()) if data.segments.exists() else False
    if not there and not segments:
        if data.segments.exists():
            data.segments.rmdir()
        return None
    stamp = datetime.fromtimestamp(time.time(), UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = data.path / f"before-restore-{stamp}-{os.getpid()}"
    aside.mkdir(mode=DIRECTORY_MODE)
    for name in there:
        (data.path / name).rename(aside / name)
    if data.segments.exists():
        data.segments.rename(aside / data.segments.name)
    sync_directory(aside)
    sync_directory(data.path)
    return aside
