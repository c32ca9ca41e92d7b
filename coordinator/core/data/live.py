"""What is in memory of data: uploads that are open, blobs that were published lately, the sweep that is under way.

Blobs, holds and results are never in memory as a whole. What is here is bounded, and made anew at every start: rows of
open uploads, and otherwise nothing.
"""

from __future__ import annotations

from msgspec import Struct, field

from coordinator.core.data.rows import BlobRow, UploadRow
from coordinator.core.ids import AttemptId, Digest, TenantName, UploadId
from coordinator.core.wheel import Wheel

RECENT_MAX = 8_192
"""Blobs that were written lately and are remembered (about 3 MB): a look into the store may have missed them."""
RESULTS_MAX = 4_096
"""Attempts that published a result lately: the same of repetitions."""
LATE_MAX = 1_024
"""Stale attempts whose late result was audited: each is told once."""
REFERRED_MAX = 500_000
"""Blobs that are referred to during one sweep (about 100 MB). Beyond, the sweep removes nothing."""

Blob = tuple[TenantName, Digest]
Twin = tuple[TenantName, str, AttemptId | None, Digest, str, int]
"""What makes two uploads the same one: tenant, who, attempt, BLAKE3, SHA-256, size."""


class Sweep(Struct, kw_only=True):
    """One that was begun and has not ended."""

    referred: set[Blob] = field(default_factory=set)
    """Referred to since: not to be removed."""
    spoiled: bool = False
    """There were too many of them, or one may have been missed."""


class Data:
    """All of it. Changed by functions of this package alone."""

    def __init__(self) -> None:
        self.uploads: dict[UploadId, UploadRow] = {}
        self.twins: dict[Twin, UploadId] = {}
        self.by_attempt: dict[AttemptId, dict[UploadId, None]] = {}
        """Those that an attempt opened; absent: none."""
        self.by_tenant: dict[TenantName, int] = {}
        """How many each tenant has; absent: none."""
        self.recent: dict[Blob, BlobRow] = {}
        """As they were written last, the oldest first."""
        self.victims: tuple[dict[Blob, None], dict[Blob, None]] = ({}, {})
        """What the last two sweeps removed, the newer one first: whoever says that it is there looked before."""
        self.sweep: Sweep | None = None
        self.results: dict[AttemptId, None] = {}
        self.late: dict[AttemptId, None] = {}
        self.wheel: Wheel[str] = Wheel()
        """(upload): its expiry."""
        self.hours: Wheel[str] = Wheel()
        """(tenant): what it keeps is metered once an hour. Of those that keep something."""


def reserves(row: UploadRow) -> int:
    """Bytes that are set aside for it while it is open: none for those that its tenant's storage counts already."""
    return 0 if row.mends else row.size


def twin_of(row: UploadRow) -> Twin:
    return row.tenant, row.by, row.attempt_id, row.digest, row.sha256, row.size


def remember(memory: dict[AttemptId, None], attempt_id: AttemptId, most: int) -> None:
    """The newest `most` are kept."""
    memory.pop(attempt_id, None)
    memory[attempt_id] = None
    if len(memory) > most:
        del memory[next(iter(memory))]
