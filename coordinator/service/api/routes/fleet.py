"""Routes of liveness, the fleet, access and operations."""

from __future__ import annotations

from coordinator import wire
from coordinator.api_types.access import TokenMade, TokenRequest, Tokens
from coordinator.api_types.fleet import (
    DrainRequest,
    Heartbeats,
    Hours,
    PoolEntry,
    PoolRequest,
    Pools,
    ProviderEntry,
    Providers,
    Sessions,
)
from coordinator.api_types.operations import (
    AlertEntry,
    Alerts,
    Alive,
    BackupAnswer,
    BackupRequest,
    CheckAnswer,
    Health,
    ImportAnswer,
    OpenApi,
    SqlAnswer,
    SqlRequest,
)
from coordinator.api_types.reliability import (
    Availability,
    Backtest,
    Features,
    Forecast,
    NetworkAvailability,
    ReliabilityAnswer,
)
from coordinator.api_types.tenants import PriceRequest
from coordinator.core.rows import Role
from coordinator.service.api import access, fleet, history, operations, reliability, verdicts
from coordinator.service.api.agents_door import connect_agent
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.openapi import show_openapi
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import ADMINS, PUBLIC, READERS, AnyRoute, NoBody, delete, get, keeping, patch, post
from coordinator.service.api.uploads import Upload

ENROLLERS = frozenset({Role.JOIN, Role.ADMIN, Role.AGENT})
AGENTS = frozenset({Role.AGENT})


