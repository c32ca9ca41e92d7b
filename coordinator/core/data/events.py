"""What can happen to data. Bytes never come here: an event says that they were verified, or asks who may move them.

`known` rows are what the store had when the service looked; what was decided since is in the state.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, FileEntry, OutputRow
from coordinator.core.event import Event
from coordinator.core.ids import AttemptId, ConnId, Digest, Ms, ProviderId, RequestId, TenantName, UploadId
from coordinator.core.rows import ExitInfo, LeaseToken


class Claim(Struct, frozen=True, gc=False, kw_only=True):
    """An agent acts for a rank of an attempt. Counts only while the token is current and the rank is its provider's."""

    provider_id: ProviderId
    attempt_id: AttemptId
    rank: int
    token: LeaseToken


class UploadOpen(Event, frozen=True, kw_only=True, tag="upload_open"):
    """Somebody wants to store bytes. -> answers.UploadOpened, also for what is there already (`known`)."""

    request_id: RequestId
    upload_id: UploadId
    """Fresh and random, made by the service."""
    tenant: TenantName
    by: str
    size: int
    digest: Digest = Digest("")
    sha256: str = ""
    known: BlobRow | None = None
    claim: Claim | None = None
    unsound: bool = False
    """What lies under this digest is not what its row says: an upload is opened in spite of the row."""


class UploadDone(Event, frozen=True, kw_only=True, tag="upload_done"):
    """The bytes of an upload are on disk, synced, under their digest. -> BlobRow. Burns the upload."""

    request_id: RequestId
    upload_id: UploadId
    digest: Digest
    size: int
    sha256: str = ""
    known: BlobRow | None = None


class UploadDrop(Event, frozen=True, kw_only=True, tag="upload_drop"):
    """It is given up: by its owner, or since its bytes were not what was announced. -> None"""

    request_id: RequestId
    upload_id: UploadId
    why: str


class ArtifactPut(Event, frozen=True, kw_only=True, tag="artifact_put"):
    """Give a blob a name; another one under that name gives way. -> ArtifactRow"""

    request_id: RequestId
    tenant: TenantName
    by: str
    name: str
    digest: Digest
    executable: bool = False
    known: BlobRow | None = None


class ArtifactRemove(Event, frozen=True, kw_only=True, tag="artifact_remove"):
    """-> ArtifactRow, as it was."""

    request_id: RequestId
    tenant: TenantName
    by: str
    name: str
    known: ArtifactRow | None = None


class BlobsTouch(Event, frozen=True, kw_only=True, tag="blobs_touch"):
    """Somebody is about to refer to these, which the store has: their grace time begins anew. -> None"""

    request_id: RequestId
    known: tuple[BlobRow, ...]


class AttemptAsks(Event, frozen=True, kw_only=True, tag="attempt_asks"):
    """An agent wants to do something for an attempt. -> answers.Admitted; STALE_TOKEN."""

    request_id: RequestId
    claim: Claim
    fetches: bool = True
    """It will fetch bytes: QUOTA when its tenant may have no more of these."""


class OutputsPublished(Event, frozen=True, kw_only=True, tag="outputs_published"):
    """The end of a rank together with its outputs: one decision, one durable write. -> answers.Published

    A repetition by the same token is answered like the first. A stale token is CONFLICT, and audited.
    """

    request_id: RequestId
    claim: Claim
    files: tuple[FileEntry, ...]
    exit: ExitInfo
    known: tuple[BlobRow, ...] = ()
    """Those of `files` that the store has."""
    published: OutputRow | None = None
    """The task's result, if the store has one: tells a repetition from a stale token."""
    cached: tuple[Digest, ...] = ()
    """Those that its agent keeps copies of, for the steps behind."""


class CheckpointPublished(Event, frozen=True, kw_only=True, tag="checkpoint_published"):
    """An attempt has saved its state. -> answers.CheckpointTaken. Repetitions (same manifest) are the same one."""

    request_id: RequestId
    claim: Claim
    manifest: Digest
    files: int
    size: int
    sent: int
    age_ms: Ms
    """How long ago its files were as they are in it."""
    cost_ms: Ms
    label: str = ""
    digests: tuple[Digest, ...] = ()
    """The manifest's own and those of its files: each once, sorted."""
    known: tuple[BlobRow, ...] = ()
    let_go: tuple[BlobRow, ...] = ()
    """What the store has of those that give way to it."""


class CheckpointDamaged(Event, frozen=True, kw_only=True, tag="checkpoint_damaged"):
    """An agent could not restore it. -> None"""

    request_id: RequestId
    claim: Claim
    number: int
    why: str
    known: CheckpointRow | None = None
    """As the store has it."""


class AttemptRestored(Event, frozen=True, kw_only=True, tag="attempt_restored"):
    """An agent laid this checkpoint out before it starts the attempt. -> None"""

    request_id: RequestId
    claim: Claim
    number: int


class AttemptProgress(Event, frozen=True, kw_only=True, tag="attempt_progress"):
    """How far a rank's program says that it is."""

    conn_id: ConnId
    attempt_id: AttemptId
    rank: int
    token: LeaseToken
    fraction: float | None
    """0..1; None: it gave none."""
    values: tuple[tuple[str, str], ...] = ()
    text: str = ""


class CacheTold(Event, frozen=True, kw_only=True, tag="cache_told"):
    """What an agent's cache holds, the most useful first: replaces what was known of it."""

    conn_id: ConnId
    digests: tuple[Digest, ...]


class Moved(Struct, frozen=True, gc=False, kw_only=True):
    """Bytes of one tenant that went over the coordinator's link since the last such event."""

    tenant: TenantName
    ingress: int = 0
    egress: int = 0


class BytesMoved(Event, frozen=True, kw_only=True, tag="bytes_moved"):
    """Metering: posted by the service every few seconds while anything moves."""

    moved: tuple[Moved, ...]
    uploads: tuple[UploadId, ...] = ()
    """Those that got bytes since: their time begins anew."""


class DataRefused(Event, frozen=True, kw_only=True, tag="data_refused"):
    """Requests about data that were refused, folded by the service: told in the audit."""

    subject: str
    """`uploads`, `blobs` or `attempts`."""
    by: str
    tenant: TenantName
    count: int
    why: str
    """Of the last one."""


class SweepBegin(Event, frozen=True, kw_only=True, tag="sweep_begin"):
    """From now on it is remembered which blobs are referred to, until the SweepEnd. -> None"""

    request_id: RequestId


class SweepEnd(Event, frozen=True, kw_only=True, tag="sweep_end"):
    """These were held by nobody when the store was asked, after the SweepBegin. -> answers.Swept: those that go."""

    request_id: RequestId
    candidates: tuple[BlobRow, ...]


DataEvent = (
    UploadOpen
    | UploadDone
    | UploadDrop
    | ArtifactPut
    | ArtifactRemove
    | BlobsTouch
    | AttemptAsks
    | OutputsPublished
    | CheckpointPublished
    | CheckpointDamaged
    | AttemptRestored
    | AttemptProgress
    | CacheTold
    | BytesMoved
    | DataRefused
    | SweepBegin
    | SweepEnd
)
