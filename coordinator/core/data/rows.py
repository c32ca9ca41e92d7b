"""The rows of data: which blobs there are, who holds them, and what they are to jobs.

A blob's bytes are the blob store's; a row here says that they were verified. Rows are in the truth, never in memory as
a whole: an event that needs some has them attached. Sizes are bytes, times Unix milliseconds on the observed clock.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.ids import AttemptId, Digest, JobId, Ms, TenantName, UploadId


class BlobRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="blob"):
    """Bytes that one tenant has stored, once, whoever refers to them. Key: (`tenant`, `digest`)."""

    tenant: TenantName
    digest: Digest
    """BLAKE3 of the bytes."""
    size: int
    created_at_ms: Ms
    touched_ms: Ms
    """When it was stored, or last found to be there: what nobody holds stays for the grace time from then."""
    sha256: str = ""
    """Hex; where an uploader named it, and it was verified."""


class HoldRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="hold"):
    """Who keeps blobs. Key: (`tenant`, `holder`). What no hold names is collected after the grace time."""

    tenant: TenantName
    holder: str
    """`artifact:NAME`, `job:12` (its inputs), `task:12.0.3` (its outputs), `checkpoint:12.0.3.7`."""
    digests: tuple[Digest, ...]
    """Each once, sorted."""


class ArtifactRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="artifact"):
    """A blob that a person gave a name. Key: (`tenant`, `name`)."""

    tenant: TenantName
    name: str
    digest: Digest
    size: int
    created_at_ms: Ms
    by: str
    executable: bool = False


class UploadRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="upload"):
    """An upload that was opened and is not published: its id is the nonce that publication burns. Key: `upload_id`.

    Its size is reserved under the tenant's storage quota until then, unless that counts these bytes already (`mends`).
    """

    upload_id: UploadId
    tenant: TenantName
    size: int
    opened_at_ms: Ms
    expires_at_ms: Ms
    by: str
    """`token:ID` or `agent:PROVIDER`."""
    digest: Digest = Digest("")
    """BLAKE3 that was announced; empty: `sha256` was."""
    sha256: str = ""
    attempt_id: AttemptId | None = None
    """Of one that an attempt opened: it ends with the attempt's token."""
    mends: bool = False
    """The blob has a row, and its file is damaged or lost: these bytes come to lie in its place."""


class FileEntry(Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """One file of a result, an input or a checkpoint."""

    path: str
    """Relative, `/` between its parts, none of them empty, `.` or `..`."""
    digest: Digest
    size: int
    executable: bool = False


class OutputRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="output"):
    """The one result of a task that declared outputs. Key: (`job_id`, `step`, `task`).

    Written with the end of the attempt that made it, in one transaction.
    """

    job_id: JobId
    step: int
    task: int
    attempt: int
    tenant: TenantName
    at_ms: Ms
    files: tuple[FileEntry, ...]
    """By path."""
    size: int
    """Bytes of all of them."""


class CheckpointRow(Struct, frozen=True, gc=False, kw_only=True, tag_field="row", tag="checkpoint"):
    """A state that a later attempt may resume from. Key: (`job_id`, `step`, `task`, `number`)."""

    job_id: JobId
    step: int
    task: int
    number: int
    """Counts up over all attempts of the task, from 1."""
    attempt: int
    tenant: TenantName
    taken_ms: Ms
    """When its files were as they are in it: work up to then is saved."""
    published_ms: Ms
    manifest: Digest
    """Of the blob that lists its files: see `coordinator.manifest`."""
    files: int
    size: int
    sent: int
    """Bytes that had to travel for it."""
    cost_ms: Ms
    """From the snapshot's begin to its publication."""
    label: str = ""
    """What the job said of it: `step=1200`."""
    damaged: str = ""
    """Why it could not be restored; such a one is skipped."""


DataRow = BlobRow | HoldRow | ArtifactRow | UploadRow | OutputRow | CheckpointRow
