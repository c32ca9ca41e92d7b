"""Blobs: which of them are there, when they were touched last, and how their sum is kept.

Every row of a blob is written here, so that an account's storage is the sum of its rows, exactly and always.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from coordinator.core.commands import Decision, Delete, Put, Reply
from coordinator.core.data.events import BlobsTouch
from coordinator.core.data.live import RECENT_MAX, REFERRED_MAX, Blob
from coordinator.core.data.meters import storage_changes
from coordinator.core.data.rows import BlobRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest, TenantName
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState

TOUCH_AGAIN = 8
"""A row is written anew when the eighth part of its grace time is over: seven eighths are left at least."""


def find(state: ClusterState, tenant: TenantName, digest: Digest, known: BlobRow | None) -> BlobRow | None:
    """The row of this blob, if it is there: as it was written lately, else what the store had when it was asked."""
    key = (tenant, digest)
    row = state.data.recent.get(key)
    if row is not None:
        return row
    if known is None or (known.tenant, known.digest) != key or any(key in gone for gone in state.data.victims):
        return None
    return known


def refer(state: ClusterState, row: BlobRow, policy: Policy, out: Decision) -> BlobRow:
    """Somebody refers to it, or is about to: no sweep that is under way takes it, and its grace time begins anew."""
    _spare(state, (row.tenant, row.digest))
    if state.now_ms - row.touched_ms >= policy.blob_grace_ms // TOUCH_AGAIN:
        row = _put(state, replace(row, touched_ms=state.now_ms), out)
    return row


def fade(state: ClusterState, row: BlobRow, policy: Policy, out: Decision) -> None:
    """Whoever held it does no more, and nobody looks for it: if nobody else holds it, it goes soon. Whoever refers to
    it until then has it for the whole grace time."""
    touched_ms = state.now_ms - policy.blob_grace_ms + policy.checkpoint_gone_ms
    if row.touched_ms > touched_ms:
        _put(state, replace(row, touched_ms=touched_ms), out)


def publish(
    state: ClusterState,
    tenant: TenantName,
    digest: Digest,
    size: int,
    sha256: str,
    known: BlobRow | None,
    out: Decision,
) -> BlobRow:
    """Its bytes are on disk. Counted once, however often they were uploaded."""
    row = find(state, tenant, digest, known)
    if row is None:
        now = state.now_ms
        row = BlobRow(tenant=tenant, digest=digest, size=size, created_at_ms=now, touched_ms=now, sha256=sha256)
        storage_changes(state, tenant, size, out)
        for gone in state.data.victims:
            gone.pop((tenant, digest), None)
    else:
        row = replace(row, touched_ms=state.now_ms, sha256=row.sha256 or sha256)
    _spare(state, (tenant, digest))
    return _put(state, row, out)


def remove(state: ClusterState, row: BlobRow, out: Decision) -> None:
    """Nobody holds it: its row goes, and with it what it counted."""
    state.data.recent.pop((row.tenant, row.digest), None)
    storage_changes(state, row.tenant, -row.size, out)
    out.writes.append(Delete("blob", (row.tenant, row.digest)))


def all_there(
    state: ClusterState, tenant: TenantName, wanted: Iterable[tuple[Digest, int | None]], known: Iterable[BlobRow]
) -> list[BlobRow]:
    """The rows of `wanted`, (digest, size or any) each; CoordError(INCOMPLETE): one is missing, or of another size."""
    rows = {row.digest: row for row in known if row.tenant == tenant}
    found: list[BlobRow] = []
    missing: list[str] = []
    for digest, size in wanted:
        row = find(state, tenant, digest, rows.get(digest))
        if row is None:
            missing.append(digest)
        elif size is not None and row.size != size:
            raise CoordError(
                Code.INCOMPLETE,
                f"blob {digest} has {row.size} bytes, {size} were said",
                "say the size of what was uploaded",
            )
        else:
            found.append(row)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise CoordError(
            Code.INCOMPLETE, f"blob {missing[0]}{more} is not stored", "upload what is missing, then again"
        )
    return found


def on_touch(state: ClusterState, event: BlobsTouch, policy: Policy, out: Decision) -> None:
    found = [find(state, row.tenant, row.digest, row) for row in event.known]
    there = [row for row in found if row is not None]
    if len(there) < len(found):
        gone = event.known[found.index(None)]
        raise CoordError(Code.INCOMPLETE, f"blob {gone.digest} was removed this moment", "ask again")
    for row in there:
        refer(state, row, policy, out)
    out.replies.append(Reply(event.request_id, None))


def _put(state: ClusterState, row: BlobRow, out: Decision) -> BlobRow:
    recent, key = state.data.recent, (row.tenant, row.digest)
    recent.pop(key, None)
    recent[key] = row
    if len(recent) > RECENT_MAX:
        del recent[next(iter(recent))]
    out.writes.append(Put(row))
    return row


def _spare(state: ClusterState, key: Blob) -> None:
    sweep = state.data.sweep
    if sweep is not None and not sweep.spoiled:
        sweep.referred.add(key)
        if len(sweep.referred) > REFERRED_MAX:
            sweep.spoiled, sweep.referred = True, set()
