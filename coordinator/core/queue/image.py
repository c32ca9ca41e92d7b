"""What the queue remembers besides the rows, as one plain struct, and back.

Lines follow from the jobs; candidates follow from the state: of them it is kept which there are, so that a Place that
goes on from an image judges as much as it would have.
"""

from __future__ import annotations

from heapq import heapify

from msgspec import Struct

from coordinator.core.amounts import Ask
from coordinator.core.ids import Ms, ProviderId, TenantName
from coordinator.core.queue.lines import is_head
from coordinator.core.work.live import Kept, Load, Plan, Shape, Want, Work


class LineMemory(Struct, frozen=True, gc=False, kw_only=True):
    want: Want
    held_by: str
    held_ms: Ms = -1
    tried_ms: Ms | None
    later: bool


class PlanMemory(Struct, frozen=True, gc=False, kw_only=True):
    number: int
    want: Want
    ask: Ask
    providers: tuple[ProviderId, ...]
    start_ms: Ms
    then: tuple[tuple[int, int, tuple[int, ...], tuple[tuple[str, int], ...]], ...]
    """By provider: CPUs, memory, GPUs and named resources that are held."""
    dirty: tuple[ProviderId, ...]
    made_ms: Ms
    betters: int
    stale: bool
    first: bool


class KeptMemory(Struct, frozen=True, gc=False, kw_only=True):
    shape: Shape
    at_ms: Ms
    figures_ms: Ms | None
    used_ms: Ms


class QueueImage(Struct, frozen=True, gc=False, kw_only=True):
    """Everything that the queue remembers."""

    lines: tuple[LineMemory, ...]
    bands: tuple[tuple[TenantName, int, Ms | None], ...]
    plans: tuple[PlanMemory, ...]
    next_plan: int
    kept: tuple[KeptMemory, ...]
    betters: int
    promised_ms: Ms | None
    fleet: tuple[int, int, int]
    fleet_ms: Ms | None
    half_life_ms: Ms


def queue_image(work: Work) -> QueueImage:
    later = {
        entry[2] for key in work.later if key in work.bands for entry in work.bands[key].later if is_head(work, entry)
    }
    lines = [
        LineMemory(
            want=want,
            held_by=line.held_by or ("capacity" if line.number <= work.blocked_to else ""),
            held_ms=line.held_ms,
            tried_ms=line.tried_ms,
            later=want in later,
        )
        for want, line in work.queue.items()
    ]
    return QueueImage(
        lines=tuple(sorted(lines, key=repr)),
        bands=tuple(sorted((tenant, priority, band.since_ms) for (tenant, priority), band in work.bands.items())),
        plans=tuple(_plan_memory(work, plan) for plan in work.plans.values()),
        next_plan=work.next_plan,
        kept=tuple(
            KeptMemory(shape=shape, at_ms=kept.at_ms, figures_ms=kept.figures_ms, used_ms=kept.used_ms)
            for shape, kept in work.candidates.items()
        ),
        betters=work.betters,
        promised_ms=work.promised_ms,
        fleet=work.accounts.fleet,
        fleet_ms=work.fleet_ms,
        half_life_ms=work.accounts.half_life_ms,
    )


def _plan_memory(work: Work, plan: Plan) -> PlanMemory:
    return PlanMemory(
        number=plan.number,
        want=plan.want,
        ask=plan.ask,
        providers=plan.providers,
        start_ms=plan.start_ms,
        then=tuple(
            (load.cpus, load.memory, tuple(load.gpus), tuple(sorted(load.named.items())))
            for load in (plan.then[who] for who in plan.providers)
        ),
        dirty=tuple(who for who in plan.providers if who in plan.dirty or work.moved.get(who, 0) > plan.seen),
        made_ms=plan.made_ms,
        betters=plan.betters,
        stale=plan.stale,
        first=plan.first,
    )


def restore_queue(work: Work, image: QueueImage) -> None:
    """After the lines were made of the jobs."""
    for memory in image.lines:
        line = work.queue[memory.want]
        line.held_by, line.held_ms, line.tried_ms = memory.held_by, memory.held_ms, memory.tried_ms
    _put_later(work, {memory.want for memory in image.lines if memory.later})
    for tenant, priority, since_ms in image.bands:
        work.bands[tenant, priority].since_ms = since_ms
    for plan in image.plans:
        work.put_plan(_plan_of(plan))
    work.next_plan = image.next_plan
    work.candidates = {
        kept.shape: Kept(at_ms=kept.at_ms, figures_ms=kept.figures_ms, used_ms=kept.used_ms) for kept in image.kept
    }
    work.betters = image.betters
    work.fleet_ms, work.promised_ms = image.fleet_ms, image.promised_ms
    work.accounts.fleet, work.accounts.half_life_ms = image.fleet, image.half_life_ms


def _put_later(work: Work, wants: set[Want]) -> None:
    """Their heads are for the next Places."""
    for key in {(want.tenant, want.priority): None for want in wants}:
        band = work.bands[key]
        band.later = [entry for entry in band.heads if entry[2] in wants]
        band.heads = [entry for entry in band.heads if entry[2] not in wants]
        heapify(band.heads)
        work.later[key] = None


def _plan_of(memory: PlanMemory) -> Plan:
    loads = [Load(cpus=c, memory=m, gpus=list(gpus), named=dict(named)) for c, m, gpus, named in memory.then]
    return Plan(
        number=memory.number,
        want=memory.want,
        ask=memory.ask,
        providers=memory.providers,
        start_ms=memory.start_ms,
        then=dict(zip(memory.providers, loads, strict=True)),
        dirty=set(memory.dirty),
        made_ms=memory.made_ms,
        betters=memory.betters,
        stale=memory.stale,
        first=memory.first,
    )


def carry_queue(old: Work, fresh: Work) -> None:
    """Over a rollback: who waited goes on to age. Plans are made anew."""
    for key, band in fresh.bands.items():
        before = old.bands.get(key)
        if before is not None:
            band.since_ms = before.since_ms
    fresh.accounts.fleet, fresh.accounts.half_life_ms = old.accounts.fleet, old.accounts.half_life_ms
    fresh.fleet_ms = old.fleet_ms
