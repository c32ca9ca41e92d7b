"""Routes of uploads: opened with a token, sent to by a signed URL, resumed by offset, published by their last byte."""

from __future__ import annotations

import re
import secrets

import msgspec
from aiohttp import web

from coordinator.api_types.data import StoredBlob, UploadAnswer, UploadRequest
from coordinator.core.data.answers import UploadOpened
from coordinator.core.data.events import Claim, UploadOpen
from coordinator.core.data.rows import BlobRow, UploadRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest, TenantName, TokenId, UploadId
from coordinator.service import metrics as m
from coordinator.service.api.bodies import go_on
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.problems import refusal
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call, NoBody, Ready
from coordinator.service.api.scope import owner_of, scope_of, who
from coordinator.service.data.signing import SignedQuery
from coordinator.service.data.transfers import gone
from coordinator.timetext import to_text

OFFSET, LENGTH = "Upload-Offset", "Upload-Length"
_RANGE = re.compile(r"bytes (?:([0-9]{1,16})-([0-9]{1,16})|\*)/([0-9]{1,16})")


# ---- opening


async def open_upload(call: Call[NoQuery, UploadRequest]) -> Ready:
    """Have bytes stored: 200 when they are there, else 201 and where to send them."""
    body = call.body
    tenant = owner_of(call, body.tenant)
    if body.digest is None and body.sha256 is None:
        raise CoordError(Code.BAD_REQUEST, "the upload names no digest", "give digest (BLAKE3) or sha256")
    known = await known_blob(call.deps, tenant, body.digest or "", body.sha256 or "")
    opened, offset = await open_one(
        call.deps, tenant, who(call), body.size, body.digest or "", body.sha256 or "", known, None
    )
    answer = _answer(call, opened, offset)
    return Ready(body=msgspec.json.encode(answer), status=200 if answer.present else 201)


async def known_blob(deps: ApiDeps, tenant: TenantName, digest: str, sha256: str) -> BlobRow | None:
    """What the store has of it."""
    if digest:
        return next(iter(await deps.store.blobs(tenant, (digest,))), None)
    return await deps.store.blob_by_sha256(tenant, sha256)


async def open_one(
    deps: ApiDeps,
    tenant: TenantName,
    by: str,
    size: int,
    digest: str,
    sha256: str,
    known: BlobRow | None,
    claim: Claim | None,
) -> tuple[UploadOpened, int]:
    """What the core says, and how much of the upload is there already."""
    fresh = UploadId(secrets.token_hex(16))
    unsound = known is not None and bool(await deps.data.soundness.to_mend((known,)))
    opened = await deps.engine.call(
        lambda request_id: UploadOpen(
            at_ms=deps.engine.clock.now_ms(),
            request_id=request_id,
            upload_id=fresh,
            tenant=tenant,
            by=by,
            size=size,
            digest=Digest(digest),
            sha256=sha256,
            known=known,
            claim=claim,
            unsound=unsound,
        )
    )
    assert isinstance(opened, UploadOpened)
    upload = opened.upload
    if upload is None or upload.upload_id == fresh:
        return opened, 0
    return opened, await deps.data.publisher.arrived(upload)


def _answer(call: Call[NoQuery, UploadRequest], opened: UploadOpened, offset: int) -> UploadAnswer:
    if opened.present is not None:
        row = opened.present
        return UploadAnswer(present=True, size=row.size, digest=row.digest, sha256=row.sha256 or None)
    upload = opened.upload
    assert upload is not None
    return UploadAnswer(
        present=False,
        size=upload.size,
        digest=upload.digest or None,
        sha256=upload.sha256 or None,
        id=upload.upload_id,
        url=call.deps.data.upload_url(upload),
        offset=offset,
        expires=to_text(call.deps.data.signer.expires_ms(call.now_ms)),
        closes=to_text(upload.expires_at_ms),
    )


async def drop_upload(call: Call[NoQuery, NoBody]) -> None:
    """Give an upload up: what arrived of it goes, and what it reserved is free."""
    upload_id, scope = UploadId(call.name()), scope_of(call)
    row = call.deps.engine.state.data.uploads.get(upload_id)
    if row is None or (scope is not None and row.tenant != scope):
        raise CoordError(Code.NOT_FOUND, "there is no such upload that is open", "it was published, dropped or expired")
    await call.deps.data.publisher.drop(upload_id, f"dropped by {who(call)}")


# ---- sending


async def show_upload(call: Call[SignedQuery, NoBody]) -> web.Response:
    """How much of it is there: Upload-Offset of Upload-Length."""
    upload = _signed_upload(call)
    return web.Response(headers=_standing(await call.deps.data.publisher.arrived(upload), upload.size))


