"""Changes of state: the one door through which a job, a step, a task or an attempt goes into another state.

Each change is its row and one audit row. Rows of steps and jobs, whose counts change often, are written once at the
end of the decision.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from coordinator.core import audit
from coordinator.core.commands import AttemptChanged, Audited, Decision, JobChanged, Put
from coordinator.core.ids import AttemptId, dotted
from coordinator.core.rows import AttemptRow, AttemptState, AuditRow, TaskRow, WorkState
from coordinator.core.state import ClusterState
from coordinator.core.work.live import Attempt, Job, Step, Task, Work


def touch_job(state: ClusterState, job: Job, /, **changes: Any) -> None:
    """Change what is not the state of a job."""
    job.row = replace(job.row, **changes)
    state.work.touched_jobs[job.row.job_id] = job


def touch_step(state: ClusterState, step: Step, /, **changes: Any) -> None:
    """Change what is not the state of a step."""
    step.row = replace(step.row, **changes)
    state.work.touched_steps[step.row.job_id, step.row.step] = step


def move_job(
    state: ClusterState,
    job: Job,
    to: WorkState,
    out: Decision,
    *,
    why: str = "",
    by: str = "coord",
    unblocked_by: str = "",
    **changes: Any,
) -> None:
    before = job.row.state._value_ if job.row.reason or to is not WorkState.PENDING else ""
    touch_job(state, job, state=to, reason=why, **changes)
    row = job.row
    audit.record(
        state,
        out,
        "job",
        str(row.job_id),
        to._value_,
        before=before,
        why=why,
        by=by,
        unblocked_by=unblocked_by,
        tenant=row.tenant,
        job_id=row.job_id,
    )


def move_step(
    state: ClusterState,
    job: Job,
    step: Step,
    to: WorkState,
    out: Decision,
    *,
    why: str = "",
    by: str = "coord",
    unblocked_by: str = "",
    **changes: Any,
) -> None:
    before = step.row.state
    touch_step(state, step, state=to, reason=why, **changes)
    row = step.row
    audit.record(
        state,
        out,
        "step",
        f"{row.job_id}.{row.step}",
        to._value_,
        before=before._value_,
        why=why,
        by=by,
        unblocked_by=unblocked_by,
        tenant=job.row.tenant,
        job_id=row.job_id,
    )


def put_task(task: Task, out: Decision, **changes: Any) -> None:
    """Change what is not the state of a task."""
    task.row = replace(task.row, **changes)
    out.writes.append(Put(task.row))


def move_task(
    state: ClusterState,
    job: Job,
    task: Task,
    to: WorkState,
    out: Decision,
    *,
    why: str = "",
    by: str = "coord",
    unblocked_by: str = "",
    **changes: Any,
) -> None:
    before = task.row.state
    put_task(task, out, state=to, reason=why, **changes)
    _audit_task(state, job, task.row, before._value_, out, why, by, unblocked_by)


def decide_task(state: ClusterState, job: Job, task: Task, out: Decision, *, why: str, **changes: Any) -> None:
    """It stays in its state, and what it waits for is another thing from now on: its verdict was waited for."""
    put_task(task, out, reason=why, **changes)
    audit.record(
        state,
        out,
        "task",
        dotted(task.row.task_id),
        "decided",
        before=task.row.state._value_,
        why=why,
        tenant=job.row.tenant,
        job_id=job.row.job_id,
    )


def new_task(state: ClusterState, job: Job, row: TaskRow, out: Decision, unblocked_by: str) -> Task:
    """A task gets its row."""
    out.writes.append(Put(row))
    _audit_task(state, job, row, "", out, row.reason, "coord", unblocked_by)
    return Task(row=row)


def _audit_task(
    state: ClusterState, job: Job, row: TaskRow, before: str, out: Decision, why: str, by: str, unblocked_by: str
) -> None:
    audit.record(
        state,
        out,
        "task",
        dotted(row.task_id),
        row.state._value_,
        before=before,
        why=why,
        by=by,
        unblocked_by=unblocked_by,
        tenant=job.row.tenant,
        job_id=row.job_id,
    )


def put_attempt(attempt: Attempt, out: Decision, *, fenced: bool = False, **changes: Any) -> None:
    """Change what is not the state of an attempt."""
    attempt.row = replace(attempt.row, **changes)
    out.writes.append(Put(attempt.row))
    out.notes.append(AttemptChanged(row=attempt.row, tenant=attempt.tenant, fenced=fenced))


def move_attempt(
    state: ClusterState,
    attempt: Attempt,
    to: AttemptState,
    out: Decision,
    *,
    why: str = "",
    by: str = "coord",
    fenced: bool = False,
    **changes: Any,
) -> None:
    before = attempt.row.state
    if before is AttemptState.LEASED:
        answered(state.work, (attempt.row.attempt_id,))
    row = attempt.row = replace(attempt.row, state=to, reason=why, **changes)
    out.writes.append(Put(row))
    out.notes.append(AttemptChanged(row=row, tenant=attempt.tenant, fenced=fenced))
    audit_attempt(state, attempt, out, to._value_, before._value_, why, by)


def answered(work: Work, attempts: Iterable[AttemptId]) -> None:
    """Their agents have answered, or are not waited for any more."""
    for attempt_id in attempts:
        work.unanswered.pop(attempt_id, None)
    if work.paused:
        work.paused = False
        work.ask_place()


def audit_attempt(
    state: ClusterState, attempt: Attempt, out: Decision, after: str, before: str = "", why: str = "", by: str = "coord"
) -> None:
    """Most audit rows are of attempts: this one is made without the detour over `audit.record`."""
    row = attempt.row
    seq = state.work.next_audit
    state.work.next_audit = seq + 1
    found = AuditRow(
        seq=seq,
        wall_ns=state.wall_ns,
        mono_ns=state.mono_ns,
        entity="attempt",
        subject=dotted(row.attempt_id),
        after=after,
        before=before,
        why=why,
        by=by,
        unblocked_by=row.unblocked_by if not before else "",
        tenant=attempt.tenant,
        job_id=row.job_id,
        provider_id=row.ranks[0].provider_id,
    )
    out.writes.append(Put(found))
    out.notes.append(Audited(found))


def set_rank(row: AttemptRow, rank: int, **changes: Any) -> AttemptRow:
    """The row with this rank changed."""
    ranks = list(row.ranks)
    ranks[rank] = replace(ranks[rank], **changes)
    return replace(row, ranks=tuple(ranks))


def write_touched(state: ClusterState, out: Decision) -> None:
    """At the end of a decision: the rows of jobs and steps whose counts changed, each once."""
    work = state.work
    for step in work.touched_steps.values():
        out.writes.append(Put(step.row))
    for job in work.touched_jobs.values():
        out.writes.append(Put(job.row))
        out.notes.append(JobChanged(job.row))
    work.touched_steps.clear()
    work.touched_jobs.clear()
