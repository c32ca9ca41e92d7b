"""Uploads: opened under the quota, resumed by whoever opened them, and burnt by their publication.

An attempt's end with its token, anybody else's when their time is over. What an upload will take is reserved.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec.structs import replace

from coordinator.core.commands import Decision, Delete, Put, Reply
from coordinator.core.data.answers import UploadGone, UploadOpened
from coordinator.core.data.blobs import find, publish, refer
from coordinator.core.data.claims import still_wanted
from coordinator.core.data.events import UploadDone, UploadDrop, UploadOpen
from coordinator.core.data.live import reserves, twin_of
from coordinator.core.data.loading import add_upload
from coordinator.core.data.room import check_upload
from coordinator.core.data.rows import UploadRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, UploadId
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.core.tenants.admission import known_tenant
from coordinator.core.work.live import Job


def on_open(state: ClusterState, event: UploadOpen, policy: Policy, out: Decision) -> None:
    """What is there already, what was opened already, or a new one: also of what is there and damaged, or was never
    seen to have the SHA-256 that it is said to have."""
    tenant, job, attempt_id = event.tenant, None, None
    if event.claim is not None:
        found = still_wanted(state, event.claim)
        job, attempt_id, tenant = found.job, event.claim.attempt_id, found.job.row.tenant
    else:
        known_tenant(state, tenant)
    _check(event, policy)
    digest = event.digest or (event.known.digest if event.known is not None else event.digest)
    present = find(state, tenant, digest, event.known) if digest else None
    if present is not None:
        if present.size != event.size:
            raise CoordError(
                Code.BAD_DIGEST, f"the blob of this digest has {present.size} bytes, not {event.size}", "hash it again"
            )
        if event.sha256 and present.sha256 not in ("", event.sha256):
            raise CoordError(
                Code.BAD_DIGEST,
                f"the blob blake3:{present.digest} is sha256:{present.sha256}, not sha256:{event.sha256}",
                "one of the two is another file's: hash it again",
            )
        row = refer(state, present, policy, out)
        if not event.unsound and (not event.sha256 or present.sha256):
            out.replies.append(Reply(event.request_id, UploadOpened(present=row)))
            return
    upload = UploadRow(
        upload_id=event.upload_id,
        tenant=tenant,
        size=event.size,
        opened_at_ms=state.now_ms,
        expires_at_ms=state.now_ms + policy.upload_ms,
        by=event.by,
        digest=present.digest if present is not None else event.digest,
        sha256=event.sha256,
        attempt_id=attempt_id,
        mends=present is not None,
    )
    before = state.data.twins.get(twin_of(upload))
    if before is not None and state.data.uploads[before].expires_at_ms <= state.now_ms:
        _end(state, state.data.uploads[before], "it has expired", out)  # the tick that ends it is yet to come
        before = None
    if before is None:
        _check_room(state, upload, job, policy)
        add_upload(state.data, state.work.accounts, upload)
        state.work.accounts.changed(state.work.accounts.of(tenant))
        out.writes.append(Put(upload))
    else:
        upload = state.data.uploads[before]
    out.replies.append(Reply(event.request_id, UploadOpened(upload=upload)))


def _check(event: UploadOpen, policy: Policy) -> None:
    if not event.digest and not event.sha256:
        raise CoordError(
            Code.BAD_REQUEST, "an upload without a digest", "announce the BLAKE3 or the SHA-256 of its bytes"
        )
    if not 0 <= event.size <= policy.blob_bytes_max:
        raise CoordError(
            Code.TOO_LARGE, f"a blob of {event.size} bytes", f"at most {policy.blob_bytes_max} are taken: split it"
        )


def _check_room(state: ClusterState, upload: UploadRow, job: Job | None, policy: Policy) -> None:
    data = state.data
    own = data.by_tenant.get(upload.tenant, 0)
    if len(data.uploads) >= policy.uploads_max or own >= policy.uploads_per_tenant_max:
        raise CoordError(
            Code.TOO_MANY, f"{own} uploads of tenant {upload.tenant} are open, no more are taken", "finish or drop some"
        )
    if upload.upload_id in data.uploads:
        raise CoordError(Code.CONFLICT, f"upload {upload.upload_id} is open already", "ask again")
    check_upload(state, upload, policy, job)


def on_done(state: ClusterState, event: UploadDone, out: Decision) -> None:
    """Its bytes count from now on: the blob's row is written and the upload's removed by one transaction."""
    upload = _open_one(state, event.upload_id)
    lies = (
        (upload.digest and upload.digest != event.digest)
        or (upload.sha256 and upload.sha256 != event.sha256)
        or upload.size != event.size
    )
    if lies:
        raise CoordError(Code.BAD_DIGEST, "these bytes are not what was announced", "drop the upload and hash it again")
    _end(state, upload, "published", out)
    row = publish(state, upload.tenant, event.digest, event.size, event.sha256, event.known, out)
    out.replies.append(Reply(event.request_id, row))


def on_drop(state: ClusterState, event: UploadDrop, out: Decision) -> None:
    _end(state, _open_one(state, event.upload_id), event.why, out)
    out.replies.append(Reply(event.request_id, None))


def _open_one(state: ClusterState, upload_id: UploadId) -> UploadRow:
    upload = state.data.uploads.get(upload_id)
    if upload is None:
        raise CoordError(Code.UPLOAD_GONE, "this upload was published, dropped or has expired", "open it again")
    return upload


def end_uploads(state: ClusterState, attempt_id: AttemptId, out: Decision) -> None:
    """The attempt's token counts no more: what it had open is burnt."""
    for upload_id in list(state.data.by_attempt.get(attempt_id, ())):
        _end(state, state.data.uploads[upload_id], "its attempt has ended", out)


def prolong(state: ClusterState, moved: Iterable[UploadId], policy: Policy, out: Decision) -> None:
    """These got bytes: they expire so long after their last one, and at the latest so long after their opening. A row
    is written when the sixteenth part of that time is gained. O(these)."""
    for upload_id in moved:
        row = state.data.uploads.get(upload_id)
        if row is None:
            continue
        until_ms = min(state.now_ms + policy.upload_ms, row.opened_at_ms + policy.upload_longest_ms)
        if until_ms - row.expires_at_ms > policy.upload_ms // PROLONGED_BY:
            row = state.data.uploads[upload_id] = replace(row, expires_at_ms=until_ms)
            state.data.wheel.put(upload_id, until_ms)
            out.writes.append(Put(row))


PROLONGED_BY = 16


def end_expired(state: ClusterState, out: Decision) -> None:
    """Those whose time is over. O(these)."""
    for upload_id in state.data.wheel.due(state.now_ms):
        _end(state, state.data.uploads[UploadId(upload_id)], "it has expired", out)


def _end(state: ClusterState, row: UploadRow, why: str, out: Decision) -> None:
    data, accounts = state.data, state.work.accounts
    del data.uploads[row.upload_id]
    del data.twins[twin_of(row)]
    data.wheel.drop(row.upload_id)
    left = data.by_tenant.pop(row.tenant) - 1
    if left:
        data.by_tenant[row.tenant] = left
    if row.attempt_id is not None:
        own = data.by_attempt[row.attempt_id]
        del own[row.upload_id]
        if not own:
            del data.by_attempt[row.attempt_id]
    account = accounts.of(row.tenant)
    account.uploads -= reserves(row)
    account.awaited = min(account.awaited, account.uploads)
    accounts.changed(account)
    out.writes.append(Delete("upload", row.upload_id))
    out.notes.append(UploadGone(upload_id=row.upload_id, why=why))
