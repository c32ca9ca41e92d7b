"""The in-memory twin of the store on disk: the same behaviour, nothing durable. For tests and the simulator."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec.structs import replace

from coordinator.core.commands import Put, Write, one_by_one
from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, OutputRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import LastBeat
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, ProviderKey, TenantName
from coordinator.core.rows import (
    AccountRow,
    AttemptRow,
    AuditRow,
    EndReason,
    JobRow,
    LedgerRow,
    ProviderRow,
    Row,
    SessionRow,
    SpecRow,
    StepRow,
    TaskRow,
    WorkState,
    row_key,
)
from coordinator.core.verdict.rows import SuspicionRow, VerdictRow
from coordinator.core.work.jobspec import JobSpec
from coordinator.ports.store import CheckReport, HeartbeatRow, HourRow, ImportedSession, ImportReport, Loaded, UsageSum
from store import memory_data, memory_history, memory_imports, memory_work
from store.heartbeats import hour_of
from store.history import END_OF_TIME_MS
from store.memory_blobs import MemoryBlobs
from store.memory_logs import MemoryLogs
from store.settings import StoreSettings


class MemoryStore:
    """See ports.store.Store. `fault`, while set, is raised by every write, as a full or broken disk does."""

    def __init__(self, coordinator_id: str = "memory", settings: StoreSettings | None = None) -> None:
        self.coordinator_id = coordinator_id
        self.fault: CoordError | None = None
        self.logs = MemoryLogs()
        self.blob_files = MemoryBlobs()
        self._settings = settings or StoreSettings()
        self._rows: dict[tuple[str, object], Row] = {}
        self._beats: dict[tuple[Ms, int, int], HeartbeatRow] = {}
        self._hours: dict[tuple[Ms, int], HourRow] = {}
        self._last_session_id = 0
        self._last_key = 0
        self._last_import_id = 0
        self._last_job_id = 0
        self._last_token = 0
        self._last_audit = 0
        self._last_ledger = 0

    # ---- live

    async def load(self) -> Loaded:
        rows = list(memory_work.of_a_start(self._rows.values()))
        opened = [row for row in self._sessions() if self._is_ours_and_open(row)]
        keys = {row.key: row.provider_id for row in rows if isinstance(row, ProviderRow)}
        seen = {row.provider_id: row.last_heartbeat_at_ms or 0 for row in opened}
        last: dict[ProviderId, Ms] = {}
        for beat in self._beats.values():
            provider_id = keys.get(beat.key)
            if provider_id is not None and beat.observed_at_ms > seen.get(provider_id, END_OF_TIME_MS):
                last[provider_id] = max(beat.observed_at_ms, last.get(provider_id, 0))
        return Loaded(
            rows=[*rows, *opened],
            next_session_id=self._last_session_id + 1,
            next_key=self._last_key + 1,
            last_beats=tuple(LastBeat(provider_id=name, at_ms=at_ms) for name, at_ms in sorted(last.items())),
            next_job_id=self._last_job_id + 1,
            next_token=self._last_token + 1,
            next_audit=self._last_audit + 1,
            next_ledger=self._last_ledger + 1,
        )

    async def commit(self, writes: Sequence[Write]) -> None:
        self._refuse_if_faulty()
        for write in one_by_one(writes):
            if not isinstance(write, Put):
                self._rows.pop((write.table, write.key), None)
                continue
            self._rows[row_key(write.row)] = write.row
            match write.row:
                case SessionRow(session_id=session_id) as begun:
                    if session_id > self._last_session_id:
                        self._supersede_imported(begun)
                    self._last_session_id = max(self._last_session_id, session_id)
                case ProviderRow(key=key):
                    self._last_key = max(self._last_key, key)
                case JobRow(job_id=job_id):
                    self._last_job_id = max(self._last_job_id, job_id)
                case AttemptRow(token=token):
                    self._last_token = max(self._last_token, token.number)
                case AuditRow(seq=seq):
                    self._last_audit = max(self._last_audit, seq)
                case LedgerRow(seq=seq):
                    self._last_ledger = max(self._last_ledger, seq)
                case _:
                    pass

    def _supersede_imported(self, begun: SessionRow) -> None:
        for row in self._sessions():
            if row.provider_id == begun.provider_id and row.session_id < 0 and row.disconnected_at_ms is None:
                end_ms = max(row.connected_at_ms, begun.connected_at_ms)
                self._rows[row_key(row)] = replace(
                    row, disconnected_at_ms=end_ms, disconnect_reason=EndReason.SUPERSEDED
                )

    async def append_heartbeats(self, rows: Sequence[HeartbeatRow]) -> None:
        self._refuse_if_faulty()
        self._beats.update({(row.observed_at_ms, row.key, row.n): row for row in rows})

    # ---- history

    async def sessions(
        self, provider_id: ProviderId, since_ms: Ms, limit: int, before: tuple[Ms, int] | None = None
    ) -> list[SessionRow]:
        return memory_history.sessions(self._sessions(), provider_id, since_ms, limit, before)

    async def heartbeats(
        self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None = None
    ) -> list[HeartbeatRow]:
        return memory_history.heartbeats(self._beats.values(), key, since_ms, limit, before_ms)

    async def hours(self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None = None) -> list[HourRow]:
        return memory_history.hours(self._hours.values(), key, since_ms, limit, before_ms)

    async def has_history(self, provider_id: ProviderId) -> bool:
        return any(row.provider_id == provider_id for row in self._sessions())

    async def import_sessions(self, rows: Sequence[ImportedSession]) -> ImportReport:
        self._refuse_if_faulty()
        changed, report = memory_imports.added(rows, self._sessions(), self._last_import_id)
        self._last_import_id += report.added
        self._rows.update({row_key(row): row for row in changed})
        return report

    # ---- work

    async def job(self, job_id: JobId, tenant: TenantName | None) -> JobRow | None:
        row = self._rows.get(("job", job_id))
        return row if isinstance(row, JobRow) and tenant in (None, row.tenant) else None

    async def job_by_key(self, tenant: TenantName, idempotency_key: str) -> JobRow | None:
        return next(
            (
                row
                for row in self._rows.values()
                if isinstance(row, JobRow) and row.tenant == tenant and row.idempotency_key == idempotency_key != ""
            ),
            None,
        )

    async def jobs(
        self,
        tenant: TenantName | None,
        limit: int,
        before: JobId | None = None,
        states: tuple[WorkState, ...] = (),
        name: str = "",
    ) -> list[JobRow]:
        return memory_work.jobs(self._rows.values(), tenant, limit, before, states, name)

    async def job_spec(self, job_id: JobId) -> JobSpec | None:
        row = self._rows.get(("spec", job_id))
        return row.spec if isinstance(row, SpecRow) else None

    async def job_steps(self, job_id: JobId) -> list[StepRow]:
        return memory_work.steps(self._rows.values(), job_id)

    async def job_tasks(
        self,
        job_id: JobId,
        limit: int,
        step: int | None = None,
        after: tuple[int, int] | None = None,
        states: tuple[WorkState, ...] = (),
    ) -> list[TaskRow]:
        return memory_work.tasks(self._rows.values(), job_id, limit, step, after, states)

    async def job_attempts(
        self, job_id: JobId, limit: int, step: int | None = None, task: int | None = None
    ) -> list[AttemptRow]:
        return memory_work.attempts(self._rows.values(), job_id, limit, step, task)

    async def attempts_of(self, job_id: JobId, tasks: Sequence[tuple[int, int, int]]) -> list[AttemptRow]:
        return memory_work.attempts_of(self._rows.values(), job_id, tasks)

    async def attempt(self, attempt_id: AttemptId) -> AttemptRow | None:
        row = self._rows.get(("attempt", attempt_id))
        return row if isinstance(row, AttemptRow) else None

    async def verdict(self, attempt_id: AttemptId) -> VerdictRow | None:
        row = self._rows.get(("verdict", attempt_id))
        return row if isinstance(row, VerdictRow) else None

    async def verdicts(self, job_id: JobId, limit: int) -> list[VerdictRow]:
        return memory_work.verdicts(self._rows.values(), job_id)[::-1][:limit]

    async def verdicts_among(self, job_id: JobId, wanted: Sequence[tuple[int, int, int]]) -> list[VerdictRow]:
        among = set(wanted)
        found = memory_work.verdicts(self._rows.values(), job_id)
        return [row for row in found if (row.step, row.task, row.attempt) in among]

    async def suspicions(self, provider_id: ProviderId) -> list[SuspicionRow]:
        rows = (row for row in self._rows.values() if isinstance(row, SuspicionRow))
        found = [row for row in rows if row.provider_id == provider_id]
        return sorted(found, key=lambda row: (row.at_ms, row.attempt), reverse=True)

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
        return memory_work.audit(self._rows.values(), limit, tenant, job_id, entity, subject, before, after)

    async def accounts(self) -> list[AccountRow]:
        return sorted((row for row in self._rows.values() if isinstance(row, AccountRow)), key=lambda row: row.tenant)

    async def ledger(
        self,
        limit: int,
        tenant: TenantName | None = None,
        month: int | None = None,
        job_id: JobId | None = None,
        before: int | None = None,
    ) -> list[LedgerRow]:
        return memory_work.ledger(self._rows.values(), limit, tenant, month, job_id, before)

    async def usage_by(
        self,
        by: str,
        limit: int,
        tenant: TenantName | None = None,
        month: int | None = None,
        job_id: JobId | None = None,
    ) -> list[UsageSum]:
        return memory_work.usage_by(self._rows.values(), by, limit, tenant, month, job_id)

    # ---- data

    async def blobs(self, tenant: TenantName, digests: Sequence[str]) -> list[BlobRow]:
        return memory_data.blobs(self._rows.values(), tenant, digests)

    async def blob_by_sha256(self, tenant: TenantName, sha256: str) -> BlobRow | None:
        return memory_data.blob_by_sha256(self._rows.values(), tenant, sha256)

    async def list_blobs(
        self, tenant: TenantName | None, limit: int, after: tuple[str, str] | None = None
    ) -> list[BlobRow]:
        return memory_data.list_blobs(self._rows.values(), tenant, limit, after)

    async def holders(self, tenant: TenantName, digest: str, limit: int) -> list[str]:
        return memory_data.holders(self._rows.values(), tenant, digest, limit)

    async def artifacts(
        self, tenant: TenantName | None, limit: int, after: tuple[str, str] | None = None, name: str = ""
    ) -> list[ArtifactRow]:
        return memory_data.artifacts(self._rows.values(), tenant, limit, after, name)

    async def artifact(self, tenant: TenantName, name: str) -> ArtifactRow | None:
        row = self._rows.get(("artifact", (tenant, name)))
        return row if isinstance(row, ArtifactRow) else None

    async def outputs(
        self, job_id: JobId, limit: int, step: int | None = None, after: tuple[int, int] | None = None
    ) -> list[OutputRow]:
        return memory_data.outputs(self._rows.values(), job_id, limit, step, after)

    async def checkpoints(
        self, job_id: JobId, limit: int, step: int | None = None, task: int | None = None
    ) -> list[CheckpointRow]:
        return memory_data.checkpoints(self._rows.values(), job_id, limit, step, task)

    async def unheld(self, touched_before_ms: Ms, limit: int) -> list[BlobRow]:
        return memory_data.unheld(self._rows.values(), touched_before_ms, limit)

    # ---- upkeep

    async def maintain(self, now_ms: Ms) -> None:
        self._refuse_if_faulty()
        self._hours.update({(row.hour_ms, row.key): row for row in memory_history.rolled_up(self._beats.values())})
        self._prune(now_ms)
        gone, silenced = memory_work.prunable(self._rows.values(), now_ms, self._settings)
        for row in gone:
            del self._rows[row_key(row)]
        for job_id in silenced:
            await self.logs.remove(job_id)

    def _prune(self, now_ms: Ms) -> None:
        beats_from = memory_history.beats_from_ms(now_ms, self._settings)
        for beat in [key for key in self._beats if key[0] < beats_from]:
            del self._beats[beat]
        old_ms = now_ms - self._settings.history_keep_ms
        for hour in [key for key in self._hours if key[0] < hour_of(old_ms)]:
            del self._hours[hour]
        for row in memory_history.outlived(self._rows.values(), old_ms, self._settings):
            del self._rows[row_key(row)]

    async def backup(self, directory: Path) -> Path:
        raise CoordError(Code.BAD_REQUEST, "this store is in memory: there is nothing to back up", "serve with --data")

    async def check(self) -> CheckReport:
        return CheckReport(files=0, rows=len(self._rows) + len(self._beats), segments=0, problems=())

    async def close(self) -> None:
        """Nothing to release."""

    def _sessions(self) -> list[SessionRow]:
        return [row for row in self._rows.values() if isinstance(row, SessionRow)]

    def _is_ours_and_open(self, row: SessionRow) -> bool:
        return row.disconnected_at_ms is None and row.coordinator_id == self.coordinator_id

    def _refuse_if_faulty(self) -> None:
        if self.fault is not None:
            raise self.fault
