"""THE table of routes. What is not here does not exist; what is here says who may take it.

Read it from top to bottom: that is the API. docs/reference/http.md tells it in words.
"""

from __future__ import annotations

from functools import partial, update_wrapper
from typing import Any, Final

from coordinator import api_data as d
from coordinator import api_types as t
from coordinator import wire
from coordinator import wire_data as w
from coordinator.core.rows import Role
from coordinator.jobfile.model import JobFile
from coordinator.service.api import (
    access,
    artifacts,
    attempts,
    blob_uploads,
    blobs,
    fleet,
    happenings,
    history,
    job_data,
    job_logs,
    jobs,
    ledger,
    log_selection,
    nodepools,
    operations,
    reliability,
    tenants,
    transfers,
    waiting,
)
from coordinator.service.api.agents_door import connect_agent
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.openapi import show_openapi
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import (
    ADMINS,
    ONLOOKERS,
    PUBLIC,
    READERS,
    TENANTS,
    AnyRoute,
    NoBody,
    delete,
    delete_with,
    get,
    patch,
    post,
    post_model,
    signed,
)
from coordinator.service.api.streams import OpenStreams
from coordinator.service.api.uploads import Upload

ENROLLERS = frozenset({Role.JOIN, Role.ADMIN, Role.AGENT})
AGENTS = frozenset({Role.AGENT})
BLOB = "/v1/blobs/{tenant}/{digest}"
OCTETS: Final = "application/octet-stream"


def _with(handler: Any, *parts: object, **named: object) -> Any:
    """`handler` with the parts that it keeps between requests, under its own name."""
    return update_wrapper(partial(handler, *parts, **named), handler)


def routes(deps: ApiDeps, streams: OpenStreams) -> tuple[AnyRoute, ...]:
    """Every route of the coordinator."""
    return (
        *_fleet_routes(deps),
        *_work_routes(streams),
        *_data_routes(),
        *_attempt_routes(),
        *_tenant_routes(streams),
    )


def _data_routes() -> tuple[AnyRoute, ...]:
    """Bytes: stored, named, fetched."""
    return (
        post(
            "/v1/uploads",
            TENANTS,
            blob_uploads.open_upload,
            d.UploadAnswer,
            "Have bytes stored: they are there, or here is where to send them",
            d.UploadRequest,
            status=201,
        ),
        signed(
            "PUT",
            "/v1/uploads/{id}",
            blob_uploads.receive_upload,
            d.StoredBlob,
            "Bytes of an upload; the last one publishes it",
            status=201,
        ),
        signed("HEAD", "/v1/uploads/{id}", blob_uploads.show_upload, None, "How much of an upload is there"),
        delete("/v1/uploads/{id}", TENANTS, blob_uploads.drop_upload, "Give an upload up"),
        signed("GET", BLOB, blobs.send_signed, OCTETS, "Bytes of a blob, or a range of them"),
        signed("HEAD", BLOB, blobs.send_signed_head, None, "Size and tag of a blob"),
        get(
            "/v1/artifacts",
            ONLOOKERS,
            artifacts.list_artifacts,
            d.Artifacts,
            "Artifacts by name",
            artifacts.ArtifactsQuery,
        ),
        post(
            "/v1/artifacts",
            TENANTS,
            artifacts.put_artifact,
            d.ArtifactEntry,
            "Give a stored blob a name",
            d.ArtifactRequest,
            status=201,
        ),
        post(
            "/v1/artifacts/missing",
            TENANTS,
            artifacts.missing_blobs,
            d.MissingAnswer,
            "Which of these blobs are not there",
            d.MissingRequest,
        ),
        get(
            "/v1/artifacts/{name}",
            ONLOOKERS,
            artifacts.show_artifact,
            d.ArtifactDetails,
            "An artifact by its name, or any blob by its digest, and who keeps it",
            artifacts.OfTenantQuery,
        ),
        delete_with(
            "/v1/artifacts/{name}",
            TENANTS,
            artifacts.remove_artifact,
            None,
            "Take an artifact's name away",
            artifacts.OfTenantQuery,
            status=204,
        ),
        get(
            "/v1/artifacts/{name}/content",
            ONLOOKERS,
            artifacts.read_artifact,
            OCTETS,
            "The bytes of an artifact, or of any blob by its digest",
            artifacts.OfTenantQuery,
        ),
        get(
            "/v1/transfers",
            READERS,
            transfers.show_transfers,
            d.TransfersAnswer,
            "What moves, what is held back, and whether anything is let in",
            NoQuery,
        ),
        get(
            "/v1/jobs/{id}/data",
            ONLOOKERS,
            job_data.show_data,
            d.JobData,
            "What went into a job, and what its tasks made",
            job_data.DataQuery,
        ),
        get(
            "/v1/jobs/{id}/outputs/{path}",
            ONLOOKERS,
            job_data.read_output,
            OCTETS,
            "The bytes of one file of a result",
            job_data.FileQuery,
        ),
    )


