"""The desk over HTTP, without tokens: for a socket that only its owner may open, or loopback.

Requests of pages are refused (Origin), and over TCP those for another host than loopback. Bodies, rates and what waits
are bounded. Every refusal has one shape: `{error_code, message, details}`.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web

from analytics.attribution.desk.calls import carry_out, refusal, waits
from analytics.attribution.desk.contract import ErrorCode, Refused
from analytics.attribution.desk.desk import Desk
from analytics.attribution.desk.measures import exposition
from coordinator.ports.attribution import LauncherAnswer, LauncherCall

log = logging.getLogger("coord.attribution")
T = TypeVar("T")
BODY_BYTES_MAX = 64 * 1024
BODY_S = 10.0
WAITING_MAX = 64
"""GETs that wait for a verdict; the next is told to come again."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
RATES = {"POST": (50.0, 200.0), "GET": (200.0, 800.0), "DELETE": (50.0, 200.0)}
"""Requests a second, and how many may come at once, of all clients together."""


class Front:
    """`app` is what is served; `loopback` says that it is served over TCP."""

    def __init__(self, desk: Desk, *, loopback: bool) -> None:
        self._desk = desk
        self._loopback = loopback
        self._quick = ThreadPoolExecutor(4, thread_name_prefix="desk")
        self._patient = ThreadPoolExecutor(WAITING_MAX, thread_name_prefix="desk-wait")
        self._waiting = 0
        self._buckets = {method: _Bucket(*rate) for method, rate in RATES.items()}
        self.app = web.Application(middlewares=[self._middleware], client_max_size=BODY_BYTES_MAX)
        self.app.router.add_post("/logs", self._call)
        self.app.router.add_delete("/logs", self._call)
        for path in ("/logs", "/healthz", "/stats", "/jobs", "/inflight"):
            self.app.router.add_get(path, self._call, allow_head=False)
        self.app.router.add_get("/metrics", self._metrics, allow_head=False)
        self.app.on_cleanup.append(self._close)

    async def _close(self, app: web.Application) -> None:
        self._quick.shutdown(wait=False, cancel_futures=True)
        self._patient.shutdown(wait=False, cancel_futures=True)

    # ---- every request

    @web.middleware
    async def _middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            self._check(request)
            return await handler(request)
        except Refused as refused:
            return _response(refusal(refused))
        except web.HTTPException as error:
            return _response(refusal(_of_aiohttp(error)))
        except Exception:
            log.exception("a request failed")
            return _response(refusal(Refused(ErrorCode.INTERNAL_ERROR, "this is a fault of ours; it is in the log")))

    def _check(self, request: web.Request) -> None:
        if "Origin" in request.headers:
            raise Refused(ErrorCode.FORBIDDEN, "pages may not ask here")
        host = (request.host or "").rpartition(":")[0] if _has_port(request.host) else request.host
        if self._loopback and host not in LOOPBACK:
            raise Refused(ErrorCode.FORBIDDEN, "this host is not served here: ask 127.0.0.1")
        bucket = self._buckets.get(request.method)
        if bucket is not None and not bucket.take():
            raise Refused(ErrorCode.TOO_MANY_REQUESTS, "too many requests; try again in a second")

    # ---- routes

    async def _call(self, request: web.Request) -> web.StreamResponse:
        """A route of the desk: what it waits for, it waits for in a thread."""
        call = LauncherCall(
            method=request.method, route=request.path, query=dict(request.query), body=await self._body(request)
        )
        if not waits(call):
            return await self._carried_out(self._quick, call)
        if self._waiting >= WAITING_MAX:
            raise Refused(ErrorCode.UNAVAILABLE, f"{self._waiting} requests wait already; ask again in a moment")
        self._waiting += 1
        try:
            return await self._carried_out(self._patient, call)
        finally:
            self._waiting -= 1

    async def _body(self, request: web.Request) -> bytes:
        if request.method != "POST":
            return b""
        if request.content_type != "application/json":
            raise Refused(ErrorCode.UNPROCESSABLE, "the body must be application/json")
        try:
            async with asyncio.timeout(BODY_S):
                return await request.read()
        except TimeoutError:
            raise Refused(ErrorCode.UNPROCESSABLE, f"the body did not come within {BODY_S:.0f} s") from None

    async def _carried_out(self, pool: ThreadPoolExecutor, call: LauncherCall) -> web.StreamResponse:
        return _response(await self._run(pool, lambda: carry_out(self._desk, call)))

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        figures = await self._run(self._quick, self._desk.stats)
        return web.Response(text=exposition(figures), content_type="text/plain")

    async def _run(self, pool: ThreadPoolExecutor, what: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(pool, what)


class _Bucket:
    """So many a second, and so many at once."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate, self._burst, self._left, self._at = rate, burst, burst, time.monotonic()

    def take(self) -> bool:
        now = time.monotonic()
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _has_port(host: str | None) -> bool:
    return host is not None and ":" in host.rpartition("]")[2]


def _response(answer: LauncherAnswer) -> web.Response:
    response = web.Response(status=answer.status, body=answer.json, content_type="application/json")
    if answer.status in (429, 503):
        response.headers["Retry-After"] = "1"
    return response


def _of_aiohttp(error: web.HTTPException) -> Refused:
    match error.status:
        case 404:
            return Refused(ErrorCode.NOT_FOUND, "there is no such route")
        case 405:
            return Refused(ErrorCode.METHOD_NOT_ALLOWED, "this route has other methods")
        case 413:
            return Refused(ErrorCode.TOO_LARGE, f"the body has more than {BODY_BYTES_MAX} bytes")
        case _:
            return Refused(ErrorCode.INVALID_PARAMETER, error.reason)
