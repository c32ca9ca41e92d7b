"""Digests of files: BLAKE3, as blobs are named by, read in pieces and never mapped, since a program may cut a file."""

from __future__ import annotations

import os
from collections.abc import Generator

from blake3 import blake3

PIECE_BYTES = 1 << 20


def digesting(fd: int) -> Generator[int, None, tuple[str, int]]:
    """The digest of what the open file holds, and how many bytes that is, piece by piece: yields how far it is."""
    hasher, at = blake3(), 0
    while piece := os.pread(fd, PIECE_BYTES, at):
        hasher.update(piece)
        at += len(piece)
        yield at
    return hasher.hexdigest(), at


def digest_of(fd: int) -> tuple[str, int]:
    """The same at once. Blocks: for a thread."""
    steps = digesting(fd)
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            found: tuple[str, int] = ended.value
            return found


def digest(data: bytes) -> str:
    return blake3(data).hexdigest()
