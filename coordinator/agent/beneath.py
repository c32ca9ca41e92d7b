"""Files beneath a directory that a program could write to: opened without following any link, and only plain ones.

Paths are checked as text first (`manifest.check_path`: relative, no `..`, no NUL), then every part is opened beneath
the one before: by openat2(2) where the kernel has it, else part by part with O_NOFOLLOW. So whoever swaps a directory
for a link meanwhile gets an error, never a file of somebody else. A descriptor that was opened stays what it is.

What is found is refused unless it is a regular file; and where a program has a user of its own, unless that user could
read it: a hard link to another's file is no way around its rights.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from coordinator.agent import syscalls
from coordinator.core.errors import CoordError
from coordinator.manifest import check_path

DEPTH_MAX = 64
"""Directories within each other that `walk` goes into: each is an open descriptor."""
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_LINKS = (errno.ELOOP, errno.EXDEV, errno.ENOTDIR)
"""What the kernel says of a link, and of what is no directory, in the middle of a path."""
_UNKNOWN = (errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL)
"""What it says where it has no openat2, or a filter of a container lets nobody call it."""
_KINDS = {
    stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
    stat.S_IFDIR: "a directory",
}


class Unsafe(Exception):
    """It is there, and it is nothing that may be opened; the text says why. Trying again would not help."""


class Found(NamedTuple):
    """One entry beneath a directory that is no directory itself."""

    path: str
    stat: os.stat_result
    """Of itself: a link is not followed."""

    @property
    def is_file(self) -> bool:
        return stat.S_ISREG(self.stat.st_mode)


def open_root(path: str | Path) -> int:
    """A directory of our own, which no program can swap: links on the way are ours, too, and followed."""
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def open_directory(root: int, path: str) -> int:
    """The directory at `path`; "" is the root itself. Raises Unsafe, FileNotFoundError, OSError."""
    if not path:
        return os.open(".", _DIRECTORY, dir_fd=root)
    return _open(root, path, _DIRECTORY)


def open_file(root: int, path: str, user: int = 0) -> int:
    """The regular file at `path`, for reading. `user`: that user must be able to read it; 0: whoever we are.

    Raises Unsafe for anything else that may lie there, FileNotFoundError, OSError.
    """
    fd = _open(root, path, _FILE)
    try:
        check_plain(os.fstat(fd), path, user)
    except Unsafe:
        os.close(fd)
        raise
    return fd


def check_plain(found: os.stat_result, path: str, user: int) -> None:
    """Raise Unsafe unless it is a regular file that `user` could read."""
    if not stat.S_ISREG(found.st_mode):
        raise Unsafe(f"{path} is {_KINDS.get(stat.S_IFMT(found.st_mode), 'no regular file')}")
    if user and found.st_uid != user and not found.st_mode & stat.S_IROTH:
        raise Unsafe(f"{path} is a file of another user")


def make_directories(root: int, path: str, user: int = 0) -> int:
    """The directory at `path`, open; what is missing of it is made, and belongs to `user` (0: to us)."""
    if path:
        check(path)
    fd = open_directory(root, "")
    for part in path.split("/") if path else ():
        try:
            inner = _make_directory(fd, part, user)
        except OSError as error:
            raise _unsafe(error, path) from None
        finally:
            os.close(fd)
        fd = inner
    return fd


def _make_directory(parent: int, name: str, user: int) -> int:
    with contextlib.suppress(FileNotFoundError):
        return os.open(name, _DIRECTORY, dir_fd=parent)
    made = True
    try:
        os.mkdir(name, 0o755, dir_fd=parent)
    except FileExistsError:  # by whoever lays the file beside: several are laid at a time
        made = False
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    if user and made:
        os.fchown(fd, user, user)
    return fd


def remove_file(root: int, path: str) -> None:
    """What lies at `path` is gone, if it is no directory; a link itself, never what it names."""
    above, _, name = check(path).rpartition("/")
    with contextlib.suppress(FileNotFoundError):
        parent = open_directory(root, above)
        try:
            os.unlink(name, dir_fd=parent)
        finally:
            os.close(parent)


def walk(root: int, most: int) -> Iterator[Found]:
    """Everything beneath that is no directory, by path: Unsafe where there are more than so many entries, directories
    too, before more of them are in memory. Links are entries, not ways.

    Names are as they are: one that no manifest could hold is Unsafe when it is opened. A tree deeper than DEPTH_MAX is
    Unsafe here.
    """
    return _walk(root, "", 0, _Left(most, most))


class _Left:
    """How many entries may still be found, of so many."""

    def __init__(self, left: int, most: int) -> None:
        self.left = left
        self.most = most


def _walk(directory: int, prefix: str, depth: int, left: _Left) -> Iterator[Found]:
    if depth >= DEPTH_MAX:
        raise Unsafe(f"{prefix} is {depth} directories deep")
    with os.scandir(directory) as entries:
        some = islice(entries, left.left + 1)
        names = sorted([(entry.name + "/" if entry.is_dir(follow_symlinks=False) else entry.name) for entry in some])
    left.left -= len(names)
    if left.left < 0:
        raise Unsafe(f"there are more than {left.most} files and directories")
    for name in names:
        path = prefix + name
        if not name.endswith("/"):
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                yield Found(path, os.stat(name, dir_fd=directory, follow_symlinks=False))
            continue
        try:
            inner = os.open(name[:-1], _DIRECTORY, dir_fd=directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise _unsafe(error, path) from None
        try:
            yield from _walk(inner, path, depth + 1, left)
        finally:
            os.close(inner)


# ---- opening


def check(path: str) -> str:
    """`path`, if it names a file beneath a directory, whatever lies there; else Unsafe."""
    try:
        return check_path(path)
    except CoordError as error:
        raise Unsafe(error.message) from None


def _open(root: int, path: str, flags: int) -> int:
    check(path)
    try:
        try:
            return syscalls.openat2(root, path, flags, 0, syscalls.RESOLVE_BENEATH_NO_LINKS)
        except OSError as error:
            if error.errno not in _UNKNOWN:
                raise
        return walk_open(root, path, flags)
    except OSError as error:
        raise _unsafe(error, path) from None


def walk_open(root: int, path: str, flags: int) -> int:
    """What openat2 does, part by part, for kernels without it. `path` was checked."""
    *above, name = path.split("/")
    fd = os.open(".", _DIRECTORY, dir_fd=root)
    try:
        for part in above:
            inner = os.open(part, _DIRECTORY, dir_fd=fd)
            os.close(fd)
            fd = inner
        return os.open(name, flags, dir_fd=fd)
    finally:
        os.close(fd)


def _unsafe(error: OSError, path: str) -> Exception:
    """As it is to be told: what is missing is missing, a link on the way is unsafe, the rest is what it is."""
    if error.errno in _LINKS:
        return Unsafe(f"{path} leads through a link, or through what is no directory")
    if error.errno == errno.ENXIO:
        return Unsafe(f"{path} is a FIFO or a socket that nobody is at")
    return error
