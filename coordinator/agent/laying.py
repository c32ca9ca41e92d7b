"""Files into place: a copy of one that we keep, beneath a program's directory, as the program's own.

Where the file system can share blocks between files (FICLONE: btrfs, XFS) the copy costs nothing; else bytes are copied
inside of the kernel. Never a link: what the program changes is its own.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from collections.abc import Callable, Generator

from coordinator.agent import beneath
from coordinator.agent.beneath import Unsafe
from coordinator.agent.cache import free_bytes

PIECE_BYTES = 16 << 20
"""Copied at a time: between two it is looked whether anybody still wants it."""
_FICLONE = 0x40049409
_CANNOT_CLONE = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS, errno.EPERM, errno.ETXTBSY)
_CANNOT_COPY = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EPERM, errno.EBADF)


class Unwanted(Exception):
    """Nobody wants it any more."""


def lay(
    source: int,
    root: int,
    path: str,
    *,
    mark: str,
    executable: bool = False,
    user: int = 0,
    wanted: Callable[[], bool] = lambda: True,
) -> None:
    """Put a copy of the open file `source` at `path` beneath `root`, whatever file lay there; it appears whole.

    It belongs to `user` (0: to us), with mode 0644 or 0755; so do directories that had to be made. `mark` tells those
    apart who lay into one directory at a time; each of them lays one file after the other. Runs in a thread.
    Raises Unsafe, OSError (ENOSPC, EDQUOT: nothing of it is left), and Unwanted as soon as `wanted` says no.
    """
    above, _, name = path.rpartition("/")
    beneath.check(path)
    parent = beneath.make_directories(root, above, user)
    part = f".coord-staging-{mark}"  # what a daemon before us left half laid there goes
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=parent)
        fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent)
        try:
            copy_into(source, fd, wanted)
            os.fchmod(fd, 0o755 if executable else 0o644)
            if user:
                os.fchown(fd, user, user)
            os.rename(part, name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            os.unlink(part, dir_fd=parent)
            raise
        finally:
            os.close(fd)
    except IsADirectoryError:
        raise Unsafe(f"{path} is a directory") from None
    finally:
        os.close(parent)


def copy_into(source: int, target: int, wanted: Callable[[], bool] = lambda: True) -> int:
    """All bytes of one open file into another, empty one, sharing blocks where that is possible; how many.

    OSError(ENOSPC) before anything was written, where they would not fit.
    """
    steps = copying_into(source, target)
    while wanted():
        try:
            next(steps)
        except StopIteration as ended:
            copied: int = ended.value
            return copied
    raise Unwanted


def copying_into(source: int, target: int) -> Generator[int, None, int]:
    """The same piece by piece: yields how many bytes are copied."""
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return os.fstat(target).st_size
    except OSError as error:
        if error.errno not in _CANNOT_CLONE:
            raise
    if free_bytes(target) < os.fstat(source).st_size:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    copied = 0
    while more := _copy_piece(source, target, copied):
        copied += more
        yield copied
    return copied


def _copy_piece(source: int, target: int, at: int) -> int:
    try:
        return os.copy_file_range(source, target, PIECE_BYTES, at, at)
    except OSError as error:
        if error.errno not in _CANNOT_COPY:
            raise
    data = os.pread(source, 1 << 20, at)
    written = 0
    while written < len(data):
        written += os.pwrite(target, memoryview(data)[written:], at + written)
    return written
