"""Routes of traces: exported over OTLP, sent by agents and by task, given back as rows, analysed.

A body is laid aside and handed on as it came. Whose its rows may be is said here: a task that was checked, an attempt
whose token was, or a tenant, whose jobs alone its traces may name.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

from aiohttp import web
from msgspec import Meta, Struct

from coordinator import wire_traces as w
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, JobId, attempt_of, dotted
from coordinator.core.rows import AttemptRow, AttemptState
from coordinator.ports.traces import PROFILE_ROWS, AskTrace, Taken, TraceBody, TraceFormat, TraceKind, TracePart
from coordinator.service.api import otlp
from coordinator.service.api.bodies import go_on
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.problems import POLICY
from coordinator.service.api.query import NoQuery, shown
from coordinator.service.api.route import Call, NoBody, Ready
from coordinator.service.api.scope import DEFAULT_TENANT, scope_of, the_job
from coordinator.service.api.streams import OpenStreams, answer_stream
from coordinator.service.inbound import token_is_sane

LATE_MS = 24 * 3_600_000
"""Spans of an attempt are taken until so long after its end."""
LINES = "application/x-ndjson"
LINE_TYPES = (LINES, "application/jsonl", "application/jsonlines", "application/json", "application/octet-stream", "")
NOT_THEIRS = frozenset({AttemptState.LOST, AttemptState.TAKEN_BACK})
WITHOUT_MAX = 64


class TraceTaken(Struct, frozen=True, kw_only=True):
    """What became of uploaded rows."""

    accepted: int
    """Rows that are kept; repeated ones too."""
    rejected: int
    """They could not be read, or belong elsewhere."""
    dropped: int
    """There was no room for them."""
    message: str = ""
    """Why the first ones were not accepted."""


class AnalyzeQuery(Struct, frozen=True, kw_only=True):
    format: Annotated[TraceFormat, Meta(description="json, or html: one page that needs nothing else")] = "json"
    other: (
        Annotated[int, Meta(ge=1, lt=10**15, description="compare with this job, which is the one before")] | None
    ) = None
    slots: Annotated[int, Meta(ge=1, le=1_000_000, description="what if there had been so many slots")] | None = None
    without: Annotated[str, Meta(max_length=4_096, description="what if these tasks cost nothing: 12.0.3,12.0.4")] = ""
    rows: Annotated[int, Meta(ge=0, le=10**9, description="of each table with a row a task; 0: all")] = PROFILE_ROWS


# ---- in


async def export_traces(call: Call[NoQuery, NoBody]) -> web.Response:
    """ExportTraceServiceRequest. Refusals are google.rpc.Status, in the request's own encoding."""
    media = call.request.content_type
    if media not in (otlp.PROTOBUF, otlp.JSON):
        raise CoordError(
            Code.BAD_REQUEST, f"{shown(media)} is no encoding of OTLP", f"send {otlp.PROTOBUF} or {otlp.JSON}"
        )
    encoding: otlp.Encoding = "application/x-protobuf" if media == otlp.PROTOBUF else "application/json"
    try:
        scope = scope_of(call)
        packed = _packed(call.request)
        door = call.deps.traces
        await go_on(call.request)
        with _refusing(call.deps):
            async with door.received(call.request, f"tenant:{scope or ''}", door.settings.body_bytes_max) as body:
                part = TracePart(
                    form="otlp_protobuf" if encoding == otlp.PROTOBUF else "otlp_json", encoding=packed, size=body.size
                )
                (taken,) = await door.take_in(
                    body, TraceBody(path=str(body.path), parts=(part,), fingerprint=body.fingerprint, tenant=scope)
                )
        _count(call.deps, (taken,))
        return otlp.success(taken, encoding)
    except CoordError as error:
        return otlp.refused(error, encoding)


def take_rows(kind: TraceKind) -> Any:
    """The handler of one kind of rows."""

    async def handle(call: Call[NoQuery, NoBody]) -> TraceTaken:
        """Rows of one task, a line of JSON each."""
        job_id, task = await _the_task(call)
        media = call.request.content_type if "Content-Type" in call.request.headers else ""
        if media not in LINE_TYPES:
            raise CoordError(Code.BAD_REQUEST, f"{shown(media)} is not taken here", f"send lines of JSON as {LINES}")
        door = call.deps.traces
        await go_on(call.request)
        sender = f"tenant:{scope_of(call) or ''}"
        with _refusing(call.deps):
            async with door.received(call.request, sender, door.settings.body_bytes_max) as body:
                part = TracePart(form=kind, encoding=_packed(call.request), size=body.size, job_id=job_id, task=task)
                (taken,) = await door.take_in(
                    body, TraceBody(path=str(body.path), parts=(part,), fingerprint=body.fingerprint)
                )
        _count(call.deps, (taken,))
        return TraceTaken(accepted=taken.accepted, rejected=taken.rejected, dropped=taken.dropped, message=taken.why)

    handle.__name__ = f"take_{kind}"
    return handle


