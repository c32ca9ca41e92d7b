"""What a job that has not begun waits for now, for lists: its row was written when it was submitted.

For display alone: O(steps) a job, and nothing is judged. `job why` says it in full.
"""

from __future__ import annotations

from coordinator.core.ids import Ms
from coordinator.core.policy import Policy
from coordinator.core.rows import JobRow, WorkState
from coordinator.core.state import ClusterState
from coordinator.core.tenants.quotas import room_for
from coordinator.core.work.live import Step
from coordinator.timetext import to_text


def reason_of(state: ClusterState, row: JobRow, policy: Policy) -> str:
    """Why it stands as it does: of one that waits its tenant's quota, its planned start, or that nobody is there
    who could run it, where that is so."""
    job = state.work.jobs.get(row.job_id)
    if job is None or row.state is not WorkState.PENDING or row.cancelling:
        return row.reason
    lines = [step for step in job.steps if step.line is not None]
    if not lines:
        return row.reason
    blocked = [_without_room(state, row, step, policy) for step in lines]
    if all(blocked):
        return f"waits for its tenant's quota: {', '.join(blocked[0])}"
    starts = [ms for step in lines if (ms := _planned_ms(state, step)) is not None]
    if starts:
        by = to_text(max(state.now_ms, min(starts)))[: len("2026-11-22T04:31:05")].replace("T", " ")
        return f"waits for capacity, planned to start by {by} UTC"
    if all(_has_nobody(state, step) for step in lines):
        return f"waits for a provider that could run it: coord job why {row.job_id}"
    return row.reason


def _has_nobody(state: ClusterState, step: Step) -> bool:
    """The last look found none that could take it even when it is empty."""
    line = state.work.queue.get(step.line) if step.line is not None else None
    return line is not None and line.held_by == "nobody"


def _without_room(state: ClusterState, row: JobRow, step: Step, policy: Policy) -> tuple[str, ...]:
    """The dimensions in which no alternative of this step has room; nothing when one has."""
    found: tuple[str, ...] = ()
    for ask in step.spec.asks:
        found = room_for(state, row.tenant, row.job_id, ask, step.spec.nodes, policy)
        if not found:
            break
    return found


def _planned_ms(state: ClusterState, step: Step) -> Ms | None:
    plan = state.work.plans.get(step.line) if step.line is not None else None
    return plan.start_ms if plan is not None else None
