"""OTLP/JSON: a document, or one a line. Ids are hex digits, enums numbers, 64-bit integers text; unknown fields are
ignored. (protobuf's own JSON mapping, with base64 ids, is something else.)"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from analytics.traces.building import SpanRow
from analytics.traces.columns import STATUSES, UNFINISHED
from analytics.traces.reading.attributes import ATTRIBUTES_MAX, id_of, span_kind, span_row, whole_of
from analytics.traces.reading.reading import GROUPS_MAX, Intake
from analytics.traces.reading.times import NS_MAX
from analytics.traces.reading.values import KeyValue, attributes_of


class _Status(Struct, gc=False, frozen=True):
    code: int | None = None
    message: str | None = None


class _Event(Struct, gc=False, frozen=True):
    timeUnixNano: int | str | None = None
    name: str | None = None
    attributes: list[KeyValue] | None = None


class _Link(Struct, gc=False, frozen=True):
    traceId: str | None = None
    spanId: str | None = None
    attributes: list[KeyValue] | None = None


class _Span(Struct, gc=False, frozen=True):
    traceId: str | None = None
    spanId: str | None = None
    parentSpanId: str | None = None
    name: str | None = None
    kind: int | None = None
    startTimeUnixNano: int | str | None = None
    endTimeUnixNano: int | str | None = None
    attributes: list[KeyValue] | None = None
    events: list[_Event] | None = None
    links: list[_Link] | None = None
    status: _Status | None = None


class _Resource(Struct, gc=False, frozen=True):
    attributes: list[KeyValue] | None = None


class _ScopeSpans(Struct, gc=False, frozen=True):
    spans: list[msgspec.Raw] | None = None


class _ResourceSpans(Struct, gc=False, frozen=True):
    resource: _Resource | None = None
    scopeSpans: list[_ScopeSpans] | None = None


class _Document(Struct, gc=False, frozen=True):
    resourceSpans: list[_ResourceSpans] | None = None


_documents = msgspec.json.Decoder(_Document)
_spans = msgspec.json.Decoder(_Span)


def take_document(intake: Intake, data: bytes, source: str, line: int = 0) -> None:
    """Take in every span of a document; a bad span is rejected alone. ValueError, msgspec.DecodeError when the
    document is none. `line` is where it stands; 0: spans are counted instead."""
    groups = _documents.decode(data).resourceSpans or []
    if len(groups) > GROUPS_MAX:
        raise ValueError(f"it has more than {GROUPS_MAX} resources")
    seen = 0
    for group in groups:
        resource = attributes_of(group.resource.attributes) if group.resource is not None else {}
        for scope in group.scopeSpans or ():
            spans = scope.spans or []
            for at, raw in enumerate(spans):
                if intake.gave_up:
                    intake.leave(source, line or seen, len(spans) - at)
                    break
                seen += 1
                try:
                    intake.check()
                    intake.add(_span_of(_spans.decode(raw), resource, intake.builder.details))
                except (ValueError, msgspec.DecodeError, RecursionError) as error:
                    intake.reject(source, line or seen, str(error))


def _span_of(span: _Span, resource: dict[str, Any], details: bool) -> SpanRow:
    if len(span.attributes or ()) > ATTRIBUTES_MAX:
        raise ValueError(f"it has more than {ATTRIBUTES_MAX} attributes")
    attributes = attributes_of(span.attributes)
    code = span.status.code or 0 if span.status is not None else 0
    more: dict[str, Any] | None = None
    if details:
        more = {
            "events": [
                {
                    "name": event.name or "",
                    "time_ns": whole_of(event.timeUnixNano or 0, "an event's time", NS_MAX),
                    "attributes": attributes_of(event.attributes),
                }
                for event in span.events or ()
            ],
            "links": [
                {
                    "trace_id": id_of(link.traceId, "a link's traceId", 32),
                    "span_id": id_of(link.spanId, "a link's spanId", 16),
                    "attributes": attributes_of(link.attributes),
                }
                for link in span.links or ()
            ],
            "kind": span_kind(span.kind or 0),
            "status_message": (span.status.message or "") if span.status is not None else "",
            "resource": resource,
        }
    if span.startTimeUnixNano is None:
        raise ValueError("startTimeUnixNano is missing")
    end_ns = whole_of(span.endTimeUnixNano or 0, "endTimeUnixNano", NS_MAX)
    start_ns = whole_of(span.startTimeUnixNano, "startTimeUnixNano", NS_MAX)
    return span_row(
        trace=id_of(span.traceId, "traceId", 32),
        span=int(id_of(span.spanId, "spanId", 16), 16),
        parent=int(id_of(span.parentSpanId, "parentSpanId", 16), 16) if span.parentSpanId else 0,
        name=span.name,
        start_ns=start_ns,
        end_ns=end_ns or (UNFINISHED if start_ns else 0),
        status=STATUSES[code] if 0 <= code < len(STATUSES) else "UNSET",
        attributes=attributes,
        resource=resource,
        details=more,
    )
