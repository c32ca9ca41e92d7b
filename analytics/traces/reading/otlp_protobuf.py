"""OTLP as protobuf: an ExportTraceServiceRequest, which is TracesData on the wire. Decoded by OpenTelemetry's own
messages."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from analytics.traces.building import SpanRow
from analytics.traces.columns import STATUSES, UNFINISHED
from analytics.traces.reading.attributes import ATTRIBUTES_MAX, DEPTH_MAX, DETAILS_BYTES_MAX, span_kind, span_row
from analytics.traces.reading.otlp_fields import Part, count, fields, whole
from analytics.traces.reading.reading import GROUPS_MAX, Intake
from analytics.traces.reading.times import NS_MAX

RESOURCES, RESOURCE, SCOPE, SPANS = 1, 1, 2, 2
"""Numbers of fields: TracesData.resource_spans, ResourceSpans.resource and .scope_spans, ScopeSpans.spans."""
LEFT_MAX = 1_000_000
"""Of the spans that are not looked at so many are counted, and of empty ones all."""
SPAN_BYTES_LEAST = 28
"""Of its two ids alone."""


def take_document(intake: Intake, data: bytes, source: str) -> None:
    """Take in every span of a message; a bad span is rejected alone. ValueError when the message is none."""
    # Imported here: a process that reads no protobuf does not pay 25 ms and 8 MB for it.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    seen = left = 0
    try:
        for resource, scope in _scopes(data):
            for part in fields(data, scope):
                if part.number != SPANS:
                    continue
                if intake.gave_up:
                    others = 1 + count(data, Part(0, part.end, scope.end), SPANS, LEFT_MAX - left)
                    intake.leave(source, seen, others)
                    left += others
                    break
                seen += 1
                try:
                    intake.check()
                    intake.add(_span_of(_decoded(Span, data[part.start : part.end]), resource, intake.builder.details))
                except ValueError as error:
                    intake.reject(source, seen, str(error))
            if left >= LEFT_MAX:
                break
    except DecodeError as error:
        raise ValueError(f"this is no OTLP message: {error}") from None


def _scopes(data: bytes) -> Iterator[tuple[dict[str, Any], Part]]:
    """Where each scope lies, with the attributes of its resource."""
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource

    for number, held in enumerate(fields(data, whole(data))):
        if number >= GROUPS_MAX:
            raise ValueError(f"it has more than {GROUPS_MAX} resources")
        if held.number != RESOURCES:
            continue
        parts = list(islice(fields(data, held), GROUPS_MAX + 1))
        described = [data[part.start : part.end] for part in parts if part.number == RESOURCE]
        if len(parts) > GROUPS_MAX or sum(map(len, described)) > DETAILS_BYTES_MAX:
            raise ValueError("a resource is too large, or has too many scopes")
        # What is there twice is one message, of which the parts are joined.
        resource = _attributes(Resource.FromString(b"".join(described)).attributes, 0)
        yield from ((resource, part) for part in parts if part.number == SCOPE)


def _decoded(kind: Any, data: bytes) -> Any:
    from google.protobuf.message import DecodeError

    if len(data) < SPAN_BYTES_LEAST:
        raise ValueError("trace_id is not 16 bytes, or span_id not 8")
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise ValueError(f"it is no span: {error}") from None


def _span_of(span: Any, resource: dict[str, Any], details: bool) -> SpanRow:
    trace, own, parent = span.trace_id, span.span_id, span.parent_span_id
    if len(trace) != 16 or len(own) != 8 or len(parent) not in (0, 8):
        raise ValueError("trace_id is not 16 bytes, or span_id or parent_span_id not 8")
    start_ns, end_ns = span.start_time_unix_nano, span.end_time_unix_nano
    if max(start_ns, end_ns) > NS_MAX:
        raise ValueError("a time lies behind 2116")
    if len(span.attributes) > ATTRIBUTES_MAX:
        raise ValueError(f"it has more than {ATTRIBUTES_MAX} attributes")
    if span.ByteSize() > 2 * DETAILS_BYTES_MAX:
        raise ValueError(f"its attributes and events are larger than {DETAILS_BYTES_MAX} bytes")
    more: dict[str, Any] | None = None
    if details:
        if any(event.time_unix_nano > NS_MAX for event in span.events):
            raise ValueError("an event's time lies behind 2116")
        if any(len(link.trace_id) != 16 or len(link.span_id) != 8 for link in span.links):
            raise ValueError("a link's trace_id is not 16 bytes, or its span_id not 8")
        more = {
            "events": [
                {"name": event.name, "time_ns": event.time_unix_nano, "attributes": _attributes(event.attributes, 0)}
                for event in span.events
            ],
            "links": [
                {
                    "trace_id": link.trace_id.hex(),
                    "span_id": link.span_id.hex(),
                    "attributes": _attributes(link.attributes, 0),
                }
                for link in span.links
            ],
            "kind": span_kind(int(span.kind)),
            "status_message": span.status.message,
            "resource": resource,
        }
    code = int(span.status.code)
    return span_row(
        trace=trace.hex(),
        span=int.from_bytes(own, "big"),
        parent=int.from_bytes(parent, "big"),
        name=span.name,
        start_ns=start_ns,
        end_ns=end_ns or (UNFINISHED if start_ns else 0),
        status=STATUSES[code] if 0 <= code < len(STATUSES) else "UNSET",
        attributes=_attributes(span.attributes, 0),
        resource=resource,
        details=more,
    )


def _attributes(pairs: Iterable[Any], depth: int) -> dict[str, Any]:
    return {pair.key: _value(pair.value, depth) for pair in pairs}


def _value(value: Any, depth: int) -> Any:
    which = value.WhichOneof("value")
    if which is None:
        return None
    inner = getattr(value, which)
    if which == "bytes_value":
        return b64encode(inner).decode()
    if which not in ("array_value", "kvlist_value"):
        return inner
    if depth >= DEPTH_MAX:
        raise ValueError(f"its attributes are nested more than {DEPTH_MAX} deep")
    if which == "array_value":
        return [_value(one, depth + 1) for one in inner.values]
    return _attributes(inner.values, depth + 1)
