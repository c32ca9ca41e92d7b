"""A trace as OTLP, for collectors and for files: `resourceSpans` by provider, at most `BATCH` spans a request.

The model is OTLP/JSON's own (hex ids, integer enums, 64-bit integers as strings); protobuf is made from the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from analytics.traces.columns import STATUSES, Trace
from analytics.traces.exports.rows import Details, attributes_of, details_of, named

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

BATCH = 1_000
INTERNAL = 1
SCOPE = "coord"
DEPTH_MAX = 8
"""Of arrays and objects within an attribute; what lies deeper is written as JSON text."""
_INT64 = range(-(2**63), 2**63)
_encode = msgspec.json.Encoder().encode
Json = dict[str, Any]


def batches(trace: Trace) -> Iterator[tuple[Json, int]]:
    """Each a request of OTLP/JSON, and how many spans it has; spans without an end have `endTimeUnixNano` 0."""
    spans = trace.spans
    for begin in range(0, len(spans), BATCH):
        by_resource: dict[bytes, tuple[Json, list[Json]]] = {}
        for at in range(begin, min(begin + BATCH, len(spans))):
            details = details_of(trace, at)
            resource = _resource(named(trace.providers, int(spans.provider[at])), details)
            found = by_resource.setdefault(_encode(resource), (resource, []))
            found[1].append(_span(trace, at, details))
        yield (
            {
                "resourceSpans": [
                    {
                        "resource": {"attributes": _attributes(resource)},
                        "scopeSpans": [{"scope": {"name": SCOPE}, "spans": those}],
                    }
                    for resource, those in by_resource.values()
                ]
            },
            min(BATCH, len(spans) - begin),
        )


def pieces(trace: Trace) -> Iterator[bytes]:
    """A file of OTLP/JSON, a request a line, as collectors write and read them."""
    for request, _ in batches(trace):
        yield _encode(request) + b"\n"


def protobuf(request: Json) -> bytes:
    """The request in protobuf, as OTLP/HTTP carries it."""
    from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

    message = ExportTraceServiceRequest()
    for resource in request["resourceSpans"]:
        of = message.resource_spans.add()
        _fill(of.resource.attributes, resource["resource"]["attributes"])
        for scope in resource["scopeSpans"]:
            within = of.scope_spans.add()
            within.scope.name = scope["scope"]["name"]
            for one in scope["spans"]:
                _message(within.spans.add(), one)
    return message.SerializeToString()


def _resource(provider: str, details: Details) -> Json:
    found = {"service.name": SCOPE, **details.resource}
    if provider:
        found.setdefault("host.name", provider)
    return found


def _span(trace: Trace, at: int, details: Details) -> Json:
    spans = trace.spans
    parent = int(spans.parent[at])
    one: Json = {
        "traceId": named(trace.traces, int(spans.trace[at])) or "0" * 31 + "1",
        "spanId": f"{int(spans.span[at]):016x}",
        "name": named(trace.names, int(spans.name[at])) or "span",
        "kind": details.kind or INTERNAL,
        "startTimeUnixNano": str(int(spans.start[at])),
        "endTimeUnixNano": str(max(0, int(spans.end[at]))),
        "attributes": _attributes(attributes_of(trace, at)),
        "status": {"code": int(spans.status[at]) % len(STATUSES)},
    }
    if parent:
        one["parentSpanId"] = f"{parent:016x}"
    if details.status_message:
        one["status"]["message"] = details.status_message
    if details.events:
        one["events"] = [
            {
                "name": str(event.get("name", "")),
                "timeUnixNano": str(int(event.get("time_ns") or 0)),
                "attributes": _attributes(event.get("attributes") or {}),
            }
            for event in details.events
        ]
    if details.links:
        one["links"] = [
            {
                "traceId": str(link.get("trace_id", "")),
                "spanId": str(link.get("span_id", "")),
                "attributes": _attributes(link.get("attributes") or {}),
            }
            for link in details.links
        ]
    return one


def _attributes(attributes: Json) -> list[Json]:
    return [{"key": name, "value": _value(value)} for name, value in attributes.items() if value is not None]


def _value(value: object, depth: int = 0) -> Json:
    match value:
        case bool():
            return {"boolValue": value}
        case int() if value in _INT64:
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case list() | tuple() if depth < DEPTH_MAX:
            return {"arrayValue": {"values": [_value(one, depth + 1) for one in value]}}
        case dict() if depth < DEPTH_MAX:
            return {"kvlistValue": {"values": [{"key": k, "value": _value(v, depth + 1)} for k, v in value.items()]}}
        case _:
            return {"stringValue": _encode(value).decode()}


def _message(span: Span, one: Json) -> None:
    span.trace_id = bytes.fromhex(one["traceId"])
    span.span_id = bytes.fromhex(one["spanId"])
    span.parent_span_id = bytes.fromhex(one.get("parentSpanId", ""))
    span.name = one["name"]
    span.kind = one["kind"]
    span.start_time_unix_nano = int(one["startTimeUnixNano"])
    span.end_time_unix_nano = int(one["endTimeUnixNano"])
    span.status.code = one["status"]["code"]
    span.status.message = one["status"].get("message", "")
    _fill(span.attributes, one["attributes"])
    for event in one.get("events", ()):
        told = span.events.add()
        told.name, told.time_unix_nano = event["name"], int(event["timeUnixNano"])
        _fill(told.attributes, event["attributes"])
    for link in one.get("links", ()):
        to = span.links.add()
        to.trace_id, to.span_id = bytes.fromhex(link["traceId"]), bytes.fromhex(link["spanId"])
        _fill(to.attributes, link["attributes"])


def _fill(into: Any, attributes: Sequence[Json]) -> None:
    for attribute in attributes:
        one: KeyValue = into.add()
        one.key = attribute["key"]
        _any(one.value, attribute["value"])


def _any(into: Any, value: Json) -> None:
    """One of OTLP's values into its message."""
    ((kind, held),) = value.items()
    match kind:
        case "stringValue":
            into.string_value = held
        case "boolValue":
            into.bool_value = held
        case "intValue":
            into.int_value = int(held)
        case "doubleValue":
            into.double_value = held
        case "arrayValue":
            into.array_value.SetInParent()
            for one in held["values"]:
                _any(into.array_value.values.add(), one)
        case _:
            into.kvlist_value.SetInParent()
            _fill(into.kvlist_value.values, held["values"])
