"""Admission: whether a tenant may submit this now. A refusal names every dimension at once, and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator

from coordinator.core.amounts import AMOUNT_MAX, UNIT, Ask, decimal_text
from coordinator.core.commands import QuotaAsk
from coordinator.core.errors import Code, CoordError, Refusal
from coordinator.core.ids import TenantName
from coordinator.core.policy import Policy
from coordinator.core.rows import OnFull, TenantRow
from coordinator.core.state import ClusterState
from coordinator.core.tenants.account import Account
from coordinator.core.tenants.dimensions import CONCURRENT, COUNTS, CUMULATIVE, DIMENSIONS, guardrail
from coordinator.core.tenants.metering import committed, spent
from coordinator.core.tenants.reservations import MONEY_MAX, Plan, plan_of, prices_of
from coordinator.core.work.jobspec import JobSpec, StepSpec


def known_tenant(state: ClusterState, name: TenantName) -> TenantRow:
    """The tenant of this name; CoordError(NOT_FOUND) when there is none."""
    tenant = state.work.accounts.tenant(name)
    if tenant is None:
        raise CoordError(Code.NOT_FOUND, f"there is no tenant {name}", f"coord tenant create {name}")
    return tenant


def plan_for(state: ClusterState, tenant: TenantRow, spec: JobSpec) -> Plan:
    """What would be set aside for this job; CoordError(BAD_JOB) when that is more than an account can hold, or
    when it would pass by what is counted: what asks for no CPUs is not held to any."""
    declared = spec.estimate
    plan = plan_of(state.work.accounts, prices_of(state.pools), tenant, spec)
    for name, amount in (("cost", plan.cost), *((n, getattr(declared, n)) for n in ("storage", "ingress", "egress"))):
        if not 0 <= amount <= MONEY_MAX:
            raise CoordError(
                Code.BAD_JOB, f"the job's estimated {name} of {amount} is no amount that an account holds", "say less"
            )
    counted = tenant.quota.cpus is not None or tenant.quota.budget is not None
    for step in spec.steps:
        if any(ask.memory * step.nodes > AMOUNT_MAX for ask in step.asks):
            raise CoordError(
                Code.BAD_JOB, f"step {step.name} asks for more memory than can be counted", "ask for less on each node"
            )
        if counted and not all(ask.cpus for ask in step.asks):
            raise CoordError(
                Code.BAD_JOB,
                f"step {step.name} asks for no CPUs: nothing holds it to none, and tenant {tenant.name} has a limit",
                "ask for some, as cpus = 0.1",
            )
    return plan


# ---- what a job asks of a quota


def asked(
    state: ClusterState, tenant: TenantRow, spec: JobSpec, cost: int, policy: Policy, *, anew: bool = True
) -> list[QuotaAsk]:
    """Every limited dimension of the tenant and what this job asks of it; only cost of one that is live already (not
    `anew`). O(steps)."""
    account = state.work.accounts.of(tenant.name)
    found: dict[str, QuotaAsk] = {}
    if anew:
        for name, request, fits in _of_steps(account, tenant, spec, policy):
            before = found.get(name)
            if before is None or (fits, -request) < (before.fits, -before.request):
                found[name] = _ask(state, account, name, request, fits, policy)
        for name, used in (("running", len(account.jobs)), ("queued", account.queued)):
            limit = getattr(tenant.quota, name)
            if limit is not None:
                waits = name == "running" and tenant.on_full is OnFull.QUEUE and limit > 0
                found[name] = _ask(state, account, name, 1, waits or used + 1 <= limit, policy)
    for name in CUMULATIVE:
        limit = getattr(tenant.quota, name)
        request = cost if name == "budget" else getattr(spec.estimate, name) if anew else 0
        if limit is not None:
            taken = sum(used_and_reserved(state, account, name))
            fits = (taken + request) * 100 < limit * policy.guardrail_percent
            found[name] = _ask(state, account, name, request, fits or (name != "budget" and not request), policy)
    return [found[name] for name in DIMENSIONS if name in found]


def _ask(state: ClusterState, account: Account, name: str, request: int, fits: bool, policy: Policy) -> QuotaAsk:
    used, reserved = used_and_reserved(state, account, name)
    limit = getattr(account.tenant.quota, name)
    return QuotaAsk(
        name=name,
        used=used,
        reserved=reserved,
        request=request,
        limit=limit,
        guardrail=guardrail(name, limit, policy),
        fits=fits,
    )


def _of_steps(account: Account, tenant: TenantRow, spec: JobSpec, policy: Policy) -> Iterator[tuple[str, int, bool]]:
    """(dimension, what one task asks, whether it is admitted) of what is held at a time, step by step."""
    rails = {
        name: guardrail(name, limit, policy)
        for name in CONCURRENT
        if (limit := getattr(tenant.quota, name)) is not None
    }
    if not rails:
        return
    for step in spec.steps:
        ask = smallest(step, rails)
        now = tenant.on_full is OnFull.REFUSE and not step.needs
        if now:  # it begins at once: by the alternative that fits best now
            ask = smallest(step, {name: rail - getattr(account, name) for name, rail in rails.items()})
        for name, rail in rails.items():
            request = getattr(ask, name) * step.nodes
            held = getattr(account, name) if now else 0
            yield name, request, not request or held + request <= rail


def smallest(step: StepSpec, rails: dict[str, int]) -> Ask:
    """The alternative that passes the fewest of these bounds; the first of them."""

    def passed(ask: Ask) -> int:
        return sum(0 < getattr(ask, name) * step.nodes > rail for name, rail in rails.items())

    return min(step.asks, key=passed)


def used_and_reserved(state: ClusterState, account: Account, name: str) -> tuple[int, int]:
    """What a tenant uses of a dimension now, and what is promised beyond that."""
    if name in CONCURRENT:
        return getattr(account, name), 0
    if name in COUNTS:
        return (len(account.jobs) if name == "running" else account.queued), 0
    if name == "budget":
        used = spent(account, state.now_ms)
        return used, committed(account, state.now_ms) - used
    more = account.uploads if name == "storage" else account.awaited if name == "ingress" else 0
    return getattr(account.row, name), getattr(account, name) + more


# ---- the answer


def admit(
    state: ClusterState, tenant: TenantRow, spec: JobSpec, cost: int, policy: Policy, *, anew: bool = True
) -> None:
    """Return when the tenant may have this; CoordError(QUOTA) with every dimension that refuses it otherwise."""
    _check_sums(state, tenant, spec, cost, anew)
    if not state.work.accounts.of(tenant.name).limited:
        return
    refused = [ask for ask in asked(state, tenant, spec, cost, policy, anew=anew) if not ask.fits]
    if not refused:
        return
    raise CoordError(
        Code.QUOTA,
        f"tenant {tenant.name} has no room for this: {'; '.join(map(_words, refused))}",
        _hint(tenant, spec, refused),
        tuple(
            Refusal(
                dimension=ask.name,
                used=ask.used,
                reserved=ask.reserved,
                request=ask.request,
                limit=ask.limit,
                guardrail=ask.guardrail,
            )
            for ask in refused
        ),
    )


def _check_sums(state: ClusterState, tenant: TenantRow, spec: JobSpec, cost: int, anew: bool) -> None:
    """A tenant without limits has this one: what is promised to it together can still be counted, stored and told."""
    account = state.work.accounts.of(tenant.name)
    for name in CUMULATIVE:
        request = cost if name == "budget" else getattr(spec.estimate, name) if anew else 0
        if not request:
            continue
        used, reserved = used_and_reserved(state, account, name)
        if used + reserved + request > MONEY_MAX:
            most = amount_text(name, MONEY_MAX)
            raise CoordError(
                Code.QUOTA,
                f"tenant {tenant.name} has no room for this: {name} used and reserved together may not pass {most}",
                "declare less, or wait for others to end",
                (
                    Refusal(
                        dimension=name,
                        used=used,
                        reserved=reserved,
                        request=request,
                        limit=MONEY_MAX,
                        guardrail=MONEY_MAX,
                    ),
                ),
            )


def _hint(tenant: TenantRow, spec: JobSpec, refused: list[QuotaAsk]) -> str:
    """What would help, and nothing that would not: nobody is to wait for what no end of others brings."""
    ways = []
    if all(ask.name in CONCURRENT or ask.used + ask.reserved < ask.guardrail for ask in refused):
        ways.append("ask for less")
    elif any(ask.name in CUMULATIVE and ask.name != "storage" and ask.used >= ask.guardrail for ask in refused):
        ways.append("wait for the next month (UTC)")
    if all(ask.request <= ask.guardrail and (ask.reserved if ask.name in CUMULATIVE else ask.used) for ask in refused):
        ways.append("wait for others to end")
    costs = "ask for less" in ways and any(ask.name == "budget" for ask in refused)
    if costs and spec.estimate.cost is None and any(step.expected_ms is None for step in spec.steps):
        ways.append("say how long it should run (--expected)")
    ways.append("or have its limits raised" if ways else "have its limits raised")
    return f"{', '.join(ways)}: coord usage {tenant.name}"


def _words(ask: QuotaAsk) -> str:
    """`budget: 3 used, 6.2 reserved, 1 asked for; what is below 9 is taken (90 % of 10)`."""
    reserved = f", {amount_text(ask.name, ask.reserved)} reserved" if ask.reserved else ""
    taken = (
        f"{ask.name}: {amount_text(ask.name, ask.used)} used{reserved}, {amount_text(ask.name, ask.request)} asked for"
    )
    rail, limit = amount_text(ask.name, ask.guardrail), amount_text(ask.name, ask.limit)
    if ask.name in COUNTS:
        return f"{taken}; the limit is {limit}"
    bound = "must stay below" if ask.name in CUMULATIVE else "may not pass"
    return f"{taken}; together they {bound} {rail} of its limit of {limit}"


def amount_text(name: str, amount: int) -> str:
    """An amount of this dimension, in words for people."""
    if name in COUNTS:
        return str(amount)
    if name in ("cpus", "gpus", "budget"):
        return decimal_text(amount)
    for size, unit in ((10**12, "TB"), (10**9, "GB"), (UNIT, "MB")):
        if amount >= size:
            return f"{amount / size:.4g} {unit}"
    return f"{amount} B"
