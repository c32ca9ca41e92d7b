"""What must always hold of accounts. O(work): for tests and the simulator."""

from __future__ import annotations

from coordinator.core.policy import Policy
from coordinator.core.tenants import metering
from coordinator.core.tenants.account import Account, Accounts, counted, hold_for
from coordinator.core.tenants.dimensions import CONCURRENT, guardrail
from coordinator.core.tenants.reservations import outstanding, set_aside
from coordinator.core.work.live import Work

DERIVED = (
    "cpus",
    "gpus",
    "memory",
    "jobs",
    "live",
    "queued",
    "reserved",
    "storage",
    "ingress",
    "egress",
    "rate",
    "base",
)


def check_accounts(work: Work) -> None:
    """AssertionError with the first broken invariant."""
    accounts = work.accounts
    assert not accounts.touched and not accounts.unsettled, "an account's change was not written or not looked at"
    alone = _counted_anew(work)
    for name, account in accounts.by_tenant.items():
        own = alone.by_tenant.pop(name, None) or alone.of(name)
        for what in DERIVED:
            said, is_so = getattr(account, what), getattr(own, what)
            assert said == is_so, f"tenant {name}: {what} is {said}, by its rows {is_so}"
        meters = {a: (m.rates, m.since_ms, m.cover) for a, m in account.meters.items()}
        assert meters == {a: (m.rates, m.since_ms, m.cover) for a, m in own.meters.items()}, f"tenant {name}: meters"
        assert account.tenant == (accounts.tenants.get(name) or account.tenant), f"tenant {name} is another one"
        early = account.row.month <= accounts.month or not accounts.month
        assert account.row.tenant == name and early, f"tenant {name}: {account.row}"
        _check_quota(account)
    for name, account in alone.by_tenant.items():
        assert not account.live and not account.jobs and not account.meters, f"tenant {name} has no account"


def _counted_anew(work: Work) -> Accounts:
    """What follows from the rows of the work."""
    alone = Accounts()
    for job in work.jobs.values():
        held = job.reserved
        assert held == outstanding(job), f"job {job.row.job_id}: {held} is set aside, by its rows {outstanding(job)}"
        set_aside(alone, job)
    for attempt in work.attempts.values():
        if counted(attempt.row):
            hold_for(alone, attempt.tenant, attempt.row)
        task = work.task(attempt.row.task_id)
        if task is not None and attempt in task.attempts:
            step = work.jobs[attempt.row.job_id].steps[attempt.row.step]
            metering.start(alone, attempt.tenant, attempt.row, step.row.task_estimate)
    return alone


def _check_quota(account: Account) -> None:
    """What is held at a time passes no quota, but for what was held when it was set."""
    for number, name in enumerate((*CONCURRENT, "running")):
        limit = getattr(account.tenant.quota, name)
        held = len(account.jobs) if name == "running" else getattr(account, name)
        if limit is not None:
            most = max(guardrail(name, limit, Policy()), account.grace[number])
            assert held <= most, f"tenant {account.tenant.name} holds {held} {name}, {most} are allowed"
