"""Artifacts: blobs to which people give names. A name holds its blob; another one under that name gives way."""

from __future__ import annotations

from coordinator.core import audit
from coordinator.core.commands import Decision, Delete, Put, Reply
from coordinator.core.data.blobs import find, refer
from coordinator.core.data.events import ArtifactPut, ArtifactRemove
from coordinator.core.data.rows import ArtifactRow, HoldRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName, check_name
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.core.tenants.admission import known_tenant


def holder_of(name: str) -> str:
    return f"artifact:{name}"


def on_put(state: ClusterState, event: ArtifactPut, policy: Policy, out: Decision) -> None:
    known_tenant(state, event.tenant)
    check_name(event.name, "artifact")
    blob = find(state, event.tenant, event.digest, event.known)
    if blob is None:
        raise CoordError(
            Code.NOT_FOUND,
            f"tenant {event.tenant} has stored no blob {event.digest}",
            "upload it first: coord artifacts put",
        )
    refer(state, blob, policy, out)
    row = ArtifactRow(
        tenant=event.tenant,
        name=event.name,
        digest=event.digest,
        size=blob.size,
        created_at_ms=state.now_ms,
        by=event.by,
        executable=event.executable,
    )
    out.writes.append(Put(row))
    out.writes.append(Put(HoldRow(tenant=event.tenant, holder=holder_of(event.name), digests=(event.digest,))))
    _audit(state, event.tenant, event.name, "put", f"blake3:{event.digest}, {blob.size} bytes", event.by, out)
    out.replies.append(Reply(event.request_id, row))


def on_remove(state: ClusterState, event: ArtifactRemove, out: Decision) -> None:
    """Its blob stays while something else holds it, and for the grace time."""
    row = event.known
    if row is None or (row.tenant, row.name) != (event.tenant, event.name):
        raise CoordError(Code.NOT_FOUND, f"there is no artifact {event.name}", "coord artifacts list")
    out.writes.append(Delete("artifact", (event.tenant, event.name)))
    out.writes.append(Delete("hold", (event.tenant, holder_of(event.name))))
    _audit(state, event.tenant, event.name, "removed", f"blake3:{row.digest}", event.by, out)
    out.replies.append(Reply(event.request_id, row))


def _audit(state: ClusterState, tenant: TenantName, name: str, what: str, why: str, by: str, out: Decision) -> None:
    audit.record(state, out, "artifact", name, what, why=why, by=by, tenant=tenant)
