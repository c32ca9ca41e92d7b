"""Uploads in all their forms: what was sent is what is kept; bombs, torn bodies and lies are refused."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import msgspec
import pytest

from analytics.traces.analysis import analyze
from analytics.traces.keeping.intake import take_in, unpacked
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.lines import pieces, time_text
from analytics.traces.keeping.shelf import SEAL_APPENDS, Shelf
from analytics.traces.reading import read_bytes
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.ports.traces import Taken, TraceKind
from tests.unit.analytics.traces.keeping.rows import (
    FOREIGN,
    OURS,
    a_body,
    a_home,
    a_span,
    a_trace,
    otlp_json,
    otlp_protobuf,
    trace_of,
)
from tests.unit.analytics.traces.keeping.test_shelf import same

SETTINGS = TraceSettings(body_bytes_max=1024 * 1024)
KINDS: tuple[TraceKind, ...] = ("spans", "assets", "lineage")
CLAIM = {"job_id": JobId(1), "task": "1.0.0", "attempt": 1, "provider": "p"}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """With job 1 of physics and job 2 of biology."""
    return Shelf(a_home(tmp_path / "data", (1, "physics"), (2, "biology")), SETTINGS, lambda problem: None)


@pytest.mark.parametrize("encoding", ["", "gzip"])
def test_every_form_is_taken_and_twice_is_once(tmp_path: Path, shelf: Shelf, encoding: str) -> None:
    """JSON and protobuf, packed or not, give the same trace; the same again changes nothing."""
    rows = [a_span(n, trace_of(1), parent=n - 1) for n in range(1, 4)]
    for form, data in (("otlp_json", otlp_json(*rows)), ("otlp_protobuf", otlp_protobuf(*rows))):
        body = a_body(tmp_path / "body", ({"form": form, "encoding": encoding}, data), tenant="physics")
        assert (Taken(accepted=3),) == take_in(body, shelf, OURS, SETTINGS)
    assert [1, 2, 3] == shelf.load(JobId(1), details=True).spans.span.tolist()


def test_rows_come_back_as_they_were_sent(tmp_path: Path, shelf: Shelf) -> None:
    """What is given back, read again, is the same trace: to the nanosecond, with events, links and attributes."""
    line: dict[str, Any] = {
        "name": "träin\n\x1b[31m",
        "context": {"trace_id": f"0x{FOREIGN}", "span_id": "0x00000000000000ff", "trace_state": "[]"},
        "kind": "SpanKind.CLIENT",
        "parent_id": None,
        "start_time": "2026-04-29T00:00:00.000001Z",
        "end_time": "2026-04-29T00:00:01.123456789Z",
        "status": {"status_code": "ERROR", "description": "it broke"},
        "attributes": {"data_id": "1.0.0", "flowmesh.type": "network", "n": 1, "x": 1.5, "many": ["a", "b"]},
        "events": [{"name": "e", "timestamp": "2026-04-29T00:00:00.5Z", "attributes": {"k": True}}],
        "links": [{"context": {"trace_id": "0x" + "cd" * 16, "span_id": "0x" + "11" * 8}, "attributes": {}}],
        "resource": {"attributes": {"service.name": "s"}, "schema_url": ""},
    }
    rows = {
        "spans": msgspec.json.encode(line) + b"\n",
        "assets": b'{"data_id":"1.0.0","asset_guid":"g","version":3,"user_id":"u","created_at":"2026-04-29T00:00:00Z"}',
        "lineage": b'{"data_id":"1.0.0","source_data_id":"x","created_at":"2026-04-29T00:00:00Z"}',
    }
    parts = [({"form": form, "job_id": JobId(1)}, data) for form, data in rows.items()]
    assert (Taken(accepted=1),) * 3 == take_in(a_body(tmp_path / "body", *parts), shelf, OURS, SETTINGS)
    kept = shelf.load(JobId(1), details=True)
    given = {kind: b"".join(pieces(kept, kind)) for kind in KINDS}
    again = msgspec.json.decode(given["spans"])
    assert {**line, "events": [{**line["events"][0], "timestamp": "2026-04-29T00:00:00.500000Z"}]} == again
    assert same(read_bytes("spans", rows["spans"]).trace, read_bytes("spans", given["spans"]).trace)
    assert 3 == msgspec.json.decode(given["assets"])["version"]
    assert "x" == msgspec.json.decode(given["lineage"])["source_data_id"]


@pytest.mark.parametrize(
    ("at_ns", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1, "1970-01-01T00:00:00.000000001Z"),
        (10**18 + 5_000, "2001-09-09T01:46:40.000005Z"),
    ],
)
def test_times_are_text_to_the_nanosecond(at_ns: int, text: str) -> None:
    """Microseconds where that is all there is."""
    assert text == time_text(at_ns)


def test_a_bad_row_costs_only_itself(tmp_path: Path, shelf: Shelf) -> None:
    """It is counted and the first one is named; the other rows are kept."""
    good = b"".join(pieces(a_trace(a_span(1), a_span(2)), "spans"))
    body = a_body(tmp_path / "body", ({"form": "spans", **CLAIM}, good + b'{"name": 3}\nno json\n'))
    (taken,) = take_in(body, shelf, OURS, SETTINGS)
    assert (2, 2) == (taken.accepted, taken.rejected)
    assert taken.why


def test_who_looks_at_a_job_is_told_which_rows_left_for_it_were_bad(tmp_path: Path, shelf: Shelf) -> None:
    """Once, however often they were sent and whatever was sealed since; also when none of them was good."""
    good = b"".join(pieces(a_trace(a_span(1), a_span(2)), "spans"))
    of_claim = {"form": "spans", **CLAIM, "task": "1.0.0", "attempt": 2}
    some = a_body(tmp_path / "some", (of_claim, good + b'{"name": 3}\nno json\n'))
    none = a_body(tmp_path / "none", ({**of_claim, "form": "assets"}, b"\xff\tno json\n"))
    for body in (some, none, some):
        take_in(body, shelf, OURS, SETTINGS)
    seen = []
    for _ in range(SEAL_APPENDS):
        counts = analyze(shelf.load(JobId(1), details=False)).counts
        seen.append((counts.rejected, [(bad.source, bad.line) for bad in counts.bad]))
        assert all(bad.why for bad in counts.bad)
        take_in(a_body(tmp_path / "more", ({"form": "spans", **CLAIM}, good)), shelf, OURS, SETTINGS)
    assert [(3, [("1.0.0.2 assets", 1), ("1.0.0.2 spans", 3)])] * SEAL_APPENDS == seen


def test_another_tenants_job_is_not_written_to(tmp_path: Path, shelf: Shelf) -> None:
    """Spans that claim it are rejected and counted, those of its own job are kept."""
    data = otlp_json(a_span(1, trace_of(1)), a_span(2, trace_of(2)), a_span(3))
    (taken,) = take_in(a_body(tmp_path / "b", ({"form": "otlp_json"}, data), tenant="physics"), shelf, OURS, SETTINGS)
    assert (1, 2) == (taken.accepted, taken.rejected)
    assert "no job's" in taken.why
    assert 0 == len(shelf.load(JobId(2), details=False).spans)


def test_a_part_that_is_no_export_is_refused_and_others_of_the_body_are_not(tmp_path: Path, shelf: Shelf) -> None:
    """Alone it is BAD_REQUEST, which nobody tries again; beside others it is counted."""
    bad = ({"form": "otlp_protobuf", **CLAIM}, b"\xff\xff\xff")
    bomb = ({"form": "otlp_json", "encoding": "gzip", **CLAIM}, bytes(2 * SETTINGS.body_bytes_max))
    with pytest.raises(CoordError) as refused:
        take_in(a_body(tmp_path / "b", bad), shelf, OURS, SETTINGS)
    assert Code.BAD_REQUEST is refused.value.code
    good = ({"form": "otlp_json", **CLAIM}, otlp_json(a_span(1)))
    taken = take_in(a_body(tmp_path / "b", bad, bomb, good), shelf, OURS, SETTINGS)
    assert [(0, 1), (0, 1), (1, 0)] == [(one.accepted, one.rejected) for one in taken]


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (gzip.compress(bytes(101)), Code.TOO_LARGE),
        (gzip.compress(bytes(60)) + gzip.compress(bytes(60)), Code.TOO_LARGE),
        (gzip.compress(bytes(1 << 24)), Code.TOO_LARGE),
        (gzip.compress(b"") * 17, Code.BAD_REQUEST),
        (gzip.compress(b"whole")[:-4], Code.BAD_REQUEST),
        (gzip.compress(b"whole") + b"more", Code.BAD_REQUEST),
        (b"no gzip", Code.BAD_REQUEST),
    ],
    ids=["just too large", "two members", "bomb", "empty members", "torn", "tail", "other"],
)
def test_what_cannot_be_unpacked_within_the_bound_is_refused(data: bytes, code: Code) -> None:
    """No more than the bound is ever unpacked."""
    with pytest.raises(CoordError) as refused:
        unpacked(data, "gzip", 100)
    assert code is refused.value.code


def test_members_of_gzip_are_one_body() -> None:
    """Up to the bound exactly."""
    assert b"a" * 40 + b"b" * 60 == unpacked(gzip.compress(b"a" * 40) + gzip.compress(b"b" * 60), "gzip", 100)
