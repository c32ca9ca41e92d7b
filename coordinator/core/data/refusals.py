"""Transfers that were refused for what no honest peer asks: a forged or used URL, other bytes, a token that is over."""

from __future__ import annotations

from coordinator.core import audit
from coordinator.core.commands import Decision
from coordinator.core.data.events import DataRefused
from coordinator.core.state import ClusterState


def on_refused(state: ClusterState, event: DataRefused, out: Decision) -> None:
    """Told. Changes nothing else; how many of them come is the service's to bound."""
    times = f" ({event.count} times)" if event.count > 1 else ""
    audit.record(
        state, out, "transfer", event.subject, "refused", why=f"{event.why}{times}", by=event.by, tenant=event.tenant
    )
