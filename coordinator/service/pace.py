"""How fast a connection may talk: a bucket that fills over time."""

from __future__ import annotations

import asyncio

from msgspec import Struct


class Bucket(Struct):
    """Holds `most`, fills at `rate_per_s`. Counted only when it runs dry: a well-behaved peer costs one subtraction."""

    rate_per_s: float
    most: float
    left: float
    counted_s: float

    def take(self, amount: float) -> bool:
        """Take that much, and say whether it was there."""
        self.left -= amount
        if self.left >= 0:
            return True
        now_s = asyncio.get_running_loop().time()
        self.left = min(self.left + (now_s - self.counted_s) * self.rate_per_s, self.most)
        self.counted_s = now_s
        return self.left >= 0

    @property
    def owed_s(self) -> float:
        """How long until what was taken too much has come in."""
        return max(0.0, -self.left / self.rate_per_s)


def full_bucket(rate_per_s: float, most: float) -> Bucket:
    return Bucket(rate_per_s, most, most, asyncio.get_running_loop().time())
