"""The agent's two clocks: one that counts suspend and nobody can set, one that people read."""

from __future__ import annotations

import time
from time import CLOCK_BOOTTIME, clock_gettime


def boot_s() -> float:
    """Seconds on CLOCK_BOOTTIME: what every deadline of an agent is counted on."""
    return clock_gettime(CLOCK_BOOTTIME)


def wall_ms() -> float:
    """Unix milliseconds on the machine's wall clock, right or wrong."""
    return time.time_ns() / 1e6
