"""Backup of a running store: both databases as of one moment, segments, logs, traces and blobs, and a manifest."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import Struct

from coordinator.core.errors import Code, CoordError
from store import manifest
from store.blob_backup import copy_blobs, need_blobs
from store.failpoints import FailPoints
from store.layout import DIRECTORY_MODE, FILE_MODE, DataDir, link_or_copy, sync_directory, write_private
from store.log_backup import copy_logs
from store.manifest import Segment, digest_of
from store.sqlite import broken, open_reader, sqlite3, translated
from store.traces.places import copy_traces
from store.writer import Writer

CONTENTS = "contents.json"
"""Written last: a directory without it is no backup."""
FORMAT = 1


class BackupFile(Struct, frozen=True, kw_only=True):
    """One file of a backup; `path` within it."""

    path: str
    bytes: int
    digest: str
    """SHA-256, hex."""


class Contents(Struct, frozen=True, kw_only=True):
    """What a backup holds."""

    format: int
    coordinator_id: str
    made_at: str
    files: tuple[BackupFile, ...]
    """But for blobs: of these the truth's rows say what there must be."""
    missing: tuple[str, ...] = ()
    """Blobs that were not there to be saved, as TENANT/DIGEST."""


async def back_up(
    data: DataDir, parent: Path, truth: Writer, telemetry: Writer, points: FailPoints, report: Callable[[str], None]
) -> Path:
    """Write a new directory `coord-<UTC time>` into `parent` and return it, verified and durable.

    Both writers stand still only while the two snapshots are opened (milliseconds); the copying goes on beside
    them. Segments must not be sealed or removed meanwhile, nor bytes of blobs removed. Segments, blobs and complete
    logs are hard links on the same file system; a log that grows is copied as far as it is. `report` is told of blobs
    that are lost: what there is is saved all the same.
    """
    name = f"coord-{datetime.fromtimestamp(time.time(), UTC).strftime('%Y%m%dT%H%M%SZ')}-{secrets.token_hex(2)}"
    partial = parent / f".{name}.partial"
    try:
        await asyncio.to_thread(_make_room, parent, partial)
        with ExitStack() as stack:
            async with truth.paused(), telemetry.paused():
                snapshots = await asyncio.to_thread(_snapshots, data, stack)
            missing = await asyncio.to_thread(_copy, data, partial, snapshots)
        await asyncio.to_thread(_finish, data, partial, parent / name, missing, points)
    except BaseException as error:
        shutil.rmtree(partial, ignore_errors=True)
        failure = translated(error, partial)
        if failure is error:
            raise
        raise failure from error
    for place in missing:
        report(f"blobs/{place} is lost: it is not in the backup {name} either")
    return parent / name


def _make_room(parent: Path, partial: Path) -> None:
    """The directory to fill; what backups that were cut short left in `parent` is removed."""
    if parent.exists():
        for leftover in parent.glob(".coord-*.partial"):
            shutil.rmtree(leftover)
    partial.mkdir(mode=DIRECTORY_MODE, parents=True)


def _snapshots(data: DataDir, stack: ExitStack) -> list[sqlite3.Connection]:
    """A read transaction on each database, both begun while nobody writes."""
    found = []
    for path in (data.truth, data.telemetry):
        connection = stack.enter_context(closing(open_reader(path)))
        connection.execute("BEGIN")
        connection.execute("SELECT count(*) FROM sqlite_schema").fetchall()
        found.append(connection)
    return found


def _copy(data: DataDir, target: Path, snapshots: list[sqlite3.Connection]) -> tuple[str, ...]:
    """Returns the blobs that are lost."""
    for connection, path in zip(snapshots, (data.truth, data.telemetry), strict=True):
        copy = target / path.name
        os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
        with closing(sqlite3.connect(str(copy), isolation_level=None)) as into:
            connection.backup(into)
            # Of one file: without a log beside it, it can be copied and digested as it is.
            into.execute("PRAGMA journal_mode = DELETE")
    (target / data.segments.name).mkdir(mode=DIRECTORY_MODE)
    for row in snapshots[1].execute(manifest.ALL):
        segment = Segment(*row)
        link_or_copy(data.segments / segment.file, target / data.segments.name / segment.file)
    copy_logs(data.logs, target / data.logs.name, snapshots[0])
    copy_traces(data.traces, target / data.traces.name)
    shutil.copy(data.coordinator_id, target / data.coordinator_id.name)
    return copy_blobs(data.blobs, target / data.blobs.name, snapshots[0])


