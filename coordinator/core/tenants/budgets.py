"""Budgets and guardrails over time: alerts that stand while they are true, and what happens when a budget is used up.

Looked at where an account's numbers changed, at the end of the decision, and by appointment when time alone brings it
there: a tenant's burn rate says when. Nobody is polled.
"""

from __future__ import annotations

from coordinator.core.amounts import decimal_text
from coordinator.core.commands import Calmed, Decision, Put, Warned
from coordinator.core.ids import Ms, TenantName
from coordinator.core.policy import Policy
from coordinator.core.rows import JobRow, OnBudget, WorkState
from coordinator.core.state import ClusterState
from coordinator.core.tenants.account import Account, Accounts, durable
from coordinator.core.tenants.admission import amount_text, used_and_reserved
from coordinator.core.tenants.dimensions import DIMENSIONS, guardrail
from coordinator.core.tenants.metering import SCALE, committed, is_broke, next_crossing_ms, spent, spent_scaled
from coordinator.core.work import graph
from coordinator.core.work.endings import cancel_task
from coordinator.core.work.live import Job, Step, Task
from coordinator.core.work.transitions import put_task

CALM_AFTER_MS: Ms = 60_000
"""A guardrail's alert is over when nothing was at it for so long: a full quota that turns over is one alert."""
LOOK_AHEAD_MS: Ms = 600_000
"""No appointment is made later: rates change, and outdated appointments would pile up in a month that is far away."""


def settle_accounts(state: ClusterState, policy: Policy, out: Decision) -> None:
    """At the end of a decision: alerts, budgets and the next look of the accounts that changed."""
    unsettled, ended = state.work.accounts.unsettled, state.work.accounts.ended
    for row in ended:
        _mind_drift(row, policy, out)
    ended.clear()
    while unsettled:  # a budget that is used up stops work, which changes accounts once more
        name = next(iter(unsettled))
        account = unsettled.pop(name)
        _mind_guardrails(state, account, policy, out)
        _mind_budget(state, account, out)
        when_ms = _next_look_ms(state, account, policy)
        if when_ms is not None:
            _look_at(state, account, when_ms)


def _mind_drift(row: JobRow, policy: Policy, out: Decision) -> None:
    """A job that cost far more than was set aside for it, or completed at far less."""
    off = row.cost - row.estimate
    if abs(off) * 100 > row.estimate * policy.drift_percent and (off > 0 or row.state is WorkState.COMPLETED):
        cost, estimate = decimal_text(row.cost), decimal_text(row.estimate)
        text = f"job {row.job_id} ({row.name}) of tenant {row.tenant} cost {cost}, it was estimated at {estimate}"
        out.notes.append(Warned(kind="usage_drift", subject=row.tenant, text=text))


def write_accounts(state: ClusterState, out: Decision) -> None:
    """At the end of a decision: the rows of the accounts that changed, each once."""
    touched = state.work.accounts.touched
    for account in touched.values():
        account.row = durable(account)
        out.writes.append(Put(account.row))
    touched.clear()


def look_at_due(state: ClusterState) -> None:
    """The accounts whose appointment has come are settled at the end of this decision. O(these)."""
    accounts = state.work.accounts
    for name in accounts.wheel.due(state.now_ms):
        account = accounts.by_tenant.get(TenantName(name))
        if account is not None:
            accounts.unsettled[account.tenant.name] = account


def _look_at(state: ClusterState, account: Account, when_ms: Ms) -> None:
    """An earlier appointment stands: it makes the next one itself."""
    wheel, name = state.work.accounts.wheel, account.tenant.name
    before_ms = wheel.when_ms(name)
    if before_ms is None or when_ms < before_ms:
        wheel.put(name, when_ms)


def tell_again(old: Accounts, fresh: ClusterState, policy: Policy, out: Decision) -> None:
    """After a full disk: an alert may have been told of what was undone, or not of what stands. Each is told again, or
    taken back. Budgets wait for the next decision: nothing is stopped here."""
    for account in fresh.work.accounts.by_tenant.values():
        before = old.by_tenant.get(account.tenant.name)
        _mind_guardrails(fresh, account, policy, out)
        if before is not None and before.told and not account.told:
            out.notes.append(Calmed(kind="quota_90", subject=account.tenant.name))
        account.broke = before.broke if before is not None else None
        if account.limited and account.tenant.quota.budget is not None:
            _look_at(fresh, account, fresh.now_ms)
    fresh.work.accounts.unsettled.clear()


# ---- guardrails


