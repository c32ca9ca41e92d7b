"""Jaeger's JSON, as its HTTP API and its UI give it: `{"data": [{"traceID", "processes", "spans"}]}`, microseconds."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from analytics.traces.building import SpanRow
from analytics.traces.reading.attributes import id_of, span_row, whole_of
from analytics.traces.reading.readable import SPAN_KINDS
from analytics.traces.reading.reading import Intake
from analytics.traces.reading.times import NS_MAX


class _Tag(Struct, gc=False, frozen=True):
    key: str = ""
    value: Any = None


class _Reference(Struct, gc=False, frozen=True):
    refType: str = ""
    traceID: str = ""
    spanID: str = ""


class _Log(Struct, gc=False, frozen=True):
    timestamp: int = 0
    fields: list[_Tag] | None = None


class _Span(Struct, gc=False, frozen=True):
    spanID: str
    startTime: int
    traceID: str = ""
    operationName: str = ""
    duration: int = 0
    references: list[_Reference] | None = None
    processID: str | None = None
    tags: list[_Tag] | None = None
    logs: list[_Log] | None = None


class _Process(Struct, gc=False, frozen=True):
    serviceName: str = ""
    tags: list[_Tag] | None = None


class _Trace(Struct, gc=False, frozen=True):
    traceID: str = ""
    spans: list[msgspec.Raw] | None = None
    processes: dict[str, _Process] = {}


class _Document(Struct, gc=False, frozen=True):
    data: list[_Trace] | None = None


_documents = msgspec.json.Decoder(_Document)
_spans = msgspec.json.Decoder(_Span)


def take_document(intake: Intake, data: bytes, source: str) -> None:
    """Take in every span of every trace of a document; a bad span is rejected alone. msgspec.DecodeError when the
    document is none."""
    seen = 0
    for trace in _documents.decode(data).data or ():
        hosts = {name: _tags(process.tags) for name, process in trace.processes.items()}
        for process in hosts.values():
            if "hostname" in process:
                process.setdefault("host.name", process["hostname"])
        spans = trace.spans or []
        for at, raw in enumerate(spans):
            if intake.gave_up:
                intake.leave(source, seen, len(spans) - at)
                break
            seen += 1
            try:
                intake.check()
                span = _spans.decode(raw)
                process = hosts.get(span.processID or "", {})
                intake.add(_span_of(span, trace.traceID, process, intake.builder.details))
            except (ValueError, msgspec.DecodeError, RecursionError) as error:
                intake.reject(source, seen, str(error))


def _tags(tags: list[_Tag] | None) -> dict[str, Any]:
    return {tag.key: tag.value for tag in tags or ()}


def _span_of(span: _Span, trace_id: str, process: dict[str, Any], details: bool) -> SpanRow:
    attributes = _tags(span.tags)
    references = span.references or []
    parent = next((one.spanID for one in references if one.refType == "CHILD_OF"), "")
    start_ns = whole_of(span.startTime, "startTime", NS_MAX // 1000) * 1000
    failed = attributes.get("error") in (True, "true") or attributes.get("otel.status_code") == "ERROR"
    ok = attributes.get("otel.status_code") == "OK"
    more: dict[str, Any] | None = None
    if details:
        kind = str(attributes.get("span.kind") or "").upper()
        more = {
            "events": [
                {
                    "name": str(_tags(log.fields).get("event") or "log"),
                    "time_ns": whole_of(log.timestamp, "a log's timestamp", NS_MAX // 1000) * 1000,
                    "attributes": _tags(log.fields),
                }
                for log in span.logs or ()
            ],
            "links": [
                {
                    "trace_id": id_of(one.traceID or trace_id, "a reference's traceID", 32),
                    "span_id": id_of(one.spanID, "a reference's spanID", 16),
                    "attributes": {},
                }
                for one in references
                if one.refType != "CHILD_OF"
            ],
            "kind": SPAN_KINDS.index(kind) if kind in SPAN_KINDS else 0,
            "status_message": str(attributes.get("otel.status_description") or ""),
            "resource": process,
        }
    return span_row(
        trace=id_of(span.traceID or trace_id, "traceID", 32),
        span=int(id_of(span.spanID, "spanID", 16), 16),
        parent=int(id_of(parent, "a reference's spanID", 16), 16) if parent else 0,
        name=span.operationName,
        start_ns=start_ns,
        end_ns=start_ns + whole_of(span.duration, "duration", (NS_MAX - start_ns) // 1000) * 1000,
        status="ERROR" if failed else "OK" if ok else "UNSET",
        attributes=attributes,
        resource=process,
        details=more,
    )