async def _the_task(call: Call[NoQuery, NoBody]) -> tuple[JobId, str]:
    """The task in the path, of a job that the caller may have."""
    text = call.request.match_info["task"]
    missing = CoordError(Code.NOT_FOUND, f"there is no task {shown(text)}", "a task is JOB.STEP.TASK, as 12.0.7")
    try:
        job, step, task, _ = attempt_of(f"{text}.1")
    except CoordError:
        raise missing from None
    row = await call.deps.store.job(job, scope_of(call))
    spec = await call.deps.store.job_spec(job) if row is not None else None
    if spec is None or step >= len(spec.steps) or task >= spec.steps[step].tasks:
        raise missing
    return job, dotted((job, step, task))


async def take_attempts(call: Call[NoQuery, NoBody]) -> w.TracePartsAnswer:
    """What an agent sends of its attempts; each part is kept or refused by itself."""
    provider_id = call.token.provider_id if call.token is not None else None
    if provider_id is None:
        raise CoordError(Code.FORBIDDEN, "this token speaks for no provider", "ask with an agent's credential")
    door = call.deps.traces
    await go_on(call.request)
    with _refusing(call.deps):
        async with door.received(call.request, f"agent:{provider_id}", w.BODY_BYTES_MAX) as body:
            parts = await asyncio.to_thread(lambda: list(w.split(body.path.read_bytes())))
            refused: dict[str, str] = {}
            rows = await _attempts(call.deps, {part.attempt for part, _ in parts})
            wanted: list[TracePart] = []
            pieces: list[memoryview] = []
            at = 0
            for part, data in parts:
                row = rows.get(part.attempt)
                if row is None or not _is_theirs(row, part, provider_id, call.now_ms):
                    refused[part.attempt] = Code.STALE_TOKEN.value
                    continue
                wanted.append(_wanted(part, row, at))
                pieces.append(data)
                at += part.size
            taken: tuple[Taken, ...] = ()
            if wanted:
                async with door.laid_out(pieces) as path:
                    taken = await door.take_in(
                        body, TraceBody(path=str(path), parts=tuple(wanted), fingerprint=body.fingerprint)
                    )
    _count(call.deps, taken)
    return w.TracePartsAnswer(
        taken=sum(one.accepted for one in taken),
        rejected=sum(one.rejected + one.dropped for one in taken),
        refused=refused,
    )


async def _attempts(deps: ApiDeps, names: set[str]) -> dict[str, AttemptRow]:
    """Those of these attempts that there are, live or ended."""
    by_job: dict[JobId, list[AttemptId]] = {}
    for name in names:
        try:
            attempt_id = attempt_of(name)
        except CoordError:
            continue
        by_job.setdefault(attempt_id[0], []).append(attempt_id)
    found: dict[str, AttemptRow] = {}
    for job_id, wanted in by_job.items():
        for at in range(0, len(wanted), 128):
            some = wanted[at : at + 128]
            for row in await deps.store.attempts_of(job_id, [(s, t, n - 1) for _, s, t, n in some]):
                found[dotted(row.attempt_id)] = row
    return found


def _is_theirs(row: AttemptRow, part: w.Part, provider_id: str, now_ms: int) -> bool:
    """Whether this provider held this rank under this token, and its time is not over."""
    return (
        token_is_sane(part.token)
        and row.token == part.token
        and part.rank < len(row.ranks)
        and row.ranks[part.rank].provider_id == provider_id
        and row.state not in NOT_THEIRS
        and (row.ended_at_ms is None or now_ms - row.ended_at_ms < LATE_MS)
    )


def _wanted(part: w.Part, row: AttemptRow, at: int) -> TracePart:
    form = part.kind if part.kind != "otlp" else "otlp_json" if part.content_type == w.JSON else "otlp_protobuf"
    return TracePart(
        form=form,
        encoding=part.encoding,
        at=at,
        size=part.size,
        job_id=row.job_id,
        task=dotted(row.task_id),
        attempt=row.attempt,
        rank=part.rank,
        provider=row.ranks[part.rank].provider_id,
    )


