"""Bodies made to take long, or to hold what nobody can read back: bounded, counted, and never half understood."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping

import msgspec
import pytest

from analytics.traces.analysis import analyze
from analytics.traces.keeping.lines import pieces
from analytics.traces.reading import otlp_protobuf, read_bytes
from analytics.traces.reading.reading import GROUPS_MAX, REJECTED_MAX

TRACE, SPAN = "1" * 32, "2" * 16
WELL = {"traceId": TRACE, "spanId": SPAN, "name": "n", "startTimeUnixNano": "1", "endTimeUnixNano": "2"}
MANY = REJECTED_MAX + 50_000


def field(number: int, data: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    out.append(number)
    return bytes(out)


def a_span(*more: bytes, start_ns: int = 1) -> bytes:
    times = b"\x39" + start_ns.to_bytes(8, "little") + b"\x41" + (start_ns + 1).to_bytes(8, "little")
    return field(1, b"\1" * 16) + field(2, b"\2" * 8) + times + b"".join(more)


def otlp(*spans: Mapping[str, object]) -> bytes:
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("otlp_protobuf", field(1, field(2, field(2, b"") * MANY))),
        ("otlp_json", b'{"resourceSpans":[{"scopeSpans":[{"spans":[' + b",".join([b"{}"] * MANY) + b"]}]}]}"),
        ("spans", b"{}\n" * MANY),
        ("lineage", b"1\n" * MANY),
    ],
)
def test_who_sends_nothing_but_rubbish_is_not_read_to_the_end(form: str, body: bytes) -> None:
    """Every row is counted; after so many rejected ones the others are not looked at, which is said."""
    found = read_bytes(form, body)
    assert (0, MANY) == (found.rows, found.rejected)
    beyond = read_bytes(form, body + b'{"data_id":"a","source_data_id":"b"}\n') if form == "lineage" else found
    assert 0 == beyond.rows, "it had given up before"


def test_empty_spans_are_counted_and_not_decoded() -> None:
    """Three million of them in 6 MB: their number is exact, and each costs less than a tenth of what a span costs."""
    many = 3_000_000
    body = field(1, field(2, field(2, b"") * many))
    began_s = time.process_time()
    found = read_bytes("otlp_protobuf", body)
    assert (0, many) == (found.rows, found.rejected)
    assert time.process_time() - began_s < many * 1e-6


def test_nothing_is_made_of_spans_before_their_turn() -> None:
    """Twenty million empty ones are 40 MB, and reading them takes little more; as a list they were some 800 MB."""
    code = """if True:
        import resource, sys
        from analytics.traces.reading import read_bytes
        read_bytes("otlp_protobuf", b"")
        within = b"\\x12\\x00" * 20_000_000
        size = b"\\x80\\xb4\\x89\\x13"
        body = b"\\x0a\\x85\\xb4\\x89\\x13\\x12" + size + within
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = read_bytes("otlp_protobuf", body)
        print(found.rejected, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
    """
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True).stdout
    rejected, grown_kb = map(int, told.split())
    assert 20_000_000 == rejected
    assert grown_kb < 40_000


def test_of_what_is_left_unread_so_many_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spans that are none and not empty either: counting them all would take as long as reading them."""
    monkeypatch.setattr(otlp_protobuf, "LEFT_MAX", 20_000)
    body = field(1, field(2, field(2, b"x") * (MANY + 50_000)) + field(2, field(2, b"x") * 10))
    found = read_bytes("otlp_protobuf", body)
    assert REJECTED_MAX + 20_000 <= found.rejected < MANY


def test_a_span_that_is_none_is_rejected_alone() -> None:
    """Bytes in its place that no span is made of."""
    body = field(1, field(2, field(2, a_span()) + field(2, b"\xff" * 40) + field(2, b"")))
    found = read_bytes("otlp_protobuf", body)
    assert (1, 2) == (found.rows, found.rejected)


def test_a_few_bad_rows_hide_no_good_ones() -> None:
    """It gives up on rubbish alone."""
    found = read_bytes("lineage", b"1\n" * 1_000 + b'{"data_id":"a","source_data_id":"b"}\n')
    assert (1, 1_000) == (found.rows, found.rejected)


@pytest.mark.parametrize(
    ("form", "body"),
    [
        ("otlp_protobuf", field(1, b"") * (GROUPS_MAX + 1)),
        ("otlp_protobuf", field(1, field(2, b"") * (GROUPS_MAX + 1))),
        ("otlp_protobuf", field(1, field(1, field(1, b"") * 200_000))),
        ("otlp_json", b'{"resourceSpans":[' + b",".join([b"{}"] * (GROUPS_MAX + 1)) + b"]}"),
    ],
)
def test_a_body_of_countless_resources_is_none(form: str, body: bytes) -> None:
    """Nobody iterates over millions of nothings."""
    with pytest.raises(ValueError, match="resource"):
        read_bytes(form, body)


def test_a_span_of_countless_attributes_is_rejected_unread() -> None:
    """Their number is asked before they are looked at; so is the size of what lies within one."""
    nested = field(9, field(1, b"k") + field(2, field(5, field(1, b"") * 400_000)))
    for heavy in (field(9, b"") * 200_000, nested):
        found = read_bytes("otlp_protobuf", field(1, field(2, field(2, a_span(heavy)) + field(2, a_span()))))
        assert (1, 1) == (found.rows, found.rejected), "the other span is kept"
    pairs = [{"key": f"k{number}"} for number in range(2_000)]
    found = read_bytes("otlp_json", otlp(WELL | {"attributes": pairs}, WELL))
    assert (1, 1) == (found.rows, found.rejected)


@pytest.mark.parametrize(
    "body",
    [
        field(1, field(2, field(2, a_span(start_ns=2**62)))),
        field(1, field(2, field(2, a_span(field(11, b"\x09" + (2**64 - 1).to_bytes(8, "little")))))),
        field(1, field(2, field(2, a_span(field(13, field(1, b"short")))))),
    ],
)
def test_what_could_not_be_given_back_is_not_taken(body: bytes) -> None:
    """Times behind 2116, also of events, and links to no span: rows that are given back are rows that are taken."""
    found = read_bytes("otlp_protobuf", body)
    assert (0, 1) == (found.rows, found.rejected)


def test_a_kind_that_there_is_not_is_none() -> None:
    """Enums of OTLP are open: the span is kept."""
    body = otlp(WELL | {"kind": 2**40}, WELL | {"spanId": "3" * 16, "kind": -1})
    found = read_bytes("otlp_json", body)
    assert found.trace.details is not None
    assert [0, 0] == [msgspec.json.decode(details)["kind"] for details in found.trace.details]


def test_a_jaeger_log_of_the_year_148108_is_rejected() -> None:
    """Its time is a time like others."""
    log = {"timestamp": 2**62, "fields": []}
    spans = [{"spanID": "1", "startTime": 1, "logs": [log]}, {"spanID": "2", "startTime": 1}]
    found = read_bytes("jaeger", json.dumps({"data": [{"traceID": "1", "spans": spans}]}).encode())
    assert (1, 1) == (found.rows, found.rejected)


def test_who_has_no_name_is_not_given_another_ones() -> None:
    """A span without a name and an asset without a user stay so when rows are given back."""
    assets = b'{"data_id":"a","asset_guid":"g"}\n{"data_id":"b","asset_guid":"g","user_id":"ann"}\n'
    kept = b"".join(pieces(read_bytes("assets", assets).trace, "assets"))
    assert ["", "ann"] == [msgspec.json.decode(line)["user_id"] for line in kept.splitlines()]
    spans = otlp(WELL | {"name": ""}, WELL | {"spanId": "3" * 16, "name": "other"})
    kept = b"".join(pieces(read_bytes("otlp_json", spans).trace, "spans"))
    assert ["", "other"] == [msgspec.json.decode(line)["name"] for line in kept.splitlines()]


def test_a_run_of_spans_without_names_is_analysed() -> None:
    """An empty name is a name: of a task, of a root that stands for one, of time on the path."""
    of_task = [{"key": "data_id", "value": {"stringValue": "t"}}]
    for attributes in (of_task, []):
        root = WELL | {"name": "", "attributes": attributes, "endTimeUnixNano": "9"}
        inner = WELL | {"name": "", "attributes": attributes, "spanId": "3" * 16, "parentSpanId": SPAN}
        profile = analyze(read_bytes("otlp_json", otlp(root, inner)).trace)
        assert (2, 8) == (profile.event_count, profile.real_critical_path.makespan_ns)
