"""THE table of routes. What is not here does not exist; what is here says who may take it.

Read its parts from top to bottom: that is the API. docs/reference/http.md tells it in words.
"""

from __future__ import annotations

from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.route import AnyRoute
from coordinator.service.api.routes.attempts import attempt_routes
from coordinator.service.api.routes.data import data_routes
from coordinator.service.api.routes.fleet import fleet_routes
from coordinator.service.api.routes.launchers import launcher_routes
from coordinator.service.api.routes.tenants import tenant_routes
from coordinator.service.api.routes.traces import trace_routes
from coordinator.service.api.routes.work import work_routes
from coordinator.service.api.streams import OpenStreams


def routes(deps: ApiDeps, streams: OpenStreams) -> tuple[AnyRoute, ...]:
    """Every route of the coordinator."""
    return (
        *fleet_routes(deps),
        *work_routes(streams),
        *data_routes(),
        *attempt_routes(),
        *tenant_routes(streams),
        *launcher_routes(),
        *trace_routes(streams),
    )
