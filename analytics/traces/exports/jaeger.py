"""A trace as Jaeger's query API answers it, which its UI opens as a file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from analytics.traces.columns import ERROR, NONE, Trace
from analytics.traces.exports.rows import attributes_of, details_of, named, rows_of
from coordinator.api_types.trace import Profile

BATCH = 1_000
SPAN_KINDS = ("", "internal", "server", "client", "producer", "consumer")
_encode = msgspec.json.Encoder().encode
Tag = dict[str, Any]


def pieces(trace: Trace, profile: Profile, *, title: str = "") -> Iterator[bytes]:
    """The file, part by part: `data` has one entry a trace id. Times are whole microseconds, rounded down."""
    rows = rows_of(trace, profile)
    spans = trace.spans
    order = np.argsort(spans.trace, kind="stable")
    begins = np.flatnonzero(np.diff(spans.trace[order], prepend=NONE - 1))
    by_trace = np.split(order, begins[1:]) if len(order) else []
    by_trace.sort(key=lambda those: int(those[0]))
    yield b'{"data":['
    for nth, those in enumerate(by_trace):
        code = int(spans.trace[those[0]])
        providers = np.unique(spans.provider[those]).tolist()
        processes = {f"p{one + 1}": _process(named(trace.providers, one)) for one in providers}
        head = b'{"traceID":' + _encode(_trace_id(trace, code)) + b',"processes":' + _encode(processes)
        yield (b"," if nth else b"") + head + b',"warnings":null,"spans":[\n'
        for begin in range(0, len(those), BATCH):
            batch = those[begin : begin + BATCH].tolist()
            lines = b",\n".join(_encode(_span(trace, at, rows.start[at], rows.end[at], rows.open[at])) for at in batch)
            yield (b",\n" if begin else b"") + lines
        yield b"\n]}"
    yield b'],"total":0,"limit":0,"offset":0,"errors":null}\n'


def _trace_id(trace: Trace, code: int) -> str:
    return named(trace.traces, code) or "0" * 31 + "1"


def _process(provider: str) -> dict[str, Any]:
    tags = [_tag("hostname", provider)] if provider else []
    return {"serviceName": "coord", "tags": tags}


def _span(trace: Trace, at: int, start_ns: int, end_ns: int, unfinished: bool) -> dict[str, Any]:
    spans = trace.spans
    trace_id = _trace_id(trace, int(spans.trace[at]))
    details = details_of(trace, at)
    parent = int(spans.parent[at])
    tags = [_tag(name, value) for name, value in attributes_of(trace, at).items()]
    if spans.status[at] == ERROR:
        tags.append(_tag("error", True))
    if details.status_message:
        tags.append(_tag("otel.status_description", details.status_message))
    if 0 < details.kind < len(SPAN_KINDS):
        tags.append(_tag("span.kind", SPAN_KINDS[details.kind]))
    if unfinished:
        tags.append(_tag("unfinished", True))
    start_us = start_ns // 1000
    return {
        "traceID": trace_id,
        "spanID": f"{int(spans.span[at]):016x}",
        "flags": 1,
        "operationName": named(trace.names, int(spans.name[at])) or "span",
        "references": [{"refType": "CHILD_OF", "traceID": trace_id, "spanID": f"{parent:016x}"}] if parent else [],
        "startTime": start_us,
        "duration": end_ns // 1000 - start_us,
        "tags": tags,
        "logs": [_log(event) for event in details.events],
        "processID": f"p{int(spans.provider[at]) + 1}",
        "warnings": None,
    }


def _log(event: dict[str, Any]) -> dict[str, Any]:
    fields = [_tag("event", str(event.get("name", "")))]
    fields += [_tag(name, value) for name, value in (event.get("attributes") or {}).items()]
    return {"timestamp": int(event.get("time_ns") or 0) // 1000, "fields": fields}


def _tag(key: str, value: object) -> Tag:
    """Jaeger's types: what has parts is written as JSON."""
    match value:
        case bool():
            return {"key": key, "type": "bool", "value": value}
        case int():
            return {"key": key, "type": "int64", "value": value}
        case float():
            return {"key": key, "type": "float64", "value": value}
        case str():
            return {"key": key, "type": "string", "value": value}
        case _:
            return {"key": key, "type": "string", "value": _encode(value).decode()}