def _attempt_routes() -> tuple[AnyRoute, ...]:
    """What agents ask for the attempts that they hold."""
    at = "/v1/attempts/{id}"
    return (
        post(
            f"{at}/staging",
            AGENTS,
            attempts.stage_attempt,
            w.StagingAnswer,
            "Inputs and checkpoints of an attempt, with where to fetch them",
            w.StagingRequest,
        ),
        post(
            f"{at}/urls",
            AGENTS,
            attempts.attempt_urls,
            w.UrlsAnswer,
            "Where to fetch blobs for an attempt",
            w.UrlsRequest,
            long=True,
        ),
        post(
            f"{at}/uploads",
            AGENTS,
            attempts.attempt_uploads,
            w.UploadsAnswer,
            "Where to send what an attempt made",
            w.UploadsRequest,
            long=True,
        ),
        post(
            f"{at}/outputs",
            AGENTS,
            attempts.publish_outputs,
            w.OutputsAnswer,
            "The end of a rank together with its result",
            w.OutputsRequest,
            long=True,
        ),
        post(
            f"{at}/checkpoints",
            AGENTS,
            attempts.publish_checkpoint,
            w.CheckpointAnswer,
            "A state was saved that the task may resume from",
            w.CheckpointRequest,
        ),
        post(
            f"{at}/restored",
            AGENTS,
            attempts.attempt_restored,
            None,
            "An attempt resumes from this",
            w.RestoredRequest,
            status=204,
        ),
        post(
            f"{at}/damaged",
            AGENTS,
            attempts.attempt_damaged,
            None,
            "A checkpoint cannot be restored",
            w.DamagedRequest,
            status=204,
        ),
    )


def _tenant_routes(streams: OpenStreams) -> tuple[AnyRoute, ...]:
    """Who submits and pays: limits, use and charges."""
    return (
        get("/v1/tenants", READERS, tenants.list_tenants, t.Tenants, "Tenants by name", tenants.TenantsQuery),
        post("/v1/tenants", ADMINS, tenants.create_tenant, t.TenantEntry, "Make a tenant", t.TenantRequest, status=201),
        get("/v1/tenants/{name}", ONLOOKERS, tenants.show_tenant, t.TenantEntry, "A tenant and its limits", NoQuery),
        patch("/v1/tenants/{name}", ADMINS, tenants.change_tenant, t.TenantEntry, "Change a tenant", t.TenantChange),
        delete("/v1/tenants/{name}", ADMINS, tenants.delete_tenant, "Delete a tenant that nothing stands on"),
        get(
            "/v1/usage",
            ONLOOKERS,
            tenants.read_usage,
            t.Usages,
            "What tenants use, reserve and have left, as it is decided by",
            tenants.UsageQuery,
        ),
        get("/v1/usage/by", ONLOOKERS, ledger.sum_ledger, t.UsageBy, "Charges summed", ledger.SumsQuery),
        get(
            "/v1/ledger",
            ONLOOKERS,
            _with(ledger.list_ledger, streams=streams),
            t.Ledger,
            "Charges, newest first",
            ledger.LedgerQuery,
            csv=True,
        ),
    )


