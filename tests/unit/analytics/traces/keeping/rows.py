"""Small traces, in the forms that uploads have."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec

from analytics.traces.building import AssetRow, LineageRow, SpanRow, TraceBuilder
from analytics.traces.columns import Trace
from coordinator.core.commands import Put
from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import AttemptState, Row, WorkState
from coordinator.core.work.traceids import trace_id
from coordinator.ports.traces import TraceBody, TracePart
from store.durable import DiskStore
from store.layout import DataDir
from tests.conformance.homes import NOON_MS, DiskHome, a_job, a_spec, a_step, a_task, an_attempt

OURS = "c-test"
START_NS = 1_777_420_800_000_000_000
FOREIGN = "ab" * 16
"""A trace that is no job's."""


def trace_of(job_id: int) -> str:
    return trace_id(OURS, job_id).hex()


def a_span(span: int = 1, trace: str = FOREIGN, **more: Any) -> SpanRow:
    given = {"name": f"s{span}", "start_ns": START_NS + span, "end_ns": START_NS + 1_000 + span, **more}
    return SpanRow(trace=trace, span=span, **given)


def a_trace(
    *spans: SpanRow, assets: tuple[AssetRow, ...] = (), lineage: tuple[LineageRow, ...] = (), details: bool = True
) -> Trace:
    builder = TraceBuilder(details=details)
    builder.add_spans(spans)
    builder.add_assets(assets)
    builder.add_lineage(lineage)
    return builder.finish()


def otlp_json(*spans: SpanRow, attributes: dict[str, str] | None = None) -> bytes:
    """One ExportTraceServiceRequest in OTLP/JSON."""
    said = [{"key": key, "value": {"stringValue": value}} for key, value in (attributes or {}).items()]
    return msgspec.json.encode(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": []},
                    "scopeSpans": [
                        {
                            "spans": [
                                {
                                    "traceId": row.trace,
                                    "spanId": f"{row.span:016x}",
                                    "parentSpanId": f"{row.parent:016x}" if row.parent else "",
                                    "name": row.name,
                                    "kind": 1,
                                    "startTimeUnixNano": str(row.start_ns),
                                    "endTimeUnixNano": str(row.end_ns),
                                    "attributes": said,
                                    "status": {},
                                }
                                for row in spans
                            ]
                        }
                    ],
                }
            ]
        }
    )


def otlp_protobuf(*spans: SpanRow) -> bytes:
    """The same as protobuf, by OpenTelemetry's own messages."""
    from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, TracesData

    made = [
        Span(
            trace_id=bytes.fromhex(row.trace),
            span_id=row.span.to_bytes(8, "big"),
            parent_span_id=row.parent.to_bytes(8, "big") if row.parent else b"",
            name=row.name,
            start_time_unix_nano=row.start_ns,
            end_time_unix_nano=row.end_ns,
        )
        for row in spans
    ]
    return TracesData(resource_spans=[ResourceSpans(scope_spans=[ScopeSpans(spans=made)])]).SerializeToString()


def a_body(path: Path, *parts: tuple[dict[str, Any], bytes], tenant: str | None = None) -> TraceBody:
    """An upload of these parts, one behind the other in a file."""
    made = []
    data = b""
    for given, piece in parts:
        sent = gzip.compress(piece) if given.get("encoding") == "gzip" else piece
        made.append(TracePart(**{"at": len(data), "size": len(sent), **given}))
        data += sent
    path.write_bytes(data)
    return TraceBody(
        path=str(path), parts=tuple(made), fingerprint=1, tenant=TenantName(tenant) if tenant is not None else None
    )


def a_home(path: Path, *jobs: tuple[int, str], ended: frozenset[int] = frozenset()) -> DataDir:
    """A data directory with these jobs, each of a tenant."""
    home = DiskHome(path)

    async def fill(store: DiskStore) -> None:
        rows: list[Row] = [
            a_job(
                JobId(job_id),
                WorkState.COMPLETED if job_id in ended else WorkState.RUNNING,
                tenant=TenantName(tenant),
                ended_at_ms=NOON_MS if job_id in ended else None,
            )
            for job_id, tenant in jobs
        ]
        for number in [job_id for job_id, _ in jobs]:
            rows += [a_spec(number), a_step(number), a_task(number)]
            if number in ended:
                times = {"started_at_ms": NOON_MS - 2_000, "ended_at_ms": NOON_MS - 1_000}
                rows.append(an_attempt(number, state=AttemptState.COMPLETED, created_at_ms=NOON_MS - 3_000, **times))
        await store.commit([Put(row) for row in rows])

    home.run(fill)
    return home.data
