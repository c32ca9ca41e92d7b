"""Spans as OpenTelemetry Python's `ReadableSpan.to_json()` prints them, one a line: ids with 0x, microsecond times.

The way of a million lines: a block of lines is decoded into typed structs and becomes columns at once, 5 us a line.
When anything in a block is unusual its lines are taken one by one, and the bad ones are named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import repeat
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
from msgspec import Meta, Struct, field
from numpy.typing import NDArray

from analytics.traces.building import SpanRow
from analytics.traces.columns import ERROR, OK, UNFINISHED, UNSET
from analytics.traces.reading import times
from analytics.traces.reading.attributes import ATTEMPT_MAX, DEPTH_MAX, TEXT_MAX, flags_of, id_of, span_row
from analytics.traces.reading.reading import Intake

Text = Annotated[str, Meta(max_length=TEXT_MAX)]
SPAN_KINDS = ("UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER")
"""OpenTelemetry's numbers for what it calls a span's kind."""


class _Context(Struct, gc=False, frozen=True):
    # What becomes a number is bounded by that; only what is kept as text is measured.
    trace_id: str
    span_id: str


class _Status(Struct, gc=False, frozen=True):
    status_code: str = "UNSET"


class _Attributes(Struct, gc=False, frozen=True):
    data_id: Text | None = None
    batch_id: Text | None = None
    source_data_id: Text | None = None
    workflow_id: Text | None = None
    attempt: Annotated[int, Meta(ge=0, le=ATTEMPT_MAX)] | None = None
    coord_attempt: Annotated[int, Meta(ge=0, le=ATTEMPT_MAX)] | None = field(name="coord.attempt", default=None)
    slot: Annotated[int, Meta(ge=0, le=ATTEMPT_MAX)] | None = field(name="coord.slot", default=None)
    kind: Text | None = field(name="flowmesh.type", default=None)
    worker: Text | None = field(name="worker.id", default=None)
    cicd_worker: Text | None = field(name="cicd.worker.id", default=None)
    provider: Text | None = field(name="coord.provider", default=None)
    label: Text | None = field(name="cicd.pipeline.task.name", default=None)
    step: Text | None = field(name="coord.step", default=None)
    key: Text | None = field(name="coord.key", default=None)
    outcome: Text | None = field(name="coord.outcome", default=None)
    result: Text | None = field(name="cicd.pipeline.task.run.result", default=None)


class _ResourceAttributes(Struct, gc=False, frozen=True):
    data_id: Text | None = None
    worker: Text | None = field(name="cicd.worker.id", default=None)
    host: Text | None = field(name="host.name", default=None)


class _Resource(Struct, gc=False, frozen=True):
    attributes: _ResourceAttributes = _ResourceAttributes()


class _Line(Struct, gc=False, frozen=True):
    name: Text
    context: _Context
    start_time: str
    end_time: str | None = None
    parent_id: str | None = None
    status: _Status = _Status()
    attributes: _Attributes = _Attributes()
    resource: _Resource = _Resource()


class _Number(dict[str | None, int]):
    """The number of a word; 0 of any other."""

    def __missing__(self, word: str | None) -> int:
        return 0


_lines = msgspec.json.Decoder(_Line)
_KIND = _Number(compute=1, network=2, marker=3)
_STATUS = _Number(UNSET=UNSET, OK=OK, ERROR=ERROR)
_columns_of_line = attrgetter(
    "name",
    "start_time",
    "end_time",
    "parent_id",
    "context.trace_id",
    "context.span_id",
    "status.status_code",
    "attributes",
)
_columns_of_attributes = attrgetter(*_Attributes.__struct_fields__)


def take_block(intake: Intake, block: bytes) -> int:
    """Take in complete lines, all or none: how many there were. ValueError or msgspec.DecodeError when one of them
    needs a closer look. Keeps no details."""
    rows = _lines.decode_lines(block)
    if not rows:
        return 0
    # By column, in C: what a loop over the rows for each column takes half a microsecond a row longer for.
    names, starts, ends, parents, traces, ids, statuses, said = zip(*map(_columns_of_line, rows), strict=True)
    of = dict(zip(_Attributes.__struct_fields__, zip(*map(_columns_of_attributes, said), strict=True), strict=True))
    start, end = times.column(starts), times.column(ends)
    if (start < 0).any() or ((end != UNFINISHED) & (end < start)).any():
        raise ValueError("a span without a start, or that ends before it")
    span = _ids(ids)
    if not span.all():
        raise ValueError("span_id is zero")
    for trace in set(traces):
        if len(trace) > 34 or not 0 < int(trace, 16) < 2**128:
            raise ValueError("trace_id is not 32 hex digits, or zero")
    if None in of["data_id"] and any(row.resource.attributes.data_id for row in rows):
        raise ValueError("a resource that speaks for its spans")
    absent = None in parents
    intake.builder.add_columns(
        details=None,
        workflows=of["workflow_id"],
        start=start,
        end=end,
        span=span,
        parent=_ids([parent or "0" for parent in parents] if absent else parents),
        trace=traces,
        name=names,
        data=of["data_id"],
        batch=of["batch_id"],
        source=_unless_empty(of["source_data_id"]),
        provider=_providers(of, rows),
        slot=_whole(of["slot"], -1),
        attempt=_whole(_first_said(of["attempt"], of["coord_attempt"]), 0),
        label=_unless_empty(_first_said(of["label"], of["step"])),
        key=_unless_empty(of["key"]),
        kind=np.fromiter(map(_KIND.__getitem__, of["kind"]), np.int8, len(rows)),
        status=np.fromiter(map(_STATUS.__getitem__, statuses), np.int8, len(rows)),
        flags=[flags_of(*two) for two in zip(of["outcome"], of["result"], strict=True)]
        if any(of["outcome"]) or any(of["result"])
        else None,
    )
    intake.rows += len(rows)
    return len(rows)


Column = Sequence[Any]


def _unless_empty(column: Column) -> Column | None:
    """None for a column in which nothing is said."""
    return column if any(column) else None


def _first_said(one: Column, other: Column) -> Column:
    """Each row's first value, of two names for the same thing."""
    if not any(other):
        return one
    return [second if first is None else first for first, second in zip(one, other, strict=True)]


