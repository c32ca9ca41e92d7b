"""How a step is run: from an order to launch to a plan with nothing left to decide. Pure; one file a runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from coordinator.core.commands import Launch
from coordinator.core.work.launch_plan import LaunchPlan
from coordinator.runtimes.plain import Shared, plain, shared

Runtime = Callable[[Launch], LaunchPlan]

RUNTIMES: Mapping[str, Runtime] = {"plain": plain}
"""Every runtime there is, by the name that a step's `runtime` has."""
SHARED: Mapping[str, Callable[[Launch], Shared | None]] = {"plain": shared}
"""What the plans of a step's tasks have in common, where they differ in nothing but an array's number."""
