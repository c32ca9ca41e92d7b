"""Every event of data to its function: one match, no detail."""

from __future__ import annotations

from coordinator.core.commands import Decision
from coordinator.core.data.events import DataEvent
from coordinator.core.errors import Code, CoordError
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState


def on_data(state: ClusterState, event: DataEvent, policy: Policy, out: Decision) -> None:
    """Decide it."""
    raise CoordError(Code.BAD_REQUEST, f"{type(event).__name__} is not decided yet")