def fleet_routes(deps: ApiDeps) -> tuple[AnyRoute, ...]:
    """Liveness, the fleet, access and operations."""
    index = fleet.ProviderIndex(deps.views)
    work = reliability.HeavyWork(deps.settings.sql_at_once)
    alone = operations.OneAtATime()
    began_s = deps.engine.clock.monotonic_s()
    return (
        # ---- liveness
        get(
            "/v1/providers/reliability",
            READERS,
            reliability.list_reliability,
            ReliabilityAnswer,
            "Who can be relied on, best first",
            reliability.ReliabilityQuery,
        ),
        get(
            "/v1/providers/{id}/liveness",
            READERS,
            reliability.show_liveness,
            Features,
            "A provider's features and score",
            reliability.FeaturesQuery,
        ),
        get(
            "/v1/providers/{id}/sessions",
            READERS,
            history.list_sessions,
            Sessions,
            "A provider's sessions, newest first",
            history.WindowQuery,
        ),
        get(
            "/v1/providers/{id}/heartbeats",
            READERS,
            history.list_heartbeats,
            Heartbeats,
            "A provider's heartbeats, newest first",
            history.WindowQuery,
        ),
        get(
            "/v1/providers/{id}/heartbeats/hourly",
            READERS,
            history.list_hours,
            Hours,
            "A provider's heartbeats by the hour, newest first",
            history.WindowQuery,
        ),
        get(
            "/v1/providers/{id}/forecast",
            READERS,
            reliability.show_forecast,
            Forecast,
            "Will it stay? Null for a provider that is not online",
            reliability.ForecastQuery,
            nullable=True,
        ),
        get(
            "/v1/providers/{id}/availability",
            READERS,
            reliability.show_availability,
            Availability,
            "A provider's 7x24 grid",
            reliability.FeaturesQuery,
        ),
        get(
            "/v1/network/availability",
            READERS,
            reliability.show_network,
            NetworkAvailability,
            "The whole fleet's uptime",
            reliability.NetworkQuery,
        ),
        get(
            "/v1/availability",
            READERS,
            reliability.show_fleet_availability,
            Availability,
            "The whole fleet's 7x24 grid",
            reliability.FeaturesQuery,
        ),
        get(
            "/v1/backtest",
            READERS,
            keeping(reliability.show_backtest, work=work),
            Backtest,
            "How good the forecast was on this fleet's own past",
            reliability.BacktestQuery,
        ),
        post(
            "/v1/sql",
            READERS,
            keeping(reliability.run_sql, work=work),
            SqlAnswer,
            "A SELECT over the documented views",
            SqlRequest,
        ),
        # ---- the fleet now
        get(
            "/v1/providers",
            READERS,
            keeping(fleet.list_providers, index=index),
            Providers,
            "Enrolled providers in order of id",
            fleet.ProvidersQuery,
        ),
        get("/v1/providers/{id}", READERS, verdicts.show_provider, ProviderEntry, "One enrolled provider", NoQuery),
        delete("/v1/providers/{id}", ADMINS, fleet.forget_provider, "Forget a provider: its enrolment and credential"),
        post(
            "/v1/providers/{id}/drain",
            ADMINS,
            fleet.drain_provider,
            ProviderEntry,
            "No new work on this provider",
            DrainRequest,
        ),
        post(
            "/v1/providers/{id}/resume",
            ADMINS,
            fleet.resume_provider,
            ProviderEntry,
            "The drain is over",
            NoBody,
        ),
        # ---- agents
        post(
            wire.ENROL_PATH,
            ENROLLERS,
            fleet.enrol_provider,
            wire.EnrolAnswer,
            "Enrol a machine: its identity and credential",
            wire.EnrolRequest,
            status=201,
        ),
        get(
            wire.CONNECT_PATH,
            AGENTS,
            connect_agent,
            "websocket",
            "An agent's connection (docs/reference/wire.md)",
            NoQuery,
        ),
        # ---- access
        get(
            "/v1/tokens",
            ADMINS,
            access.list_tokens,
            Tokens,
            "Tokens without their texts, oldest first",
            access.TokensQuery,
        ),
        post(
            "/v1/tokens",
            ADMINS,
            access.create_token,
            TokenMade,
            "Make a token; its text is shown once",
            TokenRequest,
            status=201,
        ),
        delete("/v1/tokens/{id}", ADMINS, access.revoke_token, "Revoke a token and cut what stands on it"),
        get("/v1/pools", READERS, access.list_pools, Pools, "Pools and how many providers they have", NoQuery),
        post("/v1/pools", ADMINS, access.create_pool, PoolEntry, "Make a pool", PoolRequest, status=201),
        patch("/v1/pools/{name}", ADMINS, access.price_pool, PoolEntry, "What a pool costs from now on", PriceRequest),
        delete("/v1/pools/{name}", ADMINS, access.delete_pool, "Delete an unused pool"),
        # ---- operations
        post(
            "/v1/import/sessions",
            ADMINS,
            keeping(operations.import_sessions, alone=alone),
            ImportAnswer,
            "Add a history from elsewhere (CSV)",
            Upload,
        ),
        get("/v1/alerts", READERS, operations.list_alerts, Alerts, "What an operator should look at", NoQuery),
        post(
            "/v1/alerts/{id}/ack",
            ADMINS,
            operations.acknowledge_alert,
            AlertEntry,
            "Say that somebody looks after an alert",
            NoBody,
        ),
        post(
            "/v1/db/backup",
            ADMINS,
            keeping(operations.backup, alone=alone),
            BackupAnswer,
            "Write a consistent copy of everything",
            BackupRequest,
        ),
        post(
            "/v1/db/check",
            ADMINS,
            keeping(operations.check, alone=alone),
            CheckAnswer,
            "Check the databases and every segment",
            NoBody,
        ),
        get("/healthz", PUBLIC, operations.healthz, Alive, "The process answers", NoQuery),
        get(
            "/readyz",
            PUBLIC,
            keeping(operations.readyz, began_s=began_s),
            Health,
            "Whether requests are served in full (else 503)",
            NoQuery,
        ),
        get("/metrics", READERS, operations.show_metrics, "text/plain", "Prometheus metrics", NoQuery),
        get("/openapi.json", READERS, show_openapi, OpenApi, "This API in OpenAPI 3.1", NoQuery),
    )
