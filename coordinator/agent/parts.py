"""One blob that is being fetched, on the disk: written behind what is there, hashed as it is written. For threads."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from blake3 import blake3

from coordinator.agent.cache import READ_BYTES, seal
from coordinator.agent.laying import copying_into

FULL = (errno.ENOSPC, errno.EDQUOT)


class DiskFailed(Exception):
    """Our own disk, and no OSError: those are the network's, which is asked again."""

    def __init__(self, error: OSError, path: Path) -> None:
        super().__init__(f"{error.filename or path}: {error.strerror}")
        self.full = error.errno in FULL


@contextmanager
def disk(path: Path) -> Iterator[None]:
    """What goes wrong inside is the disk's fault."""
    try:
        yield
    except OSError as error:
        raise DiskFailed(error, path) from error


class Part:
    """Used by one fetch at a time; `length` may be read by others. Every method raises DiskFailed."""

    def __init__(self, path: Path, place: Path, digest: str) -> None:
        self.length = 0
        self._path = path
        self._place = place
        self._digest = digest
        self._hasher = blake3()
        self._fd = -1

    def begin(self, anew: bool = False) -> None:
        """Go on with what an earlier fetch left: it is read once, since nobody wrote down how far its digest was."""
        with disk(self._path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | (os.O_TRUNC if anew else 0)
            self._fd = os.open(self._path, flags, 0o600)
            while data := os.pread(self._fd, READ_BYTES, self.length):
                self._hasher.update(data)
                self.length += len(data)

    def write(self, pieces: Sequence[bytes]) -> None:
        """Behind what is there. After a failure `length` is what was written."""
        # as one: after every call that lets the loop run, this thread waits its turn again
        view = memoryview(b"".join(pieces))
        with disk(self._path):
            while view:
                written = os.pwrite(self._fd, view, self.length)
                self._hasher.update(view[:written])
                self.length += written
                view = view[written:]

    def copying(self, source: int, size: int) -> Generator[None, None, bool]:
        """Be a copy of this open file of so many bytes, where nothing is yet: what was copied is read again, since
        somebody may write to the file. Whether it is that long. Piece by piece."""
        with disk(self._path):
            for at in copying_into(source, self._fd):
                yield
                if at > size:
                    return False
            while data := os.pread(self._fd, READ_BYTES, self.length):
                self._hasher.update(data)
                self.length += len(data)
                yield
        return self.length == size

    def restart(self) -> None:
        """What is there is not it."""
        with disk(self._path):
            os.ftruncate(self._fd, 0)
            self.length, self._hasher = 0, blake3()

    def drop(self) -> None:
        """What is there is of no use to anybody."""
        self.length = 0
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def place(self) -> bool:
        """Into its place, if it is what its digest says."""
        if self._hasher.hexdigest() != self._digest:
            return False
        with disk(self._place):
            os.fchmod(self._fd, 0o400)
            self._place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            seal(self._path, self._digest)
            self._path.rename(self._place)
        return True

    def close(self) -> None:
        """Leave what there is for the next fetch; nothing, if there is nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        if not self.length:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
