"""How far the coordinator's clock is from ours, with a bound, from the acknowledgements of heartbeats.

The four time stamps of NTP (RFC 5905, section 8): we send at t0, the coordinator receives at t1 and answers at
t2 = t1 + held, we receive at t3. Whatever the two ways' shares of the delay,

    offset = ((t1 - t0) + (t2 - t3)) / 2,   |error| <= delay / 2,   delay = (t3 - t0) - held.

Of a window of samples the one with the least bound counts: a queue on the way only ever adds delay.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW = 32
"""Samples kept: three minutes at a heartbeat every 5 s."""
RESOLUTION_MS = 1.5
"""Stamps may be whole milliseconds: t1 is up to 1 ms later than told, and the delay up to 1 ms longer."""
DRIFT = 100e-6
"""How fast two crystals may run apart (50 ppm each): an old sample's bound grows by it."""


class Estimate(NamedTuple):
    """The coordinator's clock minus ours, off by at most `bound_ms`."""

    offset_ms: float
    bound_ms: float


class _Sample(NamedTuple):
    at_ms: float
    ahead_ms: float
    bound_ms: float


class OffsetFilter:
    """Collects samples on a clock that nobody can set; the wall clock's steps shift an estimate, not the window."""

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=WINDOW)

    def add(self, sent_ms: float, received_at_ms: float, held_ms: float, now_ms: float) -> None:
        """One acknowledged heartbeat. `sent_ms` and `now_ms` on our steady clock, the others the coordinator's.

        Figures that no honest exchange can have (a negative delay) are ignored.
        """
        delay = (now_ms - sent_ms) - held_ms
        if held_ms < 0 or delay < -1.0:
            return
        ahead = ((received_at_ms - sent_ms) + (received_at_ms + held_ms - now_ms)) / 2
        self._samples.append(_Sample(now_ms, ahead, max(0.0, delay) / 2 + RESOLUTION_MS))

    def estimate(self, now_ms: float, wall_now_ms: float) -> Estimate | None:
        """The offset against the wall clock as it is now; None before the first sample."""
        best: Estimate | None = None
        for sample in self._samples:
            bound = sample.bound_ms + (now_ms - sample.at_ms) * DRIFT
            if best is None or bound < best.bound_ms:
                best = Estimate(sample.ahead_ms - (wall_now_ms - now_ms), bound)
        return best