async def receive_upload(call: Call[SignedQuery, NoBody]) -> web.StreamResponse:
    """Take its bytes, or those behind what arrived before; its last one publishes it.

    201 with the blob; 202 and Upload-Offset when more is to come. What arrived stays, however it ends.
    """
    data, request = call.deps.data, call.request
    upload = _signed_upload(call)
    if "Content-Encoding" in request.headers:
        raise CoordError(Code.BAD_REQUEST, "bytes of blobs are sent as they are", "leave Content-Encoding away")
    try:
        async with data.transfers.held(upload.tenant, upload.by, upload.upload_id) as transfer:
            upload = data.upload(upload.upload_id)  # the one before it may have been its last
            data.gate.admit(transfer)
            try:
                offset = await data.publisher.arrived(upload)
                first = _first_byte(request, upload, offset)
                if first != offset:
                    raise _bad_offset(first, offset)
                if not data.publisher.is_placed(upload.upload_id):
                    await go_on(request)
                    try:
                        offset = await data.receiver.take(request.content, upload, offset)
                    finally:
                        data.settle(upload.tenant)
                if offset < upload.size:
                    data.gate.went_well(transfer)
                    return web.Response(status=202, headers=_standing(offset, upload.size))
                transfer.sealed = True
                row = await data.publisher.publish(upload)
                data.gate.went_well(transfer)
            except CoordError as error:
                if error.code is Code.STORE_FULL:
                    data.gate.saturated(error.message)
                data.gate.gave_up(transfer)
                raise
    except CoordError as error:
        return await _refused(call.deps, upload, error)
    stored = StoredBlob(digest=row.digest, size=row.size, sha256=row.sha256 or None)
    return web.Response(status=201, body=msgspec.json.encode(stored), content_type="application/json")


async def _refused(deps: ApiDeps, upload: UploadRow, error: CoordError) -> web.Response:
    """Every refusal of an upload that is still open tells where to go on."""
    deps.metrics.add(m.HTTP_PROBLEMS, 1, error.code.value)
    deps.data.refusals.note(error, "uploads", upload.by, upload.tenant, upload.upload_id)
    headers: dict[str, str] = {}
    if error.code is Code.STORE_BROKEN:
        deps.data.fail(error)
    if error.code not in (Code.UPLOAD_GONE, Code.BAD_DIGEST, Code.UNAUTHENTICATED, Code.STORE_BROKEN):
        try:
            headers = _standing(await deps.data.publisher.arrived(upload), upload.size)
        except CoordError as second:
            error = error if second.code is Code.STORE_FULL else second
    return refusal(error, headers=headers)


def _signed_upload(call: Call[SignedQuery, NoBody]) -> UploadRow:
    upload = call.deps.data.upload(call.request.match_info["id"])
    if call.query.n != str(upload.size):
        raise CoordError(Code.BAD_SIGNATURE, "this URL is for another size", "open the upload again")
    token = upload.by.removeprefix("token:")
    row = call.deps.views.tokens.get(TokenId(token)) if token != upload.by else None
    if token != upload.by and (row is None or row.revoked_at_ms is not None):
        raise gone("the token that opened it was revoked")
    return upload


def _standing(offset: int, size: int) -> dict[str, str]:
    return {OFFSET: str(offset), LENGTH: str(size)}


def _bad_offset(first: int, offset: int) -> CoordError:
    return CoordError(
        Code.BAD_OFFSET, f"the body begins at byte {first}, {offset} bytes are there", f"go on at byte {offset}"
    )


def _first_byte(request: web.Request, upload: UploadRow, offset: int) -> int:
    """Where the body says that it begins. CoordError for one that cannot fit."""
    length, said = request.content_length, request.headers.get("Content-Range")
    if said is None:
        first, size = 0, upload.size
    else:
        found = _RANGE.fullmatch(said.strip())
        if found is None or int(found[3]) != upload.size:
            raise CoordError(
                Code.BAD_REQUEST,
                f"this Content-Range is none of an upload of {upload.size} bytes",
                f"write bytes FIRST-LAST/{upload.size}",
            )
        first = int(found[1]) if found[1] is not None else offset
        size = int(found[2]) + 1 - first if found[2] is not None else 0
        if length is not None and length != size:
            raise CoordError(
                Code.BAD_REQUEST, f"Content-Range announces {size} bytes, Content-Length {length}", "send one range"
            )
    if (length or 0) > upload.size - first or size > upload.size - first:
        raise CoordError(
            Code.TOO_LARGE, f"more is announced than the {upload.size} bytes of this upload", "open one of that size"
        )
    return first
