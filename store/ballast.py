"""A file that takes up room, to be given up on a full disk for what must be written all the same."""

from __future__ import annotations

import os
from pathlib import Path

from store.layout import FILE_MODE


class Ballast:
    """`bytes_kept` of disk held back in `path`. Called from the writer's thread."""

    def __init__(self, path: Path, bytes_kept: int) -> None:
        self._path = path
        self._bytes = bytes_kept
        self.in_place = self._path.exists() and self._path.stat().st_size >= bytes_kept

    def restore(self) -> bool:
        """Take the room back if there is twice as much of it; whether the ballast is in place now."""
        if self.in_place or not self._bytes:
            return True
        try:
            room = os.statvfs(self._path.parent)
            if room.f_bavail * room.f_frsize < 2 * self._bytes:
                return False
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            try:
                os.posix_fallocate(fd, 0, self._bytes)
            finally:
                os.close(fd)
        except OSError:
            self._path.unlink(missing_ok=True)
            return False
        self.in_place = True
        return True

    def spend(self) -> None:
        """Give the room up. Whether it is enough, the next write shows."""
        self._path.unlink(missing_ok=True)
        self.in_place = False
