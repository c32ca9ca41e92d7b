"""Answers that stay open: bounded in number, ended when their token is, and cut when nobody reads them.

A stream that outlives its token would be a hole; here one clock of each stream is set to the token's expiry, and to
now when it is revoked or the coordinator stops.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, NamedTuple

from aiohttp import web

from coordinator.core import commands
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TokenId
from coordinator.core.rows import TokenRow
from coordinator.ports.clock import Clock
from coordinator.service.api.settings import ApiSettings
from coordinator.service.api.wholeness import whole
from coordinator.service.views import LiveViews

EVENT_STREAM = "text/event-stream"
LAST_ID = "Last-Event-ID"
HERE = b": here\n\n"
"""Said when there is nothing to say: both sides learn whether the other one is still there."""


class ServerEvent(NamedTuple):
    """One event of a stream. `data` is one line; `id` says from where to go on after it."""

    data: bytes
    id: str
    name: str = ""

    def encoded(self) -> bytes:
        name = f"event: {self.name}\n".encode() if self.name else b""
        return b"id: %b\n%bdata: %b\n\n" % (self.id.encode(), name, self.data)


class _Open:
    """One answer that stays open."""

    def __init__(self, token_id: TokenId, clock: asyncio.Timeout) -> None:
        self.token_id = token_id
        self.clock = clock
        self.why = CoordError(
            Code.UNAUTHENTICATED, "this token has expired", "have an admin make one: coord token create"
        )

    def cut(self, why: CoordError) -> None:
        """End it at once, whatever it waits for."""
        self.why = why
        with suppress(RuntimeError):  # it has ended by itself, and its owner has not run yet
            self.clock.reschedule(asyncio.get_running_loop().time())


class OpenStreams:
    """Every answer that stays open. Bounds: `streams_max` in all, `streams_per_token_max` of one token."""

    def __init__(self, views: LiveViews, settings: ApiSettings, clock: Clock) -> None:
        self._views = views
        self._settings = settings
        self._clock = clock
        self._open: dict[TokenId, set[_Open]] = {}
        self._count = 0
        self._stopping = False
        views.listen(self._on_note, commands.TokenChanged, commands.TokenForgotten)

    def __len__(self) -> int:
        return self._count

    def _on_note(self, note: commands.Note) -> None:
        match note:
            case commands.TokenChanged(row=row) if row.revoked_at_ms is not None:
                self._cut(row.token_id)
            case commands.TokenForgotten(row=row):
                self._cut(row.token_id)
            case _:
                pass

    def _cut(self, token_id: TokenId) -> None:
        for one in self._open.get(token_id, ()):
            one.cut(CoordError(Code.UNAUTHENTICATED, "this token was revoked", "use another one"))

    async def close(self, app: web.Application) -> None:
        """The coordinator stops: end them all, and let no other begin."""
        self._stopping = True
        for ones in self._open.values():
            for one in ones:
                one.cut(_stopping())

    @asynccontextmanager
    async def held(self, token: TokenRow) -> AsyncIterator[None]:
        """While the block runs it is one of the open ones. When it is cut, the block ends with the CoordError that
        says why: UNAUTHENTICATED or SHUTTING_DOWN. TOO_MANY when there is no room."""
        self._admit(token)
        loop = asyncio.get_running_loop()
        until_s = None
        if token.expires_at_ms is not None:
            until_s = loop.time() + (token.expires_at_ms - self._clock.now_ms()) / 1_000
        clock = asyncio.timeout_at(until_s)
        one = _Open(token.token_id, clock)
        self._open.setdefault(token.token_id, set()).add(one)
        self._count += 1
        try:
            async with clock:
                yield
        except TimeoutError:
            if clock.expired():
                raise one.why from None
            raise
        finally:
            self._count -= 1
            mine = self._open[token.token_id]
            mine.discard(one)
            if not mine:
                del self._open[token.token_id]

    def _admit(self, token: TokenRow) -> None:
        if self._stopping:
            raise _stopping()
        now = self._views.tokens.get(token.token_id)
        if now is None or now.revoked_at_ms is not None:
            raise CoordError(Code.UNAUTHENTICATED, "this token was revoked", "use another one")
        settings = self._settings
        mine = len(self._open.get(token.token_id, ()))
        if self._count >= settings.streams_max or mine >= settings.streams_per_token_max:
            raise CoordError(
                Code.TOO_MANY,
                f"{mine} answers of this token stay open already, {self._count} in all",
                f"end one; at most {settings.streams_per_token_max} of a token, {settings.streams_max} in all",
            )


def _stopping() -> CoordError:
    return CoordError(Code.SHUTTING_DOWN, "the coordinator is stopping", "try again in a few seconds")


async def answer_stream(
    streams: OpenStreams,
    request: web.Request,
    token: TokenRow,
    settings: ApiSettings,
    source: AsyncGenerator[bytes, None],
    media: str,
    idle: bytes = b"",
) -> web.StreamResponse:
    """Write what comes of `source` until it ends, `idle` whenever nothing came for `streams_idle_s`.

    A reader that takes nothing for `streams_stall_s` is cut.
    """
    response = web.StreamResponse(headers={"Content-Type": media, "X-Accel-Buffering": "no"})
    async with (
        whole(request, response),
        streams.held(token),
        aclosing(source),
        aclosing(_with_idle(source, settings.streams_idle_s, idle)) as pieces,
    ):
        await response.prepare(request)
        async for piece in pieces:
            async with asyncio.timeout(settings.streams_stall_s):
                await response.write(piece)
        await response.write_eof()
    return response


async def _with_idle(source: AsyncGenerator[bytes, None], idle_s: float, idle: bytes) -> AsyncGenerator[bytes, None]:
    """What comes, and `idle` whenever nothing came for `idle_s`; nothing is said where that says nothing."""
    coming: asyncio.Future[bytes | None] | None = None
    try:
        while True:
            if coming is None:
                coming = asyncio.ensure_future(anext(source, None))
            done, _ = await asyncio.wait((coming,), timeout=idle_s)
            if not done:
                if idle:
                    yield idle
                continue
            piece, coming = coming.result(), None
            if piece is None:
                return
            yield piece
    finally:
        if coming is not None:
            await over(coming)


async def over(task: asyncio.Future[Any]) -> None:
    """Cancel a task of ours and wait for its end, however it ends."""
    task.cancel()
    await asyncio.wait((task,))
    if not task.cancelled():
        task.exception()


def wants_events(request: web.Request) -> bool:
    """Whether this request asks for an event stream."""
    return EVENT_STREAM in request.headers.get("Accept", "")
