"""What bytes are in a world of data: their digests, their sizes, and who really made which state and which result.

The truth, beside what anybody says: a size belongs to a digest, and a manifest to the attempt that took it.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.data.rows import FileEntry
from coordinator.core.ids import AttemptId, Digest, Ms, TenantName

SIZES = (0, 1_000, 65_537, 5_000_000, 120_000_000, 900_000_000)
SHARED = 12
"""Digests that everybody has files of: they are uploaded again and again."""

Blob = tuple[TenantName, Digest]


def shared(number: int) -> Digest:
    return Digest(f"{number % SHARED:064x}")


def size_of(digest: Digest) -> int:
    return SIZES[int(digest, 16) % len(SIZES)]


class Snapshot(Struct, frozen=True, kw_only=True):
    """A state as an attempt really had it."""

    attempt_id: AttemptId
    taken_ms: Ms
    """On the world's clock."""
    digests: tuple[Digest, ...]
    """The manifest's own and its files', sorted."""


class Truth:
    """Of one world."""

    def __init__(self) -> None:
        self.files: dict[Blob, int] = {}
        """What lies in the blob store's directory."""
        self.snapshots: dict[Digest, Snapshot] = {}
        """By manifest."""
        self.results: dict[AttemptId, tuple[FileEntry, ...]] = {}
        """What rank 0 of an attempt that succeeded has made, by path."""
        self._made = SHARED

    def fresh(self) -> Digest:
        """Bytes that nobody has seen before."""
        self._made += 1
        return Digest(f"{self._made:064x}")
