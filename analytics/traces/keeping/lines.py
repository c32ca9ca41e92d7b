"""Traces as lines of JSON, as they are given back: spans as OpenTelemetry's ReadableSpan prints them, times to the
nanosecond where they have one; assets and lineage as they were sent. What is read back is the same trace."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from analytics.traces.columns import STATUSES, UNFINISHED, Trace
from analytics.traces.exports.rows import attributes_of, details_of, named
from analytics.traces.reading.readable import SPAN_KINDS
from coordinator.ports.traces import TraceKind

PIECE_LINES = 1_024
"""Lines that are made at once: about half a megabyte of spans."""
_S = 1_000_000_000
_encode = msgspec.json.Encoder().encode_lines


def pieces(trace: Trace, kind: TraceKind) -> Iterator[bytes]:
    """Every row of this kind, in the order of the trace."""
    match kind:
        case "spans":
            row, count = _span, len(trace.spans)
        case "assets":
            row, count = _asset, len(trace.assets)
        case "lineage":
            row, count = _edge, len(trace.lineage)
    for at in range(0, count, PIECE_LINES):
        yield _encode([row(trace, number) for number in range(at, min(at + PIECE_LINES, count))])


def time_text(at_ns: int) -> str:
    """ISO 8601 in UTC: microseconds as OpenTelemetry has them, nanoseconds where there are some."""
    seconds, ns = divmod(at_ns, _S)
    digits = f"{ns // 1_000:06d}" if ns % 1_000 == 0 else f"{ns:09d}"
    return f"{_second(seconds)}.{digits}Z"


@lru_cache(maxsize=4_096)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _span(trace: Trace, at: int) -> dict[str, Any]:
    spans = trace.spans
    details = details_of(trace, at)
    parent, end = int(spans.parent[at]), int(spans.end[at])
    status: dict[str, Any] = {"status_code": STATUSES[int(spans.status[at])]}
    if details.status_message:
        status["description"] = details.status_message
    trace_id = f"0x{trace.traces[int(spans.trace[at])]}"
    kind = details.kind
    return {
        "name": named(trace.names, int(spans.name[at])),
        "context": {"trace_id": trace_id, "span_id": f"0x{int(spans.span[at]):016x}", "trace_state": "[]"},
        "kind": f"SpanKind.{SPAN_KINDS[kind] if 0 < kind < len(SPAN_KINDS) else 'INTERNAL'}",
        "parent_id": f"0x{parent:016x}" if parent else None,
        "start_time": time_text(int(spans.start[at])),
        "end_time": time_text(end) if end != UNFINISHED else None,
        "status": status,
        "attributes": attributes_of(trace, at),
        "events": [
            {"name": event["name"], "timestamp": time_text(event["time_ns"]), "attributes": event["attributes"]}
            for event in details.events
        ],
        "links": [
            {
                "context": {"trace_id": f"0x{link['trace_id']}", "span_id": f"0x{link['span_id']}"},
                "attributes": link["attributes"],
            }
            for link in details.links
        ],
        "resource": {"attributes": details.resource, "schema_url": ""},
    }


def _asset(trace: Trace, at: int) -> dict[str, Any]:
    held = trace.assets
    return {
        "data_id": trace.data_ids[int(held.data[at])],
        "asset_guid": trace.guids[int(held.guid[at])],
        "version": int(held.version[at]),
        "user_id": named(trace.users, int(held.user[at])),
        "created_at": time_text(max(int(held.created[at]), 0)),
    }


def _edge(trace: Trace, at: int) -> dict[str, Any]:
    held = trace.lineage
    return {
        "data_id": trace.data_ids[int(held.data[at])],
        "source_data_id": trace.data_ids[int(held.source[at])],
        "created_at": time_text(max(int(held.created[at]), 0)),
    }
