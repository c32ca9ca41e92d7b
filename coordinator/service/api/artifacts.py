"""Routes of artifacts: blobs that people gave a name, and any blob by its digest."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from coordinator.api_types.data import (
    ArtifactDetails,
    ArtifactEntry,
    ArtifactRequest,
    Artifacts,
    MissingAnswer,
    MissingRequest,
)
from coordinator.core.data.events import ArtifactPut, ArtifactRemove, BlobsTouch
from coordinator.core.data.rows import ArtifactRow, BlobRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import NAME_CHARS_MAX, Digest, TenantName, check_name, digest_named
from coordinator.service.api.blob_uploads import known_blob
from coordinator.service.api.blobs import send_blob
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.pages import page_position, page_token
from coordinator.service.api.query import NoQuery, shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import DEFAULT_TENANT, owner_of, scope_of, who
from coordinator.timetext import to_text

HOLDERS_MAX = 100


class ArtifactsQuery(Struct, frozen=True, kw_only=True):
    name: (
        Annotated[str, Meta(max_length=NAME_CHARS_MAX, description="the artifact's name; may hold * and ?")] | None
    ) = None
    tenant: Annotated[str, Meta(description="only this tenant's")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class OfTenantQuery(Struct, frozen=True, kw_only=True):
    tenant: (
        Annotated[str, Meta(description="whose; only an admin or a reader of all may name another tenant")] | None
    ) = None


class _Position(Struct, frozen=True):
    tenant: str
    name: str


async def list_artifacts(call: Call[ArtifactsQuery, NoBody]) -> Artifacts:
    """A page of artifacts by tenant and name."""
    query = call.query
    position = page_position(query.page, _Position)
    after = (position.tenant, position.name) if position is not None else None
    rows = await call.deps.store.artifacts(scope_of(call, query.tenant), query.limit + 1, after, query.name or "")
    more, rows = len(rows) > query.limit, rows[: query.limit]
    return Artifacts(
        entries=tuple(_entry(row) for row in rows),
        next_page=page_token(_Position(rows[-1].tenant, rows[-1].name)) if more else None,
    )


async def put_artifact(call: Call[NoQuery, ArtifactRequest]) -> ArtifactEntry:
    """Give a stored blob a name."""
    body = call.body
    tenant, name = owner_of(call, body.tenant), artifact_name(body.name)
    known = await known_blob(call.deps, tenant, body.digest, "")
    row = await call.deps.engine.call(
        lambda request_id: ArtifactPut(
            at_ms=call.now_ms,
            request_id=request_id,
            tenant=tenant,
            by=who(call),
            name=name,
            digest=Digest(body.digest),
            executable=body.executable,
            known=known,
        )
    )
    assert isinstance(row, ArtifactRow)
    return _entry(row)


def artifact_name(text: str) -> str:
    """CoordError(BAD_REQUEST) for what could be taken for a digest, too."""
    if _is_digest(text):
        raise CoordError(Code.BAD_REQUEST, f"{shown(text)} would be taken for a digest", "choose another name")
    return check_name(text, "artifact")


def _is_digest(text: str) -> bool:
    try:
        digest_named(text)
    except CoordError:
        return text.startswith(("blake3:", "sha256:"))
    return True


async def show_artifact(call: Call[OfTenantQuery, NoBody]) -> ArtifactDetails:
    """An artifact by its name, or any blob by its digest, and who keeps it."""
    tenant = _one_tenant(call)
    artifact, blob = await _find(call, tenant)
    return ArtifactDetails(
        tenant=tenant,
        digest=blob.digest,
        size=blob.size,
        stored_at=to_text(blob.created_at_ms),
        sha256=blob.sha256 or None,
        artifact=_entry(artifact, blob.sha256) if artifact is not None else None,
        held_by=tuple(await call.deps.store.holders(tenant, blob.digest, HOLDERS_MAX)),
    )


async def read_artifact(call: Call[OfTenantQuery, NoBody]) -> web.StreamResponse:
    """The bytes of an artifact, or of any blob by its digest."""
    tenant = _one_tenant(call)
    _, blob = await _find(call, tenant)
    return await send_blob(call.deps, call.request, tenant, blob.digest, by=who(call), size=blob.size)


async def remove_artifact(call: Call[OfTenantQuery, NoBody]) -> None:
    """Take the name away; its bytes go after the grace time, unless something else keeps them."""
    tenant, name = _one_tenant(call), call.name("name")
    known = await call.deps.store.artifact(tenant, name)
    if known is None:
        raise _not_there(name)
    await call.deps.engine.call(
        lambda request_id: ArtifactRemove(
            at_ms=call.now_ms, request_id=request_id, tenant=tenant, by=who(call), name=name, known=known
        )
    )


async def missing_blobs(call: Call[NoQuery, MissingRequest]) -> MissingAnswer:
    """Which of these are not there, or not what they were; the others are kept for the grace time."""
    tenant = owner_of(call, call.body.tenant)
    asked = tuple(dict.fromkeys(call.body.digests))
    there = await touched(call.deps, tenant, asked)
    mend = await call.deps.data.soundness.to_mend(tuple(there.values()))
    return MissingAnswer(missing=tuple(digest for digest in asked if digest not in there or digest in mend))


async def touched(deps: ApiDeps, tenant: TenantName, digests: tuple[str, ...]) -> dict[str, BlobRow]:
    """Those of these that are there, which begin their grace time anew."""
    rows = tuple(await deps.store.blobs(tenant, digests))
    if rows:
        await deps.engine.call(
            lambda request_id: BlobsTouch(at_ms=deps.engine.clock.now_ms(), request_id=request_id, known=rows)
        )
    return {row.digest: row for row in rows}


def _one_tenant(call: Call[OfTenantQuery, NoBody]) -> TenantName:
    return scope_of(call, call.query.tenant) or DEFAULT_TENANT


async def _find(call: Call[OfTenantQuery, NoBody], tenant: TenantName) -> tuple[ArtifactRow | None, BlobRow]:
    text, store = call.request.match_info["name"], call.deps.store
    if _is_digest(text):
        try:
            kind, digest = digest_named(text)
        except CoordError:
            why = f"there is no artifact {shown(text)}, and a digest has 64 hex digits"
            raise CoordError(Code.NOT_FOUND, why, "-o wide shows all of them") from None
        by_digest = kind == "blake3"
        blob = await known_blob(call.deps, tenant, digest if by_digest else "", "" if by_digest else digest)
        artifact = None
    else:
        artifact = await store.artifact(tenant, call.name("name"))
        blob = await known_blob(call.deps, tenant, artifact.digest, "") if artifact is not None else None
    if blob is None:
        raise _not_there(text)
    return artifact, blob


def _not_there(name: str) -> CoordError:
    there = "no bytes with this digest are stored" if _is_digest(name) else "coord artifacts list shows those there are"
    return CoordError(Code.NOT_FOUND, f"there is no artifact {shown(name)}", there)


def _entry(row: ArtifactRow, sha256: str = "") -> ArtifactEntry:
    return ArtifactEntry(
        name=row.name,
        tenant=row.tenant,
        digest=row.digest,
        size=row.size,
        created_at=to_text(row.created_at_ms),
        by=row.by,
        executable=row.executable,
        sha256=sha256 or None,
    )
