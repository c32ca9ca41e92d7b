"""Waiting for a job: one long request, or an event for each change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Annotated, Any, Literal

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from coordinator.api_types.work import JobEntry
from coordinator.core.rows import ENDED, JobRow, WorkState
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.jobs import entry_of
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import the_job
from coordinator.service.api.streams import (
    EVENT_STREAM,
    HERE,
    OpenStreams,
    ServerEvent,
    answer_stream,
    wants_events,
)
from coordinator.service.bells import heard
from coordinator.timetext import asked_duration

_BEGUN = ENDED | {WorkState.RUNNING}


class WaitQuery(Struct, frozen=True, kw_only=True):
    until: Annotated[
        Literal["ended", "running"], Meta(description="what to wait for: its end, or that it has begun to run")
    ] = "ended"
    timeout: Annotated[str, Meta(description="how long to wait at most, as 30s; then it is shown as it stands")] = "30s"


async def wait_job(call: Call[WaitQuery, NoBody], streams: OpenStreams) -> JobEntry | web.StreamResponse:
    """The job when it has ended (or runs), or as it stands when the time is over. As an event stream: the job now and
    after each change, until then."""
    assert call.token is not None
    deps, job = call.deps, await the_job(call)
    wanted = ENDED if call.query.until == "ended" else _BEGUN
    if wants_events(call.request):
        source = _changes(deps, job, wanted)
        return await answer_stream(streams, call.request, call.token, deps.settings, source, EVENT_STREAM, HERE)
    most_ms = int(deps.settings.wait_s_max * 1_000)
    within_s = asked_duration(call.query.timeout, "timeout", 0, most_ms) / 1_000
    async with streams.held(call.token):
        until_s = asyncio.get_running_loop().time() + within_s
        while True:
            change = deps.feed.next_change(job.job_id)
            job = await _now(deps, job)
            left_s = until_s - asyncio.get_running_loop().time()
            if job.state in wanted or left_s <= 0:
                return entry_of(deps, job)
            await heard(change, left_s)


async def _now(deps: ApiDeps, job: JobRow) -> JobRow:
    """The job as it stands; the last that was known of one that retention has removed meanwhile."""
    live = deps.views.jobs.get(job.job_id)
    if live is not None:
        return live
    return await deps.store.job(job.job_id, None) or job


async def _changes(deps: ApiDeps, job: JobRow, wanted: frozenset[Any]) -> AsyncGenerator[bytes, None]:
    said = b""
    while True:
        change = deps.feed.next_change(job.job_id)
        job = await _now(deps, job)
        entry = msgspec.json.encode(entry_of(deps, job))
        if entry != said:
            said = entry
            yield ServerEvent(entry, job.state.value, "job").encoded()
        if job.state in wanted:
            yield ServerEvent(b"{}", job.state.value, "end").encoded()
            return
        await heard(change)