def _whole(column: Column, fill: int) -> Column | None:
    if None not in column:
        return column
    if column.count(None) == len(column):
        return None
    return [fill if value is None else value for value in column]


def _providers(of: Mapping[str, Column], rows: list[_Line]) -> Column:
    if all(of["worker"]):
        return of["worker"]
    return [
        worker or other or third or row.resource.attributes.worker or row.resource.attributes.host
        for worker, other, third, row in zip(of["worker"], of["cicd_worker"], of["provider"], rows, strict=True)
    ]


def _ids(texts: Column) -> NDArray[np.uint64]:
    """OverflowError and ValueError of what is no id."""
    return np.fromiter(map(int, texts, repeat(16)), np.uint64, len(texts))


def span_of(row: Mapping[str, Any], details: bool) -> SpanRow:
    """The span of one decoded line; ValueError says what is wrong with it."""
    context = _mapping(row.get("context"), "context")
    attributes = _mapping(row.get("attributes"), "attributes")
    resource = _mapping(_mapping(row.get("resource"), "resource").get("attributes"), "resource.attributes")
    status = _mapping(row.get("status"), "status")
    parent = row.get("parent_id")
    start_ns = times.nanoseconds(_time(row.get("start_time"), "start_time"))
    if start_ns == UNFINISHED:
        raise ValueError("start_time is missing")
    more: dict[str, Any] | None = None
    if details:
        kind = row.get("kind")
        more = {
            "events": [_event(_mapping(event, "an event")) for event in _sequence(row.get("events"), "events")],
            "links": [_link(_mapping(link, "a link")) for link in _sequence(row.get("links"), "links")],
            "kind": _kind_number(kind),
            "status_message": str(status.get("description") or ""),
            "resource": resource,
        }
        _check_depth((attributes, more))
    return span_row(
        trace=id_of(context.get("trace_id"), "trace_id", 32),
        span=int(id_of(context.get("span_id"), "span_id", 16), 16),
        parent=int(id_of(parent, "parent_id", 16), 16) if parent is not None else 0,
        name=row.get("name"),
        start_ns=start_ns,
        end_ns=times.nanoseconds(_time(row.get("end_time"), "end_time")),
        status=str(status.get("status_code", "UNSET")),
        attributes=attributes,
        resource=resource,
        details=more,
    )


def _kind_number(kind: Any) -> int:
    name = str(kind or "").removeprefix("SpanKind.")
    return SPAN_KINDS.index(name) if name in SPAN_KINDS else 0


def _event(event: Mapping[str, Any]) -> dict[str, Any]:
    at = times.nanoseconds(_time(event.get("timestamp"), "an event's timestamp"))
    attributes = _mapping(event.get("attributes"), "an event's attributes")
    return {"name": str(event.get("name") or ""), "time_ns": max(at, 0), "attributes": attributes}


def _link(link: Mapping[str, Any]) -> dict[str, Any]:
    context = _mapping(link.get("context"), "a link's context")
    return {
        "trace_id": id_of(context.get("trace_id"), "a link's trace_id", 32),
        "span_id": id_of(context.get("span_id"), "a link's span_id", 16),
        "attributes": _mapping(link.get("attributes"), "a link's attributes"),
    }


def _time(value: Any, what: str) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{what} is no text")
    return value


def _mapping(value: Any, what: str) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise ValueError(f"{what} is no object")
    return value


def _sequence(value: Any, what: str) -> list[Any]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise ValueError(f"{what} is no list")
    return value


def _check_depth(value: object) -> None:
    """ValueError where lists and maps lie deeper within one another than any sender has them."""
    level = [value]
    for _ in range(DEPTH_MAX + 4):
        level = [
            inner
            for one in level
            if isinstance(one, (dict, list, tuple))
            for inner in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise ValueError(f"its attributes are nested more than {DEPTH_MAX} deep")
