"""Runs to export: a small one in which everything happens that is awkward to draw, and generated ones."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from analytics.traces.building import LineageRow, SpanRow, TraceBuilder
from analytics.traces.columns import Trace
from analytics.traces.reading import read

GENERATOR = Path(__file__).parents[6] / "shared" / "tools" / "gen_spans.py"
MS = 1_000_000
BEGAN = 1_777_420_800_000 * MS
TRACE = "0123456789abcdef0123456789abcdef"
EVIL = "</script><b>x\u2028;y"


def a_span(span: int, name: str, start_ms: float, end_ms: float | None, **more: object) -> SpanRow:
    """One of task `a` on `p1`, unless it says otherwise; times since the run began."""
    told: dict[str, object] = {"data_id": "a", "provider": "p1", "kind": "compute", **more}
    details = msgspec.json.encode(told.pop("details", {}))
    return SpanRow(
        trace=TRACE, span=span, name=name, start_ns=BEGAN + round(start_ms * MS), details=details,
        end_ns=-1 if end_ms is None else BEGAN + round(end_ms * MS), **told,  # type: ignore[arg-type]
    )  # fmt: skip


def awkward() -> Trace:
    """A failed try and a second one, overlapping reads, a child that outlives its parent, an orphan, a span that has
    not ended, one of no length, one that begins before its parent, and names that are made to do harm."""
    rows = [
        a_span(1, "task", 0, 10, attempt=1, status="ERROR", details={"status_message": "exit 1"}),
        a_span(2, "task", 12, 40, attempt=2, details={
            "attributes": {"n": 3, "deep": {"a": [1, 2.5, True, None, EVIL]}, "text": EVIL, "big": 2**70},
            "resource": {"service.name": "trainer"},
            "events": [{"name": "epoch", "time_ns": BEGAN + 20 * MS, "attributes": {"loss": 0.5}}],
            "links": [{"trace_id": TRACE, "span_id": f"{1:016x}", "attributes": {}}],
            "kind": 2,
        }),
        a_span(3, "read", 12.0001, 16, parent=2, kind="network"),
        a_span(4, "read", 12.5, 17, parent=2, kind="network"),
        a_span(5, EVIL, 17, 30.0000004, parent=2),
        a_span(6, "upload", 29, 55, parent=5, kind="network"),
        a_span(7, "mark", 30, 30, parent=2, kind="marker"),
        a_span(8, "dump to storage", 30, 40, parent=2, kind="network"),
        a_span(9, "early", 11, 13, parent=2),
        a_span(10, "orphan", 41, 42, parent=999),
        a_span(11, "task", 40, 60, data_id="b", attempt=1, label="step", key="lr=0.1"),
        a_span(12, "generation", 41, None, parent=11, data_id="b"),
        a_span(13, "task", 44, 70, data_id="c", provider=EVIL, attempt=1),
    ]  # fmt: skip
    builder = TraceBuilder(details=True)
    builder.add_spans(rows)
    builder.add_lineage([LineageRow(data_id="b", source_data_id="a"), LineageRow(data_id="c", source_data_id="a")])
    return builder.finish()


def generated(into: Path, *arguments: str, details: bool = True) -> Trace:
    """What the generator writes; the test is skipped where it is not at hand."""
    if not GENERATOR.is_file():
        pytest.skip("the generator of runs with known truth is not beside this repository")
    subprocess.run(
        [sys.executable, str(GENERATOR), "--out", str(into), *arguments], check=True, stderr=subprocess.DEVNULL
    )
    return read([into], details=details).trace
