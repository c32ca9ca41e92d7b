"""Whether a file is still the one that was read: what is remembered of it at the cursor, and what became of it since.

A file that grew keeps its inode, its first bytes, and those before the cursor. Everything else is another file, and
whoever reads it begins anew.
"""

from __future__ import annotations

import hashlib
import os
import time
from enum import StrEnum

from msgspec import Struct

SAMPLE_BYTES = 4 * 1024
"""Hashed at the beginning, and before the cursor."""
SETTLED_NS = 50_000_000
"""A file that changed more recently than this may change again without another time: clocks of file systems tick every
few milliseconds."""
_DIGEST_BYTES = 16


class Change(StrEnum):
    """What became of a file since it was looked at."""

    UNCHANGED = "unchanged"
    DOUBTFUL = "doubtful"
    """Another time, the same size, and the same bytes where one looked: a write on its way shows so, for a moment."""
    GROWN = "grown"
    TRUNCATED = "truncated"
    REPLACED = "replaced"
    REWRITTEN = "rewritten"


class Boundary(Struct, frozen=True, gc=False, array_like=True):
    """A file as it was when `cursor` bytes of it had been read."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    settled: bool
    """Its time was old enough for any later write to show another."""
    cursor: int
    head: bytes
    """Digest of the first SAMPLE_BYTES of what was read."""
    tail: bytes
    """Digest of the last."""

    def change(self, fd: int, status: os.stat_result) -> Change:
        """What became of it; `fd` is open on whatever lies there now, and `status` is its. Reads 8 KiB at most, and
        nothing of a file that has not changed."""
        if (status.st_dev, status.st_ino) != (self.device, self.inode):
            return Change.REPLACED
        if status.st_size < self.cursor:
            return Change.TRUNCATED
        same_size, same_time = status.st_size == self.size, status.st_mtime_ns == self.mtime_ns
        if same_size and same_time and self.settled:
            return Change.UNCHANGED if self.cursor == self.size else Change.GROWN
        if samples_of(fd, self.cursor) != (self.head, self.tail):
            return Change.REWRITTEN
        if status.st_size > self.cursor:
            return Change.GROWN
        return Change.UNCHANGED if same_time else Change.DOUBTFUL


def boundary_of(status: os.stat_result, cursor: int, head: bytes, tail: bytes) -> Boundary:
    """The boundary at `cursor`, of which `head` and `tail` are the first and the last bytes that were read."""
    settled = status.st_mtime_ns < time.time_ns() - SETTLED_NS
    return Boundary(
        status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, settled, cursor, digest(head), digest(tail)
    )


def samples_of(fd: int, cursor: int) -> tuple[bytes, bytes]:
    """Digests of the first bytes before the cursor and of the last, as they lie in the file now."""
    size = min(SAMPLE_BYTES, cursor)
    return digest(os.pread(fd, size, 0)), digest(os.pread(fd, size, cursor - size))


def digest(data: bytes) -> bytes:
    """Short, and not to be turned back into what a log said."""
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()
