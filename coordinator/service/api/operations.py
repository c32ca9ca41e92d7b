"""Routes of keeping it running: imports, backup, check, alerts, health and metrics."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

import msgspec

from coordinator.api_types.operations import (
    AlertEntry,
    Alerts,
    Alive,
    BackupAnswer,
    BackupRequest,
    CheckAnswer,
    Health,
    ImportAnswer,
)
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import check_name
from coordinator.core.snapshot import Liveness
from coordinator.ports.store import ImportReport
from coordinator.service import metrics as m
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.entries import check_answer
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call, NoBody, Ready
from coordinator.service.api.scope import who
from coordinator.service.api.session_csv import Limits, parse_sessions
from coordinator.service.api.uploads import Upload
from coordinator.timetext import optional_text, to_text


class OneAtATime:
    """Imports, backups and checks: each kind runs alone, a second one is refused."""

    def __init__(self) -> None:
        self._running: set[str] = set()

    @asynccontextmanager
    async def run(self, what: str) -> AsyncIterator[None]:
        if what in self._running:
            raise CoordError(Code.TOO_MANY, f"another {what} is under way", "try again when it is done")
        self._running.add(what)
        try:
            yield
        finally:
            self._running.discard(what)


@contextmanager
def _without_collector() -> Iterator[None]:
    """No cycle collection: it would walk every row again and again, and hold everybody up meanwhile (0.2 s at a
    time for half a million rows). Rows hold no cycles, and one import runs at a time."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


async def _import(call: Call[NoQuery, Upload], limits: Limits) -> ImportReport:
    rows = await asyncio.to_thread(parse_sessions, call.body.file, limits)
    if not rows:
        return ImportReport(rows=0, added=0, closed=0, unchanged=0, providers=0, first_ms=None, last_ms=None)
    return await call.deps.store.import_sessions(rows)


async def _until_seen(call: Call[NoQuery, Upload], patience_s: float) -> None:
    """What is asked right after an import knows of it. Without a worker, or with a slow one, figures follow later."""
    with suppress(CoordError, TimeoutError):
        async with asyncio.timeout(patience_s):
            await call.deps.analytics.refresh()


async def import_sessions(call: Call[NoQuery, Upload], alone: OneAtATime) -> ImportAnswer:
    """Add a history from elsewhere; all of it or nothing, and twice is once."""
    settings = call.deps.settings
    limits = Limits(bytes_max=settings.import_bytes_max, rows_max=settings.import_rows_max, now_ms=call.now_ms)
    async with alone.run("import"):
        with _without_collector():
            report = await _import(call, limits)
        await _until_seen(call, settings.import_seen_s)
    for result in ("added", "closed", "unchanged"):
        call.deps.metrics.add(m.IMPORTED, getattr(report, result), result)
    return ImportAnswer(
        rows=report.rows,
        added=report.added,
        closed=report.closed,
        unchanged=report.unchanged,
        providers=report.providers,
        first_at=optional_text(report.first_ms),
        last_at=optional_text(report.last_ms),
    )


async def backup(call: Call[NoQuery, BackupRequest], alone: OneAtATime) -> BackupAnswer:
    """A consistent copy in a new directory beneath the coordinator's backups; its path there is the answer."""
    root = call.deps.settings.backups
    if root is None:
        raise CoordError(Code.BAD_REQUEST, "this coordinator keeps no backups", "start it with a data directory")
    name = call.body.name
    parent = root / check_name(name, "backup") if name is not None else root
    async with alone.run("backup"):
        path = await call.deps.store.backup(parent)
    return BackupAnswer(path=str(path))


async def check(call: Call[NoQuery, NoBody], alone: OneAtATime) -> CheckAnswer:
    """Integrity of the databases and digests of every segment. `problems` is empty when all is well."""
    async with alone.run("check"):
        report = await call.deps.store.check()
    call.deps.data.soundness.found_damaged(report.damaged)
    return check_answer(report)


async def list_alerts(call: Call[NoQuery, NoBody]) -> Alerts:
    """Standing ones first, then the newest."""
    return Alerts(entries=tuple(call.deps.alerts.entries()))


async def acknowledge_alert(call: Call[NoQuery, NoBody]) -> AlertEntry:
    """Somebody looks after it. It stands until its cause is gone all the same. Idempotent: the first one counts."""
    return call.deps.alerts.acknowledge(call.name(), who(call))


async def healthz(call: Call[NoQuery, NoBody]) -> Alive:
    """The process answers."""
    return Alive(status="ok")


def health_of(deps: ApiDeps, began_s: float) -> Health:
    """How the coordinator is. `status` names what keeps it from serving fully; analytics never does."""
    engine = deps.engine
    full_since_ms = engine.full_since_ms
    store = "ok" if full_since_ms is None else f"full since {to_text(full_since_ms)}"
    analytics = deps.analytics.health()
    now_ms = engine.clock.now_ms()
    computed_ms = analytics.computed_at_ms
    return Health(
        status="ok" if full_since_ms is None else "store_full",
        version=deps.version,
        coordinator_id=deps.coordinator_id,
        uptime_s=round(engine.clock.monotonic_s() - began_s, 3),
        providers_online=sum(view.liveness is Liveness.ONLINE for view in deps.views.providers.values()),
        store=store,
        analytics="up" if analytics.up else "down",
        figures_age_s=max(0, now_ms - computed_ms) / 1_000 if computed_ms is not None else None,
        loop_lag_ms=round(deps.loop_lag(), 3),
    )


async def readyz(call: Call[NoQuery, NoBody], began_s: float) -> Ready:
    """200 when requests are served in full, 503 when the disk is full; the same body both times."""
    health = health_of(call.deps, began_s)
    return Ready(body=msgspec.json.encode(health), status=200 if health.status == "ok" else 503)


async def show_metrics(call: Call[NoQuery, NoBody]) -> Ready:
    """Prometheus text exposition."""
    return Ready(body=call.deps.metrics.render(), media="text/plain; version=0.0.4; charset=utf-8")
