"""The application: every request goes the same way through the door, validation, its handler and out.

Errors become problem+json here and nowhere else; metrics of requests are counted here.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Awaitable, Callable

import msgspec
from aiohttp import web

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from coordinator.core.rows import TokenRow
from coordinator.service import measures, tenant_measures
from coordinator.service import metrics as m
from coordinator.service.api import bodies, door
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.openapi import ROUTES
from coordinator.service.api.problems import POLICY, SECURITY_HEADERS, from_aiohttp, problem_of, refusal, unexpected
from coordinator.service.api.query import parse_query
from coordinator.service.api.replays import REPLAYED, Replays, fingerprint, key_of
from coordinator.service.api.route import WITH_BODY, AnyRoute, Call, NoBody, Ready, Result
from coordinator.service.api.routes import routes
from coordinator.service.api.streams import OpenStreams
from coordinator.service.api.uploads import decode_body, read_body, receive_upload
from coordinator.service.data.measuring import data_source
from coordinator.service.data.signing import SignedQuery
from coordinator.service.queue_measures import queue_source
from coordinator.service.trace_measures import traces_source

log = logging.getLogger("coord.api")

NO_ROUTE = "none"
ADMITTED = web.RequestKey("admitted", TokenRow)
_encode = msgspec.json.Encoder().encode


def build_app(deps: ApiDeps) -> web.Application:
    """The HTTP side of one coordinator. Its metrics are wired to their sources here."""
    surface = _Surface(deps)
    app = web.Application(middlewares=[surface.middleware], client_max_size=deps.settings.body_bytes_max)
    app[ROUTES] = surface.table
    for route in surface.table:
        later = bodies.put_off if route.takes_bytes else None
        app.router.add_route(route.method, route.pattern, surface.handler(route), expect_handler=later)
    app.on_response_prepare.append(_add_headers)
    app.on_shutdown.append(surface.streams.close)
    _measure(deps)
    return app


def _measure(deps: ApiDeps) -> None:
    clock, metrics = deps.engine.clock, deps.metrics
    measures.count_notes(metrics, deps.views)
    tenant_measures.count_waits(metrics, deps.views)
    metrics.source(measures.fleet_source(deps.views, deps.alerts))
    metrics.source(measures.engine_source(deps.engine))
    metrics.source(measures.links_source(deps.links))
    metrics.source(measures.heartbeats_source(deps.heartbeats))
    metrics.source(measures.work_source(deps.engine, deps.views, deps.feed))
    metrics.source(tenant_measures.tenants_source(deps.engine))
    metrics.source(queue_source(deps.engine))
    metrics.source(measures.relay_source(deps.relay))
    metrics.source(data_source(deps.data, deps.engine))
    metrics.source(traces_source(deps.traces))
    metrics.source(measures.analytics_source(deps.analytics, clock))
    metrics.source(measures.process_source(clock, deps.loop_lag, deps.version, deps.coordinator_id))


async def _add_headers(request: web.Request, response: web.StreamResponse) -> None:
    policy = response.headers.get(POLICY)
    response.headers.update(SECURITY_HEADERS)
    if policy is not None:
        response.headers[POLICY] = policy  # a page of ours says itself what it may do


class _Surface:
    """What requests share: the table, who failed to come in, and answers that may be asked for again."""

    def __init__(self, deps: ApiDeps) -> None:
        self.streams = OpenStreams(deps.views, deps.settings, deps.engine.clock)
        self.table = routes(deps, self.streams)
        self._deps = deps
        self._clock = deps.engine.clock
        self._limiter = door.FailureLimiter(deps.settings, self._clock.monotonic_s)
        self._names = door.own_names(deps.settings)
        self._replays = Replays(deps.settings, self._clock.monotonic_s)
        self._static: dict[str, set[str]] = {}
        self._open = 0
        self._raw = {(route.method, route.path) for route in self.table if route.takes_bytes}
        for route in self.table:
            if "{" not in route.path:
                self._static.setdefault(route.path, set()).add(route.method)

    # ---- every request

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Measure it, and turn whatever goes wrong into a problem."""
        began_s = time.perf_counter()
        metrics = self._deps.metrics
        self._open += 1
        metrics.put(m.HTTP_OPEN, self._open)
        template = _template(request)
        status = 0
        try:
            response = await self._answer(request, handler)
            status = response.status
            if self._takes_bytes(request):
                await bodies.let_go(request, response)
            return response
        finally:
            self._open -= 1
            metrics.put(m.HTTP_OPEN, self._open)
            metrics.add(m.HTTP_REQUESTS, 1, request.method[:16], template, str(status))
            metrics.observe(m.HTTP_SECONDS, time.perf_counter() - began_s, template)

    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            door.check_target(request)
            door.check_host(request, self._names)
            door.check_origin(request)
            if self._takes_bytes(request):
                bodies.check_expect(request)
            self._check_exists(request)
            return await handler(request)
        except CoordError as error:
            return self._refuse(request, error)
        except web.HTTPException as error:
            allow = error.headers.get("Allow")
            return self._refuse(request, from_aiohttp(error), {"Allow": allow} if allow else None)
        except (ConnectionResetError, web.GracefulExit):
            raise
        except Exception as error:  # of one request: it is logged, counted and answered with 500
            self._deps.metrics.add(m.HTTP_PROBLEMS, 1, Code.INTERNAL.value)
            return unexpected(error)

    def _takes_bytes(self, request: web.Request) -> bool:
        """Whether its handler reads the body itself."""
        return request.method == "PUT" or (request.method, _template(request)) in self._raw

    def _check_exists(self, request: web.Request) -> None:
        """Who may not come in does not learn what there is; and a fixed path is never taken for a name."""
        methods = self._static.get(request.path)
        missing = request.match_info.http_exception
        if missing is None and (methods is None or request.method in methods):
            return
        self._admit(request)
        if methods is not None:
            raise web.HTTPMethodNotAllowed(request.method, methods)
        assert missing is not None
        raise missing

    def _refuse(self, request: web.Request, error: CoordError, headers: dict[str, str] | None = None) -> web.Response:
        self._note(request, error)
        metrics = self._deps.metrics
        metrics.add(m.HTTP_PROBLEMS, 1, error.code.value)
        for one in error.refusals:
            metrics.add(m.QUOTA_REFUSED, 1, one.dimension)
        if error.code is Code.STORE_BROKEN:
            self._deps.data.fail(error)
        if problem_of(error).status >= 500:
            log.warning("refused with %s: %s", error.code.value, error)
        return refusal(error, headers=headers)

    def _note(self, request: web.Request, error: CoordError) -> None:
        """What is refused of data is audited, with whoever was admitted."""
        what = request.path.removeprefix("/v1/").partition("/")[0]
        if what in ("uploads", "blobs", "attempts"):
            token: TokenRow | None = request.get(ADMITTED)
            by = ""
            if token is not None:
                by = f"agent:{token.provider_id}" if token.provider_id else f"token:{token.token_id}"
            tenant = TenantName(token.tenant or "") if token is not None else TenantName("")
            self._deps.data.refusals.note(error, what, by, tenant, request.path.removeprefix(f"/v1/{what}/"))

    def _admit(self, request: web.Request) -> TokenRow:
        try:
            token = door.authenticate(request, self._deps.views, self._limiter, self._clock.now_ms())
            request[ADMITTED] = token
            return token
        except CoordError:
            self._deps.metrics.add(m.AUTH_FAILED, 1)
            raise

    def _check_signature(self, request: web.Request, query: SignedQuery) -> None:
        try:
            door.check_signature(request, query, self._deps.data.signer, self._limiter, self._clock.now_ms())
        except CoordError:
            self._deps.metrics.add(m.AUTH_FAILED, 1)
            raise

    # ---- one route

    def handler(self, route: AnyRoute) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """The way of a request for `route`: token, role, query, body, then its handler."""

        async def handle(request: web.Request) -> web.StreamResponse:
            token = None
            if not isinstance(route.roles, str):
                token = self._admit(request)
                door.check_role(route, token)
            query = parse_query(request.rel_url.raw_query_string, route.query)
            if isinstance(query, SignedQuery):
                self._check_signature(request, query)
            if route.method not in WITH_BODY or route.takes_bytes:
                return await self._carry_out(route, request, token, query, NoBody())
            assert token is not None
            if route.takes_upload:
                return await self._take_upload(route, request, token, query)
            settings = self._deps.settings
            limit = settings.job_bytes_max if route.model is not None or route.long else settings.body_bytes_max
            raw = await read_body(request, settings, limit)
            token = self._admit(request)  # a body may be sent slowly, and its token be revoked meanwhile
            body = decode_body(raw, request.content_type if raw else "", route.body)
            digest = hashlib.sha256(raw).hexdigest()
            return await self._once(route, request, token, query, body, digest)

        return handle

    async def _take_upload(
        self, route: AnyRoute, request: web.Request, token: TokenRow, query: msgspec.Struct
    ) -> web.StreamResponse:
        upload = await receive_upload(request, self._deps.settings)
        with upload.file:
            token = self._admit(request)  # an upload takes long: its token may have been revoked meanwhile
            return await self._once(route, request, token, query, upload, upload.digest)

    async def _once(
        self, route: AnyRoute, request: web.Request, token: TokenRow, query: msgspec.Struct, body: object, digest: str
    ) -> web.StreamResponse:
        async def make() -> web.StreamResponse:
            try:
                return await self._carry_out(route, request, token, query, body)
            except CoordError as error:
                return self._refuse(request, error)

        key = key_of(request)
        if key is None or route.durable_keys:
            return await make()
        same = fingerprint(request.method, request.raw_path, digest)
        response = await self._replays.once(token.token_id, key, same, make)
        if REPLAYED in response.headers:
            self._deps.metrics.add(m.HTTP_REPLAYED, 1)
        return response

    async def _carry_out(
        self, route: AnyRoute, request: web.Request, token: TokenRow | None, query: msgspec.Struct, body: object
    ) -> web.StreamResponse:
        call = Call(deps=self._deps, request=request, token=token, query=query, body=body, now_ms=self._clock.now_ms())
        return _response(route, await route.handler(call))


def _template(request: web.Request) -> str:
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else NO_ROUTE


def _response(route: AnyRoute, result: Result) -> web.StreamResponse:
    if isinstance(result, web.StreamResponse):
        return result
    if result is None:
        return web.Response(status=204)
    if isinstance(result, Ready):
        headers = {"Content-Type": result.media, **result.headers}
        return web.Response(status=result.status, body=result.body, headers=headers)
    return web.Response(status=route.status, body=_encode(result), content_type="application/json")
