"""The coordinator's clock, and how slow its process is: it may stand still, or take its time with every event."""

from __future__ import annotations

from collections import deque

from coordinator.core.ids import Ms
from coordinator.simulator.agenda import Agenda

FADES = 40
"""Seconds after which a slowness shows in no judgement any more."""


class HeadClock:
    """Observed time, waking time and lateness of one coordinator."""

    def __init__(self, agenda: Agenda, unit_ms: Ms) -> None:
        self.wall_offset_ms: Ms = 0
        self.asleep_since_ms: Ms | None = None
        self.lag_ms: Ms = 0
        """How long an event waits before it is decided: a slow process, but not a stalled one."""
        self.lag_high_ms: Ms = 1
        """The longest that it has been lately, with the millisecond that a turn takes."""
        self._agenda, self._unit_ms = agenda, unit_ms
        self._skew_ms: Ms = 0
        self._asleep_ms: Ms = 0
        self._stalls: deque[tuple[Ms, Ms]] = deque(maxlen=32)
        """World time of the last ones: what waits to be decided is never older."""
        self._lagged = 0

    def now_ms(self) -> Ms:
        """The observed clock."""
        return self._agenda.now_ms + self._skew_ms

    def begin(self, alive_at_ms: Ms) -> None:
        """A run starts: the observed clock is never behind what was stored."""
        self._skew_ms = max(self._agenda.now_ms + self.wall_offset_ms, alive_at_ms) - self._agenda.now_ms

    def awake_ms(self) -> Ms:
        """How long the process has been running, stalls left out."""
        asleep = self._asleep_ms
        if self.asleep_since_ms is not None:
            asleep += self._agenda.now_ms - self.asleep_since_ms
        return self._agenda.now_ms - asleep

    def awake_at(self, observed_ms: Ms) -> Ms:
        """`awake_ms` as it was at a moment of this run."""
        world_ms = observed_ms - self._skew_ms
        later = sum(end - max(begin, world_ms) for begin, end in self._stalls if end > world_ms)
        return world_ms - (self._asleep_ms - later)

    def sleep(self) -> None:
        self.asleep_since_ms = self._agenda.now_ms

    def wake(self) -> Ms:
        """How long it stood still."""
        if self.asleep_since_ms is None:
            return 0
        stalled_ms = self._agenda.now_ms - self.asleep_since_ms
        self._stalls.append((self.asleep_since_ms, self._agenda.now_ms))
        self._asleep_ms += stalled_ms
        self.asleep_since_ms = None
        return stalled_ms

    def slow_down(self, lag_ms: Ms) -> None:
        self.lag_ms = lag_ms
        self.was_late(lag_ms)

    def was_late(self, by_ms: Ms) -> None:
        self.lag_high_ms = max(self.lag_high_ms, by_ms + 1)
        self._lagged += 1
        lagged = self._lagged
        self._agenda.after(FADES * self._unit_ms, lambda: self._lag_faded(lagged))

    def _lag_faded(self, lagged: int) -> None:
        if lagged == self._lagged:
            self.lag_high_ms = 1 + self.lag_ms
