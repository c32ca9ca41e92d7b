"""Room on this machine's disk for copies of state that is on its way out: bounded, and empty when a daemon starts.

What lies here belongs to a daemon that runs: a snapshot that was not sent is taken anew by the next one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from pathlib import Path

NAME = "spool"
BYTES_MAX = 64 << 30
"""Over all attempts."""
SPARE_BYTES = 256 << 20
"""Left free on the disk, or a hundredth of it if that is less: the agent's own journal is there too."""


class NoRoom(Exception):
    """The snapshot would not fit; the text says what is needed and what there is."""


class Spool:
    """Directories of it are taken and given back, by several threads; what they may hold is reserved as a whole."""

    def __init__(self, state: Path, bytes_max: int = BYTES_MAX) -> None:
        self._path = state / NAME
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._numbers = 0
        self.used = 0
        """Bytes reserved."""

    def clear(self) -> None:
        """Remove what a daemon before us left. Blocks."""
        shutil.rmtree(self._path, ignore_errors=True)

    def take(self, size: int) -> Shelf:
        """A directory of one's own for so many bytes. Raises NoRoom, OSError. Blocks for a moment."""
        with self._lock:
            if self.used + size > self._bytes_max:
                left = self._bytes_max - self.used
                raise NoRoom(f"{size} bytes are needed, {left} of {self._bytes_max} may be used")
            self.used += size
            self._numbers += 1
            path = self._path / f"{os.getpid()}-{self._numbers}"
        try:
            self._make(path, size)
        except BaseException:
            self.give_back(size)
            raise
        return Shelf(self, path, size)

    def _make(self, path: Path, size: int) -> None:
        self._path.mkdir(mode=0o700, exist_ok=True)
        disk = os.statvfs(self._path)
        free = disk.f_bavail * disk.f_frsize - min(SPARE_BYTES, disk.f_blocks * disk.f_frsize // 100)
        if size > free:
            raise NoRoom(f"{size} bytes are needed, {max(0, free)} are free at {self._path}")
        path.mkdir(mode=0o700)

    def give_back(self, size: int) -> None:
        with self._lock:
            self.used -= size


class Shelf:
    """One directory of the spool. `close` it once."""

    def __init__(self, spool: Spool, path: Path, size: int) -> None:
        self._spool = spool
        self._size = size
        self.path = path

    def close(self) -> None:
        """What lies there is gone. Blocks."""
        with contextlib.suppress(OSError):
            shutil.rmtree(self.path)
        size, self._size = self._size, 0
        self._spool.give_back(size)
