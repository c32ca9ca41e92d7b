"""Where files that were fetched go: beneath one directory, whatever they are called, and never through a link."""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coordinator.core.errors import Code, CoordError
from coordinator.manifest import check_path

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Place:
    """A name in a directory that is open. `part` keeps what came of a file until it is whole."""

    def __init__(self, directory: int, name: str, shown: Path) -> None:
        self._directory = directory
        self._name = name
        self.shown = shown

    def existing(self) -> int | None:
        """A descriptor of the regular file that is there; None: nothing is. CoordError(CONFLICT): something else is."""
        try:
            fd = os.open(self._name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=self._directory)
        except FileNotFoundError:
            return None
        except OSError as wrong:
            raise self._refused(wrong) from wrong
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise CoordError(
                Code.CONFLICT, f"{self.shown} is there, and no file", "move it away, or name another place"
            )
        return fd

    @contextmanager
    def part(self, tag: str) -> Iterator[int]:
        """A file beside it for what arrives, with what arrived under this tag before. It is one process's at a time."""
        name = f".{self._name[:100]}.{tag}.part"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, 0o600, dir_fd=self._directory)
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_nlink != 1 or found.st_uid != os.geteuid():
                # Somebody else's, or another name of some file: it is not written to.
                os.close(fd)
                os.unlink(name, dir_fd=self._directory)
                fd = os.open(name, flags | os.O_EXCL, 0o600, dir_fd=self._directory)
        except OSError as wrong:
            raise self._refused(wrong) from wrong
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as wrong:
                raise CoordError(
                    Code.CONFLICT, f"{self.shown} is being fetched already", "wait for the other command"
                ) from wrong
            self._part = name
            yield fd
        finally:
            os.close(fd)

    def put(self, fd: int, executable: bool) -> None:
        """What the part holds stands under the name: as a whole, in place of what was there."""
        umask = os.umask(0o022)
        os.umask(umask)
        try:
            os.fchmod(fd, (0o777 if executable else 0o666) & ~umask)
            os.rename(self._part, self._name, src_dir_fd=self._directory, dst_dir_fd=self._directory)
        except OSError as wrong:
            raise self._refused(wrong) from wrong

    def forget(self) -> None:
        """What arrived is of no use."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._part, dir_fd=self._directory)

    def _refused(self, wrong: OSError) -> CoordError:
        return CoordError(
            Code.CONFLICT, f"{self.shown} cannot be written: {wrong.strerror}", "name another place: --to"
        )


@contextmanager
def beneath(root: Path, path: str) -> Iterator[Place]:
    """The place of `path` beneath `root`; directories on the way are made.

    CoordError(BAD_REQUEST) for a path that leads out of it, CONFLICT where a link or a file stands in the way. `root`
    itself is whoever's who names it: it may be a link.
    """
    parts = check_path(path).split("/")
    shown = root / path
    try:
        root.mkdir(parents=True, exist_ok=True)
        directory = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as wrong:
        raise CoordError(
            Code.CONFLICT, f"{root} is no directory to write to: {wrong.strerror}", "name another"
        ) from wrong
    try:
        for part in parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=directory)
            deeper = os.open(part, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = deeper
        yield Place(directory, parts[-1], shown)
    except OSError as wrong:
        raise CoordError(
            Code.CONFLICT, f"{shown} cannot be written: {wrong.strerror}", "a link or a file stands in the way"
        ) from wrong
    finally:
        os.close(directory)
