"""Reservations: what a job is expected to cost, set aside for it from its admission until its tasks have ended.

All of it follows from rows: a step's row says what is set aside for each of its tasks, its counts how many of them have
ended. An array of a million is one multiplication.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from coordinator.core.amounts import Price
from coordinator.core.ids import PoolName
from coordinator.core.rows import PoolRow, TenantRow, WorkState
from coordinator.core.tenants.account import FREE, Accounts
from coordinator.core.tenants.metering import charge, rate_of
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.core.work.live import Job, Step

MONEY_MAX = 10**18
"""Millionths of anything: a sum of a few of these still fits into what is stored."""


class Plan(Struct, frozen=True, gc=False, kw_only=True):
    """What would be set aside for a job."""

    tasks: tuple[int, ...]
    """By step: for each of its tasks."""
    rest: int
    """What cannot be shared out among the tasks evenly: until the job ends."""
    cost: int
    """All of it."""


def plan_of(accounts: Accounts, pools: Mapping[PoolName, Price], tenant: TenantRow, spec: JobSpec) -> Plan:
    """What the job declares, shared out among its tasks; else run time x what is asked x the dearest price that it
    may be charged, each rank rounded up as its charge is. O(steps)."""
    total = sum(step.tasks for step in spec.steps)
    if spec.estimate.cost is not None:
        each = spec.estimate.cost // total
        return Plan(tasks=(each,) * len(spec.steps), rest=spec.estimate.cost - each * total, cost=spec.estimate.cost)
    tasks = tuple(_of_task(accounts, pools, tenant, step) for step in spec.steps)
    return Plan(tasks=tasks, rest=0, cost=sum(each * step.tasks for each, step in zip(tasks, spec.steps, strict=True)))


def _of_task(accounts: Accounts, pools: Mapping[PoolName, Price], tenant: TenantRow, step: StepSpec) -> int:
    if not accounts.prices:
        return 0
    prices = {pools[name] for name in step.pools if name in pools} if step.pools else accounts.prices
    dearest = max((rate_of(ask, price) for ask in step.asks for price in prices), default=0)
    return step.nodes * charge(dearest, step.expected_ms or step.time_limit_ms or tenant.runtime_ms)


# ---- what is set aside for live jobs


def outstanding(job: Job) -> int:
    """What is set aside for it now, as its rows tell."""
    rest = 0
    if job.spec.estimate.cost is not None:
        rest = job.spec.estimate.cost - sum(step.row.task_estimate * step.spec.tasks for step in job.steps)
    return rest + sum(step.row.task_estimate * _open_tasks(step) for step in job.steps)


def _open_tasks(step: Step) -> int:
    row = step.row
    return step.spec.tasks - row.completed - row.failed - row.cancelled


def set_aside(accounts: Accounts, job: Job) -> None:
    """A job is live: what it may cost, and what it declared, is its tenant's no more. O(steps)."""
    account, declared = accounts.of(job.row.tenant), job.spec.estimate
    job.reserved = outstanding(job)
    account.reserved += job.reserved
    account.storage += declared.storage
    account.ingress += declared.ingress
    account.egress += declared.egress
    account.live += 1
    account.queued += job.row.state is WorkState.PENDING
    accounts.changed(account)


def set_aside_again(accounts: Accounts, job: Job, step: Step, tasks: int) -> None:
    """So many tasks of it that had ended are open again (or, below zero, ended)."""
    if step.row.task_estimate and tasks:
        account = accounts.of(job.row.tenant)
        job.reserved += step.row.task_estimate * tasks
        account.reserved += step.row.task_estimate * tasks
        if tasks < 0:
            account.freed -= tasks
        accounts.changed(account)


def leaves_queue(accounts: Accounts, job: Job, jobs: int = 1) -> None:
    """It has its first lease (or, below zero, waits for it again)."""
    account = accounts.of(job.row.tenant)
    account.queued -= jobs
    accounts.changed(account)


def give_back(accounts: Accounts, job: Job) -> None:
    """A job has ended: nothing is set aside for it. Called while its row still says how it stood."""
    account, declared = accounts.of(job.row.tenant), job.spec.estimate
    account.reserved -= job.reserved
    account.storage -= declared.storage
    account.ingress -= declared.ingress
    account.egress -= declared.egress
    account.live -= 1
    account.queued -= job.row.state is WorkState.PENDING
    job.reserved = 0
    account.freed += 1
    accounts.changed(account)


# ---- prices


def prices_of(pools: Mapping[PoolName, PoolRow]) -> dict[PoolName, Price]:
    return {name: row.price for name, row in pools.items()}


def note_prices(accounts: Accounts, pools: Mapping[PoolName, PoolRow]) -> None:
    """Which prices there are, each once. Called when pools were loaded, made, deleted or priced."""
    found = {pool.price for pool in pools.values()} - {FREE}
    accounts.prices = tuple(sorted(found, key=lambda price: (price.cpu, price.gpu, price.memory)))