def at_guardrail(state: ClusterState, account: Account, policy: Policy) -> tuple[str, ...]:
    """The dimensions whose use and promises have reached their guardrail."""
    found = []
    for name in DIMENSIONS:
        limit = getattr(account.tenant.quota, name)
        taken = sum(used_and_reserved(state, account, name)) if limit is not None else 0
        if limit is not None and taken and taken >= guardrail(name, limit, policy):
            found.append(name)
    return tuple(found)


def _mind_guardrails(state: ClusterState, account: Account, policy: Policy, out: Decision) -> None:
    name = account.tenant.name
    reached = at_guardrail(state, account, policy) if account.limited else ()
    if reached:
        account.calm_from_ms = None
        if not set(reached) <= set(account.told):
            account.told = tuple(d for d in DIMENSIONS if d in reached or d in account.told)
            out.notes.append(Warned(kind="quota_90", subject=name, text=_guardrail_text(state, account)))
    elif account.told:
        if account.calm_from_ms is None:
            account.calm_from_ms = state.now_ms
        if not account.limited or state.now_ms >= account.calm_from_ms + CALM_AFTER_MS:
            account.told, account.calm_from_ms = (), None
            out.notes.append(Calmed(kind="quota_90", subject=name))


def _guardrail_text(state: ClusterState, account: Account) -> str:
    parts = []
    for name in account.told:
        limit = getattr(account.tenant.quota, name)
        if limit is not None:
            taken = amount_text(name, sum(used_and_reserved(state, account, name)))
            parts.append(f"{taken} of {amount_text(name, limit)} {name}")
    return f"tenant {account.tenant.name} uses, or has reserved, {', '.join(parts)}"


# ---- budgets


def _mind_budget(state: ClusterState, account: Account, out: Decision) -> None:
    name, broke = account.tenant.name, is_broke(account, state.now_ms)
    budget = account.tenant.quota.budget
    if broke and account.broke is None:
        out.notes.append(Warned(kind="budget", subject=name, text=_budget_text(state, account)))
    elif account.broke is not None and not broke:
        account.freed += 1
        state.work.ask_place()
        out.notes.append(Calmed(kind="budget", subject=name))
    account.broke = (account.row.month, budget) if broke and budget is not None else None
    if not broke or account.tenant.on_budget is not OnBudget.STOP:
        account.stopped = False
    elif not account.stopped:
        account.stopped = True
        _stop_all(state, account, out)


def _budget_text(state: ClusterState, account: Account) -> str:
    budget = account.tenant.quota.budget or 0
    used = amount_text("budget", spent(account, state.now_ms))
    follows = "what runs is stopped" if account.tenant.on_budget is OnBudget.STOP else "what runs goes on"
    return f"tenant {account.tenant.name} has used {used} of {amount_text('budget', budget)} this month: {follows}"


def _stop_all(state: ClusterState, account: Account, out: Decision) -> None:
    """What it runs is cancelled; what waits goes on waiting. O(its live tasks): when its budget is used up,
    and when one of those that were given up comes back after that."""
    why = f"the budget of tenant {account.tenant.name} is used up"
    for job_id in sorted(account.jobs):
        job = state.work.jobs.get(job_id)
        for step in job.steps if job is not None else ():
            for task in list(step.tasks.values()):
                if job is not None and task.attempts and not task.cancelling:
                    _cancel(state, job, step, task, why, out)


def _cancel(state: ClusterState, job: Job, step: Step, task: Task, why: str, out: Decision) -> None:
    put_task(task, out, reason=graph.CANCELLING + why)
    cancel_task(state, job, step, task, why, out)


# ---- the next look


def _next_look_ms(state: ClusterState, account: Account, policy: Policy) -> Ms | None:
    """When time alone may bring it to its guardrail or to the end of its budget, or calm its alert."""
    now, found = state.now_ms, []
    if account.calm_from_ms is not None:
        found.append(account.calm_from_ms + CALM_AFTER_MS)
    budget = account.tenant.quota.budget
    if budget is not None and account.rate:
        if account.broke is None:
            found.append(now + _until(budget * SCALE - spent_scaled(account, now), account.rate))
        if "budget" not in account.told:
            crossing_ms = next_crossing_ms(account)
            if crossing_ms is not None:
                found.append(crossing_ms)
            if account.over_rate:
                left = guardrail("budget", budget, policy) - committed(account, now)
                found.append(now + _until(left * SCALE, account.over_rate))
        found = [min(when_ms, now + LOOK_AHEAD_MS) for when_ms in found]
    return max(min(found), now + 1) if found else None


def _until(left: int, rate: int) -> Ms:
    """How long until so much is accrued."""
    return max(0, -(-left // rate))
