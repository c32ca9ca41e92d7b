"""How a step is run: from an order to launch to a plan with nothing left to decide. Pure; one file a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.core.commands import Launch
from coordinator.core.work.launch_plan import LaunchPlan
from coordinator.runtimes.plain import plain

Runtime = Callable[[Launch], LaunchPlan]

RUNTIMES: Mapping[str, Runtime] = {"plain": plain}
"""Every runtime there is, by the name that a step's `runtime` has."""