def _finish(data: DataDir, partial: Path, final: Path, missing: tuple[str, ...], points: FailPoints) -> None:
    with closing(sqlite3.connect(str(partial / data.truth.name))) as connection:
        _verify(connection, data.truth.name)
    with closing(sqlite3.connect(str(partial / data.telemetry.name))) as connection:
        _verify(connection, data.telemetry.name)
        segments = [Segment(*row) for row in connection.execute(manifest.ALL)]
    digests = {f"{data.segments.name}/{segment.file}": segment.digest for segment in segments}
    files = []
    for path in _files(partial, data.blobs.name):
        _sync(path)
        file = BackupFile(path=str(path.relative_to(partial)), bytes=path.stat().st_size, digest=digest_of(path))
        if digests.get(file.path, file.digest) != file.digest:
            raise broken(f"{file.path} is damaged: it is not what its manifest says")
        files.append(file)
    contents = Contents(
        format=FORMAT,
        coordinator_id=data.read_coordinator_id() or "",
        made_at=datetime.fromtimestamp(time.time(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        files=tuple(files),
        missing=missing,
    )
    points.reach("backup.copied")
    for directory in (path for path in partial.rglob("*") if path.is_dir()):
        sync_directory(directory)
    write_private(partial / CONTENTS, msgspec.json.format(msgspec.json.encode(contents)).decode() + "\n")
    partial.rename(final)
    sync_directory(final.parent)


def _verify(connection: sqlite3.Connection, name: str) -> None:
    found = connection.execute("PRAGMA quick_check(1)").fetchall()
    if found != [("ok",)]:
        raise broken(f"the copy of {name} is damaged: {found[0][0]}")


def _files(directory: Path, leaving_out: str) -> Iterator[Path]:
    for entry in sorted(directory.iterdir()):
        if entry.name != leaving_out:
            yield from (path for path in (entry, *sorted(entry.rglob("*"))) if path.is_file())


def _sync(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def read_contents(backup: Path) -> Contents:
    """The manifest of a backup, every file checked against it, and the lengths of blobs against their rows.
    CoordError(BAD_REQUEST) names what is wrong."""
    hint = "name a directory that coord db backup made"
    try:
        contents = msgspec.json.decode((backup / CONTENTS).read_bytes(), type=Contents)
    except FileNotFoundError:
        raise CoordError(Code.BAD_REQUEST, f"{backup} is no backup: it has no {CONTENTS}", hint) from None
    except (msgspec.DecodeError, OSError) as error:
        raise CoordError(Code.BAD_REQUEST, f"{backup / CONTENTS} cannot be read: {error}", hint) from error
    if contents.format != FORMAT:
        raise CoordError(
            Code.SCHEMA_NEWER,
            f"{backup} has format {contents.format}, this program knows {FORMAT}",
            "use a newer coord",
        )
    for file in contents.files:
        path = backup / file.path
        if not path.resolve().is_relative_to(backup.resolve()):
            raise CoordError(Code.BAD_REQUEST, f"{CONTENTS} names {file.path!a}, outside of the backup", hint)
        try:
            same = path.stat().st_size == file.bytes and digest_of(path) == file.digest
        except OSError as error:
            raise CoordError(
                Code.BAD_REQUEST, f"{path} cannot be read: {error.strerror or error}", "use another backup"
            ) from error
        if not same:
            raise CoordError(Code.BAD_REQUEST, f"{path} is not what {CONTENTS} says", "use another backup")
    saved = DataDir(backup)
    with closing(open_reader(saved.truth)) as truth:
        need_blobs(saved.blobs, truth, contents.missing)
    return contents
