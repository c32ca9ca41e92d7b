"""The thread that hashes what uploads have written, behind the writing.

One thread is enough for all: it hashes four to seven GB a second, more than any disk or link here brings. Whoever
writes does not wait for it but at the end, or when too much is behind: measured against a wait at each piece that is
0.95 of the speed without a hash instead of 0.7, where others want the processors too.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from blake3 import blake3

Pieces = Sequence[bytes | memoryview]
BEHIND_BYTES_MAX = 64 << 20
"""Held in memory until they are hashed, of all uploads together."""


class HashThread:
    """Hashes in the order it is asked to. May be asked from any thread but its own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="hash blobs")
        self._behind = 0
        self._room = threading.Condition()

    def submit(self, hasher: blake3, pieces: Pieces, length: int) -> Future[None]:
        """Have `hasher` take these when those before were taken. The pieces are kept till then. Waits for room."""
        with self._room:
            self._room.wait_for(lambda: self._behind + length <= BEHIND_BYTES_MAX or not self._behind)
            self._behind += length
        return self._pool.submit(self._take, hasher, pieces, length)

    def close(self) -> None:
        """Finish what was asked for."""
        self._pool.shutdown()

    def _take(self, hasher: blake3, pieces: Pieces, length: int) -> None:
        try:
            update(hasher, pieces)
        finally:
            with self._room:
                self._behind -= length
                self._room.notify_all()


def update(hasher: blake3, pieces: Pieces) -> None:
    for piece in pieces:
        hasher.update(piece)
