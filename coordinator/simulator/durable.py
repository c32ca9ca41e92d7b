"""A disk as the core must expect it: commits are all or nothing, may be refused, and survive a kill or not.

Telemetry is the lossy kind: what a heartbeat told it in the last seconds may be gone after a kill.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from coordinator.core.commands import Delete, Put, Write
from coordinator.core.data.rows import ArtifactRow, BlobRow, CheckpointRow, HoldRow, OutputRow
from coordinator.core.events import LastBeat
from coordinator.core.ids import JobId, Ms, ProviderId
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AttemptRow,
    AuditRow,
    JobRow,
    LedgerRow,
    OutageRow,
    ProviderRow,
    Row,
    SessionRow,
    SpecRow,
    StepRow,
    TaskRow,
    row_key,
)
from coordinator.core.state import ClusterState
from coordinator.core.verdict.rows import VerdictRow

TELEMETRY_LAG = 2
"""Seconds of heartbeats that a kill may take."""


class Disk:
    """The rows as of the last commit."""

    def __init__(self) -> None:
        self.rows: dict[tuple[str, object], Row] = {}
        self.full = False
        self._next_session_id = 1
        self._next_key = 1
        self._next_job_id = 1
        self._next_token = 1
        self._next_audit = 1
        self._next_ledger = 1
        self._job_ids_by_key: dict[str, JobId] = {}
        self._beats: dict[ProviderId, tuple[Ms, Ms]] = {}
        """Per provider the last heartbeat that is surely stored, and the last one that was received."""

    def commit(self, writes: Sequence[Write]) -> None:
        """Make all of `writes` durable, in order. Rows of the audit and the ledger and outages are never
        read again: they are not kept."""
        for write in writes:
            match write:
                case Put(row=AuditRow(seq=seq)):
                    self._next_audit = max(self._next_audit, seq + 1)
                case Put(row=LedgerRow(seq=seq)):
                    self._next_ledger = max(self._next_ledger, seq + 1)
                case Put(row=OutageRow()):
                    pass
                case Put(row=row):
                    self.rows[row_key(row)] = row
                    self._count(row)
                case Delete(table=table, key=key):
                    self.rows.pop((table, key), None)

    def _count(self, row: Row) -> None:
        match row:
            case SessionRow(session_id=session_id):
                self._next_session_id = max(self._next_session_id, session_id + 1)
            case ProviderRow(key=key):
                self._next_key = max(self._next_key, key + 1)
            case JobRow(job_id=job_id, idempotency_key=key):
                self._next_job_id = max(self._next_job_id, job_id + 1)
                self._job_ids_by_key[key] = job_id
            case AttemptRow(token=token):
                self._next_token = max(self._next_token, token.number + 1)
            case _:
                pass

    def job_by_key(self, key: str) -> JobRow | None:
        """What the store says of an idempotency key."""
        row = self.rows.get(("job", self._job_ids_by_key.get(key))) if key else None
        return row if isinstance(row, JobRow) else None

    def beat(self, provider_id: ProviderId, received_ms: Ms, lag_ms: Ms) -> None:
        """Telemetry of one heartbeat: sure once the next one is `lag_ms` younger."""
        if self.full:
            return
        sure, last = self._beats.get(provider_id, (received_ms, received_ms))
        self._beats[provider_id] = (last if received_ms - last >= lag_ms else sure, received_ms)

    def load(self, coordinator_id: str) -> ClusterState:
        """The state that the durable rows tell of."""
        return ClusterState.load(
            coordinator_id,
            list(self._of_a_start()),
            self._next_session_id,
            self._next_key,
            next_job_id=self._next_job_id,
            next_token=self._next_token,
            next_audit=self._next_audit,
            next_ledger=self._next_ledger,
        )

    def _of_a_start(self) -> Iterator[Row]:
        """Open sessions, jobs that have not ended with what they consist of, attempts that live or hold capacity, and
        whose those are."""
        held = {row.job_id for row in self.rows.values() if isinstance(row, AttemptRow) and _is_held(row)}
        live = {row.job_id for row in self.rows.values() if isinstance(row, JobRow) and row.state not in ENDED}
        for row in self.rows.values():
            match row:
                case SessionRow():
                    wanted = row.disconnected_at_ms is None
                case JobRow(job_id=job_id):
                    wanted = job_id in live or job_id in held
                case SpecRow(job_id=job_id) | StepRow(job_id=job_id) | VerdictRow(job_id=job_id):
                    wanted = job_id in live
                case TaskRow():
                    wanted = row.job_id in live and row.state not in ENDED
                case AttemptRow():
                    wanted = _is_held(row)
                case BlobRow() | HoldRow() | ArtifactRow() | OutputRow() | CheckpointRow():
                    wanted = False
                case _:
                    wanted = True
            if wanted:
                yield row

    def last_beats(self, state: ClusterState, torn: bool) -> tuple[LastBeat, ...]:
        """What telemetry knows after a kill of those with an open session; not the last seconds when `torn`."""
        return tuple(
            LastBeat(provider_id=provider_id, at_ms=self._beats[provider_id][0 if torn else 1])
            for provider_id, provider in state.providers.items()
            if provider.session is not None and provider_id in self._beats
        )


def _is_held(row: AttemptRow) -> bool:
    return row.state in LIVE_ATTEMPT or not all(rank.released for rank in row.ranks)