def _work_routes(streams: OpenStreams) -> tuple[AnyRoute, ...]:
    """Jobs, and what happens."""
    return (
        post_model(
            "/v1/jobs",
            TENANTS,
            _with(jobs.submit_job, locks=jobs.KeyLocks()),
            t.JobEntry,
            "Have a job run; 200 and the job that the same Idempotency-Key made before",
            jobs.SubmitQuery,
            JobFile,
            status=201,
            durable_keys=True,
        ),
        post_model(
            "/v1/jobs/preview",
            TENANTS,
            jobs.preview_job,
            t.Preview,
            "What a job consists of and who could run it now; nothing is submitted",
            jobs.SubmitQuery,
            JobFile,
        ),
        get("/v1/jobs", ONLOOKERS, jobs.list_jobs, t.Jobs, "Jobs, newest first", jobs.JobsQuery),
        get("/v1/jobs/{id}", ONLOOKERS, jobs.show_job, t.JobDetails, "A job, its steps and first tasks", NoQuery),
        get("/v1/jobs/{id}/tasks", ONLOOKERS, jobs.list_tasks, t.Tasks, "A job's tasks", jobs.TasksQuery),
        get("/v1/jobs/{id}/why", ONLOOKERS, jobs.why_job, t.JobWhy, "Why a job stands as it does", NoQuery),
        get(
            "/v1/jobs/{id}/wait",
            ONLOOKERS,
            _with(waiting.wait_job, streams=streams),
            t.JobEntry,
            "The job when it has ended, or when the time is over",
            waiting.WaitQuery,
            streams=True,
        ),
        get(
            "/v1/jobs/{id}/logs",
            ONLOOKERS,
            _with(job_logs.read_logs, streams=streams),
            "text/plain",
            "What a job prints, stored or as it is written",
            log_selection.LogsQuery,
            streams=True,
        ),
        delete_with(
            "/v1/jobs/{id}", TENANTS, jobs.cancel_job, t.JobEntry, "Cancel a job or a task of it", jobs.CancelQuery
        ),
        post(
            "/v1/jobs/{id}/retry",
            TENANTS,
            jobs.retry_job,
            t.JobEntry,
            "Run again what failed, was lost or was cancelled",
            NoBody,
        ),
        get(
            "/v1/events",
            ONLOOKERS,
            _with(happenings.stream_events, streams=streams),
            "text/event-stream",
            "What happens, as it becomes durable",
            happenings.EventsQuery,
        ),
        get(
            "/v1/audit", ONLOOKERS, happenings.list_audit, t.Audit, "What happened, newest first", happenings.AuditQuery
        ),
        get(
            "/v1/nodepools",
            ONLOOKERS,
            nodepools.list_nodepools,
            t.NodePools,
            "What each pool offers, what is free and what waits for it",
            NoQuery,
        ),
    )


def _fleet_routes(deps: ApiDeps) -> tuple[AnyRoute, ...]:
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
            _with(reliability.show_backtest, work=work),
            t.Backtest,
            "How good the forecast was on this fleet's own past",
            reliability.BacktestQuery,
        ),
        post(
            "/v1/sql",
            READERS,
            _with(reliability.run_sql, work=work),
            t.SqlAnswer,
            "A SELECT over the documented views",
            t.SqlRequest,
        ),
        # ---- the fleet now
        get(
            "/v1/providers",
            READERS,
            _with(fleet.list_providers, index=index),
            t.Providers,
            "Enrolled providers in order of id",
            fleet.ProvidersQuery,
        ),
        get("/v1/providers/{id}", READERS, fleet.show_provider, t.ProviderEntry, "One enrolled provider", NoQuery),
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
            _with(operations.import_sessions, alone=alone),
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
            _with(operations.backup, alone=alone),
            t.BackupAnswer,
            "Write a consistent copy of everything",
            t.BackupRequest,
        ),
        post(
            "/v1/db/check",
            ADMINS,
            _with(operations.check, alone=alone),
            t.CheckAnswer,
            "Check the databases and every segment",
            NoBody,
        ),
        get("/healthz", PUBLIC, operations.healthz, t.Alive, "The process answers", NoQuery),
        get(
            "/readyz",
            PUBLIC,
            _with(operations.readyz, began_s=began_s),
            t.Health,
            "Whether requests are served in full (else 503)",
            NoQuery,
        ),
        get("/metrics", READERS, operations.show_metrics, "text/plain", "Prometheus metrics", NoQuery),
        get("/openapi.json", READERS, show_openapi, t.OpenApi, "This API in OpenAPI 3.1", NoQuery),
    )
