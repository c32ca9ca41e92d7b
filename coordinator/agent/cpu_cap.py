"""How much CPU time a group of processes may take: a quota in each period, and its weight where CPUs are short."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from coordinator.agent.hierarchies import figure, write
from coordinator.core.amounts import UNIT

QUOTA_US = 100_000
"""What less than one CPU gets at once. A program that needs no more in all is never held up: with the usual period of
100 ms a quarter of a CPU is 25 ms, and 30 ms of work took as long as at a tenth of the period's share."""
PERIOD_US = 100_000
"""The kernel's own choice, for a whole CPU and more."""
PERIOD_MAX_US = 1_000_000
QUOTA_MIN_US = 1_000
"""The kernel's bounds."""
WEIGHT, SHARES = 100, 1_024
"""Of a whole CPU, in the unified hierarchy and in the older one: what a process weighs that is in no group."""
WEIGHT_MAX, SHARES_MAX = 10_000, 262_144


@lru_cache(256)
def quota_us(cpus: int) -> tuple[int, int]:
    """(quota, period) for so many millionths of a CPU."""
    period_us = min(max(PERIOD_US, QUOTA_US * UNIT // cpus), PERIOD_MAX_US)
    return max(QUOTA_MIN_US, cpus * period_us // UNIT), period_us


class CpuCap:
    """Writes them into groups of one hierarchy. Every writing gives the whole quota anew: nobody starts with what the
    one before left."""

    def __init__(self, unified: bool) -> None:
        self._unified = unified

    def lift(self, group: Path) -> None:
        """No bound."""
        if self._unified:
            write(f"{group}/cpu.max", "max")
        else:
            write(f"{group}/cpu.cfs_quota_us", "-1")

    def put(self, group: Path, quota_us: int, period_us: int) -> None:
        """Where there is none."""
        if self._unified:
            write(f"{group}/cpu.max", f"{quota_us} {period_us}")
        else:
            write(f"{group}/cpu.cfs_period_us", str(period_us))
            write(f"{group}/cpu.cfs_quota_us", str(quota_us))

    def renew(self, group: Path, quota_us: int, period_us: int) -> None:
        """The same bound, with its whole quota: whoever was held back goes on."""
        if self._unified:
            write(f"{group}/cpu.max", f"{quota_us} {period_us}")
        else:
            write(f"{group}/cpu.cfs_quota_us", str(quota_us))

    def weigh(self, group: Path, cpus: int) -> None:
        """As much as the same CPUs would be worth to processes without groups."""
        if self._unified:
            write(f"{group}/cpu.weight", str(min(max(1, WEIGHT * cpus // UNIT), WEIGHT_MAX)))
        else:
            write(f"{group}/cpu.shares", str(min(max(2, SHARES * cpus // UNIT), SHARES_MAX)))

    @staticmethod
    def throttled(group: Path) -> bool:
        """Whether it was ever held back."""
        return figure(group / "cpu.stat", "nr_throttled ") > 0
