"""Metrics: the exposition is right, every metric is written somewhere, and every one moves."""

from __future__ import annotations

import ast
import asyncio
import re
from pathlib import Path

import pytest

from coordinator import wire
from coordinator.core.commands import Promised, SessionEnded, SessionOpened, Warned
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, ProviderId, SessionId, TenantName
from coordinator.core.rows import EndReason, SessionRow
from coordinator.ports.attribution import LEFT_BYTES, FollowerFigures
from coordinator.service import metrics
from coordinator.service.alert_receivers import Program
from coordinator.service.alert_settings import AlertSettings
from coordinator.service.delivery import Delivery
from coordinator.service.measures import delivery_source
from coordinator.service.metric_values import Metrics
from coordinator.service.metrics import Metric
from coordinator.service.verdict_measures import verdicts_source
from coordinator.service.verdicts import Verdicts
from tests.unit.api.rig import PATIENCE_S, READER, TENANT, Rig, served
from tests.unit.api.worked import Work
from tests.unit.service.test_verdicts import Followers

SERVICE = Path(metrics.__file__).parent
LINE = re.compile(r'(coord_\w+)(?:\{((?:\w+="(?:[^"\\]|\\.)*",?)+)\})? (-?[0-9.e+-]+|\+Inf|NaN)')


def constants() -> dict[str, Metric]:
    return {name: value for name, value in vars(metrics).items() if isinstance(value, Metric)}


def test_every_declared_metric_is_written_by_somebody() -> None:
    """Each constant of the table is used outside its declaration: a metric that nobody moves is a lie."""
    used: set[str] = set()
    for path in SERVICE.rglob("*.py"):
        if path.name == "metrics.py":
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "m":
                used.add(node.attr)
    assert set(constants()) == used & set(constants())
    assert {metric.name for metric in constants().values()} == {metric.name for metric in metrics.table()}


def a_session(session_id: int) -> SessionRow:
    return SessionRow(
        session_id=SessionId(session_id), provider_id=ProviderId("a"), connected_at_ms=1, coordinator_id="c"
    )


