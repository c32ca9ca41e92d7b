"""From rows back to the live work: what a start, a reload after a full disk and a replay begin with."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable, Iterable, Mapping

from coordinator.core.ids import AttemptId, JobId, Ms, TenantName
from coordinator.core.queue.capacity import hold, line_up
from coordinator.core.queue.lines import fit_step, want_of
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AttemptRow,
    AttemptState,
    JobRow,
    LeaseToken,
    ProviderRow,
    Row,
    SpecRow,
    StepRow,
    TaskRow,
    WorkState,
)
from coordinator.core.tenants import metering
from coordinator.core.tenants.account import counted, hold_for
from coordinator.core.tenants.reservations import set_aside
from coordinator.core.verdict.rows import HISTORY_MAX, PastVerdict, SuspicionRow, VerdictRow, past_of
from coordinator.core.work import graph
from coordinator.core.work.jobspec import JobSpec
from coordinator.core.work.live import NO_TOKEN, Attempt, Job, Step, Task, Work, is_live


def load_work(
    work: Work,
    rows: Iterable[Row],
    promote_all: Callable[[], None],
    tenants: Mapping[AttemptId, TenantName] | None = None,
) -> None:
    """Fill an empty Work; rows of what has ended are skipped. Memory of what is not in the rows begins anew: nobody has
    renewed anything. `tenants` tells whose the attempts of ended jobs are, where that is known. Prefetched ones
    all stand in line: whose turn it is already follows from what is offered (`promote_all`)."""
    jobs: dict[JobId, JobRow] = {}
    specs: dict[JobId, SpecRow] = {}
    steps: dict[JobId, list[StepRow]] = {}
    tasks: list[TaskRow] = []
    attempts: list[AttemptRow] = []
    owners: dict[JobId, TenantName] = {}
    verdicts: dict[JobId, list[VerdictRow]] = {}
    for row in rows:
        match row:
            case JobRow() if row.state not in ENDED:
                jobs[row.job_id] = row
            case JobRow():
                owners[row.job_id] = row.tenant
            case SpecRow():
                specs[row.job_id] = row
            case StepRow():
                steps.setdefault(row.job_id, []).append(row)
            case TaskRow() if row.state not in ENDED:
                tasks.append(row)
            case AttemptRow() if row.state in LIVE_ATTEMPT or not all(rank.released for rank in row.ranks):
                attempts.append(row)
            case ProviderRow(quarantined_until_ms=int(until_ms)):
                work.quarantined[row.provider_id] = until_ms
            case SuspicionRow():
                work.suspicions[row.provider_id] = (*work.suspicions.get(row.provider_id, ()), row)
            case VerdictRow():
                verdicts.setdefault(row.job_id, []).append(row)
            case _:
                pass
    for who, rows in work.suspicions.items():
        work.suspicions[who] = tuple(sorted(rows, key=lambda row: (row.at_ms, row.attempt)))
    for job_id in sorted(jobs):
        job = add_job(work, jobs[job_id], specs[job_id].spec, sorted(steps[job_id], key=lambda step: step.step))
        job.past = _past(job.row, verdicts.get(job_id, ()))
    for row in tasks:
        if row.job_id in work.jobs:
            _load_task(work, row)
    for row in sorted(attempts, key=lambda row: (row.prefetched, row.token if row.prefetched else row.attempt_id)):
        _load_attempt(
            work, row, (tenants or {}).get(row.attempt_id) or owners.get(row.job_id)
        )  # those in line in the order of their tokens
    promote_all()
    leased = [row for row in attempts if row.state is AttemptState.LEASED]
    work.unanswered = {row.attempt_id: None for row in sorted(leased, key=lambda row: row.token)}
    for job in work.jobs.values():
        _settle(work, job)
    highest = max(jobs, default=JobId(0))
    work.next_job_id = max(work.next_job_id, JobId(highest + 1))
    work.next_token = max([work.next_token, *(row.token.number + 1 for row in attempts)])


def _past(job: JobRow, verdicts: Iterable[VerdictRow]) -> list[PastVerdict]:
    """The last ones, in their order; none of before the job was run again by hand."""
    own = [row for row in verdicts if row.run == job.retries]
    own.sort(key=lambda row: (row.at_ms, row.step, row.task, row.attempt))
    return [past_of(row) for row in own[-HISTORY_MAX:]]


def _load_task(work: Work, row: TaskRow) -> None:
    job = work.jobs[row.job_id]
    step = job.steps[row.step]
    cancelling = bool(job.row.cancelling) or row.reason.startswith(graph.CANCELLING)
    step.tasks[row.task] = Task(row=row, cancelling=cancelling)
    if row.not_before_ms is not None:
        work.wheel.put(row.task_id, row.not_before_ms)


def _load_attempt(work: Work, row: AttemptRow, tenant: TenantName | None) -> None:
    job = work.jobs.get(row.job_id)
    if tenant is None:
        tenant = job.row.tenant if job is not None else TenantName("")
    attempt = Attempt(
        row=row,
        renewed_ms=(row.created_at_ms,) * len(row.ranks),
        terms_ms=(row.term_ms,) * len(row.ranks),
        granted_ms=row.created_at_ms,
        tenant=tenant,
    )
    work.attempts[row.attempt_id] = attempt
    if counted(row):
        hold_for(work.accounts, tenant, row)
    for rank, ranked in enumerate(row.ranks):
        if not ranked.released:
            begin = line_up if row.prefetched else hold
            begin(work, ranked.provider_id, row.attempt_id, rank, ranked.share, attempt.tenant)
    task = work.task(row.task_id)
    if task is None:
        return
    task.newest = max(task.newest, row.token)
    if is_live(attempt):
        task.attempts = (*task.attempts, attempt)
        metering.start(work.accounts, tenant, row, work.jobs[row.job_id].steps[row.step].row.task_estimate)
        if row.token != NO_TOKEN:
            work.jobs[row.job_id].steps[row.step].running += 1


def _settle(work: Work, job: Job) -> None:
    """What follows from the rows of a job: which steps are ready or closed, who waits, who is being stopped."""
    for step in job.steps:
        ended = graph.has_ended(step)
        step.closed = (
            ended or bool(job.row.cancelling) or (step.row.cursor < step.spec.tasks and graph.fresh_tasks(step) == 0)
        )
        begun = step.row.state in (WorkState.STAGING, WorkState.RUNNING)
        step.ready = ended or begun or graph.may_start(job, step)
        step.unblocked_by = f"step {job.row.job_id}.{step.spec.needs[-1]}" if step.spec.needs else "submit"
        for number, task in sorted(step.tasks.items()):
            if step.closed:
                task.cancelling = True
            if not task.attempts and number < step.row.cursor:
                insort(step.retry, number)
                if (*task.row.task_id, task.row.attempts) not in work.attempts:
                    # Its last attempt is gone and may have had a token: one before it does not come back.
                    task.newest = LeaseToken(task.newest.generation, work.next_token - 1)
            for attempt in task.attempts:
                attempt.stopping = _stopping(job, task, attempt)
        fit_step(work, job, step)


def _stopping(job: Job, task: Task, attempt: Attempt) -> str:
    """Why its agents were told to stop it, as the rows show it."""
    if not any(rank.launched for rank in attempt.row.ranks):
        return ""
    if task.cancelling:
        return job.row.cancelling or task.row.reason.removeprefix(graph.CANCELLING) or "its step has ended"
    ended = [rank.exit for rank in attempt.row.ranks if rank.exit is not None]
    failed = [exit for exit in ended if exit.code != 0]
    return "another rank of it ended" if failed else ""


def look_at_all(work: Work, when_ms: Ms) -> None:
    """Have every lease looked at then: whoever is not heard of by that time is in doubt."""
    for attempt_id in work.attempts:
        work.wheel.put(attempt_id, when_ms)


def add_job(work: Work, row: JobRow, spec: JobSpec, steps: list[StepRow]) -> Job:
    """Keep a live job. Nothing of it is ready yet."""
    job = Job(
        row=row,
        spec=spec,
        steps=[
            Step(
                row=step,
                spec=spec.steps[step.step],
                want=want_of(row.tenant, row.priority, spec.steps[step.step], step.made),
            )
            for step in steps
        ],
    )
    work.jobs[row.job_id] = job
    set_aside(work.accounts, job)
    if row.idempotency_key:
        work.by_key[row.tenant, row.idempotency_key] = row.job_id
    if spec.deadline_ms is not None:
        work.wheel.put((row.job_id,), spec.deadline_ms)
    return job
