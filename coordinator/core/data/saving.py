"""Checkpoints as decisions see them: how much work is unsaved, how often it is to be saved, which are kept."""

from __future__ import annotations

import math

from msgspec.structs import replace

from coordinator.core.commands import Decision, Delete, SaveState, Send
from coordinator.core.data.lasting import left_ms
from coordinator.core.data.outcomes import holder_of_checkpoint
from coordinator.core.fleet.forecast import curve_of, stays_on
from coordinator.core.ids import Digest, Ms, ProviderId, TaskId, TenantName
from coordinator.core.policy import Policy
from coordinator.core.rows import TaskRow
from coordinator.core.state import ClusterState
from coordinator.core.work.jobspec import StepSpec
from coordinator.core.work.live import Attempt, Task, is_live

STAYS_MIN = 1e-6
HAZARD_OVER_MS: Ms = 3_600_000
"""A provider's hazard is its mean over the run that is expected, or over an hour, if that is longer."""


def saved_to_ms(row: TaskRow | None, began_ms: Ms) -> Ms:
    """Up to when what an attempt has done since it began is saved."""
    return began_ms if row is None or row.saved_ms is None else max(began_ms, row.saved_ms)


def unsaved_ms(state: ClusterState, attempt: Attempt, task: Task | None) -> Ms:
    """How much this attempt would lose if it ended now; 0 of one that has not begun. O(1)."""
    began_ms = attempt.row.started_at_ms
    if began_ms is None:
        return 0
    return max(0, state.now_ms - saved_to_ms(task.row if task is not None else None, began_ms))


def cost_of(row: TaskRow | None, policy: Policy) -> Ms:
    """What one of its checkpoints is taken to cost."""
    measured = row.checkpoint_cost_ms if row is not None else None
    return policy.checkpoint_first_cost_ms if measured is None else measured


def young_ms(cost_ms: Ms, hazard: float, policy: Policy) -> Ms:
    """The interval at which least is lost: sqrt(2 x cost x MTBF), first order (Young 1974; Daly 2006), within bounds.
    `hazard`: losses a millisecond."""
    least = max(policy.checkpoint_min_ms, 10 * cost_ms)
    most = max(least, policy.checkpoint_max_ms)
    if hazard <= 0.0:
        return most
    return int(min(max(math.sqrt(2 * max(cost_ms, 1) / hazard), least), most))


def segment_ms(rest_ms: Ms, cost_ms: Ms, hazard: float, policy: Policy) -> Ms:
    """After how long the next checkpoint is due in a run of which `rest_ms` are left: the length of the even segments
    into which it is best divided. Where it is best to take none, one is due only if it lasts longer than expected.

    A segment of s that ends with a checkpoint of c takes (e^(hazard (s + c)) - 1) / hazard on average, begun anew after
    every loss; the last one has no checkpoint (Daly 2006, without the time of a restart, which is there either way).
    """
    young = young_ms(cost_ms, hazard, policy)
    if hazard <= 0.0:
        most = 1
    else:
        most = math.ceil(rest_ms * math.sqrt(hazard / (2 * max(cost_ms, 1)))) + 1
    least_ms = max(policy.checkpoint_min_ms, 10 * cost_ms)
    fewest = max(1, -(-rest_ms // max(least_ms, policy.checkpoint_max_ms)))
    most = max(fewest, min(most, rest_ms // least_ms))

    def lasts(segments: int) -> float:
        each = rest_ms / segments
        return (segments - 1) * _mean_ms(each + cost_ms, hazard) + _mean_ms(each, hazard)

    low, high = fewest, most  # it falls, then rises
    while low < high:
        middle = (low + high) // 2
        if lasts(middle) <= lasts(middle + 1):
            high = middle
        else:
            low = middle + 1
    return rest_ms + young if low == 1 else -(-rest_ms // low)


def _mean_ms(length_ms: float, hazard: float) -> float:
    """How long it takes on average until so much was done without a loss."""
    expected = hazard * length_ms
    return length_ms if expected <= 0.0 else math.expm1(min(expected, EXPONENT_MAX)) / hazard


EXPONENT_MAX = 500.0


def every_ms(state: ClusterState, attempt: Attempt, task: Task, spec: StepSpec, policy: Policy) -> Ms | None:
    """After how long its next checkpoint is due; None: when it takes one itself, or the step has none."""
    rule = spec.checkpoint
    if rule is None or not rule.auto:
        return rule.every_ms if rule is not None else None
    rest_ms = rest_of(state, attempt, spec)
    run_ms = max(rest_ms or spec.expected_ms or spec.time_limit_ms or HAZARD_OVER_MS, HAZARD_OVER_MS)
    hazard = 0.0
    for rank in attempt.row.ranks:
        provider = state.providers.get(rank.provider_id)
        curve = curve_of(state, provider, policy) if provider is not None else None
        if curve is not None:
            hazard -= math.log(max(stays_on(curve, run_ms).probability, STAYS_MIN)) / run_ms
    cost_ms = cost_of(task.row, policy)
    if rest_ms:
        return segment_ms(rest_ms, cost_ms, hazard, policy)
    return young_ms(cost_ms, hazard, policy)


def rest_of(state: ClusterState, attempt: Attempt, spec: StepSpec) -> Ms | None:
    """How long it goes on, where its program or its job says so; None: nobody does, or it lasts longer than was said.
    What an attempt before it saved is not known to be done, unless the program says how far it is."""
    told_ms = left_ms(state, attempt)
    if told_ms is None and spec.expected_ms is not None:
        began_ms = attempt.row.started_at_ms
        told_ms = spec.expected_ms - (state.now_ms - began_ms if began_ms is not None else 0)
    return told_ms if told_ms is not None and told_ms > 0 else None


def ask_to_save(state: ClusterState, provider_id: ProviderId, why: str, out: Decision) -> None:
    """Have what runs there take a checkpoint now, where it can. O(its attempts)."""
    provider = state.providers.get(provider_id)
    load = state.work.loads.get(provider_id)
    conn_id = provider.session.conn_id if provider is not None and provider.session is not None else None
    for attempt_id, rank in sorted(load.attempts) if load is not None and conn_id is not None else ():
        attempt, job = state.work.attempts[attempt_id], state.work.jobs.get(attempt_id[0])
        saves = job is not None and job.spec.steps[attempt_id[1]].checkpoint is not None
        if saves and rank == 0 and is_live(attempt) and attempt.row.ranks[0].running and not attempt.stopping:
            assert conn_id is not None
            out.sends.append(Send(conn_id, SaveState(attempt_id=attempt_id, token=attempt.row.token, why=why)))


def drop_checkpoint(tenant: TenantName, task_id: TaskId, number: int, out: Decision, *, row_too: bool = True) -> None:
    """It is not kept any more: nobody holds its blobs."""
    out.writes.append(Delete("hold", (tenant, holder_of_checkpoint(task_id, number))))
    if row_too:
        out.writes.append(Delete("checkpoint", (*task_id, number)))


def drop_checkpoints(tenant: TenantName, task: Task, out: Decision) -> None:
    """The task completed: nobody will resume it. Its row is written by whoever calls."""
    for number in task.row.checkpoints:
        drop_checkpoint(tenant, task.row.task_id, number, out)
    task.row = replace(task.row, checkpoints=(), saved_ms=None, manifest=Digest(""))
