"""Spans of the agent itself: what it did for an attempt, on its own clock, as OTLP/JSON.

Attributes are those of OpenTelemetry's conventions for CI/CD where these have a name for it; `data_id`, `flowmesh.type`
and `coord.…` beside them. Of the machine's clock the estimated distance to the coordinator's is told, and its bound:
nothing is corrected here.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import msgspec

from coordinator.agent.asking import Whose
from coordinator.agent.offset import Estimate
from coordinator.core.ids import attempt_of, dotted
from coordinator.core.work.traceids import ATTEMPT, span_id

SCOPE = "coord.agent"
NAME_CHARS_MAX = 256
PROGRAM = "program"
"""From its start to its end, as the agent saw them."""
_ENCODE = msgspec.json.Encoder().encode
Value = str | int | float | bool


class Row(NamedTuple):
    """One span that is over. `what` tells it from the others of the attempt."""

    what: str
    name: str
    start_ns: int
    end_ns: int
    kind: str
    """`compute`, `network`, `marker`."""
    attributes: Mapping[str, Value] = {}
    failed: str = ""
    """Why it came to nothing."""


Traced = Callable[[Whose, Row], None]


def nobody(_whose: Whose, _row: Row) -> None:
    """Takes spans where there is no trace."""


@contextmanager
def timed(
    traced: Traced, whose: Whose, what: str, name: str, kind: str, attributes: Mapping[str, Value]
) -> Iterator[dict[str, Value]]:
    """Have a span of what the block does, also where it fails. What it puts into the dict become attributes."""
    start_ns, began_ns = time.time_ns(), time.monotonic_ns()
    said, failed = dict(attributes), ""
    try:
        yield said
    except BaseException as error:
        failed = str(error) or type(error).__name__
        raise
    finally:
        end_ns = start_ns + time.monotonic_ns() - began_ns  # the wall clock may be set meanwhile
        traced(whose, Row(what, name, start_ns, end_ns, kind, said, failed))


def encoded(
    rows: Sequence[Row], attempt: str, rank: int, provider: str, trace: bytes, offset: Estimate | None
) -> bytes:
    """An ExportTraceServiceRequest with these spans of a rank, beneath the attempt's own."""
    job_id, step, task, number = attempt_of(attempt)
    whose: dict[str, Value] = {
        "service.name": SCOPE,
        "cicd.pipeline.run.id": str(job_id),
        "cicd.pipeline.task.run.id": attempt,
        "cicd.worker.id": provider,
        "cicd.worker.name": provider,
        "data_id": dotted((job_id, step, task)),
        "coord.attempt": number,
        "coord.rank": rank,
    }
    if offset is not None:
        whose |= {
            "coord.clock.offset_ns": round(offset.offset_ms * 1e6),
            "coord.clock.bound_ns": round(offset.bound_ms * 1e6),
        }
    parent = span_id(attempt, ATTEMPT).hex()
    spans = [_span(row, f"{attempt}/{rank}", trace.hex(), parent) for row in rows]
    return _ENCODE(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _attributes(whose)},
                    "scopeSpans": [{"scope": {"name": SCOPE}, "spans": spans}],
                }
            ]
        }
    )


def _span(row: Row, subject: str, trace: str, parent: str) -> dict[str, object]:
    found: dict[str, object] = {
        "traceId": trace,
        "spanId": span_id(subject, row.what).hex(),
        "parentSpanId": parent,
        "name": row.name[:NAME_CHARS_MAX],
        "kind": 1,
        "startTimeUnixNano": str(row.start_ns),
        "endTimeUnixNano": str(max(row.start_ns, row.end_ns)),
        "attributes": _attributes({"flowmesh.type": row.kind, **row.attributes}),
    }
    if row.failed:
        found["status"] = {"code": 2, "message": row.failed[:NAME_CHARS_MAX]}
    return found


def _attributes(named: Mapping[str, Value]) -> list[dict[str, object]]:
    return [{"key": name, "value": _value(value)} for name, value in named.items()]


def _value(value: Value) -> dict[str, object]:
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": str(value)}
        case float():
            return {"doubleValue": value}
        case _:
            return {"stringValue": value}
