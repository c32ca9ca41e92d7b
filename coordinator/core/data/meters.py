"""Meters of bytes: what went over the coordinator's link."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import Decision
from coordinator.core.data.events import BytesMoved
from coordinator.core.state import ClusterState


def on_moved(state: ClusterState, event: BytesMoved, out: Decision) -> None:
    accounts = state.work.accounts
    for moved in event.moved:
        account = accounts.of(moved.tenant)
        account.awaited = max(0, account.awaited - moved.ingress)
        row = account.row
        account.row = replace(row, ingress=row.ingress + moved.ingress, egress=row.egress + moved.egress)
        accounts.touch(account)
        accounts.changed(account)
