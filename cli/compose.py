"""The only composition root of `coord serve`: every real part is made and plugged in here, and nowhere else.

Start: lock, store, recovery, engine, links, analytics, API, listening port; only then the address is told.
Stop: agents are told, the port closes, what waits is written, the store closes, the lock goes.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import logging
import os
import resource
import secrets
from pathlib import Path
from typing import NamedTuple

import uvloop
from msgspec.structs import replace

from analytics.attribution.desk.rooted import Root
from analytics.attribution.desk.settings import DeskSettings
from analytics.attribution.engine import Rules
from analytics.attribution.following.settings import AttributionSettings
from analytics.link import LinkSettings as AnalyticsSettings
from analytics.link import WorkerLink
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.link import TraceLink
from cli import exits, logs
from cli.conditions import watch
from cli.config import Config
from cli.ending import at_once, is_fault, is_final, reason, record_on_signal, stop_signals
from cli.local_agent import LocalAgent
from cli.settings import ServeSettings
from coordinator.core import commands
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import FiguresPublished
from coordinator.core.ids import TenantName
from coordinator.core.policy import Policy
from coordinator.core.rows import Role
from coordinator.ports.store import CheckReport
from coordinator.service.agents import AgentLinks
from coordinator.service.alert_receivers import Receiver, receivers_of
from coordinator.service.alert_settings import AlertSettings
from coordinator.service.alerts import Alerts
from coordinator.service.api.app import build_app
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.settings import ApiSettings
from coordinator.service.data.gate import Gate, GateSettings
from coordinator.service.data.plane import DataPlane
from coordinator.service.data.settings import DataSettings
from coordinator.service.data.signing import KEY_BYTES
from coordinator.service.delivery import Delivery
from coordinator.service.engine import Engine, EngineSettings
from coordinator.service.feed import Feed
from coordinator.service.heartbeats import HeartbeatSettings, HeartbeatWriter
from coordinator.service.link_settings import LinkSettings
from coordinator.service.measures import delivery_source
from coordinator.service.metric_values import Metrics
from coordinator.service.pressure import Pressure
from coordinator.service.recorder import Recorder
from coordinator.service.recovery import first_token, recover
from coordinator.service.relay.relay import Relay
from coordinator.service.relay.settings import RelaySettings
from coordinator.service.server import Server, ServerSettings, check_address, key_fingerprint, tls_context
from coordinator.service.traces import TraceDoor, TraceDoorSettings
from coordinator.service.tuning import tune_process
from coordinator.service.upkeep import LoopLag, UpkeepSettings, keep_up
from coordinator.service.verdict_measures import verdicts_source
from coordinator.service.verdicts import Verdicts
from coordinator.service.views import LiveViews
from store.durable import DiskStore
from store.layout import DataDir, write_private
from store.settings import StoreSettings

log = logging.getLogger("coord.serve")


def run(config: Config, beside: LocalAgent | None = None) -> int:
    """Serve until a signal and return the exit status; 70 when the store is broken.

    `beside`: an agent of this machine that lives as long as we do.
    """
    settings = config.section("serve", ServeSettings)
    logs.to_stderr(settings.log_level)
    # Wrong settings are refused before anything is made or locked.
    plan = _plan(config, settings)
    _raise_file_limit()
    data = DataDir(config.data().absolute())
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            try:
                runner.run(_serve(plan, data, beside))
            except BaseExceptionGroup as group:
                if is_fault(group):
                    # closing the loop waits for every thread, and who still serves meanwhile decides nothing any more
                    at_once(group)
                raise
    except BaseExceptionGroup as group:
        return reason(group)
    return exits.OK


class Plan(NamedTuple):
    """Every setting that serving needs, checked."""

    serve: ServeSettings
    server: ServerSettings
    policy: Policy
    engine: EngineSettings
    links: LinkSettings
    heartbeats: HeartbeatSettings
    relay: RelaySettings
    data: DataSettings
    throttle: GateSettings
    api: ApiSettings
    upkeep: UpkeepSettings
    store: StoreSettings
    analytics: AnalyticsSettings
    attribution: AttributionSettings
    traces: TraceSettings
    trace_uploads: TraceDoorSettings
    alerts: AlertSettings
    receivers: tuple[Receiver, ...]
    """Of alerts."""
    pin: str
    """Fingerprint of the TLS key; empty without TLS."""


def _plan(config: Config, serve: ServeSettings) -> Plan:
    host, port = host_and_port(serve.listen)
    server = replace(
        config.section("server", ServerSettings),
        host=host,
        port=port,
        tls_cert=str(serve.tls_cert or ""),
        tls_key=str(serve.tls_key or ""),
        insecure=serve.insecure_listen,
    )
    tls_context(server)
    alerts = config.section("alerts", AlertSettings)
    attribution = config.section("attribution", AttributionSettings)
    if attribution.signatures:
        Rules.load(Path(attribution.signatures))
    if attribution.launchers_root:
        Root(Path(attribution.launchers_root)).close()
        DeskSettings.of(attribution)
    return Plan(
        serve=serve,
        server=server,
        policy=config.section("policy", Policy),
        engine=config.section("engine", EngineSettings),
        links=config.section("links", LinkSettings),
        heartbeats=config.section("heartbeats", HeartbeatSettings),
        relay=config.section("relay", RelaySettings),
        data=config.section("blobs", DataSettings),
        throttle=config.section("throttle", GateSettings),
        api=config.section("api", ApiSettings),
        upkeep=config.section("upkeep", UpkeepSettings),
        store=replace(config.section("store", StoreSettings), failpoint=config.secret("COORD_FAILPOINT") or ""),
        analytics=config.section("analytics", AnalyticsSettings),
        attribution=attribution,
        traces=config.section("traces", TraceSettings),
        trace_uploads=config.section("trace_uploads", TraceDoorSettings),
        alerts=alerts,
        receivers=receivers_of(alerts, os.environ),
        pin=key_fingerprint(serve.tls_cert) if serve.tls_cert else "",
    )


def host_and_port(listen: str) -> tuple[str, int]:
    """The parts of HOST:PORT; an IPv6 address stands in brackets. CoordError(BAD_CONFIG) for anything else."""
    host, colon, port = listen.rpartition(":")
    if colon and host and port.isascii() and port.isdigit() and int(port) < 65536:
        return host.removeprefix("[").removesuffix("]"), int(port)
    raise CoordError(
        Code.BAD_CONFIG, f"--listen {listen!a} is no HOST:PORT", "write 127.0.0.1:7070, [::1]:7070, or port 0 for any"
    )


async def _serve(plan: Plan, data: DataDir, beside: LocalAgent | None) -> None:
    """Everything between the lock and its release."""
    stopping = stop_signals()
    if not data.coordinator_id.exists():
        await check_address(plan.server)  # a start that cannot end well leaves no new data directory behind
    store = await DiskStore.open(data, plan.store)
    try:
        async with asyncio.TaskGroup() as group:
            parts = await _assemble(plan, data, store, group)
            record_on_signal(parts.engine)
            await _first_tokens(parts.engine, data, plan.pin)
            url = await parts.server.start()
            write_private(data.address, url + "\n")
            print(f"coord serves on {url}, data in {data.path}", flush=True)
            local = group.create_task(beside.run(url, data)) if beside is not None else None
            if beside is not None:
                print(f"its agent: coord agent status --state {beside.state(data)}", flush=True)
                print("the agent beside it isolates nothing: this is for one user", flush=True)
            await stopping.wait()
            log.info("stopping")
            async with asyncio.timeout(plan.serve.stop_within_s):
                if beside is not None and local is not None:
                    local.cancel()
                    await beside.leave()
                await parts.stop()
    except BaseExceptionGroup as group:
        if is_final(group):
            data.address.unlink(missing_ok=True)
            at_once(group)
        raise
    finally:
        data.address.unlink(missing_ok=True)
        await store.close()


class Parts(NamedTuple):
    """What is told to stop, in this order."""

    engine: Engine
    links: AgentLinks
    server: Server
    heartbeats: HeartbeatWriter
    relay: Relay
    feed: Feed
    data_plane: DataPlane
    background: tuple[asyncio.Task[None], ...]

    async def stop(self) -> None:
        """Extend the leases and tell agents and callers, write what waits, end every task."""
        self.data_plane.close()
        await self.engine.stop()
        await self.links.close_all(commands.CloseCode.GOING_AWAY, "the coordinator stops")
        await self.relay.close()
        self.feed.close()
        await self.server.stop()
        await self.heartbeats.close()
        for task in self.background:
            task.cancel()


async def _assemble(plan: Plan, data: DataDir, store: DiskStore, group: asyncio.TaskGroup) -> Parts:
    """Make every part and start its task. The first events and heartbeats may come when this returns."""
    coordinator_id = store.coordinator_id
    version = importlib.metadata.version("coord")
    found = await recover(store, coordinator_id)
    fleet, work = found.state.providers, found.state.work
    counts = (len(fleet), len(work.jobs), len(work.attempts), found.took_s)
    log.info("recovered %d providers, %d live jobs and %d attempts in %.2f s", *counts)
    tune_process()
    views, recorder = LiveViews(), Recorder(data.recorder)
    engine = Engine(store, found.clock, views, plan.policy, plan.engine, recorder, found.state)
    heartbeats = HeartbeatWriter(store, engine.clock, plan.heartbeats)
    relay = Relay(store.logs, store, views, engine.clock, plan.relay)
    feed = Feed(views, store, last_seq=found.state.work.next_audit - 1)
    links = AgentLinks(engine, heartbeats, relay, plan.links, coordinator_id, version)
    lag = LoopLag(plan.upkeep.lag_s)

    def on_figures(event: FiguresPublished) -> None:
        engine.post(replace(event, at_ms=engine.clock.now_ms()))

    analytics = WorkerLink(
        data.path,
        on_figures,
        plan.analytics,
        clock=engine.clock,
        lost_after_ms=plan.policy.lost_ms(plan.policy.heartbeat_interval_ms),
        attribution=plan.attribution,
    )
    followed = plan.attribution
    verdicts = Verdicts(
        *(analytics, views, engine.clock, engine.post), enabled=followed.enabled, active_max=followed.active_max
    )
    alerts = Alerts(engine.clock.now_ms)
    views.listen(alerts.on_note, commands.Warned, commands.Calmed)
    delivery = Delivery(plan.receivers, plan.alerts, coordinator_id)
    alerts.tell(delivery.on_change)
    metrics = Metrics()
    metrics.source(delivery_source(delivery))
    metrics.source(verdicts_source(verdicts))

    def weight_of(tenant: str) -> float:
        row = engine.state.work.accounts.tenants.get(TenantName(tenant))
        return row.weight if row is not None else 1.0

    gate = Gate(plan.throttle, weight_of, engine.clock.monotonic_s)
    data_plane = DataPlane(engine, store, store.blob_files, gate, plan.data, _url_key(data))
    traces = TraceLink(data.path, coordinator_id, plan.traces)
    trace_door = TraceDoor(traces, data.trace_bodies, plan.trace_uploads, engine.clock)
    trace_door.clear()
    deps = ApiDeps(
        engine=engine,
        views=views,
        store=store,
        analytics=analytics,
        links=links,
        heartbeats=heartbeats,
        metrics=metrics,
        alerts=alerts,
        relay=relay,
        feed=feed,
        logs=store.logs,
        data=data_plane,
        traces=trace_door,
        settings=replace(plan.api, backups=data.backups, join_suffix=_suffix(plan.pin)),
        version=version,
        coordinator_id=coordinator_id,
        loop_lag=lag.recent_ms,
        launchers=analytics if plan.attribution.launchers_root else None,
    )

    def on_checked(report: CheckReport) -> None:
        data_plane.soundness.found_damaged(report.damaged)

    watch(alerts, store, engine, heartbeats, relay, gate, analytics, lag)
    group.create_task(engine.run(), name="engine")
    group.create_task(heartbeats.run(), name="heartbeats")
    group.create_task(relay.run(), name="relay")
    background = (
        group.create_task(analytics.run(), name="analytics"),
        group.create_task(traces.run(), name="traces"),
        group.create_task(verdicts.run(), name="verdicts"),
        group.create_task(keep_up(store, engine.clock, alerts, plan.upkeep, on_checked), name="upkeep"),
        group.create_task(lag.run(), name="loop lag"),
        group.create_task(delivery.run(), name="delivery"),
        group.create_task(data_plane.run(), name="data"),
        group.create_task(Pressure(lambda: engine.state, plan.policy, alerts).run(engine.clock), name="pressure"),
    )
    engine.post(found.boot)
    server = Server(build_app(deps), plan.server)
    return Parts(engine, links, server, heartbeats, relay, feed, data_plane, background)


async def _first_tokens(engine: Engine, data: DataDir, pin: str) -> None:
    """Tokens for the clients and agents of this machine. One whose file is missing is made anew; so is a join
    token that carries another key's fingerprint."""
    if not data.admin_token.exists():
        text = await first_token(engine, Role.ADMIN, "made at start")
        write_private(data.admin_token, text + "\n")
    suffix = _suffix(pin)
    known = data.join_token.read_text().strip() if data.join_token.exists() else ""
    if not known or known.partition(".")[2] != suffix.removeprefix("."):
        text = await first_token(engine, Role.JOIN, "made at start", suffix)
        write_private(data.join_token, text + "\n")


def _url_key(data: DataDir) -> bytes:
    """Made at the first start; URLs that it signed stay good over a restart. A copy elsewhere begins with its own."""
    if not data.url_key.exists():
        write_private(data.url_key, secrets.token_hex(KEY_BYTES) + "\n")
    return bytes.fromhex(data.url_key.read_text().strip())


def _suffix(pin: str) -> str:
    return f".{pin}" if pin else ""


def _raise_file_limit() -> None:
    """An agent is an open file: use what the system allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
