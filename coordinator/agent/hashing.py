"""Digests of files: BLAKE3, as blobs are named by, read in pieces and never mapped, since a program may cut a file."""

from __future__ import annotations

import os
from collections.abc import Callable

from blake3 import blake3

PIECE_BYTES = 1 << 20


class Unwanted(Exception):
    """Nobody wants it any more."""


def digest_of(fd: int, wanted: Callable[[int], bool] = lambda _at: True) -> tuple[str, int]:
    """The digest of what the open file holds, and how many bytes that is. Blocks: for a thread. Raises Unwanted as soon
    as `wanted`, which is told how far it is, says no."""
    hasher, at = blake3(), 0
    while piece := os.pread(fd, PIECE_BYTES, at):
        if not wanted(at + len(piece)):
            raise Unwanted
        hasher.update(piece)
        at += len(piece)
    return hasher.hexdigest(), at


def digest(data: bytes) -> str:
    return blake3(data).hexdigest()
