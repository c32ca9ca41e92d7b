"""Where bytes of blobs lie, and the one way to a path: names are checked, and no link is followed beneath the root.

    blobs/<tenant>/<aa>/<digest>       aa: the first two digits of the digest
    blobs/.uploads/<upload id>         what has arrived of an open upload

Directories are 0700, files 0600. A tenant's name never begins with a dot, so nothing of it meets `.uploads`.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, TenantName, check_name
from store.layout import DIRECTORY_MODE, FILE_MODE

UPLOADS = ".uploads"
PIECE_BYTES = 1 << 22
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIGEST = re.compile(r"[0-9a-f]{64}")
_UPLOAD = re.compile(r"[0-9a-f]{32}")


def check_digest(digest: str) -> str:
    """Return `digest` if it may be one; CoordError(BAD_REQUEST) otherwise."""
    if _DIGEST.fullmatch(digest):
        return digest
    raise CoordError(Code.BAD_REQUEST, f"{digest[:80]!a} is no digest", "64 hex digits name a blob")


def check_upload(upload_id: str) -> str:
    """Return `upload_id` if it may be one; CoordError(BAD_REQUEST) otherwise."""
    if _UPLOAD.fullmatch(upload_id):
        return upload_id
    raise CoordError(Code.BAD_REQUEST, f"{upload_id[:80]!a} is no upload", "32 hex digits name an upload")


class BlobTree:
    """The directories and files below `root`. Raises OSError, and CoordError: BAD_REQUEST for what is no name, CONFLICT
    for what is not ours."""

    def __init__(self, root: Path, *, only_read: bool = False) -> None:
        self.root = root
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._uploads = -1
        self._durable: set[tuple[str, str]] = set()
        """Directories of blobs whose own names are: 256 a tenant at most."""
        if only_read:
            return
        try:
            with suppress(FileExistsError):
                os.mkdir(UPLOADS, DIRECTORY_MODE, dir_fd=self._fd)
            self._uploads = os.open(UPLOADS, _DIRECTORY, dir_fd=self._fd)
        except BaseException:
            os.close(self._fd)
            raise

    def close(self) -> None:
        for fd in (self._uploads, self._fd):
            if fd >= 0:
                os.close(fd)

    # ---- uploads

    def open_upload(self, upload_id: str, *, make: bool = False) -> int:
        """FileNotFoundError where there is none."""
        flags = _WRITE | (os.O_CREAT if make else 0)
        with _ours(upload_id):
            return os.open(check_upload(upload_id), flags, FILE_MODE, dir_fd=self._uploads)

    def remove_upload(self, upload_id: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(check_upload(upload_id), dir_fd=self._uploads)

    def uploads(self) -> list[str]:
        return [name for name in _names(self._uploads) if _UPLOAD.fullmatch(name)]

    # ---- blobs

    def publish(self, upload_id: str, tenant: TenantName, digest: str, *, anew: bool) -> None:
        """Put an upload's file under its digest, in the place of one that is there: whole or not at all. Not `anew`:
        what is there stays, and the upload's goes, unless it has gone meanwhile."""
        source = check_upload(upload_id)
        with _ours(f"{tenant}/{digest}"), self._directory(tenant, digest, make=True) as directory:
            if not anew:
                with suppress(FileNotFoundError):
                    os.utime(digest, dir_fd=directory)  # published now, for who looks for what no row names
                    os.unlink(source, dir_fd=self._uploads)
                    return
            os.rename(source, digest, src_dir_fd=self._uploads, dst_dir_fd=directory)

    def sync(self, tenant: TenantName, digest: str) -> None:
        """Make the name of a blob durable, and those of the directories that lead to it, unless they were before."""
        with self._directory(tenant, digest) as directory:
            os.fsync(directory)
        leading = (tenant, digest[:2])
        if leading not in self._durable:
            with self._opened(tenant, self._fd) as whose:
                os.fsync(whose)
            os.fsync(self._fd)
            self._durable.add(leading)

    def open_blob(self, tenant: TenantName, digest: str) -> tuple[int, os.stat_result]:
        """FileNotFoundError where there is none."""
        with _ours(f"{tenant}/{digest}"), self._directory(tenant, digest) as directory:
            fd = os.open(digest, _READ, dir_fd=directory)
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode):
            return fd, status
        os.close(fd)
        raise _in_the_way(f"{tenant}/{digest}")

    def is_whole(self, tenant: TenantName, digest: str) -> bool:
        """Whether its bytes are those of its digest; False also for one that is not there or cannot be read."""
        try:
            fd, _ = self.open_blob(tenant, digest)
        except (OSError, CoordError):
            return False
        hasher = blake3()
        try:
            with os.fdopen(fd, "rb", buffering=0) as file:
                while piece := file.read(PIECE_BYTES):
                    hasher.update(piece)
        except OSError:
            return False
        return hasher.hexdigest() == digest

    def remove_blob(self, tenant: TenantName, digest: str) -> int:
        """-> the bytes it had; 0 where there is none."""
        try:
            with _ours(f"{tenant}/{digest}"), self._directory(tenant, digest) as directory:
                size = os.stat(digest, dir_fd=directory, follow_symlinks=False).st_size
                os.unlink(digest, dir_fd=directory)
        except FileNotFoundError:
            return 0
        return size

    def blobs(self, after: tuple[str, str] = ("", "")) -> Iterator[tuple[TenantName, str, int, Ms]]:
        """(tenant, digest, bytes, when its file last changed) by (tenant, digest) rising, after that one."""
        for tenant in _subdirectories(self._fd):
            if tenant < after[0] or tenant == UPLOADS:
                continue
            behind = after[1] if tenant == after[0] else ""
            with self._opened(tenant, self._fd) as whose:
                for part in _subdirectories(whose):
                    if part < behind[:2]:
                        continue
                    with self._opened(part, whose) as directory:
                        yield from self._blobs_in(directory, TenantName(tenant), behind)

    def _blobs_in(self, directory: int, tenant: TenantName, behind: str) -> Iterator[tuple[TenantName, str, int, Ms]]:
        for digest in _names(directory):
            if digest > behind and _DIGEST.fullmatch(digest):
                with suppress(FileNotFoundError):
                    status = os.stat(digest, dir_fd=directory, follow_symlinks=False)
                    # Its publication is a change of the file's status, not of its contents.
                    changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
                    yield tenant, digest, status.st_size, changed_ns // 1_000_000

    @contextmanager
    def _directory(self, tenant: TenantName, digest: str, *, make: bool = False) -> Iterator[int]:
        """The directory of a blob."""
        part = check_digest(digest)[:2]
        with (
            self._opened(check_name(tenant, "tenant"), self._fd, make=make) as whose,
            self._opened(part, whose, make=make) as directory,
        ):
            yield directory

    @contextmanager
    def _opened(self, name: str, beneath: int, *, make: bool = False) -> Iterator[int]:
        if make:
            with suppress(FileExistsError):
                os.mkdir(name, DIRECTORY_MODE, dir_fd=beneath)
        fd = os.open(name, _DIRECTORY, dir_fd=beneath)
        try:
            yield fd
        finally:
            os.close(fd)


@contextmanager
def _ours(name: str) -> Iterator[None]:
    """CONFLICT where somebody put a link, or what is no file or directory, in the place of ours: nobody follows it, and
    it is no fault of the disk."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
            raise _in_the_way(name) from error
        raise


def _in_the_way(name: str) -> CoordError:
    return CoordError(
        Code.CONFLICT,
        f"something that is no file of coord lies in the way of {name}",
        "somebody changed the directory blobs: remove what is not a plain file or directory there",
    )


def _names(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return sorted(entry.name for entry in entries)


def _subdirectories(fd: int) -> list[str]:
    with os.scandir(fd) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
