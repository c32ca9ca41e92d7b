"""Fields of a message found one by one are those that protobuf finds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.trace.v1.trace_pb2 import ScopeSpans, Span, TracesData

from analytics.traces.reading.otlp_fields import Part, count, fields, whole

SPANS = st.lists(st.binary(max_size=300).map(lambda name: Span(trace_id=name)), max_size=12)


@given(st.lists(st.lists(SPANS, max_size=4), max_size=4), st.text(max_size=5))
def test_each_span_is_found_where_it_lies(shape: list[list[list[Span]]], url: str) -> None:
    """Whatever else the message has, empty spans and long ones."""
    message = TracesData()
    for scopes in shape:
        resource = message.resource_spans.add(schema_url=url)
        for spans in scopes:
            resource.scope_spans.add(schema_url=url, spans=spans)
    data = message.SerializeToString()
    found = [
        [
            [data[span.start : span.end] for span in fields(data, scope) if span.number == 2]
            for scope in fields(data, resource)
            if scope.number == 2
        ]
        for resource in fields(data, whole(data))
    ]
    assert [[[span.SerializeToString() for span in spans] for spans in scopes] for scopes in shape] == found


@given(SPANS, st.integers(0, 20_000), st.booleans())
def test_spans_are_counted_as_they_would_be_found(spans: list[Span], empty: int, first: bool) -> None:
    """Long runs of empty ones before or behind the others."""
    some, none = ScopeSpans(spans=spans).SerializeToString(), b"\x12\x00" * empty
    data = b"\x08\x07" + (none + some if first else some + none) + b"\x1d1234"
    assert len(spans) + empty == count(data, whole(data), 2, 1_000_000)


@given(st.binary(max_size=60))
def test_garbage_is_refused_or_lies_within(data: bytes) -> None:
    """No part reaches beyond what it is in."""
    within = Part(0, 3, max(3, len(data) - 5))
    try:
        for part in fields(data, within):
            assert within.start < part.start <= part.end <= within.end
    except ValueError as refused:
        assert str(refused).startswith("this is no OTLP message: ")


@pytest.mark.parametrize(
    "data", [b"\x12", b"\x12\x05abc", b"\x0b", b"\x02\x00", b"\x12" + b"\xff" * 11, b"\x09123", b"\xff" * 20]
)
def test_what_is_cut_off_or_of_no_kind_is_no_message(data: bytes) -> None:
    with pytest.raises(ValueError, match="no OTLP message"):
        list(fields(data, whole(data)))
