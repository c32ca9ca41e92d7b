"""Routes of what agents ask for the attempts that they hold."""

from __future__ import annotations

from coordinator import wire_data as w
from coordinator.core.rows import Role
from coordinator.service.api import attempts
from coordinator.service.api.route import AnyRoute, post

AGENTS = frozenset({Role.AGENT})


def attempt_routes() -> tuple[AnyRoute, ...]:
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
