"""Reading: four formats and three packings are one trace; what is bad is counted and named, and ends nothing."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from analytics.traces.analysis import analyze
from analytics.traces.building import joined
from analytics.traces.columns import SPAN_DTYPES, UNFINISHED, Trace
from analytics.traces.reading import lines, read, read_bytes, times
from tests.unit.analytics.traces.runs import generated

GOOD: dict[str, Any] = {
    "name": "task",
    "context": {"trace_id": "0x" + "ab" * 16, "span_id": "0x00000000000000a1"},
    "parent_id": None,
    "start_time": "2026-01-01T00:00:00.000001Z",
    "end_time": "2026-01-01T00:00:01.000000Z",
    "status": {"status_code": "OK"},
    "attributes": {"data_id": "12.0.0", "flowmesh.type": "compute", "cicd.worker.id": "w"},
}


def a_line(**changes: Any) -> str:
    """A span's row. `attributes` and `context` are changed, not replaced."""
    row = dict(GOOD)
    for name, value in changes.items():
        row[name] = {**GOOD[name], **value} if name in ("attributes", "context") and isinstance(value, dict) else value
    return json.dumps(row) + "\n"


def an_id(number: int) -> dict[str, str]:
    return {"span_id": f"0x{number:016x}"}


def same(one: Trace, other: Trace, but: tuple[str, ...] = ()) -> None:
    """Equal in every column, strings compared as strings."""
    assert (one.traces, one.names, one.data_ids) == (other.traces, other.names, other.data_ids)
    for name in SPAN_DTYPES:
        if name not in but:
            assert np.array_equal(getattr(one.spans, name), getattr(other.spans, name)), name


def test_four_formats_of_one_run_are_one_trace(tmp_path: Path) -> None:
    """Lines of ReadableSpan, OTLP/JSON by line and as one document, OTLP as protobuf: the same spans, and the same path
    with Jaeger's, which has neither kinds nor batches. (ReadableSpan and Jaeger have microseconds, so all are cut.)"""
    generated(tmp_path, "--tasks", 60, "--workers", 4, "--retry", 0.1, "--merge", 0.2, "--otlp", "--jaeger")
    relations = [tmp_path / "assets.jsonl", tmp_path / "lineage.jsonl"]
    plain = read([tmp_path]).trace
    by_line = read([tmp_path / "otlp.jsonl"]).trace
    documents = [json.loads(line) for line in (tmp_path / "otlp.jsonl").read_text().splitlines()]
    whole = tmp_path / "one.json"
    whole.write_text(json.dumps({"resourceSpans": [g for d in documents for g in d["resourceSpans"]]}, indent=1))
    message = TracesData()
    for document in documents:
        for group in document["resourceSpans"]:
            scope = message.resource_spans.add().scope_spans.add()
            for span in group["scopeSpans"][0]["spans"]:
                one = scope.spans.add(
                    trace_id=bytes.fromhex(span["traceId"]),
                    span_id=bytes.fromhex(span["spanId"]),
                    parent_span_id=bytes.fromhex(span.get("parentSpanId", "")),
                    name=span["name"],
                    start_time_unix_nano=int(span["startTimeUnixNano"]),
                    end_time_unix_nano=int(span["endTimeUnixNano"]),
                )
                one.status.code = span["status"].get("code", 0)
                for pair in span["attributes"]:
                    one.attributes.add(key=pair["key"]).value.string_value = pair["value"]["stringValue"]
    (tmp_path / "one.pb").write_bytes(message.SerializeToString())
    same(by_line, read([whole]).trace)
    same(by_line, read([tmp_path / "one.pb"]).trace)
    same(by_line, read_bytes("otlp_protobuf", message.SerializeToString()).trace)
    same(plain_cut := joined([by_line]), by_line)
    assert len(plain.spans) == len(plain_cut.spans)
    assert np.array_equal(np.sort(plain.spans.span), np.sort(by_line.spans.span))
    order, other = np.argsort(plain.spans.span), np.argsort(by_line.spans.span)
    assert np.array_equal(plain.spans.start[order], by_line.spans.start[other] // 1000 * 1000)
    expected = [(step.task, step.from_task) for step in analyze(plain).real_critical_path.steps]
    jaeger = analyze(read([tmp_path / "jaeger.json", *relations]).trace)
    assert expected == [(step.task, step.from_task) for step in jaeger.real_critical_path.steps]
    assert len(plain.spans) + 1 == jaeger.event_count


def test_lines_of_otlp_may_be_long(tmp_path: Path) -> None:
    """Collectors write some thousands of spans a line: several such lines are as many documents, whatever is read at
    a time."""
    generated(tmp_path, "--tasks", 500, "--workers", 4, "--otlp")
    file = tmp_path / "otlp.jsonl"
    first, *others = file.read_bytes().splitlines()
    assert len(others) >= 2 and len(first) > lines.BLOCK_BYTES
    assert b"\n" not in first[: 1 << 16]
    reading = read([file])
    assert (reading.rejected, len(reading.trace.spans)) == (0, len(read([tmp_path]).trace.spans))
    file.write_bytes(b"\n \n" + first + b"\n\n" + first[:-9] + b"\n" + others[0])
    torn = read([file])
    assert [(bad.line, bad.source) for bad in torn.bad] == [(5, str(file))]
    assert len(torn.trace.spans) > 1000


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress])
def test_packed_files_are_read_as_what_they_hold(tmp_path: Path, pack: Any) -> None:
    text = "".join(a_line(context=an_id(number)) for number in range(1, 50)).encode()
    ending = "gz" if pack is gzip.compress else "xz"
    (tmp_path / f"spans.jsonl.{ending}").write_bytes(pack(text))
    same(read_bytes("spans", text).trace, read([tmp_path]).trace)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lzma.compress])
