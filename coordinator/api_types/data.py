"""The structs of HTTP answers about data: uploads, artifacts, what a job took in and made.

Sizes are bytes, digests 64 hex digits. A URL is a path on the coordinator, to be joined to its address, or a whole
address elsewhere; it is a secret that opens one object until it expires.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from coordinator.api_types.units import Timestamp

DIGESTS_MAX = 4_096
"""That one question may name."""
Hex64 = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
Size = Annotated[int, Meta(ge=0, le=2**53)]


class UploadRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is about to be stored: named by its BLAKE3, its SHA-256, or both. What is named is verified."""

    size: Size
    digest: Hex64 | None = None
    sha256: Hex64 | None = None
    tenant: str | None = None


class UploadAnswer(Struct, frozen=True, kw_only=True):
    """`present`: the bytes are there, nothing has to be sent. Else where to send them, from `offset` on."""

    present: bool
    size: int
    digest: str | None = None
    """Null while only its SHA-256 is known."""
    sha256: str | None = None
    id: str | None = None
    url: str | None = None
    offset: int = 0
    """What arrived of it before."""
    expires: Timestamp | None = None
    """Until when the URL may be used to begin with; the upload itself stays open for longer."""
    closes: Timestamp | None = None
    """When the upload is dropped, unless it is complete."""


class StoredBlob(Struct, frozen=True, kw_only=True):
    """Bytes that were stored."""

    digest: str
    size: int
    sha256: str | None = None


class ArtifactRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Give a stored blob a name; another one under that name gives way."""

    name: str
    digest: Hex64
    executable: bool = False
    tenant: str | None = None


class ArtifactEntry(Struct, frozen=True, kw_only=True):
    """A blob that a person gave a name."""

    name: str
    tenant: str
    digest: str
    size: int
    created_at: Timestamp
    by: str
    executable: bool
    sha256: str | None = None
    """Where it was named when it was stored; only for one artifact."""


class Artifacts(Struct, frozen=True, kw_only=True):
    """Artifacts by tenant and name."""

    entries: tuple[ArtifactEntry, ...]
    next_page: str | None = None


class ArtifactDetails(Struct, frozen=True, kw_only=True):
    """A blob, what it is called if it has a name, and who keeps it."""

    tenant: str
    digest: str
    size: int
    stored_at: Timestamp
    sha256: str | None
    artifact: ArtifactEntry | None
    """Null when it was asked for by its digest."""
    held_by: tuple[str, ...]
    """`artifact:NAME`, `job:12` (an input), `task:12.0.3` (an output), `checkpoint:12.0.3.7`; the first hundred."""


class MissingRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which of these are not there? The others are kept for the grace time, for whoever is about to name them."""

    digests: Annotated[tuple[Hex64, ...], Meta(min_length=1, max_length=DIGESTS_MAX)]
    tenant: str | None = None


class MissingAnswer(Struct, frozen=True, kw_only=True):
    missing: tuple[str, ...]


class DataFile(Struct, frozen=True, kw_only=True):
    """One file of a result, or an input that is a blob."""

    path: str
    digest: str
    size: int
    executable: bool


class InputEntry(Struct, frozen=True, kw_only=True):
    """What is laid into an attempt's directory before it starts: a blob, or outputs of another step."""

    path: str
    """Where it goes; of outputs, the directory that they go into."""
    digest: str | None
    size: int | None
    executable: bool
    from_step: str | None
    """The step whose outputs are meant."""
    pattern: str | None
    """Which of them."""


class StepInputs(Struct, frozen=True, kw_only=True):
    step: int
    name: str
    inputs: tuple[InputEntry, ...]
    outputs: tuple[str, ...]
    """Declared."""


class CheckpointEntry(Struct, frozen=True, kw_only=True):
    """A state that a later attempt may resume from."""

    number: int
    attempt: int
    taken_at: Timestamp
    """When its files were as they are in it."""
    published_at: Timestamp
    manifest: str
    files: int
    size: int
    sent: int
    """Bytes that had to travel for it."""
    cost_ms: int
    label: str
    damaged: str
    """Why it could not be restored; empty: nobody found anything wrong with it."""
    kept: bool
    """Its bytes are still there."""


class TaskData(Struct, frozen=True, kw_only=True):
    """What one task made: its result, and the states that it saved."""

    task: str
    """`JOB.STEP.TASK`."""
    step: str
    """The step's name."""
    attempt: int | None
    """The one whose result counts; null: there is none."""
    published_at: Timestamp | None
    outputs: tuple[DataFile, ...]
    size: int
    """Bytes of the result."""
    checkpoints: tuple[CheckpointEntry, ...]
    """The newest first."""


class JobData(Struct, frozen=True, kw_only=True):
    """A job's inputs by step, and what its tasks made, by step and number; tasks that made nothing yet are left out."""

    inputs: tuple[StepInputs, ...]
    entries: tuple[TaskData, ...]
    next_page: str | None = None


class TenantTransfers(Struct, frozen=True, kw_only=True):
    tenant: str
    under_way: int
    uploads_open: int
    uploads_bytes: int
    """What the open ones will take, and have reserved."""


class TransfersAnswer(Struct, frozen=True, kw_only=True):
    """How transfers of blobs stand."""

    state: str
    """Of the circuit breaker: closed (all are let in), open (none is) or half_open (one is, to see)."""
    why: str
    opened: int
    """How often it opened since the start."""
    under_way: int
    refused: int
    """For lack of room, since the start."""
    spilled_bytes: int
    """Taken beyond their tenant's rate, and not counted as arrived yet."""
    spill_bytes_max: int
    waiting_in_bytes: int
    waiting_out_bytes: int
    ingress_bytes_per_s: int
    """What the link may take; 0: no bound."""
    egress_bytes_per_s: int
    ingress_bytes: int
    """Since the start."""
    egress_bytes: int
    entries: tuple[TenantTransfers, ...]
    """Tenants with transfers or open uploads, by name."""
