"""Where somebody stands in the queue, and when they are expected to start, those ahead of them counted.

Estimates for people and for the promise that a job is measured by; nothing is decided by them. Bounded: a line of
more than AHEAD_MAX places counts as a whole, SLOTS_FROM_MAX providers are looked at, and AHEAD_MAX tasks are
let go by.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush, nsmallest
from typing import NamedTuple

from coordinator.core.amounts import UNIT, Ask
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import Offer
from coordinator.core.queue.fair_share import Standing, Standings
from coordinator.core.queue.feasible import as_enrolled, bound_to_others, out_of_reach
from coordinator.core.queue.freeing import freeing, likely_end_ms
from coordinator.core.queue.lines import head, stands
from coordinator.core.queue.order import BandKey, age_of, effective, top_of
from coordinator.core.queue.plans import ends_before
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.live import FRESH, Load, Place, Shape, Want, Work

AHEAD_MAX = 10_000
SLOTS_FROM_MAX = 500
SLOTS_MAX = 10_000


class Ahead(NamedTuple):
    places: int
    """In the queue, before this one."""
    tasks: int
    """That these stand for, as far as they may want the same providers; AHEAD_MAX: so many or more."""


def ahead_of(state: ClusterState, want: Want, place: Place, policy: Policy, *, tasks_alone: bool = False) -> Ahead:
    """Who stands before this place, which may be that of somebody who is yet to come. O(bands + lines and places of
    those before its own). `tasks_alone`: whoever asks needs no more than the tasks, so that there are no more than
    AHEAD_MAX to count."""
    work = state.work
    top, own_band, standings = top_of(work), (want.tenant, want.priority), standings_with(state, want, policy)
    mine = _turn(state, own_band, top, standings, policy)
    places = tasks = 0
    for key, band in work.bands.items():
        own = key == own_band
        turn = mine if own else _turn(state, key, top, standings, policy)
        if turn > mine:
            continue
        for other in band.wants:
            if tasks_alone and tasks >= AHEAD_MAX:
                return Ahead(places, AHEAD_MAX)
            line = work.queue[other]
            if turn == mine and not own:
                first = head(work, other)
                if first is None or first > place:
                    continue
            if line.waiting > AHEAD_MAX:
                places, tasks = places + line.waiting, AHEAD_MAX
                continue
            before = {p for p in line.heap if (not own or p < place) and stands(work, p, other)}
            places += len(before)
            if before and tasks < AHEAD_MAX and _may_meet(other.shape, want.shape):
                tasks += sum(_tasks_at(work, p) for p in before) * other.shape.nodes
    return Ahead(places, min(tasks, AHEAD_MAX))


def kept_from(state: ClusterState, want: Want, policy: Policy) -> frozenset[ProviderId]:
    """Providers that are kept for lines that stand ahead, as long as this one (yet to come, maybe) would hold them."""
    plans = state.work.plans
    if not plans:
        return frozenset()
    top, standings = top_of(state.work), standings_with(state, want, policy)
    mine = _turn(state, (want.tenant, want.priority), top, standings, policy)
    return frozenset(
        who
        for other, plan in plans.items()
        if other != want
        and _turn(state, (other.tenant, other.priority), top, standings, policy) <= mine
        and not ends_before(want, plan, state.now_ms)
        for who in plan.providers
    )


def standings_with(state: ClusterState, want: Want, policy: Policy) -> Standings:
    """Of all that somebody waits for, and of the tenant of this want."""
    return Standings(state.work.accounts, (want.tenant, *(tenant for tenant, _ in state.work.bands)), policy)


def _turn(
    state: ClusterState, key: BandKey, top: int, standings: Standings, policy: Policy
) -> tuple[int, Standing, int]:
    tenant, priority = key
    band = state.work.bands.get(key)
    aged = age_of(band, state.now_ms, policy) if band is not None else 0
    return -effective(priority, aged, top), standings.of(tenant), -aged


def _tasks_at(work: Work, place: Place) -> int:
    """How many tasks wait in this place."""
    job = work.jobs.get(place[0])
    if job is None:
        return 0
    step = job.steps[place[1]]
    return step.spec.tasks - step.row.cursor if place[2] == FRESH else 1


def _may_meet(one: Shape, other: Shape) -> bool:
    return not one.pools or not other.pools or not set(one.pools).isdisjoint(other.pools)


def starts_at_ms(state: ClusterState, want: Want, ahead_tasks: int, policy: Policy) -> Ms | None:
    """When a task of this want should start, if those ahead of it take as long as it does. None: there will never be
    providers enough.

    O(SLOTS_FROM_MAX x their attempts + AHEAD_MAX).
    """
    nodes = want.shape.nodes
    by_provider = slots_of(state, want, policy)
    if len(by_provider) < nodes:
        return None
    slots = [slot_ms for slots in by_provider for slot_ms in slots]
    heapify(slots)
    for _ in range(min(ahead_tasks, AHEAD_MAX)):
        heappush(slots, heappop(slots) + want.shape.run_ms)
    in_turn = max(heappop(slots) for _ in range(nodes))
    return max(in_turn, nsmallest(nodes, (slots[0] for slots in by_provider))[-1])  # each node is another provider


def slots_of(state: ClusterState, want: Want, policy: Policy) -> list[list[Ms]]:
    """Of each provider that there will be room on: from when on there is room for one more rank, once for each, by the
    alternative that finds some first."""
    shape = want.shape
    found: list[list[Ms]] = []
    slots = looked = 0
    for provider in state.providers.values():
        if slots >= SLOTS_MAX or looked >= SLOTS_FROM_MAX:
            break
        if any(as_enrolled(provider, shape)):
            continue
        if any(name != "quarantined" for name in out_of_reach(state, provider, shape, policy)):
            continue
        looked += 1
        more = _slots(state, provider, want)
        if more:
            slots += len(more)
            found.append(more)
    return found


def _slots(state: ClusterState, provider: Provider, want: Want) -> list[Ms]:
    from_ms = max(state.now_ms, provider.row.quarantined_until_ms or 0)
    found: dict[Ask, list[Ms]] = {ask: [] for ask in want.shape.asks}
    for when_ms, load in freeing(state, provider.row.provider_id, likely_end_ms):
        if bound_to_others(provider, load, want.tenant):
            continue
        for ask, slots in found.items():
            slots += [max(from_ms, when_ms)] * (room_in(provider.offer, load, ask) - len(slots))
        if any(len(slots) >= SLOTS_MAX for slots in found.values()):
            break
    return min((slots for slots in found.values() if slots), key=lambda slots: (slots[0], -len(slots)), default=[])


def room_in(offer: Offer, load: Load, ask: Ask) -> int:
    """How many times `ask` fits beside `load`; of GPUs, by their sum."""
    rooms = [SLOTS_MAX]
    if ask.cpus:
        rooms.append((offer.cpus - load.cpus) // ask.cpus)
    if ask.memory:
        rooms.append((offer.memory - load.memory) // ask.memory)
    if ask.gpus:
        rooms.append((offer.gpus * UNIT - sum(load.gpus)) // ask.gpus)
    rooms += [(offer.named.get(name, 0) - load.named.get(name, 0)) // amount for name, amount in ask.named if amount]
    return max(0, min(rooms))
