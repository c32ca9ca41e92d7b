"""Metrics of the queue as it stands. O(bands and plans) a rendering."""

from __future__ import annotations

from coordinator.core.queue.order import age_of, effective, top_of
from coordinator.service import metrics as m
from coordinator.service.engine import Engine
from coordinator.service.metric_values import Metrics, Source


def queue_source(engine: Engine) -> Source:
    """Lines, planned starts, and who counts for more than its priority."""

    def ask(metrics: Metrics) -> None:
        work, now_ms = engine.state.work, engine.clock.now_ms()
        top = top_of(work)
        aged = sum(
            effective(priority, age_of(band, now_ms, engine.policy), top) > priority
            for (_, priority), band in work.bands.items()
        )
        metrics.put(m.LINES, len(work.queue))
        metrics.put(m.PLANS, len(work.plans))
        metrics.put(m.AGED, aged)

    return ask
