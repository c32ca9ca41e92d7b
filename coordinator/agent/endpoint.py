"""What a running attempt may ask of its agent: a small HTTP server on loopback, one bearer token per attempt.

Deny by default: without the token of an attempt that is held here and runs, nothing is told, not even which paths
exist. A token opens its own attempt alone and dies with the lease. Bodies are not read before they are wanted.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, TypeVar

import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from coordinator import wire
from coordinator.agent import channel, otlp, progress
from coordinator.agent.asking import Whose
from coordinator.agent.attempts import Attempts
from coordinator.agent.courier import NotSaved
from coordinator.agent.log import logger
from coordinator.agent.logship import Key
from coordinator.agent.progress import Report
from coordinator.agent.secret import read_secret
from coordinator.agent.tending import Tending
from coordinator.agent.trace_spool import Full
from coordinator.agent.tracing import Tracing
from coordinator.core.ids import attempt_of, dotted

CONNECTIONS_MAX = 256
"""Open at once. One more closes the oldest: attempts may not use up the files that the agent needs."""
KEEPALIVE_S = 15.0
LINGERING_S = 1.0
"""A body that nobody wants is read for so long, so that the answer arrives; then the connection is closed."""
HEAD_BYTES_MAX = 8_190
BODY_BYTES_MAX = 16 * 1024
BODY_S = 10.0
"""A body that takes longer to come is not waited for."""
NOT_YET = ("/v1/attempt/artifacts",)
"""Paths that attempts will have, and have not yet."""
TRACES = "/v1/traces"
POSTS = ("/v1/attempt/progress", "/v1/attempt/checkpoints", TRACES)
FULL_S = 10
"""Who is told that there is no room for traces now is asked to try again after so long."""
B = TypeVar("B")
_HEADERS = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Server": "coord"}


_Name = Annotated[str, Meta(min_length=1, max_length=progress.NAME_CHARS_MAX)]


class AttemptAnswer(Struct, frozen=True, kw_only=True):
    """The answer to GET /v1/attempt."""

    attempt: str
    job: int
    task: str
    rank: int
    nodes: int
    state: str
    """`running` or `frozen`: who asks is running, or was when it asked."""


class ProgressReport(Struct, frozen=True, kw_only=True):
    """Body of POST /v1/attempt/progress: something of it."""

    fraction: wire.Share | None = None
    values: Annotated[dict[_Name, _Name], Meta(max_length=progress.VALUES_MAX)] = {}
    text: Annotated[str, Meta(max_length=progress.TEXT_CHARS_MAX)] = ""


class CheckpointCall(Struct, frozen=True, kw_only=True):
    """Body of POST /v1/attempt/checkpoints: the files in the checkpoint directory are whole, save them."""

    label: Annotated[str, Meta(max_length=200)] = ""
    wait: bool = True
    """Answer when it counts; else as soon as the files were copied and may be changed."""


class Problem(Struct, frozen=True, kw_only=True):
    """RFC 9457."""

    status: int
    title: str
    code: str
    detail: str


_PROGRESS = msgspec.json.Decoder(ProgressReport)
_CHECKPOINT = msgspec.json.Decoder(CheckpointCall)


class AttemptEndpoint:
    """Serves the attempts of `book` on a socket that listens already; `tending` and `tracing` do what they ask for."""

    def __init__(self, book: Attempts, tending: Tending, tracing: Tracing) -> None:
        self._book = book
        self._tending = tending
        self._tracing = tracing
        self._known: dict[bytes, tuple[Key, int]] = {}
        """Attempt and rank, and of how many nodes, by the digest of the token."""
        self._read: set[Key] = set()
        """Whose tokens were looked for: files are read again when other attempts run, not for every wrong token."""

    @asynccontextmanager
    async def serve(self, listener: socket.socket) -> AsyncIterator[None]:
        """Answer while the block runs. The socket stays open: the next daemon goes on with it."""
        server = _Server(self._answer)
        running = await asyncio.get_running_loop().create_server(server, sock=listener.dup())
        try:
            yield
        finally:
            running.close()
            await server.shutdown(timeout=0.5)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        who = await self._who(request.headers.get("Authorization", ""))
        if who is None:
            return _problem(401, "unauthenticated", "this takes the token in COORD_ATTEMPT_TOKEN_FILE, as Bearer")
        match request.path, request.method:
            case "/v1/attempt", "GET":
                return _json(200, who)
            case "/v1/attempt", _:
                return _problem(405, "method_not_allowed", "GET is all that this path knows", Allow="GET")
            case "/v1/attempt/progress", "POST":
                return await self._on_progress(request, who)
            case "/v1/attempt/checkpoints", "POST":
                return await self._on_checkpoint(request, who)
            case "/v1/traces", "POST":
                return await self._on_traces(request, who)
            case path, _ if path in POSTS:
                return _problem(405, "method_not_allowed", "POST is all that this path knows", Allow="POST")
            case path, _ if path in NOT_YET:
                return _problem(501, "not_built", f"{path} is not built yet: nothing was kept of what you sent")
            case _:
                return _problem(404, "not_found", "an attempt is asked for at /v1/attempt")

    async def _on_progress(self, request: web.BaseRequest, who: AttemptAnswer) -> web.StreamResponse:
        said = await _body(request, _PROGRESS)
        if isinstance(said, web.Response):
            return said
        words = [*said.values, *said.values.values(), said.text]
        if not all(word.isprintable() for word in words):
            return _problem(400, "bad_request", "values and text are to be printable")
        if said.fraction is None and not any(words):
            return _problem(400, "bad_request", "nothing is said: give a fraction, values or text")
        now = self._book.running().get((who.attempt, who.rank))
        if now is not None:
            report = Report(fraction=said.fraction, values=tuple(said.values.items()), text=said.text)
            self._tending.on_report((who.attempt, who.rank), now.token, report)
        return web.Response(status=204, headers=_HEADERS)

    async def _on_checkpoint(self, request: web.BaseRequest, who: AttemptAnswer) -> web.StreamResponse:
        asked = await _body(request, _CHECKPOINT)
        if isinstance(asked, web.Response):
            return asked
        try:
            saved = await self._tending.call((who.attempt, who.rank), asked.label, asked.wait)
        except NotSaved as error:
            return _problem(409, "not_saved", str(error))
        return _json(201 if saved.number is not None else 202, saved)

    async def _on_traces(self, request: web.BaseRequest, who: AttemptAnswer) -> web.StreamResponse:
        """What its exporter has: kept here when this answers, on its way to the coordinator from then on."""
        now = self._book.running().get((who.attempt, who.rank))
        if not self._tracing.on or now is None:
            return _problem(404, "not_found", "this agent keeps no traces (agent.trace)")
        try:
            media = otlp.media_type(request.headers.get("Content-Type", ""))
            encoding = otlp.encoding(request.headers.get("Content-Encoding", ""))
            body = await _bytes_of(request, otlp.BODY_BYTES_MAX)
            if isinstance(body, web.Response):
                return body
            otlp.check(body, media, encoding)
            if body:
                await self._tracing.post(Whose(who.attempt, who.rank, now.token), body, media, encoding)
        except otlp.NotOtlp as error:
            return _problem(error.status, "bad_request", str(error))
        except Full as full:
            if full.for_good:
                return _problem(413, "too_large", str(full))
            return _problem(503, "unavailable", str(full), **{"Retry-After": str(FULL_S)})
        return web.Response(status=200, body=otlp.answer(media), content_type=media, headers=_HEADERS)

    async def _who(self, authorization: str) -> AttemptAnswer | None:
        """Whose token it is, if its lease is alive. Every token that is known is compared, whichever it is."""
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() != "bearer" or not token:
            return None
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        running = self._book.running()
        if digest not in self._known and self._read != set(running):
            self._known = await asyncio.to_thread(_digests, list(running.values()))
            self._read = set(running)
        found = [known for at, known in self._known.items() if hmac.compare_digest(at, digest)]
        now = running.get(found[0][0]) if found else None
        if now is None:
            return None
        attempt_id = attempt_of(now.attempt)
        return AttemptAnswer(
            attempt=now.attempt,
            job=attempt_id[0],
            task=dotted(attempt_id[:3]),
            rank=now.rank,
            nodes=found[0][1],
            state=now.phase,
        )


class _Connection(web.RequestHandler):
    """One connection."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What is no HTTP is answered in one line and logged nowhere: a program here may send what it likes."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was under way already")
        if status >= 500:
            logger.error("the endpoint of attempts failed to answer", exc_info=exc)
            return _problem(500, "internal", "the agent failed to answer; its log tells why")
        return _problem(400, "bad_request", "this is no HTTP request that can be understood")


