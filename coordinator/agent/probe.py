"""How the machine is: the measured fields of a heartbeat. Reads /proc and /sys; blocking, so never on the loop."""

from __future__ import annotations

import warnings
from pathlib import Path

import psutil
from msgspec import Struct

from coordinator import wire
from coordinator.agent.clock import boot_s
from coordinator.agent.machine import memory_limit

THERMAL_SHARES: tuple[tuple[float, wire.Thermal], ...] = ((0.95, "critical"), (0.85, "serious"), (0.75, "fair"))
"""A sensor at this share of its critical temperature makes the state so; below all: nominal."""
CRITICAL_C = 100.0
"""Of a sensor that names no critical temperature between 50 and 150 degrees Celsius."""


class Sample(Struct, frozen=True, kw_only=True):
    """One look at the machine, taken at `at_s` on the agent's steady clock. None: nothing to read."""

    at_s: float
    cpu_usage: float | None = None
    memory_pressure: float | None = None
    memory_available_gb: float | None = None
    thermal_state: wire.Thermal | None = None


def thermal_state(sensors: list[tuple[float, float | None]]) -> wire.Thermal | None:
    """The worst of (current, critical) pairs in degrees Celsius; None without a plausible one."""
    shares = [
        current / (critical if critical is not None and 50 <= critical <= 150 else CRITICAL_C)
        for current, critical in sensors
        if 0 < current < 150
    ]
    if not shares:
        return None
    worst = max(shares)
    for share, state in THERMAL_SHARES:
        if worst >= share:
            return state
    return "nominal"


def _share(value: float) -> float:
    return round(min(1.0, max(0.0, value)), 4)


class Probe:
    """Takes samples. One thread at a time."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root
        self._cpu_before = self._cpu_times()

    def sample(self) -> Sample:
        """Look now. CPU usage is the mean since the sample before."""
        memory = psutil.virtual_memory()
        available = int(memory.available)
        limit = memory_limit(self._root)
        if limit is not None:
            try:
                used = int((limit[1] / "memory.current").read_text())
                available = min(available, max(0, limit[0] - used))
            except (OSError, ValueError):
                available = min(available, limit[0])
        stall = self._memory_stall()
        return Sample(
            at_s=boot_s(),
            cpu_usage=self._cpu_usage(),
            memory_pressure=stall if stall is not None else _share(memory.percent / 100),
            memory_available_gb=round(available / 1e9, 3),
            thermal_state=thermal_state(self._sensors()),
        )

    @staticmethod
    def _cpu_times() -> tuple[float, float]:
        times = psutil.cpu_times()
        # guest time is counted in user time already
        total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
        return total - times.idle - getattr(times, "iowait", 0.0), total

    def _cpu_usage(self) -> float | None:
        busy, total = self._cpu_times()
        busy_before, total_before = self._cpu_before
        if total - total_before < 0.02:
            return None
        self._cpu_before = (busy, total)
        return _share((busy - busy_before) / (total - total_before))

    def _memory_stall(self) -> float | None:
        """Share of the last 10 s in which some task waited for memory (pressure stall information)."""
        try:
            first = (self._root / "proc/pressure/memory").read_text().split("\n", 1)[0].split()
            if first[0] != "some":
                return None
            return _share(float(first[1].removeprefix("avg10=")) / 100)
        except (OSError, ValueError, IndexError):
            return None

    @staticmethod
    def _sensors() -> list[tuple[float, float | None]]:
        if not hasattr(psutil, "sensors_temperatures"):
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a sensor that cannot be read is one that is not there
            try:
                chips = psutil.sensors_temperatures()
            except (OSError, ValueError):
                return []
        return [(float(s.current), s.critical) for chip in chips.values() for s in chip]
