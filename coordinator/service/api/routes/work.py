"""Routes of jobs, and of what happens."""

from __future__ import annotations

from coordinator.api_types.happenings import Audit
from coordinator.api_types.nodepools import NodePools
from coordinator.api_types.verdict import VerdictEntry
from coordinator.api_types.why import JobWhy, Preview
from coordinator.api_types.work import JobDetails, JobEntry, Jobs, Tasks
from coordinator.jobfile.model import JobFile
from coordinator.service.api import happenings, job_logs, jobs, log_selection, nodepools, submissions, verdicts, waiting
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import (
    ONLOOKERS,
    TENANTS,
    AnyRoute,
    NoBody,
    delete_with,
    get,
    keeping,
    post,
    post_model,
)
from coordinator.service.api.streams import OpenStreams


def work_routes(streams: OpenStreams) -> tuple[AnyRoute, ...]:
    """Jobs, and what happens."""
    return (
        post_model(
            "/v1/jobs",
            TENANTS,
            keeping(submissions.submit_job, locks=submissions.KeyLocks()),
            JobEntry,
            "Have a job run; 200 and the job that the same Idempotency-Key made before",
            submissions.SubmitQuery,
            JobFile,
            status=201,
            durable_keys=True,
        ),
        post_model(
            "/v1/jobs/preview",
            TENANTS,
            submissions.preview_job,
            Preview,
            "What a job consists of and who could run it now; nothing is submitted",
            submissions.SubmitQuery,
            JobFile,
        ),
        get("/v1/jobs", ONLOOKERS, jobs.list_jobs, Jobs, "Jobs, newest first", jobs.JobsQuery),
        get("/v1/jobs/{id}", ONLOOKERS, jobs.show_job, JobDetails, "A job, its steps and first tasks", NoQuery),
        get("/v1/jobs/{id}/tasks", ONLOOKERS, jobs.list_tasks, Tasks, "A job's tasks", jobs.TasksQuery),
        get(
            "/v1/attempts/{id}/verdict",
            ONLOOKERS,
            verdicts.show_verdict,
            VerdictEntry,
            "What an attempt died of, and the lines that this rests on",
            NoQuery,
        ),
        get("/v1/jobs/{id}/why", ONLOOKERS, jobs.why_job, JobWhy, "Why a job stands as it does", NoQuery),
        get(
            "/v1/jobs/{id}/wait",
            ONLOOKERS,
            keeping(waiting.wait_job, streams=streams),
            JobEntry,
            "The job when it has ended, or when the time is over",
            waiting.WaitQuery,
            streams=True,
        ),
        get(
            "/v1/jobs/{id}/logs",
            ONLOOKERS,
            keeping(job_logs.read_logs, streams=streams),
            "text/plain",
            "What a job prints, stored or as it is written",
            log_selection.LogsQuery,
            streams=True,
        ),
        delete_with(
            "/v1/jobs/{id}", TENANTS, jobs.cancel_job, JobEntry, "Cancel a job or a task of it", jobs.CancelQuery
        ),
        post(
            "/v1/jobs/{id}/retry",
            TENANTS,
            jobs.retry_job,
            JobEntry,
            "Run again what failed, was lost or was cancelled",
            NoBody,
        ),
        get(
            "/v1/events",
            ONLOOKERS,
            keeping(happenings.stream_events, streams=streams),
            "text/event-stream",
            "What happens, as it becomes durable",
            happenings.EventsQuery,
        ),
        get("/v1/audit", ONLOOKERS, happenings.list_audit, Audit, "What happened, newest first", happenings.AuditQuery),
        get(
            "/v1/nodepools",
            ONLOOKERS,
            nodepools.list_nodepools,
            NodePools,
            "What each pool offers, what is free and what waits for it",
            NoQuery,
        ),
    )
