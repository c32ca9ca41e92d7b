"""Quotas: whether a tenant has room for what it asks, and how that is said. O(1) each; changes nothing."""

from __future__ import annotations

from coordinator.core.amounts import Ask
from coordinator.core.ids import JobId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue.lines import has_room
from coordinator.core.state import ClusterState
from coordinator.core.tenants.dimensions import CONCURRENT, guardrail
from coordinator.core.tenants.metering import is_broke
from coordinator.core.work.live import Attempt


def room_for(
    state: ClusterState,
    tenant: TenantName,
    job_id: JobId,
    ask: Ask,
    nodes: int,
    policy: Policy,
    fetches: int | None = None,
) -> tuple[str, ...]:
    """The dimensions in which the tenant has no room now for one task of this job with `nodes` ranks of `ask`: of
    `cpus`, `gpus`, `memory`, `running`, `budget`, `egress`; nothing when it may be placed. `fetches`: bytes that are to
    be brought before it starts; None: none are.

    Only `running` looks at the job: one that holds something already may go on. `Account.freed` moves when it gets
    room.
    """
    account = state.work.accounts.by_tenant.get(tenant)
    if account is None or not account.limited:
        return ()
    quota, percent = account.tenant.quota, policy.guardrail_percent
    found: list[str] = []
    if quota.cpus is not None and 0 < ask.cpus * nodes > _left(quota.cpus, account.cpus, percent):
        found.append("cpus")
    if quota.gpus is not None and 0 < ask.gpus * nodes > _left(quota.gpus, account.gpus, percent):
        found.append("gpus")
    if quota.memory is not None and 0 < ask.memory * nodes > _left(quota.memory, account.memory, percent):
        found.append("memory")
    if quota.running is not None and job_id not in account.jobs and len(account.jobs) >= quota.running:
        found.append("running")
    if quota.budget is not None and is_broke(account, state.now_ms):
        found.append("budget")
    egress = account.row.egress + fetches if fetches is not None else None
    if quota.egress is not None and egress is not None and egress >= guardrail("egress", quota.egress, policy):
        found.append("egress")
    return tuple(found)


def _left(limit: int, held: int, percent: int) -> int:
    """How much more may be held under a concurrent quota: up to its guardrail, not beyond."""
    return limit * percent // 100 - held


def never_fits(
    state: ClusterState,
    tenant: TenantName,
    asks: tuple[Ask, ...],
    nodes: int,
    policy: Policy,
    fetches: int | None = None,
) -> set[str]:
    """The dimensions of its tenant's quota that keep one task from ever starting, whatever else ends: none when one of
    its alternatives fits under all of them. A quota may have been lowered since it was admitted."""
    account = state.work.accounts.by_tenant.get(tenant)
    if account is None or not account.limited:
        return set()
    rails = {
        name: guardrail(name, limit, policy)
        for name in CONCURRENT
        if (limit := getattr(account.tenant.quota, name)) is not None
    }
    passed = [{name for name, rail in rails.items() if 0 < getattr(ask, name) * nodes > rail} for ask in asks]
    never = min(passed, key=len)
    never |= {name for name in ("running", "budget") if getattr(account.tenant.quota, name) == 0}
    egress = account.tenant.quota.egress
    if egress is not None and fetches is not None and fetches >= guardrail("egress", egress, policy):
        never.add("egress")
    return never


def rooms_for(
    state: ClusterState,
    tenant: TenantName,
    job_id: JobId,
    ask: Ask,
    most: int,
    policy: Policy,
    fetches: int | None = None,
) -> int:
    """For how many tasks of this job with one rank of `ask` the tenant has room now, up to `most`."""
    account = state.work.accounts.by_tenant.get(tenant)
    if account is None or not account.limited:
        return most
    if room_for(state, tenant, job_id, ask, 1, policy, fetches):
        return 0
    quota = account.tenant.quota
    for limit, held, amount in (
        (quota.cpus, account.cpus, ask.cpus),
        (quota.gpus, account.gpus, ask.gpus),
        (quota.memory, account.memory, ask.memory),
    ):
        if limit is not None and amount:
            most = min(most, _left(limit, held, policy.guardrail_percent) // amount)
    return most


def room_again(state: ClusterState, attempt: Attempt, policy: Policy) -> bool:
    """Whether an attempt of one rank that was given up, and whose task has not ended, may go on: others may hold what
    it held meanwhile, of its tenant's quota and of as many as its step may run. What it costs does not keep it from
    that: it is not new."""
    row = attempt.row
    if not has_room(state.work.jobs[row.job_id].steps[row.step]):
        return False
    lacking = room_for(state, attempt.tenant, row.job_id, row.ranks[0].share.ask, 1, policy)
    return not set(lacking) - {"budget"}
