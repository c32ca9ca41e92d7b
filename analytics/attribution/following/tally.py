"""What following has done, counted."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

from coordinator.ports.attribution import LEFT_BYTES, FollowerFigures


class Tally:
    """Counters since the worker began; `figures` is what the coordinator is told of them."""

    def __init__(self) -> None:
        self.started = self.completed = self.failed = self.cancelled = self.unsupported = 0
        self.fallbacks: Counter[str] = Counter()
        self.replays: Counter[str] = Counter()
        self.checked = self.divergent = 0
        self.read_bytes = 0
        self.busy_s = self.saved_s = 0.0
        self._left = [0] * (len(LEFT_BYTES) + 1)
        self._left_sum = 0

    def left(self, size: int) -> None:
        """So much was to be read still when an attempt had ended."""
        self._left[bisect_left(LEFT_BYTES, size)] += 1
        self._left_sum += size

    def figures(self, followed: int, waiting: int) -> FollowerFigures:
        return FollowerFigures(
            followed=followed,
            waiting=waiting,
            started=self.started,
            completed=self.completed,
            failed=self.failed,
            cancelled=self.cancelled,
            unsupported=self.unsupported,
            fallbacks=dict(self.fallbacks),
            replays=dict(self.replays),
            checked=self.checked,
            divergent=self.divergent,
            read_bytes=self.read_bytes,
            busy_s=round(self.busy_s, 3),
            saved_s=round(self.saved_s, 3),
            left_bytes=tuple(self._left),
            left_bytes_sum=self._left_sum,
        )