def test_every_metric_shows_up_and_is_well_formed_once_things_happen() -> None:
    """After a day's worth of events in a second, each declared metric has at least one sample, each sample is
    of a declared metric, and the text parses."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        await rig.get("/v1/pools", None)
        for _ in range(2):
            await rig.post("/v1/pools", {"name": "x"}, headers={"Idempotency-Key": "k"})
        csv = b"provider_id,connected_at,disconnected_at,disconnect_reason\nold,1,2,\n"
        await rig.ask("POST", "/v1/import/sessions", data=csv)
        rig.views.apply(
            [
                SessionOpened(a_session(1), False),
                SessionEnded(a_session(1), EndReason.READ_ERROR),
                Warned(kind="clock_jump", subject="coordinator", text="an hour"),
                Promised(job_id=JobId(1), tenant=TenantName("physics"), promised_at_ms=90_000, started_at_ms=60_000),
            ]
        )
        work = Work(rig)
        await work.begin()
        await work.queue_left(waited_s=20.0)
        await rig.ask("PATCH", "/v1/tenants/physics", json={"quota": {"queued": 1, "cpus": 8_000_000}})
        assert 201 == (await rig.post("/v1/jobs", {"command": ["true"]}, TENANT)).status
        assert 403 == (await rig.post("/v1/jobs", {"command": ["true"]}, TENANT)).status
        rig.analytics.computed_at_ms = rig.clock.now_ms() - 5_000
        view = rig.views.providers[ProviderId("a")]
        writing = asyncio.ensure_future(rig.writer.run())
        rig.writer.offer(
            rig.writer.track(view.provider_id, view.key, "p"), [wire.Heartbeat(seq=1)] * 2, rig.clock.now_ms()
        )
        await rig.writer.close()
        await asyncio.wait_for(writing, PATIENCE_S)
        receivers = (Program(("true",), {}, 5.0),)
        rig.deps.metrics.source(delivery_source(Delivery(receivers, AlertSettings(), "c-test")))
        verdicts = Verdicts(Followers(), rig.views, rig.clock, rig.engine.post, enabled=True, active_max=1)
        seen = FollowerFigures(fallbacks={"missing": 1}, replays={"stale": 1}, left_bytes=(0,) * (len(LEFT_BYTES) + 1))
        verdicts.figures(seen)
        rig.deps.metrics.source(verdicts_source(verdicts))
        await rig.get(f"/v1/traces/workflows/analyze/{work.job.job_id}")
        rig.traces.fail = CoordError(Code.ANALYTICS_UNAVAILABLE, "away")
        await rig.post("/v1/traces", {})
        got = await rig.get("/metrics", READER)
        assert got.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
        samples: dict[str, float] = {}
        for line in got.body.decode().splitlines():
            if not line.startswith("#"):
                found = LINE.fullmatch(line)
                assert found is not None, line
                samples[line.rsplit(" ", 1)[0]] = float(found[3])
        names = {
            re.sub(r"_(bucket|sum|count)$", "", n.split("{")[0])
            if "_seconds" in n or "_left_" in n
            else n.split("{")[0]
            for n in samples
        }
        assert {metric.name for metric in metrics.table()} == names
        assert 1 == samples['coord_sessions_ended_total{reason="read_error"}']
        assert 1 == samples['coord_alerts{kind="clock_jump"}']
        assert 1 == samples["coord_auth_failures_total"] == samples["coord_http_replayed_total"]
        assert 1 == samples['coord_http_problems_total{code="unauthenticated"}']
        assert 1 == samples['coord_imported_rows_total{result="added"}']
        assert 1 == samples["coord_heartbeats_stored_total"] == samples["coord_heartbeats_duplicate_total"]
        assert 1 == samples["coord_heartbeats_flush_seconds_count"]
        assert 2 == samples['coord_http_requests_total{method="POST",route="/v1/pools",status="201"}']
        assert 1 == samples['coord_providers{liveness="never_seen"}']
        assert 5.0 <= samples["coord_figures_age_seconds"] < 30.0
        assert 1 == samples['coord_start_error_seconds_bucket{side="early",le="60"}']
        assert 1 == samples['coord_quota_refusals_total{dimension="queued"}']
        assert 8.0 == samples['coord_tenant_limit{tenant="physics",dimension="cpus"}']
        assert 1 == samples['coord_tenant_used{tenant="physics",dimension="queued"}']
        assert 1 == samples['coord_placements_total{how="backfilled"}']
        assert (0, 1) == tuple(
            samples[f'coord_queue_wait_seconds_bucket{{tenant="physics",le="{bound}"}}'] for bound in (15, 60)
        )
        assert samples["coord_process_resident_bytes"] > 1e7

    served(test)


def test_tenants_beyond_the_bound_are_one_sum() -> None:
    """Those that hold most have series of their own; nothing of the others is lost from the totals."""

    async def test(rig: Rig) -> None:
        many = metrics.TENANTS_MAX + 20
        for number in range(many):
            name = f"t{number:03}"
            await rig.make_tenant(name)
            job = {"command": ["true"], "estimate": {"egress": "7B"}}
            assert 201 == (await rig.post(f"/v1/jobs?tenant={name}", job)).status
        lines = (await rig.get("/metrics")).body.decode().splitlines()
        queued = [line for line in lines if line.startswith("coord_tenant_used{") and 'dimension="queued"' in line]
        assert metrics.TENANTS_MAX == len(queued) == len({line.split(",")[0] for line in queued})
        assert many == sum(int(line.rsplit(" ", 1)[1]) for line in queued)
        (other,) = [
            line for line in lines if line.startswith('coord_tenant_reserved{tenant="other",dimension="egress"}')
        ]
        assert 7 * (many - metrics.TENANTS_MAX + 1) == int(other.rsplit(" ", 1)[1])

    served(test)


def test_a_histogram_counts_up_to_each_bound() -> None:
    """Buckets are cumulative, a value on a bound belongs to it, and the last one is everything."""
    values = Metrics()
    for seconds in (0.0004, 0.0005, 0.02, 99.0):
        values.observe(metrics.HTTP_SECONDS, seconds, "/v1/pools")
    text = values.render().decode()
    for bound, count in (("0.0005", 2), ("0.01", 2), ("0.025", 3), ("10", 3), ("+Inf", 4)):
        assert f'coord_http_request_seconds_bucket{{route="/v1/pools",le="{bound}"}} {count}\n' in text
    assert 'coord_http_request_seconds_count{route="/v1/pools"} 4\n' in text


def test_labels_cannot_break_the_exposition_nor_grow_without_bound() -> None:
    """Quotes, backslashes and newlines are escaped; series beyond the bound are folded into one."""
    values = Metrics()
    values.add(metrics.WARNINGS, 1, 'a"b\\c\nd')
    assert 'coord_warnings_total{kind="a\\"b\\\\c\\nd"} 1\n' in values.render().decode()
    for i in range(metrics.SERIES_MAX + 50):
        values.add(metrics.WARNINGS, 1, f"kind-{i}")
    lines = [line for line in values.render().decode().splitlines() if line.startswith("coord_warnings_total{")]
    assert metrics.SERIES_MAX + 1 == len(lines)
    assert 51 == values.value(metrics.WARNINGS, "other")


def test_a_counter_never_falls_and_labels_are_all_given() -> None:
    """Misuse is an error where it happens."""
    values = Metrics()
    with pytest.raises(AssertionError):
        values.add(metrics.WARNINGS, -1, "x")
    with pytest.raises(AssertionError):
        values.add(metrics.WARNINGS, 1)
    with pytest.raises(AssertionError):
        values.add(metrics.POOLS, 1)
