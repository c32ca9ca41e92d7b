"""The wheel of deadlines: appointments by bucket of time, so that nobody is looked at in vain and nobody is forgotten.

A key has one appointment at most. What is due comes in an order that depends on the appointments alone, not on how
they were made: a state that was imaged and restored decides as the original.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

from coordinator.core.ids import Ms

GRAIN_MS: Ms = 250
"""Of a bucket: one tick."""

K = TypeVar("K", str, tuple[int, ...])


class Wheel(Generic[K]):
    """Appointments. Making, moving and dropping one is O(1); taking what is due is O(due + buckets gone by)."""

    def __init__(self) -> None:
        self._buckets: dict[int, list[K]] = {}
        self._at: dict[K, Ms] = {}
        self._next = 0
        """The first bucket that may hold anything."""

    def __contains__(self, key: K) -> bool:
        return key in self._at

    def __len__(self) -> int:
        """How many entries there are, outdated ones included."""
        return sum(map(len, self._buckets.values()))

    def put(self, key: K, when_ms: Ms) -> None:
        """Have `key` come up at `when_ms`, never before it; an appointment that it had is moved."""
        if self._at.get(key) != when_ms:
            self._at[key] = when_ms
            self._buckets.setdefault(max(when_ms // GRAIN_MS, self._next), []).append(key)

    def put_all(self, keys: Sequence[K], when_ms: Ms) -> None:
        """The same for many, each of which has none then."""
        self._at.update(dict.fromkeys(keys, when_ms))
        self._buckets.setdefault(max(when_ms // GRAIN_MS, self._next), []).extend(keys)

    def hasten(self, key: K, when_ms: Ms) -> None:
        """Have `key` come up in the grain of `when_ms`, perhaps a little before it; an earlier appointment stands."""
        when_ms -= when_ms % GRAIN_MS
        before = self._at.get(key)
        if before is None or before > when_ms:
            self.put(key, when_ms)

    def when_ms(self, key: K) -> Ms | None:
        """When it comes up."""
        return self._at.get(key)

    def drop(self, key: K) -> None:
        self._at.pop(key, None)

    def due(self, now_ms: Ms) -> list[K]:
        """Take the keys whose time has come, each once: by time, then by key."""
        now = now_ms // GRAIN_MS
        if now - self._next > len(self._buckets):
            buckets = [bucket for bucket in self._buckets if bucket <= now]
        else:
            buckets = [bucket for bucket in range(self._next, now + 1) if bucket in self._buckets]
        self._next = max(now, self._next)
        found: list[tuple[Ms, K]] = []
        for bucket in buckets:
            later: list[K] = []
            for key in self._buckets.pop(bucket):
                when_ms = self._at.get(key)
                if when_ms is None or max(when_ms // GRAIN_MS, bucket) != bucket:
                    continue  # dropped or moved
                if when_ms <= now_ms:
                    del self._at[key]
                    found.append((when_ms, key))
                else:
                    later.append(key)
            if later:
                self._buckets[bucket] = later
        return [key for _, key in sorted(found)]

    def image(self) -> tuple[tuple[tuple[Ms, K], ...], int]:
        """The appointments as (time, key) in their order, and the first bucket that may hold anything."""
        return tuple(sorted((when_ms, key) for key, when_ms in self._at.items())), self._next

    def restore(self, appointments: Iterable[tuple[Ms, K]], next_bucket: int) -> None:
        """Take the appointments of an image over, in place of those that were made."""
        self._buckets, self._at, self._next = {}, {}, next_bucket
        for when_ms, key in appointments:
            self.put(key, when_ms)
