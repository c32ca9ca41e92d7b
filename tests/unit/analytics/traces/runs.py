"""Small runs written by hand, and generated ones whose truth is known."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from analytics.traces.building import AssetRow, LineageRow, SpanRow, TraceBuilder
from analytics.traces.columns import UNFINISHED, Trace

TRACE = "ab" * 16
S = 1_000_000_000
SHARED = Path(__file__).parents[5] / "shared"
GENERATOR = SHARED / "tools" / "gen_spans.py"
FLOWMESH = SHARED / "data" / "spans" / "flowmesh"
SHAPES = ("chain", "fanout", "mapreduce", "layered", "diamonds")


def generated(out: Path, *arguments: object) -> dict[str, Any]:
    """A run of gen_spans.py in `out`; its truth. Skips where the generator is not there."""
    if not GENERATOR.is_file():
        pytest.skip(f"{GENERATOR} is not here")
    subprocess.run(
        [sys.executable, str(GENERATOR), "--out", str(out), *map(str, arguments)],
        check=True,
        capture_output=True,
    )
    truth: dict[str, Any] = json.loads((out / "truth.json").read_text())
    return truth


def a_span(number: int, name: str, start: float, end: float | None, task: str | None = "a", **more: Any) -> SpanRow:
    """Seconds; `end` None: it has none yet."""
    return SpanRow(
        trace=TRACE,
        span=number,
        name=name,
        start_ns=round(start * S),
        end_ns=UNFINISHED if end is None else round(end * S),
        data_id=task,
        **more,
    )


def a_trace(spans: Iterable[SpanRow], edges: Iterable[tuple[str, str]] = (), assets: Iterable[AssetRow] = ()) -> Trace:
    """`edges` are (made, from what)."""
    builder = TraceBuilder()
    builder.add_spans(spans)
    builder.add_assets(list(assets))
    builder.add_lineage([LineageRow(data_id=data, source_data_id=source) for data, source in edges])
    return builder.finish()


def a_task(task: str, start: float, end: float, number: int, **more: Any) -> SpanRow:
    """The root span of an attempt."""
    return a_span(number, "task", start, end, task, **{"kind": "compute", "provider": "p", **more})
