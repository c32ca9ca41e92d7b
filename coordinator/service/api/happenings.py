"""Routes of what happened: the audit, newest first, and the feed of what happens, as it becomes durable."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from coordinator.api_types.happenings import Audit
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import AuditRow
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.pages import Number, page_position, page_token
from coordinator.service.api.query import shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import scope_of
from coordinator.service.api.streams import EVENT_STREAM, HERE, LAST_ID, OpenStreams, ServerEvent, answer_stream
from coordinator.service.api.work_entries import event_entry

ENTITIES = (
    "job", "step", "task", "attempt", "provider", "token", "pool", "tenant", "artifact", "checkpoint", "transfer",
)  # fmt: skip
JobNumber = Annotated[int, Meta(ge=0, le=10**15, description="only what happens to this job")]
Entity = Annotated[str, Meta(description="only one of job, step, task, attempt, provider, token, pool, tenant")]


class AuditQuery(Struct, frozen=True, kw_only=True):
    job: JobNumber | None = None
    entity: Entity | None = None
    subject: Annotated[str, Meta(max_length=128, description="only this one, as 12.0.7 or a provider's id")] | None = (
        None
    )
    tenant: Annotated[str, Meta(description="only this tenant's")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class EventsQuery(Struct, frozen=True, kw_only=True):
    job: JobNumber | None = None
    entity: Entity | None = None
    tenant: Annotated[str, Meta(description="only this tenant's")] | None = None
    after: (
        Annotated[int, Meta(ge=0, description="begin behind the event of this number; else with the next one")] | None
    ) = None


class _Position(Struct, frozen=True):
    before: Number


def _entity(text: str | None) -> str:
    if text is not None and text not in ENTITIES:
        raise CoordError(Code.BAD_REQUEST, f"entity={shown(text)} is none", f"there are: {', '.join(ENTITIES)}")
    return text or ""


async def list_audit(call: Call[AuditQuery, NoBody]) -> Audit:
    """A page of what happened, newest first. A tenant sees its own."""
    query = call.query
    position = page_position(query.page, _Position)
    rows = await call.deps.store.audit(
        limit=query.limit + 1,
        tenant=scope_of(call, query.tenant),
        job_id=JobId(query.job) if query.job is not None else None,
        entity=_entity(query.entity),
        subject=query.subject or "",
        before=position.before if position is not None else None,
    )
    more, rows = len(rows) > query.limit, rows[: query.limit]
    return Audit(
        entries=tuple(event_entry(row) for row in rows),
        next_page=page_token(_Position(rows[-1].seq)) if more else None,
    )


async def stream_events(call: Call[EventsQuery, NoBody], streams: OpenStreams) -> web.StreamResponse:
    """What happens, as it becomes durable, for ever. Last-Event-ID: what comes behind it, from the past, too."""
    assert call.token is not None
    query, deps = call.query, call.deps
    after = _last_seq(call.request)
    if after is None:
        after = query.after if query.after is not None else deps.feed.last_seq
    job_id = JobId(query.job) if query.job is not None else None
    source = _events(deps, after, scope_of(call, query.tenant), job_id, _entity(query.entity))
    return await answer_stream(streams, call.request, call.token, deps.settings, source, EVENT_STREAM, HERE)


async def _events(
    deps: ApiDeps, after: int, tenant: TenantName | None, job_id: JobId | None, entity: str
) -> AsyncGenerator[bytes, None]:
    async with aclosing(deps.feed.pages(after, tenant=tenant, job_id=job_id)) as pages:
        async for rows in pages:
            wanted = [row for row in rows if not entity or row.entity == entity]
            if wanted:
                yield b"".join(_event(row) for row in wanted)


def _event(row: AuditRow) -> bytes:
    return ServerEvent(msgspec.json.encode(event_entry(row)), str(row.seq)).encoded()


def _last_seq(request: web.Request) -> int | None:
    text = request.headers.get(LAST_ID)
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return int(text)
    raise CoordError(Code.BAD_REQUEST, f"{LAST_ID} {shown(text)} is none of this stream", "send an id of it, or none")
