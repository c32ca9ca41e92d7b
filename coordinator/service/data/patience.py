"""How long a peer may take over a body: as long as it moves, and not too slowly. Pure."""

from __future__ import annotations


class Patience:
    """A deadline that every byte moves on: by its share of `rate_min`, and never further than `stall_s` from now.

    So a peer that sends or takes nothing for `stall_s` is over it, and one that trickles below the rate soon after.
    """

    def __init__(self, stall_s: float, rate_min: int, now_s: float) -> None:
        self._stall_s = stall_s
        self._rate_min = rate_min
        self.until_s = now_s + stall_s

    def moved(self, size: int, now_s: float) -> float:
        """`size` bytes moved just now. -> the deadline, on the clock that `now_s` is of."""
        self.until_s = min(self.until_s + size / self._rate_min, now_s + self._stall_s)
        return self.until_s

    def held_up(self, now_s: float) -> float:
        """It was we who took the time: it has all of its patience again. -> the deadline"""
        self.until_s = now_s + self._stall_s
        return self.until_s
