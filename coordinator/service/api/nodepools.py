"""GET /v1/nodepools: what each pool offers, what is free, what waits for it, and until when."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from coordinator import api_types as t
from coordinator.core.amounts import UNIT
from coordinator.core.capacity import NOTHING, offer_of
from coordinator.core.graph import fresh_tasks
from coordinator.core.ids import Ms, PoolName, TenantName
from coordinator.core.providers import DEFAULT_POOL
from coordinator.core.snapshot import Liveness, ProviderView
from coordinator.core.work import Job, Step
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import scope_of
from coordinator.timetext import optional_text, to_text


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
    ends_ms: Ms | None = None


async def list_nodepools(call: Call[NoQuery, NoBody]) -> t.NodePools:
    """Every pool. A tenant sees the whole capacity, and its own tasks among those that wait."""
    deps = call.deps
    sums: dict[str, _Sum] = {DEFAULT_POOL: _Sum(), **{name: _Sum() for name in sorted(deps.views.pools)}}
    for view in deps.views.providers.values():
        _add_provider(deps, sums.setdefault(view.pool, _Sum()), view, call.now_ms)
    _add_queue(deps, sums, scope_of(call))
    _add_ends(deps, sums)
    return t.NodePools(entries=tuple(_entry(name, one, call.now_ms) for name, one in sums.items()))


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


def waiting_of(step: Step) -> int:
    """Tasks of a step that could be placed if there were room."""
    if not step.ready or step.closed:
        return 0
    return fresh_tasks(step) + len(step.retry)


def _add_queue(deps: ApiDeps, sums: dict[str, _Sum], tenant: TenantName | None) -> None:
    """A task that may go to several pools is counted in each."""
    for job in deps.engine.state.work.jobs.values():
        if tenant not in (None, job.row.tenant):
            continue
        for step in job.steps:
            waiting = waiting_of(step)
            if waiting > 0:
                for name in _pools_of(step.spec.pools, sums):
                    sums[name].queued += waiting


def _pools_of(pools: tuple[PoolName, ...], sums: dict[str, _Sum]) -> Iterable[str]:
    return [name for name in pools if name in sums] if pools else sums


def _add_ends(deps: ApiDeps, sums: dict[str, _Sum]) -> None:
    """When the first attempt of each pool should end, where its run time or its limit tells."""
    work, providers = deps.engine.state.work, deps.views.providers
    for attempt in work.attempts.values():
        row = attempt.row
        job = work.jobs.get(row.job_id)
        if job is None or row.started_at_ms is None:
            continue
        lasts_ms = _lasts_ms(job, row.step)
        if lasts_ms is None:
            continue
        for rank in row.ranks:
            view = providers.get(rank.provider_id)
            if view is not None and not rank.released:
                total = sums[view.pool]
                ends_ms = row.started_at_ms + lasts_ms
                total.ends_ms = ends_ms if total.ends_ms is None else min(total.ends_ms, ends_ms)


def _lasts_ms(job: Job, number: int) -> Ms | None:
    """How long a task of this step should run: as its siblings did, as it was said, or as it may at most."""
    step = job.steps[number]
    if step.lasted_ms:
        return sorted(step.lasted_ms)[len(step.lasted_ms) // 2]
    return step.spec.expected_ms if step.spec.expected_ms is not None else step.spec.time_limit_ms


def _entry(name: str, total: _Sum, now_ms: Ms) -> t.NodePool:
    ends_ms = max(now_ms, total.ends_ms) if total.ends_ms is not None else None
    room = total.cpus_free >= UNIT and not total.queued
    return t.NodePool(
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
        eta=to_text(now_ms) if room else optional_text(ends_ms),
    )
