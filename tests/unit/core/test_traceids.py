"""Names of traces and spans."""

from __future__ import annotations

import subprocess
import sys

from coordinator.core.work.traceids import job_of, run_span_id, span_id, trace_id, traceparent


def test_names_of_traces_follow_from_coordinator_and_job_alone() -> None:
    """The same in every process, another one for another job or another coordinator."""
    code = "from coordinator.core.work.traceids import trace_id; print(trace_id('c1', 12).hex())"
    elsewhere = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert elsewhere.stdout.strip() == trace_id("c1", 12).hex()
    assert 3 == len({trace_id("c1", 12), trace_id("c1", 13), trace_id("c2", 12)})
    assert 16 == len(trace_id("c1", 12))


def test_names_of_spans_tell_what_they_are_of() -> None:
    """Attempts, ranks and kinds of spans have names of their own."""
    names = {
        span_id("1.0.0", "task"),
        span_id("1.0.0.1", "attempt"),
        run_span_id("1.0.0.1", 0),
        run_span_id("1.0.0.1", 1),
    }
    assert 4 == len(names)
    assert {8} == {len(name) for name in names}


def test_a_traceparent_is_what_trace_context_has() -> None:
    """Version, trace, span, sampled."""
    assert "00-" + "0a" * 16 + "-" + "0b" * 8 + "-01" == traceparent(b"\x0a" * 16, b"\x0b" * 8)


def test_a_trace_tells_its_job_to_its_own_coordinator_alone() -> None:
    """Whatever else comes as a trace id is no job's."""
    assert [1, 12, 10**14] == [job_of(trace_id("c1", job), "c1") for job in (1, 12, 10**14)]
    strangers = (trace_id("c1", 12), bytes(16), b"x" * 16, b"", trace_id("c2", 12)[:8] + trace_id("c2", 13)[8:])
    assert [None] * 5 == [job_of(trace, "c2") for trace in strangers]
