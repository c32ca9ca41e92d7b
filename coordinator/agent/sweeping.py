"""Removing what attempts left on the disk: at once where it is next to nothing, else by a process that does only that.

A program may have left a million files; the keeper has deadlines to keep meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable
from pathlib import Path

from coordinator.agent.log import logger

TRASH = ".trash"
KNOWN_FILES = ("plan.json", "token", "stdout", "stderr")
KNOWN_DIRECTORIES = ("home", "tmp", "outputs", "checkpoints", "trace")
BATCH = 500
"""Directories that one remover is given: its argument list has a bound."""


class Sweeper:
    """Empties the directory `.trash` of each of `roots`, by one process at a time."""

    def __init__(self, roots: Iterable[Path]) -> None:
        self._trashes = sorted({root / TRASH for root in roots})
        self._number = 0
        self._pid = 0
        for trash in self._trashes:
            trash.mkdir(mode=0o700, exist_ok=True)
        self._due = True

    def remove(self, directory: Path) -> None:
        """`directory`, in one of the roots, is gone when this returns; what was in it, soon."""
        for name in KNOWN_FILES:
            with contextlib.suppress(OSError):
                (directory / name).unlink()
        for name in KNOWN_DIRECTORIES:
            with contextlib.suppress(OSError):
                (directory / name).rmdir()
        try:
            directory.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            self._put_away(directory)

    def on_child(self, pid: int) -> None:
        """A child was reaped: if it was the remover, the next one may be due."""
        if pid == self._pid:
            self._pid = 0
            self.start_if_due()

    def start_if_due(self) -> None:
        """Remove what lies in the trash, if anything was put there since the last time."""
        if not self._due or self._pid:
            return
        self._due = False
        left = [str(entry) for trash in self._trashes for entry in trash.iterdir()]
        if left:
            self._due = len(left) > BATCH
            self._pid = os.posix_spawn(
                "/bin/rm", ["rm", "-rf", "--one-file-system", "--", *left[:BATCH]], {"PATH": "/usr/bin:/bin"}
            )

    def _put_away(self, directory: Path) -> None:
        trash = directory.parent / TRASH
        while True:
            self._number += 1
            try:
                directory.rename(trash / str(self._number))
            except OSError as error:
                if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                    continue
                logger.warning("%s cannot be removed: %s", directory, error.strerror)
                return
            break
        self._due = True
        self.start_if_due()
