"""GET /v1/nodepools: what each pool offers and costs, what is free, what waits for it, since when and until when.

Capacity is everybody's to see. What is held and what waits is told of the asking tenant alone, and nothing that tells
one of the others from the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from coordinator.api_types.nodepools import NodePool, NodePools
from coordinator.api_types.tenants import PriceEntry
from coordinator.core.amounts import UNIT
from coordinator.core.fleet.providers import DEFAULT_POOL
from coordinator.core.ids import Ms, PoolName, TenantName
from coordinator.core.queue.capacity import NOTHING, offer_of
from coordinator.core.queue.waiting import starts_at_ms
from coordinator.core.rows import PoolRow
from coordinator.core.snapshot import Liveness, ProviderView
from coordinator.core.work.graph import fresh_tasks
from coordinator.core.work.live import Job, Step
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.money import price_entry
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import scope_of
from coordinator.timetext import optional_text

AT_ONCE = 4_096
"""Steps, and jobs of others, that are looked at before the loop gets its turn: a millisecond or two."""


class _Sum(Struct):
    """One pool while it is counted. Amounts as in `core.amounts`."""

    providers: int = 0
    online: int = 0
    drained: int = 0
    quarantined: int = 0
    cpus: int = 0
    cpus_free: int = 0
    memory: int = 0
    memory_free: int = 0
    gpus: int = 0
    gpus_free: int = 0
    attempts: int = 0
    queued: int = 0
    since_ms: Ms | None = None
    planned_ms: Ms | None = None
    ends_ms: Ms | None = None
    held: list[int] = field(default_factory=lambda: [0, 0, 0])
    """CPUs, GPUs and memory of those whose things may be told."""


async def list_nodepools(call: Call[NoQuery, NoBody]) -> NodePools:
    """Every pool. O(providers, live attempts, live jobs)."""
    deps, tenant = call.deps, scope_of(call)
    sums: dict[str, _Sum] = {DEFAULT_POOL: _Sum(), **{name: _Sum() for name in sorted(deps.views.pools)}}
    for view in deps.views.providers.values():
        _add_provider(deps, sums.setdefault(view.pool, _Sum()), view, call.now_ms)
    _add_attempts(deps, sums, tenant)
    await _add_queue(deps, sums, tenant)
    return NodePools(entries=tuple(_entry(name, one, deps.views.pools, call.now_ms) for name, one in sums.items()))


def _add_provider(deps: ApiDeps, total: _Sum, view: ProviderView, now_ms: Ms) -> None:
    state = deps.engine.state
    offer, load = offer_of(view.resources), state.work.loads.get(view.provider_id, NOTHING)
    provider = state.providers.get(view.provider_id)
    row = provider.row if provider is not None else None
    quarantined = row is not None and (row.quarantined_until_ms or 0) > now_ms
    works = row is not None and row.promises.work
    total.providers += 1
    total.drained += view.drained
    total.quarantined += quarantined
    total.cpus += offer.cpus
    total.memory += offer.memory
    total.gpus += offer.gpus
    total.attempts += len({attempt_id for attempt_id, _ in load.attempts})
    if view.liveness is Liveness.ONLINE and works and not view.drained and not quarantined:
        total.online += 1
        total.cpus_free += max(0, offer.cpus - load.cpus)
        total.memory_free += max(0, offer.memory - load.memory)
        total.gpus_free += max(0, offer.gpus * UNIT - sum(load.gpus))


async def _add_queue(deps: ApiDeps, sums: dict[str, _Sum], tenant: TenantName | None) -> None:
    """A task that may go to several pools is counted in each. The loop gets its turn between some thousand steps: while
    that goes on the queue moves, and what is counted is as good as of one moment."""
    state, policy = deps.engine.state, deps.engine.policy
    work = state.work
    for want, plan in list(work.plans.items()):  # plans_max of them
        if tenant in (None, want.tenant):
            # A plan is kept, and rests on time limits; what runs is expected to end before them.
            likely_ms = _first(starts_at_ms(state, want, 0, policy), plan.start_ms)
            for name in _pools_of(want.shape.pools, sums):
                sums[name].planned_ms = _first(sums[name].planned_ms, likely_ms)
            await asyncio.sleep(0)
    looked = 0
    for job in list(work.jobs.values()):
        theirs = tenant in (None, job.row.tenant)
        looked += len(job.steps) if theirs else 1
        if looked >= AT_ONCE:
            looked = 0
            await asyncio.sleep(0)
        if not theirs:
            continue
        for step in job.steps:
            waiting = waiting_of(step)
            for name in _pools_of(step.spec.pools, sums) if waiting > 0 else ():
                sums[name].queued += waiting
                sums[name].since_ms = _first(sums[name].since_ms, job.row.submitted_at_ms)


def waiting_of(step: Step) -> int:
    """Tasks of a step that could be placed if there were room."""
    if not step.ready or step.closed:
        return 0
    return fresh_tasks(step) + len(step.retry)


def _first(one: Ms | None, other: Ms | None) -> Ms | None:
    return min((ms for ms in (one, other) if ms is not None), default=None)


def _pools_of(pools: tuple[PoolName, ...], sums: dict[str, _Sum]) -> Iterable[str]:
    return [name for name in pools if name in sums] if pools else sums


def _add_attempts(deps: ApiDeps, sums: dict[str, _Sum], tenant: TenantName | None) -> None:
    """What is held, and when the first attempt of each pool should end, where its run time or its limit tells."""
    work, providers = deps.engine.state.work, deps.views.providers
    for attempt in work.attempts.values():
        row = attempt.row
        job = work.jobs.get(row.job_id)
        lasts_ms = _lasts_ms(job, row.step) if job is not None and row.started_at_ms is not None else None
        for number, rank in enumerate(row.ranks):
            view = providers.get(rank.provider_id)
            if view is None or rank.released:
                continue
            total = sums[view.pool]
            if row.started_at_ms is not None and lasts_ms is not None:
                total.ends_ms = _first(total.ends_ms, row.started_at_ms + lasts_ms)
            load = work.loads.get(rank.provider_id, NOTHING)
            if tenant in (None, attempt.tenant) and (row.attempt_id, number) not in load.behind:
                ask = rank.share.ask
                for place, amount in enumerate((ask.cpus, ask.gpus, ask.memory)):
                    total.held[place] += amount


def _lasts_ms(job: Job, number: int) -> Ms | None:
    """How long a task of this step should run: as its siblings did, as it was said, or as it may at most."""
    step = job.steps[number]
    if step.lasted_ms:
        return sorted(step.lasted_ms)[len(step.lasted_ms) // 2]
    return step.spec.expected_ms if step.spec.expected_ms is not None else step.spec.time_limit_ms


def _entry(name: str, total: _Sum, pools: Mapping[PoolName, PoolRow], now_ms: Ms) -> NodePool:
    ends_ms = max(now_ms, total.ends_ms) if total.ends_ms is not None else None
    room = total.cpus_free >= UNIT and not total.queued
    eta_ms = now_ms if room else ends_ms
    if eta_ms is not None and not room and total.planned_ms is not None:  # else the plan rests on nothing but a guess
        eta_ms = max(now_ms, total.planned_ms)
    made = pools.get(PoolName(name))
    return NodePool(
        name=name,
        providers=total.providers,
        online=total.online,
        drained=total.drained,
        quarantined=total.quarantined,
        cpus=total.cpus / UNIT,
        cpus_free=total.cpus_free / UNIT,
        memory=total.memory,
        memory_free=total.memory_free,
        gpus=total.gpus,
        gpus_free=total.gpus_free / UNIT,
        attempts=total.attempts,
        queued=total.queued,
        next_free_at=optional_text(ends_ms),
        eta=optional_text(eta_ms),
        waits_since=optional_text(total.since_ms),
        cpus_held=total.held[0] / UNIT,
        gpus_held=total.held[1] / UNIT,
        memory_held=total.held[2],
        price=price_entry(made.price) if made is not None else PriceEntry(),
    )
