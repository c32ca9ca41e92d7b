"""What callers are told of data, and the notes that concern it."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.data.rows import BlobRow, CheckpointRow, UploadRow
from coordinator.core.ids import Digest, Ms, TenantName, UploadId
from coordinator.core.rows import AttemptRow, TaskRow
from coordinator.core.work.jobspec import StepSpec


class UploadOpened(Struct, frozen=True, gc=False, kw_only=True):
    """Exactly one of them: the bytes are there already, or the upload that they are awaited by."""

    present: BlobRow | None = None
    upload: UploadRow | None = None


class Admitted(Struct, frozen=True, gc=False, kw_only=True):
    """The attempt may fetch what its step names."""

    tenant: TenantName
    attempt: AttemptRow
    task: TaskRow
    step: StepSpec
    needs: tuple[tuple[int, str, int], ...]
    """(number, name, tasks) of each step whose outputs its inputs name."""


class Published(Struct, frozen=True, gc=False, kw_only=True):
    """The result counts. `repeated`: it did before."""

    repeated: bool = False


class CheckpointTaken(Struct, frozen=True, gc=False, kw_only=True):
    row: CheckpointRow
    next_ms: Ms | None
    """After how long the next one is due; None: when the job takes one."""


class Swept(Struct, frozen=True, gc=False, kw_only=True):
    """Their rows are gone: the bytes may go."""

    gone: tuple[tuple[TenantName, Digest], ...]


class UploadGone(Struct, frozen=True, gc=False, kw_only=True):
    """A note: an upload was published, dropped or has expired. What it had received may go."""

    upload_id: UploadId
    why: str
