"""When capacity is expected to be free: by expected run times, time limits, and how long siblings took."""

from __future__ import annotations

from statistics import median

from coordinator.core.amounts import Share
from coordinator.core.ids import Ms
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import hold, release, share_of
from coordinator.core.queue.feasible import as_enrolled, as_it_stands
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.leases import home_of
from coordinator.core.work.live import Attempt, Want, Work

_UNTOLD = frozenset({"online", "drained", "min_score", "min_forecast"})
"""Nobody knows when these will be met."""


def expected_end_ms(state: ClusterState, attempt: Attempt) -> Ms | None:
    """When it should have ended; a moment that has passed counts as now. None: nothing tells."""
    home = home_of(state.work, attempt)
    if home is None:
        return None
    _, step, _ = home
    lasts_ms = step.spec.expected_ms or (int(median(step.lasted_ms)) if step.lasted_ms else step.spec.time_limit_ms)
    if lasts_ms is None:
        return None
    return max(state.now_ms, (attempt.row.started_at_ms or attempt.row.created_at_ms) + lasts_ms)


def free_at_ms(state: ClusterState, want: Want, policy: Policy) -> Ms | None:
    """When as many providers as it has nodes should have room for one who wants this and is alone in the queue.

    O(providers x their attempts). None: nothing tells.
    """
    found = []
    for provider in state.providers.values():
        if any(as_enrolled(provider, want.shape)) or not _UNTOLD.isdisjoint(
            as_it_stands(state, provider, want, policy)
        ):
            continue
        when_ms = _of_provider(state, provider, want)
        if when_ms is not None:
            found.append(max(when_ms, provider.row.quarantined_until_ms or 0))
    return sorted(found)[want.shape.nodes - 1] if len(found) >= want.shape.nodes else None


def _of_provider(state: ClusterState, provider: Provider, want: Want) -> Ms | None:
    """Let what it holds end in the order in which it should, until there is room."""
    who = provider.row.provider_id
    held = state.work.loads.get(who)
    ends: list[tuple[Ms, Attempt, int, Share]] = []
    then = Work()
    then.load_of(who)
    for attempt_id, rank in sorted(held.attempts) if held is not None else ():
        attempt = state.work.attempts[attempt_id]
        share = attempt.row.ranks[rank].share
        hold(then, who, attempt_id, rank, share, want.tenant)
        end_ms = expected_end_ms(state, attempt)
        if end_ms is not None:
            ends.append((end_ms, attempt, rank, share))
    ends.sort(key=lambda end: (end[0], end[1].row.attempt_id))
    when_ms = state.now_ms
    while not any(share_of(provider.offer, then.load_of(who), ask) is not None for ask in want.shape.asks):
        if not ends:
            return None
        when_ms, attempt, rank, share = ends.pop(0)
        release(then, who, attempt.row.attempt_id, rank, share)
    return when_ms
