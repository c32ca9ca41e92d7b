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
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from multidict import MultiMapping

from analytics.attribution.desk.contract import ErrorCode, Refused, submission
from analytics.attribution.desk.desk import Desk
from analytics.attribution.desk.measures import exposition

log = logging.getLogger("coord.attribution")
T = TypeVar("T")
BODY_BYTES_MAX = 64 * 1024
BODY_S = 10.0
WAITING_MAX = 64
"""GETs that wait for a verdict; the next is told to come again."""
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
RATES = {"POST": (50.0, 200.0), "GET": (200.0, 800.0), "DELETE": (50.0, 200.0)}
"""Requests a second, and how many may come at once, of all clients together."""
_TRUE, _FALSE = frozenset({"1", "true", "yes", "on", "t", "y"}), frozenset({"0", "false", "no", "off", "f", "n"})


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
        self.app.router.add_post("/logs", self._submit)
        self.app.router.add_get("/logs", self._get, allow_head=False)
        self.app.router.add_delete("/logs", self._delete)
        for path, say in (("/healthz", desk.health), ("/stats", desk.stats), ("/jobs", desk.jobs),
                          ("/inflight", desk.inflight)):  # fmt: skip
            self.app.router.add_get(path, self._saying(say), allow_head=False)
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
            return _refusal(refused)
        except web.HTTPException as error:
            return _refusal(_of_aiohttp(error))
        except Exception:
            log.exception("a request failed")
            return _refusal(Refused(ErrorCode.INTERNAL_ERROR, "this is a fault of ours; it is in the log"))

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

    async def _submit(self, request: web.Request) -> web.StreamResponse:
        if request.content_type != "application/json":
            raise Refused(ErrorCode.UNPROCESSABLE, "the body must be application/json")
        try:
            async with asyncio.timeout(BODY_S):
                body = await request.read()
        except TimeoutError:
            raise Refused(ErrorCode.UNPROCESSABLE, f"the body did not come within {BODY_S:.0f} s") from None
        asked = submission(body)
        return _json(await self._run(self._quick, lambda: self._desk.submit(asked)))

    async def _get(self, request: web.Request) -> web.StreamResponse:
        query = request.query
        path, wait = _path(query), _flag(query, "wait", True)
        file, wl_restart = query.get("file"), _count(query, "wl_restart")

        def ask() -> Any:
            return self._desk.get(path, wait=wait, file=file, wl_restart=wl_restart)

        if not wait:
            return _json(await self._run(self._quick, ask))
        if self._waiting >= WAITING_MAX:
            raise Refused(ErrorCode.UNAVAILABLE, f"{self._waiting} requests wait already; ask again in a moment")
        self._waiting += 1
        try:
            return _json(await self._run(self._patient, ask))
        finally:
            self._waiting -= 1

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        path = _path(request.query)
        return _json(await self._run(self._quick, lambda: self._desk.delete(path)))

    def _saying(self, say: Callable[[], dict[str, Any]]) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handler(request: web.Request) -> web.StreamResponse:
            return _json(await self._run(self._quick, say))

        return handler

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


def _path(query: MultiMapping[str]) -> str:
    path = query.get("log_path", "")
    if not path:
        raise Refused(ErrorCode.UNPROCESSABLE, "log_path is missing")
    return path


def _flag(query: MultiMapping[str], name: str, default: bool) -> bool:
    text = query.get(name)
    if text is None:
        return default
    if text.lower() not in _TRUE | _FALSE:
        raise Refused(ErrorCode.UNPROCESSABLE, f"{name} is true or false")
    return text.lower() in _TRUE


def _count(query: MultiMapping[str], name: str) -> int | None:
    text = query.get(name)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise Refused(ErrorCode.UNPROCESSABLE, f"{name} is a whole number from 0")
    return int(text)


def _json(answer: object, status: int = 200) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode(answer), content_type="application/json")


def _refusal(refused: Refused) -> web.Response:
    response = _json(refused.body, refused.status)
    if refused.status in (429, 503):
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
