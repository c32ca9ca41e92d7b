"""Routes of fault-tolerant launchers: off unless the directory of their logs is set, and an admin's alone."""

from __future__ import annotations

from coordinator.service.api import launchers
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import ADMINS, AnyRoute, delete_with, get, post_model

Reply = launchers.LauncherReply


def launcher_routes() -> tuple[AnyRoute, ...]:
    """As `coord attrsvc` has them."""
    return (
        post_model(
            "/logs",
            ADMINS,
            launchers.submit_log,
            Reply,
            "A log to track, to follow while it grows, or to judge at its end; never a result",
            NoQuery,
            launchers.LogSubmission,
        ),
        get("/logs", ADMINS, launchers.log_verdict, Reply, "The verdict on a log", launchers.LogQuery),
        delete_with("/logs", ADMINS, launchers.release_log, Reply, "Follow a log no longer", launchers.LogPath),
        get("/stats", ADMINS, launchers.log_stats, Reply, "Launchers' logs: counters and times", NoQuery),
        get("/jobs", ADMINS, launchers.log_jobs, Reply, "Launchers' logs: what was submitted", NoQuery),
        get("/inflight", ADMINS, launchers.log_inflight, Reply, "Launchers' logs: what is being judged", NoQuery),
    )
