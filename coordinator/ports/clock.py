"""The clock that the service reads. `cli.compose` is where the real one is plugged in."""

from __future__ import annotations

from typing import Protocol

from coordinator.core.ids import Ms


class Clock(Protocol):
    """The observed clock: wall clock at start + monotonic, never decreasing, never behind what was stored."""

    def now_ms(self) -> Ms: ...

    def now_ns(self) -> int:
        """The observed clock in nanoseconds."""
        ...

    def boot_ns(self) -> int:
        """Nanoseconds of CLOCK_BOOTTIME: differences within one boot are exact."""
        ...

    def monotonic_s(self) -> float:
        """Seconds on a clock that counts suspend and nobody can set."""
        ...

    def wall_ms(self) -> Ms:
        """What the machine's wall clock says, right or wrong."""
        ...
