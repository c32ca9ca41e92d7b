"""The virtual clock and what is due on it. Time jumps from one thing to the next; ties keep their order."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from coordinator.core.ids import Ms


class Agenda:
    """World time in milliseconds since the world began. What is due together happens in the order of its making."""

    def __init__(self) -> None:
        self.now_ms: Ms = 0
        self._due: list[tuple[Ms, int, Callable[[], None]]] = []
        self._made = 0

    def at(self, when_ms: Ms, happens: Callable[[], None]) -> None:
        """Have `happens` called at `when_ms`, or now when that is past."""
        self._made += 1
        heapq.heappush(self._due, (max(when_ms, self.now_ms), self._made, happens))

    def after(self, delay_ms: Ms, happens: Callable[[], None]) -> None:
        self.at(self.now_ms + delay_ms, happens)

    def step(self) -> None:
        """Go to the next thing that is due, and let it happen."""
        self.now_ms, _, happens = heapq.heappop(self._due)
        happens()
