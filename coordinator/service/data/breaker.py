"""A circuit breaker: when transfers are saturated nothing more is let in for a while, then one is, to see. Pure.

closed --saturated for `after_s`--> open --`pause_s` over--> half-open --a transfer went well--> closed
                                      ^------------------------- it did not: twice the pause --'

One that is let in to see and is still under way after `after_s`, while nothing was refused, has shown enough: whoever
sends a byte a second does not keep the others out.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    CLOSED = "closed"
    """All is let in."""
    OPEN = "open"
    """Nothing is."""
    HALF_OPEN = "half_open"
    """One transfer is under way that shows whether it is over."""


class Breaker:
    """`after_s`: how long saturation has to last; `pause_s`: the first pause, doubled up to `pause_max_s`."""

    def __init__(self, after_s: float, pause_s: float, pause_max_s: float) -> None:
        self._after_s = after_s
        self._first_s = pause_s
        self._pause_max_s = pause_max_s
        self.state = State.CLOSED
        self.why = ""
        self.since_s = 0.0
        """When it went into this state."""
        self.opened = 0
        """How often it opened."""
        self._pause_s = pause_s
        self._saturated_from_s: float | None = None
        self._probe: object | None = None
        self._probe_from_s = 0.0

    def saturated(self, why: str, now_s: float) -> None:
        """A transfer was refused or failed for lack of room."""
        if self.state is State.CLOSED:
            if self._saturated_from_s is None:
                self._saturated_from_s = now_s
            if now_s - self._saturated_from_s >= self._after_s:
                self._open(why, now_s)
        elif self.state is State.HALF_OPEN:
            self._pause_s = min(2 * self._pause_s, self._pause_max_s)
            self._open(why, now_s)

    def relieved(self) -> None:
        """There is room again: saturation has to last anew before it opens."""
        self._saturated_from_s = None

    def _open(self, why: str, now_s: float) -> None:
        self.state, self.why, self.since_s = State.OPEN, why, now_s
        self.opened += 1
        self._probe = None

    def admit(self, transfer: object, now_s: float) -> float:
        """0: come in. Else how many seconds to wait."""
        if self.state is State.OPEN and now_s >= self.since_s + self._pause_s:
            self.state, self.since_s = State.HALF_OPEN, now_s
        if self.state is State.HALF_OPEN and self._probe is not None and now_s >= self._probe_from_s + self._after_s:
            self._close(now_s)
        if self.state is State.CLOSED:
            return 0.0
        if self.state is State.HALF_OPEN:
            if self._probe is None:
                self._probe, self._probe_from_s = transfer, now_s
            return 0.0 if self._probe is transfer else 1.0
        return max(1.0, self.since_s + self._pause_s - now_s)

    def went_well(self, transfer: object, now_s: float) -> None:
        """A transfer came to its end. The one that was let in to see closes it."""
        if self.state is State.HALF_OPEN and self._probe is transfer:
            self._close(now_s)

    def _close(self, now_s: float) -> None:
        self.state, self.why, self.since_s = State.CLOSED, "", now_s
        self._pause_s, self._saturated_from_s, self._probe = self._first_s, None, None

    def gave_up(self, transfer: object) -> None:
        """It ended for a reason of its own, which shows nothing: the next one is let in to see."""
        if self._probe is transfer:
            self._probe = None
