"""What a tenant has and what a job may ask, worked out anew from rows alone: so every refusal must read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec import Struct

from coordinator.core.amounts import Ask, Price
from coordinator.core.errors import Refusal
from coordinator.core.ids import JobId, Ms, PoolName
from coordinator.core.rows import ENDED, LIVE_ATTEMPT, AttemptRow, JobRow, OnFull, StepRow, TenantRow, WorkState
from coordinator.core.work.jobspec import JobSpec, StepSpec
from coordinator.simulator.witness.ledger import FREE, SCALE, rate_of, up

PERCENT = 90
CONCURRENT = ("cpus", "gpus", "memory")


class Holding(Struct, kw_only=True):
    """What one tenant holds, has promised and has used at a moment."""

    cpus: int = 0
    gpus: int = 0
    memory: int = 0
    jobs: set[JobId]
    queued: int = 0
    stored: int = 0
    awaited: int = 0
    """Bytes of uploads that are open."""
    storage: int = 0
    ingress: int = 0
    egress: int = 0
    spent: int = 0
    """In SCALE-ths of a millionth: what was charged this month, and what has accrued."""
    committed: int = 0
    """In millionths: what was charged, what is reserved, and what accrued beyond that."""


def held_by(rows: Iterable[AttemptRow]) -> Holding:
    """`rows`: the tenant's attempts that hold something."""
    holding = Holding(jobs=set())
    for row in rows:
        for rank in row.ranks:
            if not rank.released:
                holding.cpus += rank.share.ask.cpus
                holding.gpus += rank.share.ask.gpus
                holding.memory += rank.share.ask.memory
                holding.jobs.add(row.job_id)
    return holding


def add_promises(
    holding: Holding, jobs: Iterable[tuple[JobRow, JobSpec, list[StepRow]]], charged: int, accrued: tuple[int, int]
) -> None:
    """`jobs` that have not ended; `accrued`: all of it, and what of it is beyond its task's reservation."""
    reserved = 0
    for job, spec, steps in jobs:
        assert job.state not in ENDED
        holding.queued += job.state is WorkState.PENDING
        holding.storage += spec.estimate.storage
        holding.ingress += spec.estimate.ingress
        holding.egress += spec.estimate.egress
        shared_out = 0
        for row in steps:
            tasks = spec.steps[row.step].tasks
            shared_out += row.task_estimate * tasks
            reserved += row.task_estimate * (tasks - row.completed - row.failed - row.cancelled)
        if spec.estimate.cost is not None:
            reserved += spec.estimate.cost - shared_out
    holding.spent = charged * SCALE + accrued[0]
    holding.committed = charged + reserved + up(accrued[1])


def accrued(rows: Iterable[tuple[AttemptRow, int]], now_ms: Ms) -> tuple[int, int]:
    """Of attempts with what is reserved for their tasks: what they have accrued, and what of it is beyond that."""
    total = over = 0
    for row, cover in rows:
        if row.state not in LIVE_ATTEMPT or row.started_at_ms is None:
            continue
        since_ms = row.metered_ms if row.metered_ms is not None else row.started_at_ms
        rate = sum(rate_of(rank.share.ask, rank.price) for rank in row.ranks if rank.exit is None)
        run = rate * (now_ms - since_ms)
        total += run
        over += max(0, run - cover * SCALE)
    return total, over


def estimate(spec: JobSpec, tenant: TenantRow, prices: Mapping[PoolName, Price]) -> int:
    """What would be reserved: each rank of each task for its whole time at the dearest price."""
    if spec.estimate.cost is not None:
        return spec.estimate.cost
    total = 0
    for step in spec.steps:
        length_ms = step.expected_ms or step.time_limit_ms or tenant.runtime_ms
        among = [prices[name] for name in step.pools if name in prices] if step.pools else prices.values()
        dearest = max((rate_of(ask, price) for ask in step.asks for price in among if price != FREE), default=0)
        total += step.tasks * step.nodes * up(dearest * length_ms)
    return total


def refusals(spec: JobSpec, tenant: TenantRow, holding: Holding, cost: int) -> tuple[Refusal, ...]:
    """Every dimension that refuses the job, in the order of the quota's fields."""
    quota = tenant.quota
    found: dict[str, Refusal] = {}
    rails = {n: getattr(quota, n) * PERCENT // 100 for n in CONCURRENT if getattr(quota, n) is not None}
    for step in spec.steps:
        at_once = tenant.on_full is OnFull.REFUSE and not step.needs
        held = {n: getattr(holding, n) if at_once else 0 for n in rails}
        ask = _best(step, {n: rail - held[n] for n, rail in rails.items()})
        for name, rail in rails.items():
            request = getattr(ask, name) * step.nodes
            before = found.get(name)
            if request and held[name] + request > rail and (before is None or before.request < request):
                found[name] = _refusal(name, getattr(holding, name), 0, request, getattr(quota, name), rail)
    running, queued = len(holding.jobs), holding.queued
    may_wait = tenant.on_full is OnFull.QUEUE and (quota.running or 0) > 0
    if quota.running is not None and not may_wait and running + 1 > quota.running:
        found["running"] = _refusal("running", running, 0, 1, quota.running, quota.running)
    if quota.queued is not None and queued + 1 > quota.queued:
        found["queued"] = _refusal("queued", queued, 0, 1, quota.queued, quota.queued)
    for name in ("storage", "ingress", "egress"):
        limit, request, taken = getattr(quota, name), getattr(spec.estimate, name), getattr(holding, name)
        used = holding.stored if name == "storage" else 0
        taken += holding.awaited if name != "egress" else 0
        if limit is not None and request and (used + taken + request) * 100 >= limit * PERCENT:
            found[name] = _refusal(name, used, taken, request, limit, -(-limit * PERCENT // 100))
    if quota.budget is not None and (holding.committed + cost) * 100 >= quota.budget * PERCENT:
        used = up(holding.spent)
        rail = -(-quota.budget * PERCENT // 100)
        found["budget"] = _refusal("budget", used, holding.committed - used, cost, quota.budget, rail)
    order = (*CONCURRENT, "running", "queued", "storage", "ingress", "egress", "budget")
    return tuple(found[name] for name in order if name in found)


def _best(step: StepSpec, room: dict[str, int]) -> Ask:
    """The alternative that passes the fewest bounds."""
    return min(step.asks, key=lambda ask: sum(0 < getattr(ask, n) * step.nodes > most for n, most in room.items()))


def _refusal(name: str, used: int, reserved: int, request: int, limit: int, rail: int) -> Refusal:
    return Refusal(dimension=name, used=used, reserved=reserved, request=request, limit=limit, guardrail=rail)
