"""Where everything of a data directory lies, who may read it, and that one server at a time owns it.

Directories made here are 0700 and files 0600: the directory holds tokens and everything that the fleet told us.
A root directory that was there before is left as it is; the files in it are private all the same.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
from pathlib import Path

from coordinator.core.errors import Code, CoordError

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600


class DataDir:
    """The paths of one data directory. Making one touches nothing; `make` creates the directories."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def truth(self) -> Path:
        return self.path / "truth.sqlite"

    @property
    def telemetry(self) -> Path:
        return self.path / "telemetry.sqlite"

    @property
    def segments(self) -> Path:
        return self.path / "segments"

    @property
    def logs(self) -> Path:
        """What attempts wrote, job by job."""
        return self.path / "logs"

    @property
    def blobs(self) -> Path:
        """Bytes of blobs, tenant by tenant."""
        return self.path / "blobs"

    @property
    def traces(self) -> Path:
        """Spans, assets and lineage, job by job: the analytics worker's to write."""
        return self.path / "traces"

    @property
    def trace_bodies(self) -> Path:
        """Uploads of traces on their way to the worker: none of them outlives its request."""
        return self.analytics / "bodies"

    @property
    def ballast(self) -> Path:
        return self.path / "ballast"

    @property
    def lock(self) -> Path:
        return self.path / "lock"

    @property
    def coordinator_id(self) -> Path:
        """The file that names this coordinator: written last when a data directory is made."""
        return self.path / "coordinator_id"

    @property
    def tokens(self) -> Path:
        return self.path / "tokens"

    @property
    def admin_token(self) -> Path:
        return self.tokens / "admin.token"

    @property
    def join_token(self) -> Path:
        return self.tokens / "join.token"

    @property
    def url_key(self) -> Path:
        """What signs URLs of blobs and uploads."""
        return self.path / "url.key"

    @property
    def address(self) -> Path:
        """One line, `http://HOST:PORT` of the running coordinator."""
        return self.path / "address"

    @property
    def analytics(self) -> Path:
        return self.path / "analytics"

    @property
    def warehouse(self) -> Path:
        return self.analytics / "warehouse.duckdb"

    @property
    def views(self) -> Path:
        """Parquet snapshots that the analytics worker publishes by rename."""
        return self.analytics / "views"

    @property
    def attribution(self) -> Path:
        """How far logs were followed: what is lost of it is made again from them."""
        return self.path / "attribution"

    @property
    def recorder(self) -> Path:
        return self.path / "recorder"

    @property
    def backups(self) -> Path:
        return self.path / "backups"

    @property
    def restoring(self) -> Path:
        """A restore on its way; with it and without a coordinator's id, one was interrupted."""
        return self.path / ".restoring"

    def make(self) -> None:
        """Create what is missing of the directories. Cheap when all is there."""
        try:
            self.path.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
            for directory in (
                self.segments,
                self.logs,
                self.blobs,
                self.traces,
                self.tokens,
                self.analytics,
                self.views,
                self.recorder,
                self.backups,
            ):
                directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
        except OSError as error:
            raise _unusable(self.path, error) from error

    def lock_exclusively(self) -> DataLock:
        """Own this directory until the lock is released or the process ends; CoordError(DATA_LOCKED) otherwise."""
        try:
            fd = os.open(self.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
        except OSError as error:
            raise _unusable(self.path, error) from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise _unusable(self.path, error) from error
            raise CoordError(
                Code.DATA_LOCKED,
                f"the data directory {self.path} is in use by the process with pid {holder}",
                "stop that coordinator first, or name another directory with --data",
            ) from None
        try:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            pass  # a full disk: the lock holds all the same, only its note of the pid is lost
        return DataLock(fd)

    def read_coordinator_id(self) -> str | None:
        """The id of this coordinator; None before the store was made."""
        try:
            return self.coordinator_id.read_text().strip() or None
        except FileNotFoundError:
            return None

    def make_coordinator_id(self) -> str:
        """Give this coordinator its id, for good. Durable when it returns."""
        name = f"c-{secrets.token_hex(6)}"
        write_private(self.coordinator_id, name + "\n")
        return name


class DataLock:
    """The flock on a data directory. The kernel drops it with the process, however that ends."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Let another server have the directory. Safe to call twice."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def write_private(path: Path, text: str) -> None:
    """Replace the file by one that holds `text` and that only we may read: atomically, and durable on return."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(fd, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make renames and new names in this directory durable."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def link_or_copy(source: Path, target: Path) -> None:
    """A second name for a file that never changes; a copy on another file system."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy(source, target)


def make_directory(root: Path, inside: Path) -> Path:
    """A private directory below `root`, and those that lead to it; returns it."""
    made = root
    for name in inside.parts:
        made = made / name
        made.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
    return made


def _unusable(path: Path, error: OSError) -> CoordError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return CoordError(
        Code.STORE_FULL if full else Code.BAD_CONFIG,
        f"the data directory {path} cannot be used: {error.strerror or error}",
        "free some space" if full else "name a directory that this user may write with --data",
    )
