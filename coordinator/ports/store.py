"""What the service asks of the truth: the store, and the rows that it gives back."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from msgspec import Struct

from coordinator.core.commands import Write
from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, OutputRow
from coordinator.core.events import LastBeat
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, ProviderKey, TenantName
from coordinator.core.rows import (
    AccountRow,
    AttemptRow,
    AuditRow,
    EndReason,
    JobRow,
    LedgerRow,
    Row,
    SessionRow,
    StepRow,
    TaskRow,
    WorkState,
)
from coordinator.core.verdict.rows import SuspicionRow, VerdictRow
from coordinator.core.work.jobspec import JobSpec


class HeartbeatRow(NamedTuple):
    """One heartbeat as telemetry keeps it, in the order of the table's columns.

    Key: (`observed_at_ms`, `key`, `n`); `n` counts the heartbeats of a provider within one millisecond.
    """

    observed_at_ms: Ms
    key: ProviderKey
    n: int
    status: int
    """Index into wire.STATUSES."""
    memory_pressure: float | None
    cpu_usage: float | None
    thermal_state: int | None
    """Index into wire.THERMALS."""
    memory_available_gb: float | None
    gpu_memory_active_gb: float | None
    gpu_memory_cache_gb: float | None
    backend_state: str | None
    active_model: str | None
    capacity: float | None


class HourRow(NamedTuple):
    """The rollup of one provider's heartbeats in one whole hour. Means are over the rows that have a value."""

    key: ProviderKey
    hour_ms: Ms
    heartbeats: int
    mean_memory_pressure: float | None
    mean_cpu_usage: float | None
    worst_thermal_state: int | None
    mean_memory_available_gb: float | None


class Loaded(Struct, kw_only=True):
    """What a coordinator starts from."""

    rows: list[Row]
    """Providers, tokens, pools, tenants, accounts, meta, the open sessions of this coordinator_id; jobs that have not
    ended with their specs, steps and the tasks of theirs that have not ended; attempts that are live or still hold
    capacity, and of jobs that ended before these did their row; open uploads."""
    next_session_id: int
    next_key: int
    last_beats: tuple[LastBeat, ...]
    """From telemetry: the last heartbeat of each provider with an open session."""
    next_job_id: int = 1
    next_token: int = 1
    next_audit: int = 1
    next_ledger: int = 1


SUMMED_BY = ("tenant", "month", "pool", "job", "provider", "day")
"""What charges can be summed by."""


class UsageSum(NamedTuple):
    """Charges with one key: a tenant, `202611`, a pool, a job's number, a provider, or `2026-11-22` (UTC)."""

    key: str
    cost: int
    """Millionths of the unit of account."""
    ran_ms: int
    cpu_ms: int
    """Of one CPU: each charge's length times its CPUs, in whole milliseconds."""
    gpu_ms: int
    charges: int
    """Of what ran."""
    ingress: int = 0
    """Bytes; by tenant, month and day. Bytes belong to no job, pool or provider."""
    egress: int = 0
    storage_mb_s: int = 0
    """What was kept, in megabytes times seconds."""


class ImportedSession(NamedTuple):
    """One row of a history from elsewhere. `line` is where it stood in the file, 1 for the first line."""

    line: int
    provider_id: str
    connected_at_ms: Ms
    disconnected_at_ms: Ms | None
    disconnect_reason: EndReason | None


class ImportReport(Struct, frozen=True, kw_only=True):
    """What an import changed."""

    rows: int
    added: int
    closed: int
    """Rows that were open from an earlier import and now have their end."""
    unchanged: int
    providers: int
    first_ms: Ms | None
    last_ms: Ms | None


class CheckReport(Struct, frozen=True, kw_only=True):
    """What a check found. `problems` is empty when all is well."""

    files: int
    rows: int
    segments: int
    problems: tuple[str, ...]
    blobs: int = 0
    unread: int = 0
    """Of these, those whose bytes were not looked at: it would have taken too long."""
    ownerless: int = 0
    """Bytes of blobs without a row: what a crash left for the next sweep."""
    damaged: tuple[tuple[TenantName, str], ...] = ()
    """Blobs (tenant, digest) that have a row, and not its bytes: a thousand at most."""


