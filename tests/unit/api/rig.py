"""The whole HTTP side on a real loopback port: real engine, views, links and writer; store and analytics are fakes."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import aiohttp
import msgspec
import uvloop
from aiohttp import web
from yarl import URL

from coordinator.core import events
from coordinator.core.commands import Put
from coordinator.core.ids import Ms, PoolName, ProviderId, RequestId, TenantName, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import Role, TenantRow, TokenRow
from coordinator.core.state import ClusterState
from coordinator.ports.attribution import Launchers
from coordinator.ports.blobs import BlobStore
from coordinator.service.agents import AgentLinks
from coordinator.service.alerts import Alerts
from coordinator.service.api import ApiDeps, ApiSettings, build_app
from coordinator.service.api.connections import ApiRunner
from coordinator.service.clock import ObservedClock
from coordinator.service.data.gate import Gate, GateSettings
from coordinator.service.data.plane import DataPlane
from coordinator.service.data.settings import DataSettings
from coordinator.service.engine import Engine, EngineSettings
from coordinator.service.feed import Feed
from coordinator.service.heartbeats import HeartbeatSettings, HeartbeatWriter
from coordinator.service.link_settings import LinkSettings
from coordinator.service.metric_values import Metrics
from coordinator.service.recorder import Recorder
from coordinator.service.relay.relay import Relay
from coordinator.service.tokens import digest_of
from coordinator.service.traces import TraceDoor, TraceDoorSettings
from coordinator.service.views import LiveViews
from tests.fakes import FakeAnalytics, FakeTraces, GatedStore

PATIENCE_S = 60.0
URL_KEY = b"k" * 32
ADMIN, READER, TENANT, JOIN = "coord-admin-x", "coord-read-only-x", "coord-tenant-x", "coord-join-x"
REVOKED, EXPIRED = "coord-admin-revoked", "coord-admin-expired"
TOKENS: dict[str, Role] = {ADMIN: Role.ADMIN, READER: Role.READ_ONLY, TENANT: Role.TENANT, JOIN: Role.JOIN}


@dataclass(frozen=True)
class Got:
    """An answer, whole."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return msgspec.json.decode(self.body)

    @property
    def code(self) -> str:
        """Of a problem; it has to be one."""
        assert self.headers["Content-Type"] == "application/problem+json", self.body
        problem = self.json
        assert problem["status"] == self.status and problem["type"] == f"urn:coord:error:{problem['code']}"
        return str(problem["code"])


