"""Files under one directory, and no others: whatever a path looks like, and whoever swaps a link meanwhile.

A path is resolved once, with its links. What is opened afterwards is reached from the root's own descriptor one name
at a time, none of them through a link: a link that came into the way since is refused, wherever it leads.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from analytics.attribution.desk.contract import PATH_CHARS_MAX, ErrorCode, Refused
from coordinator.core.errors import Code, CoordError

_WALK = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC


class Root:
    """The directory. Safe to use from several threads."""

    def __init__(self, path: Path) -> None:
        """CoordError(BAD_CONFIG) where it is no directory."""
        self.path = os.path.realpath(path)
        try:
            self._fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            why = error.strerror or str(error)
            raise CoordError(Code.BAD_CONFIG, f"{path}: {why}", "name the directory that the logs lie in") from error
        self._within = self.path.rstrip("/") + "/"

    def close(self) -> None:
        os.close(self._fd)

    def place(self, path: str) -> str:
        """Where `path` leads, links and `..` resolved; there need be nothing. Refused: INVALID_PATH, OUTSIDE_ROOT."""
        if "\0" in path or len(path) > PATH_CHARS_MAX:
            raise Refused(ErrorCode.INVALID_PATH, "the path has a NUL, or is too long")
        if not path.startswith("/"):
            raise Refused(ErrorCode.INVALID_PATH, "the path must be absolute")
        try:
            real = os.path.realpath(path)
            real.encode()
        except (OSError, ValueError):
            raise Refused(ErrorCode.INVALID_PATH, "the path cannot be resolved") from None
        if not self.holds(real):
            raise Refused(ErrorCode.OUTSIDE_ROOT, "the path leads out of the directory that may be read")
        return real

    def holds(self, real: str) -> bool:
        """Whether a resolved path lies under the root, or is it."""
        return real.startswith(self._within) or real == self.path

    def open(self, real: str) -> int:
        """A descriptor of the file at a resolved path, not blocking. OSError where there is none that may be read."""
        return self._at(real, _READ)

    def open_directory(self, real: str) -> int:
        """The same of a directory."""
        return self._at(real, _WALK)

    def _at(self, real: str, flags: int) -> int:
        if not self.holds(real):
            raise PermissionError(errno.EACCES, "it lies outside")
        if real == self.path:
            return os.open(".", flags, dir_fd=self._fd)
        *parents, name = real.removeprefix(self._within).split("/")
        here = self._fd
        try:
            for parent in parents:
                there = os.open(parent, _WALK, dir_fd=here)
                if here != self._fd:
                    os.close(here)
                here = there
            return os.open(name, flags, dir_fd=here)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise PermissionError(errno.EACCES, "a link came into the way") from error
            raise
        finally:
            if here != self._fd:
                os.close(here)

    def status(self, real: str) -> os.stat_result | None:
        """Of the regular file there; None: nothing is there yet, but the directory that it would lie in.

        Refused: NOT_FOUND, NOT_READABLE, NOT_REGULAR.
        """
        try:
            fd = self.open(real)
        except FileNotFoundError:
            self._expect(real)
            return None
        except PermissionError:
            raise Refused(ErrorCode.NOT_READABLE, "the file may not be read") from None
        except NotADirectoryError:
            raise Refused(ErrorCode.NOT_FOUND, "there is no such file") from None
        except OSError as error:
            raise Refused(ErrorCode.NOT_REGULAR, f"it is no regular file: {error.strerror}") from None
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if not stat.S_ISREG(status.st_mode):
            raise Refused(ErrorCode.NOT_REGULAR, "it is no regular file")
        return status

    def _expect(self, real: str) -> None:
        try:
            os.close(self.open_directory(str(Path(real).parent)))
        except PermissionError:
            raise Refused(ErrorCode.NOT_READABLE, "the file's directory may not be read") from None
        except OSError:
            raise Refused(ErrorCode.NOT_FOUND, "there is no such file, nor a directory that it would lie in") from None
