"""The route of logs: bytes as they are stored, or an event stream that goes on from any of its events."""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from contextlib import aclosing

import msgspec
from aiohttp import web

from coordinator.api_types.happenings import LogEvent
from coordinator.core.ids import dotted
from coordinator.core.rows import JobRow
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.log_following import Position, followed, position_of
from coordinator.service.api.log_selection import Log, LogsQuery, Selection, cut, selection_of, start_of, stored_logs
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import the_job
from coordinator.service.api.streams import (
    EVENT_STREAM,
    HERE,
    LAST_ID,
    OpenStreams,
    ServerEvent,
    answer_stream,
    wants_events,
)
from coordinator.service.relay.reading import Piece
from coordinator.timetext import to_text
from coordinator.wire import STREAMS

PLAIN = "text/plain; charset=utf-8"


async def read_logs(call: Call[LogsQuery, NoBody], streams: OpenStreams) -> web.StreamResponse:
    """The job's logs as plain bytes, or as an event stream; of each task the last attempt.

    An event stream is what `Accept` asks for, and what `follow` gives unless it asks for text/plain.
    """
    assert call.token is not None
    request, deps, job = call.request, call.deps, await the_job(call)
    selection = selection_of(job, call.query)
    last = request.headers.get(LAST_ID)
    position = position_of(last) if last is not None else None
    plain = "text/plain" in request.headers.get("Accept", "")
    if wants_events(request) or (call.query.follow and not plain):
        return await answer_stream(
            streams, request, call.token, deps.settings, _events(deps, job, selection, position), EVENT_STREAM, HERE
        )
    source = _live(deps, job, selection) if call.query.follow else _stored(deps, selection)
    return await answer_stream(streams, request, call.token, deps.settings, source, PLAIN)


async def _stored(deps: ApiDeps, selection: Selection) -> AsyncGenerator[bytes, None]:
    async with aclosing(stored_logs(deps, selection)) as logs:
        async for log in logs:
            start = await start_of(deps, log, selection)
            pieces = deps.relay.stored(log.row.attempt_id, log.rank, start.mark)
            assert isinstance(pieces, AsyncGenerator)
            async with aclosing(pieces):
                async for piece in pieces:
                    if selection.stream in (None, piece.mark.stream):
                        yield cut(piece, start).data


async def _live(deps: ApiDeps, job: JobRow, selection: Selection) -> AsyncGenerator[bytes, None]:
    async with aclosing(followed(deps, job, selection, None)) as pieces:
        async for shown in pieces:
            yield shown.piece.data


async def _events(
    deps: ApiDeps, job: JobRow, selection: Selection, position: Position | None
) -> AsyncGenerator[bytes, None]:
    at = position.text() if position is not None else ""
    async with aclosing(followed(deps, job, selection, position)) as pieces:
        async for shown in pieces:
            at = shown.position.text()
            yield ServerEvent(msgspec.json.encode(_event(shown.log, shown.piece)), at).encoded()
    yield ServerEvent(b"{}", at, "end").encoded()


def _event(log: Log, piece: Piece) -> LogEvent:
    try:
        text, encoding = piece.data.decode(), "utf-8"
    except UnicodeDecodeError:
        text, encoding = base64.b64encode(piece.data).decode(), "base64"
    return LogEvent(
        attempt=dotted(log.row.attempt_id),
        rank=log.rank,
        stream=STREAMS[piece.mark.stream],
        offset=piece.mark.offset,
        at=to_text(piece.mark.at_ms),
        data=text,
        encoding=encoding,
    )
