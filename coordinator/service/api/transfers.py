"""The route that shows how transfers of blobs stand: the throttle, the breaker, who moves what."""

from __future__ import annotations

from msgspec import structs

from coordinator.api_types.data import TenantTransfers, TransfersAnswer
from coordinator.core.ids import TenantName
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call, NoBody


async def show_transfers(call: Call[NoQuery, NoBody]) -> TransfersAnswer:
    """What is under way, what is held back, and whether anything is let in."""
    data, uploads = call.deps.data, call.deps.engine.state.data.uploads
    moving = data.transfers.by_tenant()
    opened: dict[TenantName, tuple[int, int]] = {}
    for row in uploads.values():
        number, size = opened.get(row.tenant, (0, 0))
        opened[row.tenant] = number + 1, size + row.size
    view = structs.asdict(data.gate.view())
    return TransfersAnswer(
        **(view | {"state": str(view["state"]), "refused": view["refused"] + data.transfers.refused}),
        under_way=len(data.transfers),
        ingress_bytes=data.meters.ingress_total,
        egress_bytes=data.meters.egress_total,
        entries=tuple(
            TenantTransfers(
                tenant=tenant,
                under_way=moving.get(tenant, 0),
                uploads_open=opened.get(tenant, (0, 0))[0],
                uploads_bytes=opened.get(tenant, (0, 0))[1],
            )
            for tenant in sorted(moving.keys() | opened.keys())
        ),
    )
