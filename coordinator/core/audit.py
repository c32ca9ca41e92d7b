"""The one place where an audit row is made: what changed, when, why, by whom, and what it had waited for."""

from __future__ import annotations

from coordinator.core.commands import Audited, Decision, Put
from coordinator.core.ids import JobId, ProviderId
from coordinator.core.rows import AuditRow
from coordinator.core.state import ClusterState


def record(
    state: ClusterState,
    out: Decision,
    entity: str,
    subject: str,
    after: str,
    *,
    before: str = "",
    why: str = "",
    by: str = "coord",
    unblocked_by: str = "",
    tenant: str = "",
    job_id: JobId | None = None,
    provider_id: ProviderId | None = None,
) -> None:
    """Write one AuditRow, numbered without gaps, and tell followers of it once it is durable."""
    work = state.work
    seq = work.next_audit
    work.next_audit = seq + 1
    row = AuditRow(
        seq=seq,
        wall_ns=state.wall_ns,
        mono_ns=state.mono_ns,
        entity=entity,
        subject=subject,
        after=after,
        before=before,
        why=why,
        by=by,
        unblocked_by=unblocked_by,
        tenant=tenant,
        job_id=job_id,
        provider_id=provider_id,
    )
    out.writes.append(Put(row))
    out.notes.append(Audited(row))
