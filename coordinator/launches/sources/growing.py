"""A file that grows while it is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

READ_BYTES = 1 << 20
ROUND_BYTES_MAX = 16 * READ_BYTES
"""In one round: a file that is large already is read in several."""


class Growing:
    """New bytes of the file at `path`, each once; what was cut off and written anew is read anew."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._offset = 0

    def read(self) -> Iterator[bytes]:
        """Nothing while it is not there, or is no regular file. OSError where it cannot be read."""
        try:
            # A pipe would wait for its other end.
            fd = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            state = os.fstat(fd)
            if not stat.S_ISREG(state.st_mode):
                return
            if state.st_size < self._offset:
                self._offset = 0
            end = min(state.st_size, self._offset + ROUND_BYTES_MAX)
            while self._offset < end and (data := os.pread(fd, min(READ_BYTES, end - self._offset), self._offset)):
                self._offset += len(data)
                yield data
        finally:
            os.close(fd)
