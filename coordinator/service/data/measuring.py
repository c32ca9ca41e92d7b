"""What moves blobs, as metrics."""

from __future__ import annotations

from coordinator.service import metrics as m
from coordinator.service.data.breaker import State
from coordinator.service.data.plane import DataPlane
from coordinator.service.engine import Engine
from coordinator.service.metric_values import Metrics, Source

BREAKER = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}


def data_source(plane: DataPlane, engine: Engine) -> Source:
    """Transfers, uploads, sweeps. O(1) a rendering."""

    def ask(metrics: Metrics) -> None:
        view = plane.gate.view()
        metrics.put(m.TRANSFERS, len(plane.transfers))
        metrics.put(m.TRANSFER_BYTES, plane.meters.ingress_total, "ingress")
        metrics.put(m.TRANSFER_BYTES, plane.meters.egress_total, "egress")
        metrics.put(m.TRANSFERS_REFUSED, plane.transfers.refused, "busy")
        metrics.put(m.TRANSFERS_REFUSED, view.refused, "throttled")
        metrics.put(m.TRANSFERS_CUT, plane.receiver.cut_slow, "ingress")
        metrics.put(m.TRANSFERS_CUT, plane.sender.cut_slow, "egress")
        metrics.put(m.UPLOADS_OPEN, len(engine.state.data.uploads))
        metrics.put(m.UPLOADS_PUBLISHED, plane.publisher.published)
        metrics.put(m.SPILLED, view.spilled_bytes)
        metrics.put(m.BREAKER, BREAKER[view.state])
        metrics.put(m.BLOBS_SWEPT, plane.sweeper.swept)
        metrics.put(m.BLOBS_ORPHANED, plane.sweeper.orphans)
        metrics.put(m.BLOB_BYTES_FREED, plane.sweeper.freed_bytes)

    return ask
