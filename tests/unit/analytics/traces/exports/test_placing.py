"""Which row of the chart a span is drawn on."""

from __future__ import annotations

import time

from analytics.traces.analysis import analyze
from analytics.traces.building import TraceBuilder
from analytics.traces.columns import Trace
from analytics.traces.exports.placing import NOWHERE, places
from analytics.traces.exports.rows import rows_of
from tests.unit.analytics.traces.exports.runs import a_span, awkward


def placed(trace: Trace) -> dict[int, tuple[str, int]]:
    """Each span's place."""
    profile = analyze(trace)
    found = places(trace, rows_of(trace, profile), profile)
    return {int(span): found.table[place] for span, place in zip(trace.spans.span, found.of, strict=True)}


def a_trace(*rows: object) -> Trace:
    builder = TraceBuilder(details=True)
    builder.add_spans(list(rows))  # type: ignore[arg-type]
    return builder.finish()


def test_a_span_is_where_its_attempt_is() -> None:
    """Children that say nothing, children of children, and those that outlive it."""
    where = placed(awkward())
    assert {where[span] for span in (2, 3, 4, 5, 6, 7, 8, 9)} == {where[2]}
    assert where[2][0] == "p1"
    assert where[11] == where[12]


def test_two_attempts_at_once_are_in_two_slots() -> None:
    """On one provider, though no span says a slot."""
    where = placed(a_trace(
        a_span(1, "job", 0, 20, data_id=None, provider=None),
        a_span(2, "task", 0, 10, data_id="a", attempt=1, parent=1),
        a_span(3, "task", 0, 12, data_id="b", attempt=1, parent=1),
        a_span(4, "work", 1, 9, data_id="a", parent=2),
        a_span(5, "work", 1, 9, data_id="b", parent=3),
    ))  # fmt: skip
    assert where[2] != where[3]
    assert (where[4], where[5]) == (where[2], where[3])
    assert where[1] == (NOWHERE, 0)


def test_waiting_holds_no_slot() -> None:
    """A task's span from before its attempt began is beside the slots, though it names the provider."""
    where = placed(a_trace(
        a_span(1, "queued", 0, 5, data_id="a", attempt=1),
        a_span(2, "task", 5, 10, data_id="a", attempt=1),
        a_span(3, "orphan", 6, 7, data_id="a", parent=77),
    ))  # fmt: skip
    assert where[1] == (NOWHERE, 0)
    assert where[3] == where[2]


def test_spans_of_others_are_where_they_say() -> None:
    """A trace in which nothing is called a task."""
    where = placed(a_trace(
        a_span(1, "GET /", 0, 5, data_id=None, provider="web"),
        a_span(2, "query", 1, 2, data_id=None, provider="db", parent=1),
    ))  # fmt: skip
    assert [where[1][0], where[2][0]] == ["web", "db"]


def test_a_task_of_many_attempts_is_placed_as_quickly_as_many_tasks() -> None:
    """Four times the attempts take about four times as long: nothing looks through all of them for each."""
    took_s = []
    for many in (2_000, 8_000):
        trace = a_trace(*(a_span(n + 1, "task", n, n + 1, attempt=n + 1, provider=f"p{n}") for n in range(many)))
        profile, rows = (found := analyze(trace)), rows_of(trace, found)
        began_s = time.process_time()
        assert many == len(set(places(trace, rows, profile).of))
        took_s.append(time.process_time() - began_s)
    assert took_s[1] < 10 * took_s[0]
