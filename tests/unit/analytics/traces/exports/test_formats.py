"""Jaeger's JSON, OTLP and folded stacks: what was exported is what was there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from analytics.traces.analysis import analyze
from analytics.traces.columns import Trace
from analytics.traces.exports import folded, jaeger, otlp
from analytics.traces.exports.rows import rows_of
from analytics.traces.reading import read_bytes
from tests.unit.analytics.traces.exports.runs import BEGAN, EVIL, MS, TRACE, a_span, awkward, generated


def rows_with_ends(trace: Trace) -> Trace:
    """Of formats that have no unfinished spans: they end when the run did."""
    trace.spans.end[:] = rows_of(trace, analyze(trace)).end
    return trace


@pytest.mark.parametrize("form", ["protobuf", "json"])
def test_otlp_holds_what_was_read(form: str) -> None:
    """Read again it is the same trace, in either encoding."""
    trace = awkward()
    for request, spans in otlp.batches(trace):
        body = otlp.protobuf(request) if form == "protobuf" else json.dumps(request).encode()
        back = read_bytes(f"otlp_{form}", body).trace
        assert spans == len(trace.spans) == len(back.spans)
        for name in ("start", "end", "span", "parent", "kind", "status", "attempt"):
            order, other = np.argsort(trace.spans.span), np.argsort(back.spans.span)
            assert getattr(trace.spans, name)[order].tolist() == getattr(back.spans, name)[other].tolist(), name


def test_otlp_protobuf_is_what_the_specification_says() -> None:
    """Ids as bytes, times as integers, attributes of every type, events, links and resources."""
    ((request, _),) = otlp.batches(awkward())
    message = ExportTraceServiceRequest.FromString(otlp.protobuf(request))
    spans = {span.span_id: span for of in message.resource_spans for scope in of.scope_spans for span in scope.spans}
    one = spans[bytes(7) + b"\x02"]
    assert one.trace_id.hex() == TRACE
    assert (one.start_time_unix_nano, one.end_time_unix_nano) == (BEGAN + 12 * MS, BEGAN + 40 * MS)
    said = {attribute.key: attribute.value for attribute in one.attributes}
    assert (said["n"].int_value, said["text"].string_value) == (3, EVIL)
    deep = {each.key: each.value for each in said["deep"].kvlist_value.values}["a"].array_value.values
    assert [deep[0].int_value, deep[1].double_value, deep[2].bool_value] == [1, 2.5, True]
    assert said["big"].string_value == str(2**70)
    assert (one.events[0].name, one.events[0].time_unix_nano) == ("epoch", BEGAN + 20 * MS)
    assert one.links[0].span_id == bytes(7) + b"\x01"
    assert one.kind == 2
    failed = spans[bytes(7) + b"\x01"]
    assert (failed.status.code, failed.status.message) == (2, "exit 1")
    assert spans[bytes(7) + b"\x03"].parent_span_id == bytes(7) + b"\x02"
    assert spans[bytes(7) + b"\x0c"].end_time_unix_nano == 0
    services = {a.value.string_value for of in message.resource_spans for a in of.resource.attributes
                if a.key == "service.name"}  # fmt: skip
    assert services == {"coord", "trainer"}


def test_a_large_trace_is_sent_in_parts(tmp_path: Path) -> None:
    """Each request has a bound, and together they hold every span once."""
    trace = generated(tmp_path, "--spans", "3500", details=False)
    parts = list(otlp.batches(trace))
    assert [spans for _, spans in parts[:-1]] == [otlp.BATCH] * (len(parts) - 1)
    ids = [s["spanId"] for request, _ in parts for of in request["resourceSpans"] for s in of["scopeSpans"][0]["spans"]]
    assert sorted(ids) == sorted(f"{int(span):016x}" for span in trace.spans.span)


def test_a_file_of_otlp_is_read_as_one(tmp_path: Path) -> None:
    """A request a line; the whole file is the same trace again."""
    trace = generated(tmp_path / "run", "--spans", "2500", "--workers", "5")
    back = read_bytes("spans", b"".join(otlp.pieces(trace))).trace
    assert len(back.spans) == len(trace.spans)
    order, other = np.argsort(trace.spans.span), np.argsort(back.spans.span)
    for name in ("start", "end", "parent", "kind", "status", "attempt"):
        assert getattr(trace.spans, name)[order].tolist() == getattr(back.spans, name)[other].tolist(), name


def test_jaeger_holds_what_was_read(tmp_path: Path) -> None:
    """Read again it is the same trace, to Jaeger's microsecond."""
    for trace in (
        rows_with_ends(awkward()),
        generated(tmp_path, "--spans", "1200", "--workers", "5", "--retry", "0.1"),
    ):
        text = b"".join(jaeger.pieces(trace, analyze(trace)))
        back = read_bytes("jaeger", text).trace
        order, other = np.argsort(trace.spans.span), np.argsort(back.spans.span)
        assert (trace.spans.start[order] // 1000).tolist() == (back.spans.start[other] // 1000).tolist()
        assert (trace.spans.end[order] // 1000).tolist() == (back.spans.end[other] // 1000).tolist()
        for name in ("span", "parent", "status", "kind", "attempt"):
            assert getattr(trace.spans, name)[order].tolist() == getattr(back.spans, name)[other].tolist(), name
        assert back.data_ids == trace.data_ids


def test_jaeger_gets_types_references_and_logs() -> None:
    """As its own API answers: a process a provider, tags with types, a reference to the parent."""
    answer = json.loads(b"".join(jaeger.pieces(awkward(), analyze(awkward()))))
    (entry,) = answer["data"]
    spans = {span["spanID"]: span for span in entry["spans"]}
    one = spans[f"{2:016x}"]
    assert entry["traceID"] == one["traceID"] == TRACE
    assert {"key": "n", "type": "int64", "value": 3} in one["tags"]
    assert one["logs"][0]["timestamp"] == (BEGAN + 20 * MS) // 1000
    assert spans[f"{3:016x}"]["references"] == [
        {"refType": "CHILD_OF", "traceID": TRACE, "spanID": f"{2:016x}"},
    ]
    assert {"key": "error", "type": "bool", "value": True} in spans[f"{1:016x}"]["tags"]
    assert all(span["processID"] in entry["processes"] for span in entry["spans"])
    assert one["startTime"] == (BEGAN + 12 * MS) // 1000 and one["duration"] == 28_000


def stacks(trace: Trace) -> dict[str, int]:
    lines = b"".join(folded.pieces(trace, analyze(trace), title="run")).decode().splitlines()
    return {line.rpartition(" ")[0]: int(line.rpartition(" ")[2]) for line in lines}


def test_folded_stacks_are_own_times() -> None:
    """Of each span what no child covers; a child that outlives its parent takes only its parent's part away."""
    found = stacks(awkward())
    assert found["run;task (failed)"] == 10_000
    assert found["run;task;read"] == 4_000 + 4_500 - 1
    # 28 ms less what its children cover: 12..17, 17..30 and 30..40, and what began before it counts from its start.
    assert "run;task" not in found or found["run;task"] < 26_001
    assert found["run;orphan"] == 1_000


def test_folded_stacks_cannot_be_broken_by_names() -> None:
    """One line a stack: its frames by `;`, a space, a number."""
    for line in b"".join(folded.pieces(awkward(), analyze(awkward()), title=EVIL + "\n")).decode().split("\n")[:-1]:
        assert re.fullmatch(r"[^;\n\u2028]+(;[^;\n\u2028]+)* [0-9]+", line)


def test_folded_stacks_of_tasks_with_names_begin_with_these() -> None:
    """Tasks of one name are one tower."""
    assert any(stack.startswith("run;step;task") for stack in stacks(awkward()))


def test_a_ring_of_parents_and_endless_depth_end() -> None:
    """Spans that are their own ancestors, and a chain deeper than any picture."""
    from analytics.traces.building import TraceBuilder

    builder = TraceBuilder()
    builder.add_spans([a_span(1, "x", 0, 5, parent=2), a_span(2, "y", 0, 5, parent=1)])
    builder.add_spans([a_span(n, "deep", n / 10, 1000, parent=n - 1 if n > 10 else 0) for n in range(10, 3000)])
    found = stacks(builder.finish())
    assert max(stack.count(";") for stack in found) <= folded.DEPTH_MAX
    assert sum(took for stack, took in found.items() if "deep" in stack) == pytest.approx(999_000, abs=3_000)
