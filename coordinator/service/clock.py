"""The observed clock: what the machine's wall clock said at start, and then only what really went by."""

from __future__ import annotations

import time
from pathlib import Path

from coordinator.core.ids import Ms


def machine_boot() -> str:
    """Changes with every boot of this machine; empty where the system does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


class ObservedClock:
    """Unix milliseconds that never decrease and that a step of the wall clock does not move.

    `floor_ms`: the latest time that was stored; a wall clock that lies behind it is not believed.
    """

    def __init__(self, floor_ms: Ms = 0) -> None:
        self._began_ns = self.boot_ns()
        self._began_s = self._began_ns / 1e9
        wall_ms = self.wall_ms()
        self.behind_ms: Ms = max(0, floor_ms - wall_ms)
        """How far the wall clock lay behind what was stored when we started."""
        self._base_ms = wall_ms + self.behind_ms

    def mark(self) -> str:
        """This machine's boot, and when it was on this clock: for `moved_since` of the next run."""
        return f"{machine_boot()} {self._base_ms - int(self._began_s * 1_000)}"

    def moved_since(self, mark: str) -> Ms:
        """How far the wall clock was moved against the machine's own since a run left `mark`, or how far it lies
        behind what was stored; 0 when neither is known."""
        boot, _, at_ms = mark.partition(" ")
        if boot == machine_boot() and at_ms.lstrip("-").isdigit():
            return self.wall_ms() - int(self.monotonic_s() * 1_000) - int(at_ms)
        return -self.behind_ms

    def now_ms(self) -> Ms:
        return self._base_ms + int((self.monotonic_s() - self._began_s) * 1_000)

    def now_ns(self) -> int:
        """The same moment as `now_ms` has, in nanoseconds."""
        return self._base_ms * 1_000_000 + self.boot_ns() - self._began_ns

    def boot_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def monotonic_s(self) -> float:
        """Seconds that count suspend (CLOCK_BOOTTIME)."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def wall_ms(self) -> Ms:
        return time.time_ns() // 1_000_000