def test_a_pipe_is_read_as_a_file_is(tmp_path: Path, pack: Any) -> None:
    """`coord trace analyze <(command)`: nothing can be read twice."""
    text = "".join(a_line(context=an_id(number)) for number in range(1, 50)).encode()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(pack(text),))
    writer.start()
    same(read_bytes("spans", text).trace, read([pipe]).trace)
    writer.join()


def test_a_packing_that_is_not_known_is_named(tmp_path: Path) -> None:
    (tmp_path / "spans.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(40))
    assert "packed by zstd" in read([tmp_path / "spans.zst"]).bad[0].why


def test_a_file_that_was_cut_off_gives_what_is_whole(tmp_path: Path) -> None:
    """The rows before the cut are there, and what is missing is said."""
    text = "".join(a_line(context=an_id(number)) for number in range(1, 20_000)).encode()
    (tmp_path / "spans.jsonl.gz").write_bytes(gzip.compress(text, 1)[:-2_000])
    reading = read([tmp_path])
    assert 0 < len(reading.trace.spans) < 20_000
    assert "cannot be unpacked" in reading.bad[-1].why


BAD = {
    "it is cut off": ('{"name": "task", "context"', ""),
    "it is no object": ("[1, 2]", "no JSON object"),
    "it is no row of spans": ('{"data_id": "a", "source_data_id": "b"}', "no row of spans"),
    "start_time is missing": (a_line(start_time=None), "start_time is missing"),
    "it is no time": (a_line(start_time="yesterday"), "is no time"),
    "no such day": (a_line(start_time="2026-02-30T00:00:00.000000Z"), "is no time"),
    "it ends before it starts": (a_line(end_time="2025-01-01T00:00:00.000000Z"), "ends before it starts"),
    "its id is zero": (a_line(context={"span_id": "0x0"}), "span_id is zero"),
    "its id is none": (a_line(context={"span_id": "xyz"}), "span_id is not 16 hex digits"),
    "its id is too long": (a_line(context={"span_id": "0x" + "1" * 17}), "span_id is not 16 hex digits"),
    "its trace is none": (a_line(context={"trace_id": None}), "trace_id is no text"),
    "its name is too long": (a_line(name="n" * 2_000), "longer than 1024"),
    "its attempt is none": (a_line(attributes={"attempt": "second"}), "attempt is no whole number"),
    "its attempt is negative": (a_line(attributes={"attempt": -1}), "attempt is not between"),
    "it is nested": (a_line(attributes={"deep": json.loads("[" * 60 + "]" * 60)}), "nested"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_row_is_counted_and_named_and_the_others_stay(case: str) -> None:
    """Its line and what is wrong with it are told; the rows around it are read."""
    bad, why = BAD[case]
    text = a_line(context=an_id(1)) + bad.rstrip("\n") + "\n\n" + a_line(context=an_id(2))
    reading = read_bytes("spans", text.encode(), source="upload")
    assert (2, 1, 2) == (reading.rows, reading.rejected, len(reading.trace.spans))
    assert ("upload", 2) == (reading.bad[0].source, reading.bad[0].line)
    assert why in reading.bad[0].why


def test_the_quick_way_and_the_careful_way_read_the_same() -> None:
    """A block with one odd row goes the careful way, line by line; what is read is the same."""
    rows = [
        a_line(context=an_id(n), attributes={"attempt": n % 3, "batch_id": "12.0.1", "coord.outcome": "lost"})
        for n in range(1, 300)
    ]
    rows += [
        a_line(context=an_id(400), end_time=None),
        a_line(context=an_id(401), start_time="2026-01-01T00:00:00+00:00"),
    ]
    quick = read_bytes("spans", "".join(rows).encode(), details=False)
    careful = read_bytes("spans", "".join(rows).encode(), details=True)
    assert 0 == quick.rejected
    same(quick.trace, careful.trace)
    assert quick.trace.providers == careful.trace.providers == ["w"]
    assert UNFINISHED in quick.trace.spans.end
    odd = "".join(rows) + a_line(context=an_id(500), attributes={"data_id": 7})
    mixed = read_bytes("spans", odd.encode(), details=False)
    assert (301, 0) == (mixed.rows - 1, mixed.rejected)
    assert "7" in mixed.trace.data_ids


def test_otlp_json_is_not_protobufs_own_mapping() -> None:
    """Hex ids, numbers of enums, 64-bit integers as text, unknown fields ignored; ids in base64 are refused."""
    span = {
        "traceId": "ab" * 16,
        "spanId": "00000000000000A1",
        "name": "task",
        "kind": 1,
        "flags": 1,
        "startTimeUnixNano": "1777420800000000001",
        "endTimeUnixNano": "1777420800000000009",
        "attributes": [
            {"key": "data_id", "value": {"stringValue": "a"}},
            {"key": "attempt", "value": {"intValue": "2"}},
        ],
        "status": {"code": 2},
        "somethingNew": {"x": []},
    }
    document = {"resourceSpans": [{"scopeSpans": [{"spans": [span, {**span, "spanId": "q83vEjRWeJA="}]}]}]}
    reading = read_bytes("otlp_json", json.dumps(document).encode())
    spans = reading.trace.spans
    assert (1, 1, "spanId is not 16 hex digits") == (len(spans), reading.rejected, reading.bad[0].why)
    assert (1777420800000000001, 1777420800000000009, 0xA1, 2, 2) == (
        spans.start[0],
        spans.end[0],
        spans.span[0],
        spans.attempt[0],
        spans.status[0],
    )


def test_a_small_body_cannot_become_a_large_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resource stands in each of its spans: when all of them together are too large the rest is rejected."""
    monkeypatch.setattr("analytics.traces.reading.BODY_DETAILS_BYTES_MAX", 100_000)
    span = {"traceId": "ab" * 16, "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
    document = {
        "resourceSpans": [
            {
                "resource": {"attributes": [{"key": "x", "value": {"stringValue": "y" * 30_000}}]},
                "scopeSpans": [{"spans": [{**span, "spanId": f"{n:016x}"} for n in range(1, 200)]}],
            }
        ]
    }
    reading = read_bytes("otlp_json", json.dumps(document).encode())
    assert 0 < len(reading.trace.spans) < 10
    assert 199 == len(reading.trace.spans) + reading.rejected
    assert "all spans together" in reading.bad[-1].why


def test_too_many_spans_are_counted_only() -> None:
    text = "".join(a_line(context=an_id(number)) for number in range(1, 101))
    reading = read_bytes("spans", text.encode(), spans_max=60)
    assert (60, 60, 40) == (reading.rows, len(reading.trace.spans), reading.rejected)


def test_a_line_without_an_end_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not read into memory: a bound, then the next line goes on."""
    monkeypatch.setattr(lines, "LINE_BYTES_MAX", 1 << 20)
    text = a_line(context=an_id(1)) + "x" * (3 << 20) + "\n" + a_line(context=an_id(2))
    reading = read_bytes("spans", text.encode(), details=False)
    assert (2, 1) == (reading.rows, reading.rejected)
    assert (2, "longer than") == (reading.bad[0].line, reading.bad[0].why[12:23])


@pytest.mark.parametrize(
    "junk", [b"", b"\n\n", b"\x00\xff\x00", b"hello\n", b'{"a": 1}\n', b"\n\x07\x01", b"[" * 5_000]
)
def test_a_file_that_is_no_trace_is_no_error(tmp_path: Path, junk: bytes) -> None:
    (tmp_path / "x").write_bytes(junk)
    reading = read([tmp_path / "x"])
    assert 0 == len(reading.trace.spans)
    assert bool(junk.strip()) == bool(reading.rejected)


def test_a_directory_without_spans_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no spans\.jsonl"):
        read([tmp_path])


def test_what_a_resource_says_holds_for_its_spans() -> None:
    """A program whose environment named its task says so in its resource; an agent's clock stands there too."""
    resource = {"attributes": {"data_id": "12.0.5", "coord.clock.offset_ns": -700, "coord.clock.bound_ns": 50}}
    row = a_line(attributes={}, resource=resource)
    without = json.loads(row)
    del without["attributes"]["data_id"]
    quick = read_bytes("spans", json.dumps(without).encode(), details=False).trace
    careful = read_bytes("spans", json.dumps(without).encode(), details=True).trace
    assert ["12.0.5"] == quick.data_ids == careful.data_ids
    assert ["w\t-700\t50"] == careful.clocks


def test_ids_of_tasks_are_in_the_order_of_their_numbers() -> None:
    text = "".join(a_line(context=an_id(n + 1), attributes={"data_id": f"12.0.{n}"}) for n in (10, 9, 100, 1))
    assert ["12.0.1", "12.0.9", "12.0.10", "12.0.100"] == read_bytes("spans", text.encode()).trace.data_ids


def test_times_are_exact_to_the_nanosecond() -> None:
    assert 1_777_420_800_123_456_789 == times.nanoseconds("2026-04-29T00:00:00.123456789Z")
    assert 1_777_420_800_123_456_789 == times.nanoseconds("2026-04-29T02:00:00.123456789+02:00")
    column = times.column(["1970-01-01T00:00:00.000000Z", "2000-02-29T23:59:59.999999Z", None])
    assert [0, 951_868_799_999_999_000, UNFINISHED] == column.tolist()
