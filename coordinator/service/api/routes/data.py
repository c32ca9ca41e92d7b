"""Routes of bytes: stored, named, fetched."""

from __future__ import annotations

from typing import Final

from coordinator.api_types.data import (
    ArtifactDetails,
    ArtifactEntry,
    ArtifactRequest,
    Artifacts,
    JobData,
    MissingAnswer,
    MissingRequest,
    StoredBlob,
    TransfersAnswer,
    UploadAnswer,
    UploadRequest,
)
from coordinator.service.api import artifacts, blob_uploads, blobs, job_data, transfers
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import ONLOOKERS, READERS, TENANTS, AnyRoute, delete, delete_with, get, post, signed

BLOB = "/v1/blobs/{tenant}/{digest}"
OCTETS: Final = "application/octet-stream"


def data_routes() -> tuple[AnyRoute, ...]:
    """Bytes: stored, named, fetched."""
    return (
        post(
            "/v1/uploads",
            TENANTS,
            blob_uploads.open_upload,
            UploadAnswer,
            "Have bytes stored: they are there, or here is where to send them",
            UploadRequest,
            status=201,
        ),
        signed(
            "PUT",
            "/v1/uploads/{id}",
            blob_uploads.receive_upload,
            StoredBlob,
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
            Artifacts,
            "Artifacts by name",
            artifacts.ArtifactsQuery,
        ),
        post(
            "/v1/artifacts",
            TENANTS,
            artifacts.put_artifact,
            ArtifactEntry,
            "Give a stored blob a name",
            ArtifactRequest,
            status=201,
        ),
        post(
            "/v1/artifacts/missing",
            TENANTS,
            artifacts.missing_blobs,
            MissingAnswer,
            "Which of these blobs are not there",
            MissingRequest,
        ),
        get(
            "/v1/artifacts/{name}",
            ONLOOKERS,
            artifacts.show_artifact,
            ArtifactDetails,
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
            TransfersAnswer,
            "What moves, what is held back, and whether anything is let in",
            NoQuery,
        ),
        get(
            "/v1/jobs/{id}/data",
            ONLOOKERS,
            job_data.show_data,
            JobData,
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
