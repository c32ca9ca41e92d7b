"""The graph of a job: which steps may start, which cannot come true any more, and how a job ends."""

from __future__ import annotations

from coordinator.core.rows import ENDED, WorkState
from coordinator.core.work.jobspec import When
from coordinator.core.work.live import Job, Step

CANCELLING = "is being cancelled: "
"""How the reason of a task begins that is to end and has not yet."""
SKIPPED = "skipped: "
"""How the reason of a step begins that did not come true: it spoils no job that is otherwise fine."""


def has_ended(step: Step) -> bool:
    return step.row.state in ENDED


def may_start(job: Job, step: Step) -> bool:
    """Everything that it needs has ended as it wants it."""
    needs = [job.steps[number] for number in step.spec.needs]
    match step.spec.when:
        case When.SUCCEEDED:
            return all(need.row.state is WorkState.COMPLETED for need in needs)
        case When.FAILED:
            return all(map(has_ended, needs)) and any(need.row.state is WorkState.FAILED for need in needs)
        case When.FINISHED:
            return all(map(has_ended, needs))


def cannot_start(job: Job, step: Step) -> str:
    """Why it never will, or nothing."""
    needs = [job.steps[number] for number in step.spec.needs]
    for need in needs:
        if step.spec.when is When.SUCCEEDED and has_ended(need) and need.row.state is not WorkState.COMPLETED:
            return f"{SKIPPED}needs {need.spec.name}, which {_ended_as(need)}"
    if step.spec.when is When.FAILED and all(map(has_ended, needs)) and not may_start(job, step):
        return f"{SKIPPED}runs when {' or '.join(need.spec.name for need in needs) or 'nothing'} failed, and none did"
    return ""


def _ended_as(step: Step) -> str:
    if is_skipped(step):
        return "was skipped"
    return "failed" if step.row.state is WorkState.FAILED else "was cancelled"


def is_skipped(step: Step) -> bool:
    return step.row.state is WorkState.CANCELLED and step.row.reason.startswith(SKIPPED)


def waits_for(job: Job, step: Step) -> str:
    """The steps that it still waits for, by name."""
    open_needs = [job.steps[n].spec.name for n in step.spec.needs if not has_ended(job.steps[n])]
    return ", ".join(open_needs)


def outcome(job: Job) -> tuple[WorkState, str] | None:
    """How the job ended and why; None while a step of it has not."""
    if not all(map(has_ended, job.steps)):
        return None
    failed = [step.spec.name for step in job.steps if step.row.state is WorkState.FAILED]
    if failed:
        more = f" and {len(failed) - 1} more" if len(failed) > 1 else ""
        first = next(step for step in job.steps if step.row.state is WorkState.FAILED)
        return WorkState.FAILED, f"step {failed[0]}{more} failed: {first.row.reason}"
    if job.row.cancelling and any(step.row.state is WorkState.CANCELLED for step in job.steps):
        return WorkState.CANCELLED, job.row.cancelling
    for step in job.steps:
        if step.row.state is WorkState.CANCELLED and not is_skipped(step):
            return WorkState.CANCELLED, f"step {step.spec.name} was cancelled: {step.row.reason}"
    return WorkState.COMPLETED, ""


def fresh_tasks(step: Step) -> int:
    """How many of its tasks have no row and are not counted as ended."""
    row = step.row
    return step.spec.tasks - row.completed - row.failed - row.cancelled - len(step.tasks)


def fresh_tasks_of_closed(step: Step) -> int:
    """How many of its tasks were counted as cancelled without ever having a row."""
    if not step.closed:
        return 0
    return step.spec.tasks - step.row.cursor - sum(task >= step.row.cursor for task in step.tasks)
