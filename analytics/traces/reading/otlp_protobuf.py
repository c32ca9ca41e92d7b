"""OTLP as protobuf: an ExportTraceServiceRequest, which is TracesData on the wire. Decoded by OpenTelemetry's own
messages."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable
from typing import Any

from analytics.traces.building import SpanRow
from analytics.traces.columns import STATUSES, UNFINISHED
from analytics.traces.reading.attributes import ATTRIBUTES_MAX, DEPTH_MAX, DETAILS_BYTES_MAX, span_kind, span_row
from analytics.traces.reading.otlp_groups import groups as groups_of
from analytics.traces.reading.reading import GROUPS_MAX, Intake
from analytics.traces.reading.times import NS_MAX

SPAN_BYTES_LEAST = 28
"""Of its two ids alone."""


def take_document(intake: Intake, data: bytes, source: str) -> None:
    """Take in every span of a message; a bad span is rejected alone. ValueError when the message is none."""
    # Imported here: a process that reads no protobuf does not pay 25 ms and 8 MB for it.
    from google.protobuf.message import DecodeError
    from opentelemetry.proto.resource.v1.resource_pb2 import Resource
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

    groups, group, scope = groups_of()
    seen = 0
    try:
        resources = groups.FromString(data).one
        if len(resources) > GROUPS_MAX:
            raise ValueError(f"it has more than {GROUPS_MAX} resources")
        for one in resources:
            held = group.FromString(one)
            if len(held.two) > GROUPS_MAX or sum(map(len, held.one)) > DETAILS_BYTES_MAX:
                raise ValueError("a resource is too large, or has too many scopes")
            # What is there twice is one message, of which the parts are joined.
            resource = _attributes(Resource.FromString(b"".join(held.one)).attributes, 0)
            for within in held.two:
                spans = scope.FromString(within).two
                for at, span in enumerate(spans):
                    if intake.gave_up:
                        intake.leave(source, seen, len(spans) - at)
                        break
                    seen += 1
                    try:
                        intake.check()
                        intake.add(_span_of(_decoded(Span, span), resource, intake.builder.details))
                    except ValueError as error:
                        intake.reject(source, seen, str(error))
    except DecodeError as error:
        raise ValueError(f"this is no OTLP message: {error}") from None


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
