"""OpenTelemetry's own exporters against a real coordinator: what they send is there, also after it was killed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from opentelemetry.exporter.otlp.json.http.trace_exporter import OTLPSpanExporter as JsonExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as ProtobufExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags, set_span_in_context

from coordinator.client import Client
from coordinator.core.work.traceids import span_id, trace_id
from store.layout import DataDir
from tests.acceptance.processes import Head, wait_for


class Told(SpanExporter):
    """An exporter, and what became of each of its exports."""

    def __init__(self, exporter: Any) -> None:
        self._exporter = exporter
        self.results: list[SpanExportResult] = []

    def export(self, spans: Any) -> SpanExportResult:
        self.results.append(self._exporter.export(spans))
        return self.results[-1]

    def shutdown(self) -> None:
        self._exporter.shutdown()


@contextmanager
def a_head(directory: Path) -> Iterator[tuple[Head, Client]]:
    head = Head(directory)
    try:
        with head.start() as client:
            yield head, client
    finally:
        head.kill()


def export(head: Head, token: str, exporter: Any, job: int, name: str) -> SpanExportResult:
    """One span of a job's trace, by a real exporter that is told an address and a header."""
    own = DataDir(head.data).read_coordinator_id() or ""
    above = SpanContext(
        int.from_bytes(trace_id(own, job), "big"), int.from_bytes(span_id(str(job), "job"), "big"), True, TraceFlags(1)
    )
    told = Told(exporter(endpoint=f"{head.url}/v1/traces", headers={"Authorization": f"Bearer {token}"}))
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(told))
    context = set_span_in_context(NonRecordingSpan(above))
    with provider.get_tracer("t").start_as_current_span(name, context=context) as span:
        span.set_attribute("data_id", f"{job}.0.0")
        span.add_event("it happened", {"n": 1})
    provider.shutdown()
    return told.results[-1]


def children_of(pid: int) -> list[int]:
    return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def keeper_of(head: Head) -> int:
    """The process that keeps traces."""
    assert head.popen is not None
    return next(
        pid for pid in children_of(head.popen.pid) if b"traces.keeping" in Path(f"/proc/{pid}/cmdline").read_bytes()
    )


def test_real_exporters_are_served_and_what_they_sent_outlives_a_kill(tmp_path: Path) -> None:
    """Protobuf and JSON join the job's trace; another tenant's spans are not taken; the coordinator is killed with
    everything of it, and both are there once when it is back."""
    with a_head(tmp_path) as (head, client):
        for tenant in ("physics", "biology"):
            client.tenants.create(tenant)
        tokens = {one: client.create_token(role="tenant", tenant=one).token for one in ("physics", "biology")}
        job = client.jobs.submit({"command": ["true"]}, tenant="physics").job_id
        for exporter, name in ((ProtobufExporter, "protobuf"), (JsonExporter, "json")):
            assert SpanExportResult.SUCCESS is export(head, tokens["physics"], exporter, job, name)
        export(head, tokens["biology"], ProtobufExporter, job, "stranger")
        spans = {row["name"]: row for row in client.traces.fetch(job)}
        assert {"protobuf", "json"} <= set(spans) and "stranger" not in spans
        assert "it happened" == spans["json"]["events"][0]["name"]
        assert 1 == len({spans[name]["context"]["trace_id"] for name in ("json", "protobuf")})
        assert f"{job}.0.0" in client.traces.analyze(job).data_ids
        assert b"<!doctype html>" == client.traces.page(job)[:15].lower()
        keeper = keeper_of(head)
        head.kill()
        wait_for(lambda: not Path(f"/proc/{keeper}").exists(), "the process that keeps traces ends with its parent")
        with head.start() as again:
            assert SpanExportResult.SUCCESS is export(head, tokens["physics"], JsonExporter, job, "late")
            names = [row["name"] for row in again.traces.fetch(job)]
            assert {"protobuf": 1, "json": 1, "late": 1} == {n: names.count(n) for n in ("protobuf", "json", "late")}
