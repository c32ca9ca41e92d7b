"""When what a provider holds comes free: its attempts end one after the other, each at the moment that is expected.

Two moments of one attempt: the planned end, by time limits, which is what a planned start rests on; and the likely one,
by how long its siblings took, which is what people are told. What follows from either is one walk, `freeing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from statistics import median

from coordinator.core.amounts import Share
from coordinator.core.data.lasting import left_ms
from coordinator.core.ids import AttemptId, Ms, ProviderId
from coordinator.core.queue.capacity import NOTHING, add_share
from coordinator.core.queue.lines import horizon_ms
from coordinator.core.rows import LIVE_ATTEMPT as LIVE
from coordinator.core.state import ClusterState
from coordinator.core.work.leases import home_of, lease_over_ms
from coordinator.core.work.live import Attempt, Load

SLACK_MS: Ms = 15_000
"""From a placement to the start of its limit, and from that limit to the last process."""
EndOf = Callable[[ClusterState, Attempt], Ms]


def planned_end_ms(state: ClusterState, attempt: Attempt) -> Ms:
    """When what it holds is planned to be free: by its time limit, else its expected run time, else an hour. One that
    lasts longer than it was taken to is given twice as long again and again, so that a plan stands for a while."""
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


def likely_end_ms(state: ClusterState, attempt: Attempt) -> Ms:
    """When it should have ended: by its own progress, else its expected run time, else what its siblings took, else its
    time limit; a moment that has passed counts as now. Where nothing of these tells, as planned."""
    home = home_of(state.work, attempt)
    if home is None:
        return planned_end_ms(state, attempt)
    told_ms = left_ms(state, attempt)
    if told_ms is not None:
        return state.now_ms + told_ms
    step = home[1]
    lasts_ms = step.spec.expected_ms or (int(median(step.lasted_ms)) if step.lasted_ms else step.spec.time_limit_ms)
    if lasts_ms is None:
        return planned_end_ms(state, attempt)
    return max(state.now_ms, (attempt.row.started_at_ms or attempt.row.created_at_ms) + lasts_ms)


def ends_of(state: ClusterState, who: ProviderId, end_of: EndOf) -> list[tuple[Ms, AttemptId, int, Share]]:
    """When each of those that hold something there should have ended, soonest first."""
    work, load, found = state.work, state.work.loads.get(who, NOTHING), []
    for attempt_id, rank in load.attempts:
        attempt = work.attempts[attempt_id]
        found.append((end_of(state, attempt), attempt_id, rank, attempt.row.ranks[rank].share))
    found.sort()  # no two are alike before their shares are compared
    return found


def freeing(state: ClusterState, who: ProviderId, end_of: EndOf) -> Iterator[tuple[Ms, Load]]:
    """What it holds now, and from each end on. The first load is its own; the others are one copy, which each further
    step changes. O(its attempts x log)."""
    load = state.work.loads.get(who, NOTHING)
    ends = ends_of(state, who, end_of)
    yield state.now_ms, load
    if not ends:
        return
    load = copy_of(load)
    for end_ms, attempt_id, rank, share in ends:
        let_go(load, attempt_id, rank, share)
        yield end_ms, load


def let_go(load: Load, attempt_id: AttemptId, rank: int, share: Share) -> None:
    """This rank holds nothing any more of a copied load; one in line held nothing before."""
    del load.attempts[attempt_id, rank]
    if load.behind.pop((attempt_id, rank), None) is None:
        add_share(load, share, -1)


def copy_of(load: Load) -> Load:
    return Load(
        cpus=load.cpus,
        memory=load.memory,
        gpus=list(load.gpus),
        named=dict(load.named),
        attempts=dict(load.attempts),
        behind=dict(load.behind),
    )
