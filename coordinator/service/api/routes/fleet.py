"""Routes of liveness, the fleet, access and operations."""

from __future__ import annotations

from coordinator import api_types as t
from coordinator import wire
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
            t.ReliabilityAnswer,
            "Who can be relied on, best first",
            reliability.ReliabilityQuery,
        ),
        get(
            "/v1/providers/{id}/liveness",
            READERS,
            reliability.show_liveness,
            t.Features,
            "A provider's features and score",
            reliability.FeaturesQuery,
        ),
        get(
            "/v1/providers/{id}/sessions",
            READERS,
            history.list_sessions,
            t.Sessions,
            "A provider's sessions, newest first",
            history.WindowQuery,
        ),
        get(
            "/v1/providers/{id}/heartbeats",
            READERS,
            history.list_heartbeats,
            t.Heartbeats,
            "A provider's heartbeats, newest first",
            history.WindowQuery,
        ),
        get(
            "/v1/providers/{id}/heartbeats/hourly",
            READERS,
            history.list_hours,
            t.Hours,
            "A provider's heartbeats by the hour, newest first",
            history.WindowQuery,
        ),
        get(
            "/v1/providers/{id}/forecast",
            READERS,
            reliability.show_forecast,
            t.Forecast,
            "Will it stay? Null for a provider that is not online",
            reliability.ForecastQuery,
            nullable=True,
        ),
        get(
            "/v1/providers/{id}/availability",
            READERS,
            reliability.show_availability,
            t.Availability,
            "A provider's 7x24 grid",
            reliability.FeaturesQuery,
        ),
        get(
            "/v1/network/availability",
            READERS,
            reliability.show_network,
            t.NetworkAvailability,
            "The whole fleet's uptime",
            reliability.NetworkQuery,
        ),
        get(
            "/v1/availability",
            READERS,
            reliability.show_fleet_availability,
            t.Availability,
            "The whole fleet's 7x24 grid",
            reliability.FeaturesQuery,
        ),
        get(
            "/v1/backtest",
            READERS,
            keeping(reliability.show_backtest, work=work),
            t.Backtest,
            "How good the forecast was on this fleet's own past",
            reliability.BacktestQuery,
        ),
        post(
            "/v1/sql",
            READERS,
            keeping(reliability.run_sql, work=work),
            t.SqlAnswer,
            "A SELECT over the documented views",
            t.SqlRequest,
        ),
        # ---- the fleet now
        get(
            "/v1/providers",
            READERS,
            keeping(fleet.list_providers, index=index),
            t.Providers,
            "Enrolled providers in order of id",
            fleet.ProvidersQuery,
        ),
        get("/v1/providers/{id}", READERS, verdicts.show_provider, t.ProviderEntry, "One enrolled provider", NoQuery),
        delete("/v1/providers/{id}", ADMINS, fleet.forget_provider, "Forget a provider: its enrolment and credential"),
        post(
            "/v1/providers/{id}/drain",
            ADMINS,
            fleet.drain_provider,
            t.ProviderEntry,
            "No new work on this provider",
            t.DrainRequest,
        ),
        post(
            "/v1/providers/{id}/resume",
            ADMINS,
            fleet.resume_provider,
            t.ProviderEntry,
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
            t.Tokens,
            "Tokens without their texts, oldest first",
            access.TokensQuery,
        ),
        post(
            "/v1/tokens",
            ADMINS,
            access.create_token,
            t.TokenMade,
            "Make a token; its text is shown once",
            t.TokenRequest,
            status=201,
        ),
        delete("/v1/tokens/{id}", ADMINS, access.revoke_token, "Revoke a token and cut what stands on it"),
        get("/v1/pools", READERS, access.list_pools, t.Pools, "Pools and how many providers they have", NoQuery),
        post("/v1/pools", ADMINS, access.create_pool, t.PoolEntry, "Make a pool", t.PoolRequest, status=201),
        patch(
            "/v1/pools/{name}", ADMINS, access.price_pool, t.PoolEntry, "What a pool costs from now on", t.PriceRequest
        ),
        delete("/v1/pools/{name}", ADMINS, access.delete_pool, "Delete an unused pool"),
        # ---- operations
        post(
            "/v1/import/sessions",
            ADMINS,
            keeping(operations.import_sessions, alone=alone),
            t.ImportAnswer,
            "Add a history from elsewhere (CSV)",
            Upload,
        ),
        get("/v1/alerts", READERS, operations.list_alerts, t.Alerts, "What an operator should look at", NoQuery),
        post(
            "/v1/alerts/{id}/ack",
            ADMINS,
            operations.acknowledge_alert,
            t.AlertEntry,
            "Say that somebody looks after an alert",
            NoBody,
        ),
        post(
            "/v1/db/backup",
            ADMINS,
            keeping(operations.backup, alone=alone),
            t.BackupAnswer,
            "Write a consistent copy of everything",
            t.BackupRequest,
        ),
        post(
            "/v1/db/check",
            ADMINS,
            keeping(operations.check, alone=alone),
            t.CheckAnswer,
            "Check the databases and every segment",
            NoBody,
        ),
        get("/healthz", PUBLIC, operations.healthz, t.Alive, "The process answers", NoQuery),
        get(
            "/readyz",
            PUBLIC,
            keeping(operations.readyz, began_s=began_s),
            t.Health,
            "Whether requests are served in full (else 503)",
            NoQuery,
        ),
        get("/metrics", READERS, operations.show_metrics, "text/plain", "Prometheus metrics", NoQuery),
        get("/openapi.json", READERS, show_openapi, t.OpenApi, "This API in OpenAPI 3.1", NoQuery),
    )
