"""The wheel of deadlines: appointments by bucket of time, so that nobody is looked at in vain and nobody is forgotten.

A key has one appointment at most. What is due comes in an order that depends on the appointments alone, not on how
they were made: a state that was imaged and restored decides as the original.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Generic, TypeVar

from coordinator.core.ids import Ms

GRAIN_MS: Ms = 250
"""Of a bucket: one tick."""

K = TypeVar("K", str, tuple[int, ...])


class Wheel(Generic[K]):
    """Appointments. Making, moving and dropping one is O(1); taking what is due is O(due + buckets gone by)."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[K]] = {}
        self._at: dict[K, int] = {}
        self._next = 0
        """The first bucket that was not taken yet."""

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def __len__(self) -> int:
        """How many entries there are, outdated ones included."""
        return sum(map(len, self._buckets.values()))

    def put(self, key: K, when_ms: Ms) -> None:
        """Have `key` come up at `when_ms`, never before it; an appointment that it had is moved."""
        self._set(key, -(-when_ms // GRAIN_MS))

    def hasten(self, key: K, when_ms: Ms) -> None:
        """Have `key` come up in the grain of `when_ms`, perhaps a little before it; an earlier appointment stands."""
        bucket = when_ms // GRAIN_MS
        before = self._at.get(key)
        if before is None or before > max(bucket, self._next):
            self._set(key, bucket)

    def _set(self, key: K, bucket: int) -> None:
        bucket = max(bucket, self._next)
        if self._at.get(key) != bucket:
            self._at[key] = bucket
            self._buckets.setdefault(bucket, []).append(key)

    def drop(self, key: K) -> None:
        self._at.pop(key, None)

    def due(self, now_ms: Ms) -> list[K]:
        """Take the keys whose time has come, each once: by bucket, then by key."""
        now = now_ms // GRAIN_MS
        if now < self._next:
            return []
        if now - self._next > len(self._buckets):
            buckets = sorted(bucket for bucket in self._buckets if bucket <= now)
        else:
            buckets = [bucket for bucket in range(self._next, now + 1) if bucket in self._buckets]
        self._next = now + 1
        found: list[K] = []
        for bucket in buckets:
            for key in sorted(set(self._buckets.pop(bucket))):
                if self._at.get(key) == bucket:
                    del self._at[key]
                    found.append(key)
        return found

    def image(self) -> tuple[tuple[tuple[int, K], ...], int]:
        """The appointments as (bucket, key) in their order, and the next bucket to be taken."""
        return tuple(sorted((bucket, key) for key, bucket in self._at.items())), self._next

    def restore(self, appointments: Iterable[tuple[int, K]], next_bucket: int) -> None:
        """Take the appointments of an image over, in place of those that were made."""
        self._buckets, self._at, self._next = {}, {}, next_bucket
        for bucket, key in appointments:
            self._set(key, bucket)
