"""What a tenant keeps: its bytes."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import Decision
from coordinator.core.ids import TenantName
from coordinator.core.state import ClusterState


def storage_changes(state: ClusterState, tenant: TenantName, more: int, out: Decision) -> None:
    """It keeps so many bytes more (or, below zero, less) from now on."""
    accounts = state.work.accounts
    account = accounts.of(tenant)
    account.row = replace(account.row, storage=account.row.storage + more)
    accounts.touch(account)
    accounts.changed(account)
