"""Tasks that are far slower than their siblings or than they were expected to be."""

from __future__ import annotations

from statistics import median

from coordinator.core import audit
from coordinator.core.commands import Decision, Warned
from coordinator.core.ids import JobId, Ms, dotted
from coordinator.core.policy import Policy
from coordinator.core.rows import AttemptState
from coordinator.core.state import ClusterState
from coordinator.core.work.attempts import watch_pace
from coordinator.core.work.live import Step
from coordinator.core.work.transitions import put_task


def look_for_stragglers(state: ClusterState, job_id: JobId, number: int, policy: Policy, out: Decision) -> None:
    """Flag those of one step. O(its live tasks), every few seconds while it runs."""
    job = state.work.jobs.get(job_id)
    if job is None or not job.steps[number].tasks:
        return
    step = job.steps[number]
    limit_ms, against = _limit(step, policy)
    for task in step.tasks.values() if against else ():
        row = task.row
        running = any(attempt.row.state is AttemptState.RUNNING for attempt in task.attempts)
        if row.straggler or not running or row.started_at_ms is None:
            continue
        ran_ms = state.now_ms - row.started_at_ms
        if ran_ms > limit_ms:
            put_task(task, out, straggler=True)
            name = dotted(row.task_id)
            text = f"task {name} of {job.row.name} has run for {ran_ms / 1000:.0f} s, {against}"
            audit.record(
                state,
                out,
                "task",
                name,
                "straggler",
                before=row.state.value,
                why=text,
                tenant=job.row.tenant,
                job_id=job_id,
            )
            out.notes.append(Warned(kind="straggler", subject=name, text=text))
    if step.running:
        watch_pace(state, step)


def _limit(step: Step, policy: Policy) -> tuple[Ms, str]:
    """Who runs for longer is a straggler, and against what; nothing while there is nothing to compare with."""
    found: list[tuple[float, str]] = []
    if len(step.lasted_ms) >= policy.straggler_siblings:
        middle = median(step.lasted_ms)
        found.append((middle, f"the median of its siblings is {middle / 1000:.0f} s"))
    if step.spec.expected_ms is not None:
        found.append((step.spec.expected_ms, f"expected were {step.spec.expected_ms / 1000:.0f} s"))
    if not found:
        return 0, ""
    usual_ms, text = min(found)
    return max(policy.straggler_min_ms, int(policy.straggler_factor * usual_ms)), text
