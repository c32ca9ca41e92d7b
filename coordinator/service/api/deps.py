"""What the HTTP side is given: the composition root fills it, handlers read it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiohttp import web

from coordinator import ports, wire
from coordinator.api_types import AlertEntry
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.rows import TokenRow
from coordinator.service.api.settings import ApiSettings
from coordinator.service.engine import Engine
from coordinator.service.metrics import Metrics
from coordinator.service.views import LiveViews


class Links(Protocol):
    """Who takes agents' connections."""

    async def handle(self, request: web.Request, token: TokenRow) -> web.StreamResponse:
        """Serve the connection of an admitted agent until it ends."""
        ...


class LatestHeartbeats(Protocol):
    """Who keeps the newest heartbeat of each provider."""

    def latest(self, provider_id: ProviderId) -> tuple[Ms, wire.Heartbeat] | None:
        """When it was received, and what it said; None before the first."""
        ...


class AlertList(Protocol):
    def entries(self) -> list[AlertEntry]:
        """Standing ones first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiDeps:
    """The parts behind the routes."""

    engine: Engine
    views: LiveViews
    store: ports.Store
    analytics: ports.Analytics
    links: Links
    heartbeats: LatestHeartbeats
    metrics: Metrics
    alerts: AlertList
    settings: ApiSettings
    version: str
    coordinator_id: str
    loop_lag: Callable[[], float]
    """Milliseconds that the loop was late of late."""
