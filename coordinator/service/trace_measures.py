"""Metrics of traces."""

from __future__ import annotations

from coordinator.service import metrics as m
from coordinator.service.metric_values import Metrics, Source
from coordinator.service.traces import TraceDoor


def traces_source(door: TraceDoor) -> Source:
    """What came in, what is kept, what was asked."""

    def ask(metrics: Metrics) -> None:
        counters, health = door.counters, door.keeper.health()
        metrics.put(m.TRACE_ROWS, counters.accepted, "accepted")
        metrics.put(m.TRACE_ROWS, counters.rejected, "rejected")
        metrics.put(m.TRACE_ROWS, counters.dropped, "dropped")
        metrics.put(m.TRACE_BYTES, counters.bytes)
        for code, n in counters.refused.items():
            metrics.put(m.TRACE_REFUSED, n, code)
        metrics.put(m.TRACE_STORED, health.stored_bytes)
        for result, n in counters.analyses.items():
            metrics.put(m.TRACE_ANALYSES, n, result)
        metrics.put(m.TRACE_SECONDS, counters.analysis_s)
        metrics.put(m.TRACE_UP, int(health.up))
        metrics.put(m.TRACE_STARTS, health.starts)

    return ask