class _Server(web.Server):
    """Bounds how many connections there are."""

    def __init__(self, answer: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(answer)
        self._open: dict[web.RequestHandler, asyncio.Transport] = {}

    def __call__(self) -> web.RequestHandler:
        return _Connection(
            self,
            loop=asyncio.get_running_loop(),
            keepalive_timeout=KEEPALIVE_S,
            lingering_time=LINGERING_S,
            max_field_size=HEAD_BYTES_MAX,
            auto_decompress=False,
        )

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._open[handler] = transport
        if len(self._open) > CONNECTIONS_MAX:
            self._open.pop(next(iter(self._open))).abort()

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        self._open.pop(handler, None)
        super().connection_lost(handler, exc)


async def _body(request: web.BaseRequest, decoder: msgspec.json.Decoder[B]) -> B | web.Response:
    """What was sent, or the answer that refuses it. Nothing at all is an empty object."""
    data = await _bytes_of(request, BODY_BYTES_MAX)
    if isinstance(data, web.Response):
        return data
    try:
        return decoder.decode(data or b"{}")
    except (msgspec.DecodeError, RecursionError) as error:
        return _problem(400, "bad_request", f"the body is not understood: {error}")


async def _bytes_of(request: web.BaseRequest, most: int) -> bytes | web.Response:
    """The body, or the answer that refuses it."""
    found = bytearray()
    too_large = _problem(413, "too_large", f"at most {most} bytes are read")
    if (request.content_length or 0) > most:
        return too_large
    try:
        async with asyncio.timeout(BODY_S):
            async for piece in request.content.iter_any():
                found += piece
                if len(found) > most:
                    return too_large
    except TimeoutError:
        return _problem(408, "timeout", f"the body did not come within {BODY_S:.0f} s")
    return bytes(found)


def _digests(running: list[channel.Now]) -> dict[bytes, tuple[Key, int]]:
    """The digests of the tokens of these attempts, read from their directories."""
    secrets = [(now, read_secret(now.directory)) for now in running]
    return {
        hashlib.sha256(secret.text.encode()).digest(): ((now.attempt, now.rank), secret.nodes)
        for now, secret in secrets
        if secret is not None
    }


def _json(status: int, body: Struct, content_type: str = "application/json", **headers: str) -> web.Response:
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type=content_type, headers={**_HEADERS, **headers}
    )


def _problem(status: int, code: str, detail: str, **headers: str) -> web.Response:
    told = Problem(status=status, title=code.replace("_", " "), code=code, detail=detail)
    response = _json(status, told, "application/problem+json", **headers)
    if status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    response.force_close()
    return response