class AheadClock(ObservedClock):
    """The observed clock, which a test may move ahead."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_ms: Ms = 0

    def now_ms(self) -> Ms:
        return super().now_ms() + self.ahead_ms

    def monotonic_s(self) -> float:
        return super().monotonic_s() + getattr(self, "ahead_ms", 0) / 1_000


@dataclass
class Rig:
    """What runs, and shortcuts to it."""

    deps: ApiDeps
    store: GatedStore
    analytics: FakeAnalytics
    traces: FakeTraces
    clock: AheadClock
    engine: Engine
    views: LiveViews
    writer: HeartbeatWriter
    alerts: Alerts
    app: web.Application
    lag_ms: list[float]
    runner: ApiRunner
    url: str = ""
    http: aiohttp.ClientSession = field(init=False)

    def connections(self) -> list[web.RequestHandler]:
        """Open HTTP connections."""
        assert self.runner.server is not None
        return [connection for connection in self.runner.server.connections if connection.transport is not None]

    async def ask(
        self,
        method: str,
        path: str,
        token: str | None = ADMIN,
        *,
        json: object = None,
        data: bytes | IO[bytes] | None = None,
        headers: dict[str, str] | None = None,
        read: bool = True,
    ) -> Got:
        """One request; `path` is sent as it is. Without `read` the body is left alone: a stream may have no end."""
        out = dict(headers or {})
        if token is not None:
            out["Authorization"] = f"Bearer {token}"
        if json is not None:
            data = msgspec.json.encode(json)
            out.setdefault("Content-Type", "application/json")
        url = URL(self.url + path, encoded=True)
        async with self.http.request(method, url, data=data, headers=out, allow_redirects=False) as response:
            return Got(response.status, response.headers, await response.read() if read else b"")

    async def get(self, path: str, token: str | None = ADMIN, **more: Any) -> Got:
        return await self.ask("GET", path, token, **more)

    async def post(self, path: str, json: object = None, token: str | None = ADMIN, **more: Any) -> Got:
        return await self.ask("POST", path, token, json=json, **more)

    async def call(self, make: Callable[[RequestId], events.AnyEvent]) -> Any:
        return await self.engine.call(make)

    async def enrol(self, provider_id: str = "a", pool: str | None = None) -> str:
        """Enrol a provider and return its credential."""
        credential = f"credential of {provider_id}"
        await self.call(
            lambda request_id: events.ProviderEnrol(
                at_ms=self.clock.now_ms(),
                request_id=request_id,
                provider_id=ProviderId(provider_id),
                machine_id=f"machine-{provider_id}",
                token_digest=digest_of(ADMIN),
                credential_digest=digest_of(credential),
                credential_id=TokenId(f"cred-{provider_id}"),
                pool=PoolName(pool) if pool is not None else None,
            )
        )
        return credential

    async def make_tenant(self, name: str, **more: Any) -> None:
        """A tenant, unless it is there already."""
        got = await self.post("/v1/tenants", {"name": name, **more})
        assert got.status in (201, 409), got.body

    async def tenant_token(self, tenant: str, role: Role = Role.TENANT) -> str:
        """A token of a tenant, which is made if it has to be."""
        await self.make_tenant(tenant)
        return str((await self.post("/v1/tokens", {"role": role.value, "tenant": tenant})).json["token"])

    async def make_pool(self, name: str) -> None:
        await self.call(
            lambda request_id: events.PoolCreate(at_ms=self.clock.now_ms(), request_id=request_id, name=PoolName(name))
        )


def first_tokens(now_ms: Ms) -> list[TokenRow]:
    """One token of each role, a revoked and an expired one."""
    rows = [
        TokenRow(
            token_id=TokenId(f"t-{role.value}"),
            role=role,
            digest=digest_of(text),
            created_at_ms=now_ms - 10_000,
            tenant="physics" if role is Role.TENANT else None,
        )
        for text, role in TOKENS.items()
    ]
    for text, revoked, expires in ((REVOKED, now_ms - 5_000, None), (EXPIRED, None, now_ms - 5_000)):
        rows.append(
            TokenRow(
                token_id=TokenId(text[-7:]),
                role=Role.ADMIN,
                digest=digest_of(text),
                created_at_ms=now_ms - 10_000,
                revoked_at_ms=revoked,
                expires_at_ms=expires,
            )
        )
    return rows


@asynccontextmanager
async def a_service(
    settings: ApiSettings | None = None,
    data_settings: DataSettings | None = None,
    blobs: BlobStore | None = None,
    launchers: Launchers | None = None,
    trace_settings: TraceDoorSettings | None = None,
) -> AsyncIterator[Rig]:
    """A served API with one token of each role; everything ends with the block. `blobs`: kept elsewhere than in
    memory."""
    store, analytics, clock, views, lag_ms = GatedStore("c-test"), FakeAnalytics(), AheadClock(), LiveViews(), [0.0]
    physics = TenantRow(name=TenantName("physics"), created_at_ms=clock.now_ms() - 10_000)
    await store.commit([Put(physics), *(Put(row) for row in first_tokens(clock.now_ms()))])
    loaded = await store.load()
    state = ClusterState.load("c-test", loaded.rows, loaded.next_session_id, loaded.next_key)
    engine = Engine(store, clock, views, Policy(), EngineSettings(), Recorder(Path(os.devnull), 0), state)
    writer = HeartbeatWriter(store, clock, HeartbeatSettings())
    alerts = Alerts(clock.now_ms)
    views.listen(alerts.on_note)
    relay = Relay(store.logs, store, views, clock)
    gate = Gate(GateSettings(), lambda tenant: 1.0, clock.monotonic_s)
    data = DataPlane(engine, store, blobs or store.blob_files, gate, data_settings or DataSettings(), URL_KEY)
    aside = tempfile.TemporaryDirectory(prefix="bodies-")
    traces = FakeTraces()
    trace_door = TraceDoor(traces, Path(aside.name), trace_settings or TraceDoorSettings(), clock)
    deps = ApiDeps(
        engine=engine,
        views=views,
        store=store,
        analytics=analytics,
        links=AgentLinks(engine, writer, relay, LinkSettings(), "c-test", "0.0-test"),
        heartbeats=writer,
        metrics=Metrics(),
        alerts=alerts,
        relay=relay,
        feed=Feed(views, store),
        logs=store.logs,
        data=data,
        traces=trace_door,
        settings=settings if settings is not None else ApiSettings(failures_burst=100_000),
        version="0.0-test",
        coordinator_id="c-test",
        loop_lag=lambda: lag_ms[0],
        launchers=launchers,
    )
    app = build_app(deps)
    runner = ApiRunner(app, access_log=None, shutdown_timeout=1.0)
    rig = Rig(deps, store, analytics, traces, clock, engine, views, writer, alerts, app, lag_ms, runner)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        rig.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        async with asyncio.TaskGroup() as group, aiohttp.ClientSession() as rig.http:
            running = group.create_task(engine.run())
            group.create_task(relay.run())
            moving = group.create_task(data.run())
            engine.post(events.Boot(at_ms=clock.now_ms()))
            try:
                yield rig
            finally:
                data.close()
                moving.cancel()
                await engine.stop()
                await relay.close()
                await asyncio.wait_for(asyncio.shield(running), PATIENCE_S)
    finally:
        await runner.cleanup()
        aside.cleanup()


def served(
    test: Callable[[Rig], Awaitable[None]],
    settings: ApiSettings | None = None,
    patience_s: float = 2 * PATIENCE_S,
    data_settings: DataSettings | None = None,
    blobs: BlobStore | None = None,
    uv: bool = False,
    launchers: Launchers | None = None,
    trace_settings: TraceDoorSettings | None = None,
) -> None:
    """Run `test` against a fresh service. `uv`: on the loop that `coord serve` runs on."""

    async def run() -> None:
        async with (
            asyncio.timeout(patience_s),
            a_service(settings, data_settings, blobs, launchers, trace_settings) as rig,
        ):
            await test(rig)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if uv else None) as runner:
            runner.run(run())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None
