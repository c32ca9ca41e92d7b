"""Usage: what tenants use and have promised, as it is decided by. Reads alone."""

from __future__ import annotations

from coordinator.core.commands import Decision, Dimension, Reply, Usage, Usages
from coordinator.core.events import UsageRead
from coordinator.core.ids import TenantName
from coordinator.core.queue.fair_share import dominant, remembered
from coordinator.core.state import ClusterState
from coordinator.core.tenants.account import DEFAULT_TENANT
from coordinator.core.tenants.admission import known_tenant, used_and_reserved
from coordinator.core.tenants.dimensions import DIMENSIONS


def on_usage_read(state: ClusterState, event: UsageRead, out: Decision) -> None:
    """Of one tenant, or of all of them: O(tenants)."""
    if event.tenant is not None:
        known_tenant(state, event.tenant)
        names = [event.tenant]
    else:
        names = sorted({DEFAULT_TENANT, *state.work.accounts.tenants})
    usages = tuple(usage_of(state, name) for name in names)
    out.replies.append(Reply(event.request_id, Usages(entries=usages)))


def usage_of(state: ClusterState, name: TenantName) -> Usage:
    """What this tenant uses now. Running work is counted up to this moment."""
    accounts = state.work.accounts
    account = accounts.of(name)
    dimensions = []
    for dimension in DIMENSIONS:
        used, reserved = used_and_reserved(state, account, dimension)
        limit = getattr(account.tenant.quota, dimension)
        dimensions.append(Dimension(name=dimension, used=used, reserved=reserved, limit=limit))
    return Usage(
        tenant=account.tenant,
        month=account.row.month or accounts.month,
        dimensions=tuple(dimensions),
        share=dominant(accounts, account),
        share_decayed=remembered(accounts, account),
        live_jobs=account.live,
    )
