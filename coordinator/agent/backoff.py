"""How long to wait before the next try: capped, growing, with full jitter.

Full jitter (drawn from 0 to the ceiling, not around it) spreads a fleet that lost its coordinator in one moment
evenly: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence


class Backoff:
    """Waits of one endless series of tries. `draw` gives numbers in [0, 1), evenly."""

    def __init__(self, ceilings_s: Sequence[float], draw: Callable[[], float]) -> None:
        assert ceilings_s
        self._ceilings_s = tuple(ceilings_s)
        self._draw = draw
        self._tries = 0

    def next_s(self) -> float:
        """Draw the next wait, in seconds."""
        ceiling = self._ceilings_s[min(self._tries, len(self._ceilings_s) - 1)]
        self._tries += 1
        return self._draw() * ceiling

    def reset(self) -> None:
        """It worked: begin with the first ceiling again."""
        self._tries = 0
