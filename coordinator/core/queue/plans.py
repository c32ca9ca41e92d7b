"""Planned starts: when and where the head of a line that has no room is expected to start, and who may pass it.

Backfill with several reservations (Mu'alem and Feitelson 2001 call one of them EASY): whoever stands behind may be
placed on a planned provider only if its time limit ends before, or if there is room for both even then. Plans stand
until what they rest on has changed; they are made by time limits, else expected run times, else an hour.
"""

from __future__ import annotations

from collections.abc import Collection, Container
from heapq import nsmallest
from itertools import islice

from coordinator.core.amounts import Ask, Share
from coordinator.core.ids import AttemptId, Ms, ProviderId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.queue.candidates import Candidates, has_room
from coordinator.core.queue.capacity import NOTHING, add_share, share_of
from coordinator.core.queue.feasible import bound_to_others
from coordinator.core.queue.lines import horizon_ms
from coordinator.core.rows import LIVE_ATTEMPT as LIVE
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.leases import home_of, lease_over_ms
from coordinator.core.work.live import Attempt, Load, Plan, Want

SLACK_MS: Ms = 15_000
"""From a placement to the start of its limit, and from that limit to the last process."""
LOOKED_AT_MAX = 250
"""Providers that a plan is looked for among: the first that could serve it."""


def over_by_ms(state: ClusterState, attempt: Attempt) -> Ms:
    """When what it holds is planned to be free. One that lasts longer than it was taken to is given twice as long again
    and again, so that a plan stands for a while; a time limit is kept."""
    now, row = state.now_ms, attempt.row
    began_ms = row.started_at_ms or row.created_at_ms
    if attempt.planned[0] == began_ms and attempt.planned[1] > now and row.state in LIVE:
        return attempt.planned[1]
    home = home_of(state.work, attempt)
    if home is None or row.state not in LIVE:
        return max(now + SLACK_MS, lease_over_ms(attempt))
    spec = home[1].spec
    if spec.time_limit_ms is not None:
        end_ms = began_ms + spec.time_limit_ms + SLACK_MS
        if end_ms <= now:
            return now + SLACK_MS
    else:
        lasts_ms = horizon_ms(spec)
        while began_ms + lasts_ms <= now:
            lasts_ms *= 2
        end_ms = began_ms + lasts_ms
    attempt.planned = began_ms, end_ms
    return end_ms


def ends_of(state: ClusterState, who: ProviderId) -> list[tuple[Ms, AttemptId, int, Share]]:
    """When each of those that hold something there is planned to have ended, soonest first."""
    work, load, found = state.work, state.work.loads.get(who, NOTHING), []
    for attempt_id, rank in load.attempts:
        attempt = work.attempts[attempt_id]
        found.append((over_by_ms(state, attempt), attempt_id, rank, attempt.row.ranks[rank].share))
    found.sort()  # no two are alike before their shares are compared
    return found


def copy_of(load: Load) -> Load:
    return Load(
        cpus=load.cpus,
        memory=load.memory,
        gpus=list(load.gpus),
        named=dict(load.named),
        attempts=dict(load.attempts),
        behind=dict(load.behind),
    )


def free_at(
    state: ClusterState, provider: Provider, tenant: TenantName, ask: Ask, by_ms: Ms | None = None
) -> tuple[Ms, Load]:
    """When this provider has room for `ask`, with nothing else on it at the latest, and what it holds then. If that is
    later than `by_ms`, some moment that is later."""
    who = provider.row.provider_id
    load = state.work.loads.get(who, NOTHING)
    ends = ends_of(state, who)
    when_ms, copied = state.now_ms, False
    for end_ms, attempt_id, rank, share in ends:
        if has_room(provider, load, ask) and not bound_to_others(provider, load, tenant):
            break
        if by_ms is not None and end_ms > by_ms:
            return end_ms, load
        if not copied:
            load, copied = copy_of(load), True
        del load.attempts[attempt_id, rank]
        if load.behind.pop((attempt_id, rank), None) is None:
            add_share(load, share, -1)
        when_ms = end_ms
    return when_ms, load if copied else copy_of(load)


def make(
    state: ClusterState, want: Want, asks: Collection[Ask], candidates: Candidates, ahead: Container[Want]
) -> Plan | None:
    """The earliest start on providers that are kept for nobody who stands `ahead`, by the alternative that can start
    first; plans of others there are dropped. None: too few are left. O(providers looked at x their attempts)."""
    work, nodes, before = state.work, want.shape.nodes, state.work.plans.get(want)
    kept = {who for other, plan in work.plans.items() if other in ahead and other != want for who in plan.providers}
    own = before.providers if before is not None else ()
    best: tuple[Ms, Ask, list[tuple[Ms, int, float, ProviderId]], dict[ProviderId, Load]] | None = None
    able = sorted(candidates.able) if len(candidates.able) > LOOKED_AT_MAX else candidates.able
    free = [who for who in islice(able, LOOKED_AT_MAX) if who not in kept]
    if len(free) < nodes:
        return None
    for ask in asks:
        times, loads, by_ms = [], {}, None
        for who in free:
            provider = state.providers[who]
            if not has_room(provider, NOTHING, ask):
                continue
            when_ms, loads[who] = free_at(state, provider, want.tenant, ask, by_ms)
            if nodes == 1 and (by_ms is None or when_ms < by_ms):
                by_ms = when_ms
            times.append((when_ms, int(who not in own), candidates.able[who].term, who))
        chosen = nsmallest(nodes, times)
        if len(chosen) == nodes and (best is None or chosen[-1][0] < best[0]):
            best = chosen[-1][0], ask, chosen, loads
    if best is None:
        return None
    start_ms, ask, chosen, loads = best
    providers = tuple(who for *_, who in chosen)
    then = {who: _then(state, state.providers[who], loads[who], start_ms, ask) for who in providers}
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
    )


def _then(state: ClusterState, provider: Provider, load: Load, start_ms: Ms, ask: Ask) -> Load:
    """What it will hold at the start: who has not ended, and the planned one. `load`: when it first had room."""
    for end_ms, attempt_id, rank, share in ends_of(state, provider.row.provider_id):
        held = end_ms <= start_ms and load.attempts.pop((attempt_id, rank), None) is not None
        if held and load.behind.pop((attempt_id, rank), None) is None:
            add_share(load, share, -1)
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
            _, load = free_at(state, provider, plan.want.tenant, plan.ask)
            plan.then[who] = _then(state, provider, load, plan.start_ms, plan.ask)
    plan.seen, plan.dirty = work.moves, set()


def still_stands(state: ClusterState, plan: Plan, candidates: Candidates, policy: Policy) -> bool:
    """Whether it need not be looked at anew."""
    if plan.stale or state.now_ms >= plan.start_ms or any(who not in candidates.able for who in plan.providers):
        return False
    return plan.betters == state.work.betters or state.now_ms < plan.made_ms + policy.plan_every_ms


def ends_before(want: Want, plan: Plan, now_ms: Ms) -> bool:
    """Whoever stands in this line has certainly ended when the planned one starts."""
    return want.limit_ms is not None and now_ms + want.limit_ms + SLACK_MS <= plan.start_ms
