"""Room for bytes: whether a tenant's cumulative quotas take more of them. Changes nothing."""

from __future__ import annotations

from types import MappingProxyType

from coordinator.core.data.rows import UploadRow
from coordinator.core.errors import Code, CoordError, Refusal
from coordinator.core.ids import TenantName
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.core.tenants.admission import amount_text, used_and_reserved
from coordinator.core.tenants.dimensions import guardrail
from coordinator.core.work.live import Job

DIMENSIONS = ("storage", "ingress")
"""What an upload takes of."""


def check_upload(state: ClusterState, upload: UploadRow, policy: Policy, job: Job | None = None) -> None:
    """Return when this upload may be opened; CoordError(QUOTA) with every dimension that refuses it.

    What its own job declared is set aside for it: that does not count against it. One that mends keeps nothing more.
    """
    tenant, size = upload.tenant, upload.size
    account = state.work.accounts.of(tenant)
    if not account.limited:
        return
    refused = []
    for name in DIMENSIONS[1:] if upload.mends else DIMENSIONS:
        own = getattr(job.spec.estimate, name) if job is not None else 0
        found = _refusal(state, tenant, name, size, own, policy)
        if found is not None:
            refused.append(found)
    _refuse(tenant, refused)


def check_egress(state: ClusterState, tenant: TenantName, size: int, pending: int, policy: Policy) -> None:
    """Return when so many bytes may be sent to this tenant; `pending` are on their way or not counted yet. What jobs
    declared that they will fetch is not taken from those who fetch it."""
    account = state.work.accounts.of(tenant)
    if account.limited:
        found = _refusal(state, tenant, "egress", size + pending, account.egress, policy)
        _refuse(tenant, [found] if found is not None else [])


def _refusal(
    state: ClusterState, tenant: TenantName, name: str, request: int, own: int, policy: Policy
) -> Refusal | None:
    account = state.work.accounts.of(tenant)
    limit = getattr(account.tenant.quota, name)
    if limit is None:
        return None
    used, reserved = used_and_reserved(state, account, name)
    reserved = max(0, reserved - own)
    rail = guardrail(name, limit, policy)
    if used + reserved + request < rail:
        return None
    return Refusal(dimension=name, used=used, reserved=reserved, request=request, limit=limit, guardrail=rail)


_WHAT = MappingProxyType({"egress": "may not fetch so much this month", "ingress": "may not send so much this month"})


def _refuse(tenant: TenantName, refused: list[Refusal]) -> None:
    if not refused:
        return
    told = "; ".join(
        f"{r.dimension}: {amount_text(r.dimension, r.used)} used, {amount_text(r.dimension, r.reserved)} reserved, "
        f"{amount_text(r.dimension, r.request)} more; together they must stay below "
        f"{amount_text(r.dimension, r.guardrail)} of its limit of {amount_text(r.dimension, r.limit)}"
        for r in refused
    )
    what = next((_WHAT[r.dimension] for r in refused if r.dimension in _WHAT), "has no room for this")
    ways = "remove what is not needed" if refused[0].dimension == "storage" else "wait for the next month (UTC)"
    raise CoordError(
        Code.QUOTA,
        f"tenant {tenant} {what}: {told}",
        f"{ways}, or have its limits raised: coord usage {tenant}",
        tuple(refused),
    )
