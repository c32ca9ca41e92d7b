"""What the HTTP side is given: the composition root fills it, handlers read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from coordinator.ports.analytics import Analytics
from coordinator.ports.attribution import Launchers
from coordinator.ports.logs import Logs
from coordinator.ports.store import Store
from coordinator.service.agents import AgentLinks
from coordinator.service.alerts import Alerts
from coordinator.service.api.settings import ApiSettings
from coordinator.service.data.plane import DataPlane
from coordinator.service.engine import Engine
from coordinator.service.feed import Feed
from coordinator.service.heartbeats import HeartbeatWriter
from coordinator.service.metric_values import Metrics
from coordinator.service.relay.relay import Relay
from coordinator.service.traces import TraceDoor
from coordinator.service.views import LiveViews


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiDeps:
    """The parts behind the routes."""

    engine: Engine
    views: LiveViews
    store: Store
    analytics: Analytics
    links: AgentLinks
    heartbeats: HeartbeatWriter
    metrics: Metrics
    alerts: Alerts
    relay: Relay
    feed: Feed
    logs: Logs
    data: DataPlane
    traces: TraceDoor
    settings: ApiSettings
    version: str
    coordinator_id: str
    loop_lag: Callable[[], float]
    """Milliseconds that the loop was late of late."""
    launchers: Launchers | None = None
    """Who answers fault-tolerant launchers; None: nobody does."""
