"""What time alone does to the work: deadlines, backoffs, leases, stragglers, quarantines. O(what is due) a tick."""

from __future__ import annotations

from coordinator.core.commands import Decision
from coordinator.core.data.meters import settle_due
from coordinator.core.data.uploads import end_expired
from coordinator.core.ids import JobId, Ms
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.core.tenants.budgets import look_at_due
from coordinator.core.verdict.settling import overdue, say_unsaid
from coordinator.core.verdict.suspicion import drop_faded
from coordinator.core.work.jobs import on_deadline
from coordinator.core.work.loss import review
from coordinator.core.work.retries import backoff_over, end_quarantines
from coordinator.core.work.stragglers import look_for_stragglers

LOOK_EVERY_MS: Ms = 5_000
"""How often the queue is looked at when nothing but the time has changed: forecasts move."""


def on_time(state: ClusterState, policy: Policy, out: Decision) -> None:
    """Whoever's appointment has come, deadlines of jobs first."""
    work = state.work
    if work.quarantined:
        end_quarantines(state, out)
    if work.unsaid:
        say_unsaid(state, policy, out)
    if work.suspicions:
        drop_faded(state, policy, out)
    look_at_due(state)
    end_expired(state, out)
    settle_due(state, out)
    for key in work.wheel.due(state.now_ms):
        match key:
            case (job_id,):
                on_deadline(state, JobId(job_id), out)
            case (job_id, step):
                look_for_stragglers(state, JobId(job_id), step, policy, out)
            case (job_id, step, number):
                task = work.task((JobId(job_id), step, number))
                if task is None:
                    continue
                if task.row.judged is not None and task.row.judged.awaits is not None:
                    overdue(state, task, policy, out)
                else:
                    backoff_over(state, task)
            case (job_id, step, number, attempt):
                review(state, (JobId(job_id), step, number, attempt), policy, out)
    if work.queue and state.now_ms - work.looked_ms >= LOOK_EVERY_MS:
        work.looked_ms = state.now_ms
        work.place_due = True
