"""Planned starts: when and where the head of a line that has no room is expected to start, and who may pass it.

Backfill with several reservations (Mu'alem and Feitelson 2001 call one of them EASY): whoever stands behind may be
placed on a planned provider only if its time limit ends before, or if there is room for both even then. Plans stand
until what they rest on has changed; they are made by time limits, else expected run times, else an hour.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from heapq import nsmallest
from itertools import islice

from coordinator.core.amounts import Ask
from coordinator.core.ids import Ms, ProviderId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue.candidates import Candidates
from coordinator.core.queue.capacity import NOTHING, add_share, fits, share_of
from coordinator.core.queue.feasible import bound_to_others
from coordinator.core.queue.freeing import SLACK_MS, copy_of, ends_of, freeing, let_go, planned_end_ms
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.live import Load, Plan, Want

LOOKED_AT_MAX = 250
"""Providers that a plan is looked for among: the first that could serve it."""


def free_at(state: ClusterState, provider: Provider, tenant: TenantName, ask: Ask, by_ms: Ms | None = None) -> Ms:
    """When this provider has room for `ask`, with nothing else on it at the latest. If that is later than `by_ms`, some
    moment that is later: who can only be later costs no more than a look at its attempts."""
    who = provider.row.provider_id
    load = state.work.loads.get(who, NOTHING)
    if _fits(provider, load, tenant, ask):
        return state.now_ms
    if by_ms is not None:
        soonest_ms = min(planned_end_ms(state, state.work.attempts[held]) for held, _ in load.attempts)
        if soonest_ms > by_ms:
            return soonest_ms
    when_ms = state.now_ms
    for when_ms, load in freeing(state, who, planned_end_ms):
        if (by_ms is not None and when_ms > by_ms) or _fits(provider, load, tenant, ask):
            break
    return when_ms


def _fits(provider: Provider, load: Load, tenant: TenantName, ask: Ask) -> bool:
    return fits(provider.offer, load, ask) and not bound_to_others(provider, load, tenant)


def make(
    state: ClusterState, want: Want, asks: Collection[Ask], candidates: Candidates, ahead: Container[Want]
) -> Plan | None:
    """The earliest start on providers that are kept for nobody who stands `ahead`, by the alternative that can start
    first; plans of others there are dropped. None: too few are left. O(providers looked at x their attempts)."""
    work, nodes, before = state.work, want.shape.nodes, state.work.plans.get(want)
    kept_for = [plan for other, plan in work.plans.items() if other in ahead and other != want]
    kept = {who for plan in kept_for for who in plan.providers}
    own = before.providers if before is not None else ()
    best: tuple[Ms, Ask, list[tuple[Ms, int, float, ProviderId]]] | None = None
    able = sorted(candidates.able) if len(candidates.able) > LOOKED_AT_MAX else candidates.able
    free = [who for who in islice(able, LOOKED_AT_MAX) if who not in kept]
    if len(free) < nodes:
        return None
    for ask in asks:
        times, by_ms = [], None
        for who in free:
            provider = state.providers[who]
            if not fits(provider.offer, NOTHING, ask):
                continue
            when_ms = free_at(state, provider, want.tenant, ask, by_ms)
            if nodes == 1 and (by_ms is None or when_ms < by_ms):
                by_ms = when_ms
            times.append((when_ms, int(who not in own), candidates.able[who].term, who))
        chosen = nsmallest(nodes, times)
        if len(chosen) == nodes and (best is None or chosen[-1][0] < best[0]):
            best = chosen[-1][0], ask, chosen
    if best is None:
        return None
    start_ms, ask, chosen = best
    providers = tuple(who for *_, who in chosen)
    then = {who: _then(state, state.providers[who], want.tenant, start_ms, ask) for who in providers}
    for other in [other for other, plan in work.plans.items() if not plan.then.keys().isdisjoint(providers)]:
        work.drop_plan(other)
    work.next_plan += 1
    return Plan(
        number=work.next_plan,
        want=want,
        ask=ask,
        providers=providers,
        start_ms=start_ms,
        then=then,
        made_ms=state.now_ms,
        betters=work.betters,
        first=not kept_for,
    )


def _then(state: ClusterState, provider: Provider, tenant: TenantName, start_ms: Ms, ask: Ask) -> Load:
    """What it will hold at the start: who has not ended, and the planned one. Who ends later is taken to have ended too
    where there is no room beside it."""
    who = provider.row.provider_id
    load = copy_of(state.work.loads.get(who, NOTHING))
    for end_ms, attempt_id, rank, share in ends_of(state, who, planned_end_ms):
        if end_ms > start_ms and _fits(provider, load, tenant, ask):
            break
        let_go(load, attempt_id, rank, share)
    own = share_of(provider.offer, load, ask)
    if own is not None:
        add_share(load, own, 1)
    load.attempts, load.behind = {}, {}
    return load


def refresh(state: ClusterState, plan: Plan) -> None:
    """Work out anew what those of its providers will hold on which something has changed."""
    work = state.work
    if plan.seen == work.moves and not plan.dirty:
        return
    for who in plan.providers:
        if who in plan.dirty or work.moved.get(who, 0) > plan.seen:
            provider = state.providers[who]
            plan.then[who] = _then(state, provider, plan.want.tenant, plan.start_ms, plan.ask)
    plan.seen, plan.dirty = work.moves, set()


def still_stands(state: ClusterState, plan: Plan, candidates: Candidates, first: bool, policy: Policy) -> bool:
    """Whether it need not be looked at anew. `first`: nobody stands ahead now."""
    if plan.stale or state.now_ms >= plan.start_ms or any(who not in candidates.able for who in plan.providers):
        return False
    if first and not plan.first:
        return False
    return plan.betters == state.work.betters or state.now_ms < plan.made_ms + policy.plan_every_ms


def ends_before(want: Want, plan: Plan, now_ms: Ms) -> bool:
    """Whoever stands in this line has certainly ended when the planned one starts."""
    return want.limit_ms is not None and now_ms + want.limit_ms + SLACK_MS <= plan.start_ms
