"""The store on disk: ports.store.Store over two SQLite databases and sealed segments.

The truth is written with synchronous=FULL, telemetry with NORMAL, each by one thread of its own, so that neither
waits for the other's checkpoint. Opening it locks the data directory; `close` releases it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import msgspec

from coordinator.core.commands import Write
from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, OutputRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, ProviderKey, TenantName
from coordinator.core.rows import (
    AccountRow,
    AttemptRow,
    AuditRow,
    JobRow,
    LedgerRow,
    SessionRow,
    StepRow,
    TaskRow,
    WorkState,
)
from coordinator.core.verdict.rows import SuspicionRow, VerdictRow
from coordinator.core.work.jobspec import JobSpec
from coordinator.ports.store import CheckReport, HeartbeatRow, HourRow, ImportedSession, ImportReport, Loaded, UsageSum
from store import heartbeats, loading, sessions
from store.backup import back_up
from store.ballast import Ballast
from store.blob_files import DiskBlobs
from store.children import run_child
from store.data_history import DataHistory
from store.failpoints import FailPoints
from store.heartbeats import HOUR_MS
from store.history import END_OF_TIME_MS, History
from store.imports import import_rows
from store.layout import DataDir, DataLock
from store.logs import DiskLogs
from store.opening import open_database, prepare
from store.readers import Readers, fetch
from store.retention import Retention
from store.row_reading import read_rows
from store.segments import Sealing, sweep
from store.settings import StoreSettings
from store.sqlite import Durability, sqlite3
from store.truth import Truth
from store.wal_bound import WalBound
from store.work_history import WorkHistory
from store.work_retention import WorkRetention
from store.writer import Writer

SET_ASIDE_MAX = 100
"""Reports of unreadable rows that are kept; older ones are dropped."""


class DiskStore:
    """See ports.store.Store. Made by `open`."""

    def __init__(
        self, data: DataDir, settings: StoreSettings, lock: DataLock, coordinator_id: str, parts: _Parts
    ) -> None:
        self.data = data
        self.coordinator_id = coordinator_id
        self.set_aside: deque[str] = deque(maxlen=SET_ASIDE_MAX)
        """What could not be read and was left out, newest last; for an alert."""
        self._settings = settings
        self._points = FailPoints(settings.failpoint)
        self._lock = lock
        self._truth_work = Truth(
            parts.truth,
            Ballast(data.ballast, settings.ballast_bytes),
            WalBound(data.truth, settings.wal_bytes_max),
            self._points,
        )
        self._telemetry_bound = WalBound(data.telemetry, settings.wal_bytes_max)
        self._truth = Writer(parts.truth, data.truth)
        self._telemetry = Writer(parts.telemetry, data.telemetry)
        self._truth_readers = Readers(data.truth, settings.readers, settings.read_s_max)
        self._telemetry_readers = Readers(data.telemetry, settings.readers, settings.read_s_max)
        self._history = History(data, self._telemetry_readers, settings, self.set_aside.append)
        self.logs = DiskLogs(data.logs, settings, self._report)
        """ports.logs.Logs of this data directory."""
        self.blob_files = DiskBlobs(data, settings, self._points)
        """ports.blobs.BlobStore of this data directory."""
        self._work = WorkHistory(self._truth_readers, self._report)
        self._data = DataHistory(self._truth_readers, self._report)
        self._sealing = Sealing(data, self._telemetry, settings, self._points)
        self._retention = Retention(data, self._truth, self._telemetry, settings, self._points)
        self._work_retention = WorkRetention(self._truth, self.logs, data.traces, settings)
        # Maintenance moves and removes segments; a backup must see them stand still.
        self._segments_lock = asyncio.Lock()
        self._as_opened: Loaded | None = None
        """What the start read, for the first who asks, until something is written."""
        self.set_aside.extend(parts.strays)

    @classmethod
    async def open(cls, data: DataDir, settings: StoreSettings | None = None) -> DiskStore:
        """Lock and open a data directory, making it where it is new.

        Raises CoordError: DATA_LOCKED, STORE_BROKEN (missing, cut or damaged files; nothing is made in their
        place), SCHEMA_NEWER, STORE_FULL.
        """
        settings = settings or StoreSettings()
        lock, coordinator_id, parts = await asyncio.to_thread(_open_parts, data)
        store = cls(data, settings, lock, coordinator_id, parts)
        try:
            await store._truth_readers.open()
            await store._telemetry_readers.open()
            await store.logs.open()
            # The live rows are read once here, so that damage among them is refused before anybody serves.
            store._as_opened = await store.load()
        except BaseException:
            await store.close()
            raise
        return store

    # ---- live

    async def load(self) -> Loaded:
        known, self._as_opened = self._as_opened, None
        if known is not None:
            return known
        loaded, set_aside = await self._truth.run(
            lambda c: loading.load_truth(c, self.coordinator_id, self._truth_work.counters)
        )
        for problem in set_aside:
            self._report(problem)
        loaded.last_beats = await self._telemetry.run(lambda c: loading.last_beats(c, loaded))
        return loaded

    def commit(self, writes: Sequence[Write]) -> asyncio.Future[None]:
        self._as_opened = None
        return self._truth.hand_over(lambda c: self._truth_work.commit(c, writes))

    async def append_heartbeats(self, rows: Sequence[HeartbeatRow]) -> None:
        self._as_opened = None
        if rows:
            await self._telemetry.run(lambda c: self._append(c, rows))

    def _append(self, connection: sqlite3.Connection, rows: Sequence[HeartbeatRow]) -> None:
        self._telemetry_bound.check(connection)

        def append(connection: sqlite3.Connection) -> None:
            heartbeats.append(connection, rows)
            self._points.reach("telemetry.before_commit")

        self._telemetry_bound.transact(connection, append)
        self._points.reach("telemetry.after_commit")

    # ---- history

    async def sessions(
        self, provider_id: ProviderId, since_ms: Ms, limit: int, before: tuple[Ms, int] | None = None
    ) -> list[SessionRow]:
        before_ms, before_id = before if before is not None else (END_OF_TIME_MS, 0)
        async with self._truth_readers.transaction() as connection:
            wanted = (provider_id, since_ms, before_ms, before_id)
            found = await fetch(connection, sessions.BEGUN_SINCE, (*wanted, limit))
            if len(found) < limit:
                found += await fetch(connection, sessions.REACHING_IN, (*wanted, limit - len(found)))
        return read_rows("session", found, self._report)

    async def heartbeats(
        self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None = None
    ) -> list[HeartbeatRow]:
        return await self._history.heartbeats(key, since_ms, limit, before_ms)

    async def hours(self, key: ProviderKey, since_ms: Ms, limit: int, before_ms: Ms | None = None) -> list[HourRow]:
        return await self._history.hours(key, since_ms, limit, before_ms)

    async def has_history(self, provider_id: ProviderId) -> bool:
        return bool(await self._truth_readers.rows(sessions.HAS_HISTORY, (provider_id,)))

    async def import_sessions(self, rows: Sequence[ImportedSession]) -> ImportReport:
        self._as_opened = None
        return await self._truth.run(lambda c: import_rows(c, rows, self._truth_work, self._points))

    # ---- work

    async def job(self, job_id: JobId, tenant: TenantName | None) -> JobRow | None:
        return await self._work.job(job_id, tenant)

    async def job_by_key(self, tenant: TenantName, idempotency_key: str) -> JobRow | None:
        return await self._work.job_by_key(tenant, idempotency_key)

    async def jobs(
        self,
        tenant: TenantName | None,
        limit: int,
        before: JobId | None = None,
        states: tuple[WorkState, ...] = (),
        name: str = "",
    ) -> list[JobRow]:
        return await self._work.jobs(tenant, limit, before, states, name)

    async def job_spec(self, job_id: JobId) -> JobSpec | None:
        return await self._work.job_spec(job_id)

    async def job_steps(self, job_id: JobId) -> list[StepRow]:
        return await self._work.job_steps(job_id)

    async def job_tasks(
        self,
        job_id: JobId,
        limit: int,
        step: int | None = None,
        after: tuple[int, int] | None = None,
        states: tuple[WorkState, ...] = (),
    ) -> list[TaskRow]:
        return await self._work.job_tasks(job_id, limit, step, after, states)

    async def job_attempts(
        self, job_id: JobId, limit: int, step: int | None = None, task: int | None = None
    ) -> list[AttemptRow]:
        return await self._work.job_attempts(job_id, limit, step, task)

    async def attempts_of(self, job_id: JobId, tasks: Sequence[tuple[int, int, int]]) -> list[AttemptRow]:
        return await self._work.attempts_of(job_id, tasks)

    async def attempt(self, attempt_id: AttemptId) -> AttemptRow | None:
        return await self._work.attempt(attempt_id)

    async def verdict(self, attempt_id: AttemptId) -> VerdictRow | None:
        return await self._work.verdict(attempt_id)

    async def verdicts(self, job_id: JobId, limit: int) -> list[VerdictRow]:
        return await self._work.verdicts(job_id, limit)

    async def verdicts_among(self, job_id: JobId, wanted: Sequence[tuple[int, int, int]]) -> list[VerdictRow]:
        return await self._work.verdicts_among(job_id, wanted)

    async def suspicions(self, provider_id: ProviderId) -> list[SuspicionRow]:
        return await self._work.suspicions(provider_id)

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
        return await self._work.audit(limit, tenant, job_id, entity, subject, before, after)

    async def accounts(self) -> list[AccountRow]:
        return await self._work.accounts()

    async def ledger(
        self,
        limit: int,
        tenant: TenantName | None = None,
        month: int | None = None,
        job_id: JobId | None = None,
        before: int | None = None,
    ) -> list[LedgerRow]:
        return await self._work.ledger(limit, tenant, month, job_id, before)

    async def usage_by(
        self,
        by: str,
        limit: int,
        tenant: TenantName | None = None,
        month: int | None = None,
        job_id: JobId | None = None,
    ) -> list[UsageSum]:
        return await self._work.usage_by(by, limit, tenant, month, job_id)

    # ---- data

    async def blobs(self, tenant: TenantName, digests: Sequence[str]) -> list[BlobRow]:
        return await self._data.blobs(tenant, digests)

    async def blob_by_sha256(self, tenant: TenantName, sha256: str) -> BlobRow | None:
        return await self._data.blob_by_sha256(tenant, sha256)

    async def list_blobs(
        self, tenant: TenantName | None, limit: int, after: tuple[str, str] | None = None
    ) -> list[BlobRow]:
        return await self._data.list_blobs(tenant, limit, after)

    async def holders(self, tenant: TenantName, digest: str, limit: int) -> list[str]:
        return await self._data.holders(tenant, digest, limit)

    async def artifacts(
        self, tenant: TenantName | None, limit: int, after: tuple[str, str] | None = None, name: str = ""
    ) -> list[ArtifactRow]:
        return await self._data.artifacts(tenant, limit, after, name)

    async def artifact(self, tenant: TenantName, name: str) -> ArtifactRow | None:
        return await self._data.artifact(tenant, name)

    async def outputs(
        self, job_id: JobId, limit: int, step: int | None = None, after: tuple[int, int] | None = None
    ) -> list[OutputRow]:
        return await self._data.outputs(job_id, limit, step, after)

    async def checkpoints(
        self, job_id: JobId, limit: int, step: int | None = None, task: int | None = None
    ) -> list[CheckpointRow]:
        return await self._data.checkpoints(job_id, limit, step, task)

    async def unheld(self, touched_before_ms: Ms, limit: int) -> list[BlobRow]:
        return await self._data.unheld(touched_before_ms, limit)

    # ---- upkeep

    async def maintain(self, now_ms: Ms) -> None:
        self._as_opened = None
        async with self._segments_lock:
            names = await self._telemetry.run(lambda c: c.execute(heartbeats.TABLES).fetchall())
            failed: CoordError | None = None
            for hour_ms in heartbeats.unsealed_hours(name for (name,) in names):
                try:
                    if hour_ms + HOUR_MS + self._settings.seal_after_ms <= now_ms:
                        await self._sealing.seal(hour_ms, now_ms)
                    else:
                        await self._sealing.roll_up(hour_ms)
                except CoordError as error:
                    if error.code in (Code.STORE_FULL, Code.STORE_BROKEN):
                        raise
                    failed = failed or error  # one damaged hour must not keep all others from being sealed and removed
            await self._retention.prune(now_ms)
            await self._work_retention.prune(now_ms)
            if failed is not None:
                raise failed

    async def backup(self, directory: Path) -> Path:
        async with self._segments_lock, self.blob_files.kept():
            return await back_up(self.data, directory, self._truth, self._telemetry, self._points, self._report)

    async def check(self) -> CheckReport:
        seconds = str(self._settings.child_s_max / 2)  # for blobs: reading them all may take hours
        out = await run_child("store.check", (str(self.data.path), seconds), b"", self._settings.child_s_max)
        report = msgspec.msgpack.decode(out, type=CheckReport)
        return msgspec.structs.replace(report, problems=(*report.problems, *self.set_aside))

    async def close(self) -> None:
        """Finish what was begun, fold the logs back, release the directory. Safe to call twice."""
        await self._truth_readers.close()
        await self._telemetry_readers.close()
        await self.logs.close()
        await self.blob_files.close()
        await self._truth.close()
        await self._telemetry.close()
        self._lock.release()

    def _report(self, problem: str) -> None:
        if problem not in self.set_aside:
            self.set_aside.append(problem)


class _Parts(msgspec.Struct, kw_only=True):
    """What was opened before there is a store."""

    truth: sqlite3.Connection
    telemetry: sqlite3.Connection
    strays: list[str]


def _open_parts(data: DataDir) -> tuple[DataLock, str, _Parts]:
    data.make()
    lock = data.lock_exclusively()
    opened: list[sqlite3.Connection] = []
    try:
        coordinator_id = prepare(data)
        opened.append(open_database(data.truth, "truth", Durability.FULL))
        opened.append(open_database(data.telemetry, "telemetry", Durability.NORMAL))
        strays = sweep(data, opened[1])
    except BaseException:
        for connection in opened:
            connection.close()
        lock.release()
        raise
    return lock, coordinator_id, _Parts(truth=opened[0], telemetry=opened[1], strays=strays)