class Store(Protocol):
    """The truth and the telemetry. Everything but `commit` and `append_heartbeats` may be slow.

    Raises CoordError: STORE_FULL (rolled back; may be retried), STORE_BROKEN (the process must end with 70).
    """

    async def load(self) -> Loaded: ...

    def commit(self, writes: Sequence[Write]) -> Awaitable[None]:
        """All or nothing, in order, durable when what it returns is done. One call at a time."""
        ...

    async def append_heartbeats(self, rows: Sequence[HeartbeatRow]) -> None:
        """One transaction of telemetry: a power cut may take it. A row with an existing key replaces it."""
        ...

    async def sessions(
        self, provider_id: ProviderId, since_ms: Ms, limit: int, before: tuple[Ms, int] | None = None
    ) -> list[SessionRow]:
        """Sessions that touch [since, now], newest first, after the row (connected_at_ms, session_id) `before`."""
        ...

    async def heartbeats(
        self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None = None
    ) -> list[HeartbeatRow]:
        """Heartbeats, newest first: those not yet sealed and, behind them, those of sealed segments."""
        ...

    async def hours(self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None = None) -> list[HourRow]:
        """Hourly rollups, newest first."""
        ...

    async def has_history(self, provider_id: ProviderId) -> bool:
        """Whether any session of this provider is known, enrolled here or imported."""
        ...

    async def import_sessions(self, rows: Sequence[ImportedSession]) -> ImportReport:
        """Add history in one transaction; the same rows again change nothing. CoordError(BAD_IMPORT) names
        the lines that contradict what is stored, and then nothing was changed."""
        ...

    # ---- work. Lists are newest first unless said otherwise; `tenant` None: of every tenant.

    async def job(self, job_id: JobId, tenant: TenantName | None) -> JobRow | None: ...

    async def job_by_key(self, tenant: TenantName, idempotency_key: str) -> JobRow | None:
        """The job that this key (SHA-256) made, live or ended."""
        ...

    async def jobs(
        self,
        tenant: TenantName | None,
        limit: int,
        before: JobId | None = None,
        states: tuple[WorkState, ...] = (),
        name: str = "",
    ) -> list[JobRow]:
        """`states` empty: any; `name` as a shell's pattern (`*` and `?`), empty: any."""
        ...

    async def job_spec(self, job_id: JobId) -> JobSpec | None: ...

    async def job_steps(self, job_id: JobId) -> list[StepRow]:
        """In their order."""
        ...

    async def job_tasks(
        self,
        job_id: JobId,
        limit: int,
        step: int | None = None,
        after: tuple[int, int] | None = None,
        states: tuple[WorkState, ...] = (),
    ) -> list[TaskRow]:
        """Those that have a row, by (step, task) rising, after (step, task) `after`."""
        ...

    async def job_attempts(
        self, job_id: JobId, limit: int, step: int | None = None, task: int | None = None
    ) -> list[AttemptRow]:
        """By (step, task, attempt) rising."""
        ...

    async def attempts_of(self, job_id: JobId, tasks: Sequence[tuple[int, int, int]]) -> list[AttemptRow]:
        """Of several tasks at once, each as (step, task, after): those numbered above `after`, by their ids rising."""
        ...

    async def attempt(self, attempt_id: AttemptId) -> AttemptRow | None: ...

    async def verdict(self, attempt_id: AttemptId) -> VerdictRow | None: ...

    async def verdicts(self, job_id: JobId, limit: int) -> list[VerdictRow]:
        """Those of a job, the last task first and of each the last attempt first."""
        ...

    async def verdicts_among(self, job_id: JobId, wanted: Sequence[tuple[int, int, int]]) -> list[VerdictRow]:
        """Those of these attempts (step, task, attempt) that there are, by that, rising."""
        ...

    async def suspicions(self, provider_id: ProviderId) -> list[SuspicionRow]:
        """What verdicts say against a provider, newest first."""
        ...

    async def audit(
        self,
        limit: int,
        tenant: TenantName | None = None,
        job_id: JobId | None = None,
        entity: str = "",
        subject: str = "",
        before: int | None = None,
        after: int | None = None,
    ) -> list[AuditRow]:
        """Newest first, those before seq `before`; with `after`: oldest first, those after it."""
        ...

    # ---- what was used

    async def accounts(self) -> list[AccountRow]:
        """By tenant. One whose month is over stands as it ended."""
        ...

    async def ledger(
        self,
        limit: int,
        tenant: TenantName | None = None,
        month: int | None = None,
        job_id: JobId | None = None,
        before: int | None = None,
    ) -> list[LedgerRow]:
        """Charges newest first, those before seq `before`."""
        ...

    async def usage_by(
        self,
        by: str,
        limit: int,
        tenant: TenantName | None = None,
        month: int | None = None,
        job_id: JobId | None = None,
    ) -> list[UsageSum]:
        """Sums of the ledger by one of SUMMED_BY, the costliest first; of months and days the newest. Walks the charges
        that match: about a second for a million."""
        ...

    # ---- data

    async def blobs(self, tenant: TenantName, digests: Sequence[str]) -> list[BlobRow]:
        """Those of these (BLAKE3) that the tenant has."""
        ...

    async def blob_by_sha256(self, tenant: TenantName, sha256: str) -> BlobRow | None: ...

    async def list_blobs(
        self, tenant: TenantName | None, limit: int, after: tuple[str, str] | None = None
    ) -> list[BlobRow]:
        """By (tenant, digest) rising, after that one."""
        ...

    async def holders(self, tenant: TenantName, digest: str, limit: int) -> list[str]:
        """Who holds this blob."""
        ...

    async def artifacts(
        self, tenant: TenantName | None, limit: int, after: tuple[str, str] | None = None, name: str = ""
    ) -> list[ArtifactRow]:
        """By (tenant, name) rising, after that one; `name` as a shell's pattern, empty: any."""
        ...

    async def artifact(self, tenant: TenantName, name: str) -> ArtifactRow | None: ...

    async def outputs(
        self, job_id: JobId, limit: int, step: int | None = None, after: tuple[int, int] | None = None
    ) -> list[OutputRow]:
        """By (step, task) rising."""
        ...

    async def checkpoints(
        self, job_id: JobId, limit: int, step: int | None = None, task: int | None = None
    ) -> list[CheckpointRow]:
        """By (step, task) rising, of each task the newest first."""
        ...

    async def unheld(self, touched_before_ms: Ms, limit: int) -> list[BlobRow]:
        """Blobs that nobody holds and nobody has touched since."""
        ...

    async def maintain(self, now_ms: Ms) -> None:
        """Roll up, seal whole hours, prune by retention: bounded steps. Called every few minutes.

        An hour that cannot be sealed holds up no other; its CoordError is raised when the rest is done."""
        ...

    async def backup(self, directory: Path) -> Path:
        """Write a consistent copy (both databases, segments, logs and blobs) into a new directory and return it."""
        ...

    async def check(self) -> CheckReport:
        """Integrity of both databases, digests of segments and blobs, logs against what agents said of them."""
        ...

    async def close(self) -> None: ...