def _packed(request: web.Request) -> Any:
    encoding = request.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("identity", "gzip"):
        raise CoordError(
            Code.BAD_REQUEST, f"Content-Encoding {shown(encoding)} is not taken here", "send gzip, or none"
        )
    return "" if encoding == "identity" else encoding


def _count(deps: ApiDeps, taken: tuple[Taken, ...]) -> None:
    counters = deps.traces.counters
    for one in taken:
        counters.accepted += one.accepted
        counters.rejected += one.rejected
        counters.dropped += one.dropped


@contextmanager
def _refusing(deps: ApiDeps) -> Iterator[None]:
    """Counts uploads that are refused. A disk without room is no reason to throw traces away: whoever sends them comes
    again, and OTLP knows no 507."""
    try:
        yield
    except CoordError as error:
        refused = deps.traces.counters.refused
        refused[error.code.value] = refused.get(error.code.value, 0) + 1
        if error.code is Code.STORE_FULL:
            raise CoordError(Code.ANALYTICS_UNAVAILABLE, error.message, error.hint) from error
        raise


# ---- out


def send_rows(kind: TraceKind, streams: OpenStreams) -> Any:
    """The handler of one kind of rows."""

    async def handle(call: Call[NoQuery, NoBody]) -> web.StreamResponse:
        """All rows of a job, a line of JSON each."""
        job = await the_job(call)
        assert call.token is not None
        door = call.deps.traces
        with door.reading(scope_of(call) or DEFAULT_TENANT):
            rows = door.keeper.rows(job.job_id, kind)
            try:
                first = await anext(rows, b"")  # what is refused is refused before the answer begins
            except BaseException:
                await rows.aclose()
                raise
            return await answer_stream(
                streams, call.request, call.token, call.deps.settings, _following(first, rows), LINES
            )

    handle.__name__ = f"send_{kind}"
    return handle


async def _following(first: bytes, rows: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        if first:
            yield first
        async for piece in rows:
            yield piece
    finally:
        await rows.aclose()


async def analyze_job(call: Call[AnalyzeQuery, NoBody]) -> Ready:
    """Where the time of a job went: a profile, a comparison with another job, or a what-if."""
    job, query = await the_job(call), call.query
    if query.other is not None and await call.deps.store.job(JobId(query.other), scope_of(call)) is None:
        raise CoordError(Code.NOT_FOUND, f"there is no job {query.other}", "coord job list shows those there are")
    without = tuple(text for text in query.without.split(",") if text)
    if query.format == "html" and (query.other or query.slots or without):
        raise CoordError(Code.BAD_REQUEST, "a page shows one run as it was", "leave other, slots and without away")
    if query.other is not None and (query.slots or without):
        raise CoordError(Code.BAD_REQUEST, "a comparison is of two runs as they were", "leave slots and without away")
    if len(without) > WITHOUT_MAX:
        raise CoordError(Code.BAD_REQUEST, f"{len(without)} tasks are named", f"name at most {WITHOUT_MAX}")
    door = call.deps.traces
    ask = AskTrace(
        job_id=job.job_id,
        other=JobId(query.other) if query.other is not None else None,
        slots=query.slots,
        without=without,
        format=query.format,
        rows=query.rows,
    )
    tenant = scope_of(call) or DEFAULT_TENANT
    async with door.turn(tenant):
        began_s = time.perf_counter()
        try:
            answer = await door.keeper.analyze(ask)
        except CoordError as error:
            if error.code is Code.TIMEOUT:  # it had begun, and did not end
                door.took(tenant, time.perf_counter() - began_s)
            _analysis(call.deps, "failed", time.perf_counter() - began_s)
            raise
        door.took(tenant, answer.took_s)
        _analysis(call.deps, "cached" if answer.cached else "made", time.perf_counter() - began_s)
    if query.format == "html":
        return Ready(
            body=answer.body,
            media="text/html; charset=utf-8",
            headers={POLICY: answer.policy} if answer.policy else {},
        )
    return Ready(body=answer.body)


def _analysis(deps: ApiDeps, result: str, took_s: float) -> None:
    counters = deps.traces.counters
    counters.analyses[result] = counters.analyses.get(result, 0) + 1
    if result != "cached":
        counters.analysis_s += took_s
