"""The live work as one plain struct, and back: its rows, and what is known besides them.

What follows from the rows (lines of the queue, what providers hold) is made anew, by the same code as at a start.
"""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from coordinator.core.ids import AttemptId, JobId, Ms, ProviderId, TaskId, TenantName
from coordinator.core.queue.image import QueueImage, queue_image, restore_queue
from coordinator.core.queue.lines import fit_step, fit_task
from coordinator.core.rows import AttemptRow, JobRow, LeaseToken, SpecRow, StepRow, TaskRow
from coordinator.core.tenants.image import AccountsImage, accounts_image, restore_accounts, restore_memory
from coordinator.core.verdict.rows import PastVerdict, SuspicionRow, VerdictRow
from coordinator.core.work.live import NOTHING_KNOWN, Asked, Attempt, Job, Step, Task, Work
from coordinator.core.work.loading import load_work

JobsRow = JobRow | SpecRow | StepRow | SuspicionRow
LiveRow = TaskRow | AttemptRow
"""These are encoded as arrays: they cannot share a field with the others."""


class JobMemory(Struct, frozen=True, gc=False, kw_only=True):
    job_id: JobId
    retried_ms: tuple[Ms, ...]
    stormed: bool
    past: tuple[PastVerdict, ...] = ()


class StepMemory(Struct, frozen=True, gc=False, kw_only=True):
    job_id: JobId
    step: int
    ready: bool
    closed: bool
    lasted_ms: tuple[Ms, ...]
    unblocked_by: str
    unblocked_ms: Ms = 0


class TaskMemory(Struct, frozen=True, gc=False, kw_only=True):
    task_id: TaskId
    cancelling: bool
    wanted: bool
    newest: LeaseToken
    since_ms: Ms = 0


class AttemptMemory(Struct, frozen=True, gc=False, kw_only=True):
    attempt_id: AttemptId
    renewed_ms: tuple[Ms, ...]
    terms_ms: tuple[Ms, ...]
    stopping: str
    silent: tuple[int, ...]
    granted_ms: Ms
    shrinks: tuple[tuple[int, int, Ms], ...]
    tenant: TenantName
    unseen: tuple[tuple[int, Ms], ...] = ()
    ended_by: tuple[tuple[int, Ms], ...] = ()
    told_ms: Ms = 0
    paced: tuple[Ms, float] | None = None
    turned_by: str = ""


class AskedMemory(Struct, frozen=True, gc=False, kw_only=True):
    attempt_id: AttemptId
    tenant: TenantName
    providers: tuple[ProviderId, ...]


class LoadMemory(Struct, frozen=True, gc=False, kw_only=True):
    provider_id: ProviderId
    failures: tuple[tuple[JobId, Ms], ...]


class WorkImage(Struct, frozen=True, gc=False, kw_only=True):
    """Everything that a Work holds."""

    rows: tuple[JobsRow, ...]
    live: tuple[LiveRow, ...]
    jobs: tuple[JobMemory, ...]
    steps: tuple[StepMemory, ...]
    tasks: tuple[TaskMemory, ...]
    attempts: tuple[AttemptMemory, ...]
    loads: tuple[LoadMemory, ...]
    recent: tuple[JobRow, ...]
    queue: QueueImage
    quarantined: tuple[tuple[ProviderId, Ms], ...]
    wheel: tuple[tuple[int, tuple[int, ...]], ...]
    wheel_next: int
    to_line_up: tuple[ProviderId, ...]
    """Providers that may be given more ahead, oldest change first."""
    place_due: bool
    paused: bool
    freed: tuple[tuple[ProviderId, Ms, str], ...]
    looked_ms: Ms
    next_job_id: JobId
    next_token: int
    next_audit: int
    accounts: AccountsImage
    asked: tuple[AskedMemory, ...] = ()
    """In the order in which they were asked for."""
    faded_ms: Ms = 0
    unsaid: tuple[VerdictRow | SuspicionRow, ...] = ()


def work_image(work: Work) -> WorkImage:
    """Copy `work`; later changes to it do not show."""
    jobs = list(work.jobs.values())
    steps = [step for job in jobs for step in job.steps]
    tasks = [task for step in steps for _, task in sorted(step.tasks.items())]
    attempts = [attempt for _, attempt in sorted(work.attempts.items())]
    wheel, wheel_next = work.wheel.image()
    return WorkImage(
        rows=(
            *(job.row for job in jobs),
            *(SpecRow(job_id=job.row.job_id, spec=job.spec) for job in jobs),
            *(step.row for step in steps),
            *(row for _, rows in sorted(work.suspicions.items()) for row in rows),
        ),
        live=(*(task.row for task in tasks), *(attempt.row for attempt in attempts)),
        jobs=tuple(
            JobMemory(
                job_id=job.row.job_id, retried_ms=tuple(job.retried_ms), stormed=job.stormed, past=tuple(job.past)
            )
            for job in jobs
        ),
        steps=tuple(map(_step_memory, steps)),
        tasks=tuple(map(_task_memory, tasks)),
        attempts=tuple(map(_attempt_memory, attempts)),
        loads=tuple(
            LoadMemory(provider_id=provider_id, failures=tuple(failures))
            for provider_id, failures in sorted(work.failures.items())
        ),
        asked=tuple(
            AskedMemory(attempt_id=attempt_id, tenant=asked.tenant, providers=asked.providers)
            for attempt_id, asked in work.asked.items()
        ),
        faded_ms=work.faded_ms,
        unsaid=tuple(work.unsaid),
        recent=tuple(work.recent.values()),
        queue=queue_image(work),
        quarantined=tuple(sorted(work.quarantined.items())),
        wheel=wheel,
        wheel_next=wheel_next,
        to_line_up=tuple(reversed(work.moved_since(work.lined_up_to))),
        place_due=work.place_due,
        paused=work.paused,
        freed=tuple((who, at_ms, what) for who, (at_ms, what) in work.freed.items()),
        looked_ms=work.looked_ms,
        next_job_id=work.next_job_id,
        next_token=work.next_token,
        next_audit=work.next_audit,
        accounts=accounts_image(work.accounts),
    )


def _step_memory(step: Step) -> StepMemory:
    return StepMemory(
        job_id=step.row.job_id,
        step=step.row.step,
        ready=step.ready,
        closed=step.closed,
        lasted_ms=tuple(step.lasted_ms),
        unblocked_by=step.unblocked_by,
        unblocked_ms=step.unblocked_ms,
    )


def _task_memory(task: Task) -> TaskMemory:
    return TaskMemory(
        task_id=task.row.task_id,
        cancelling=task.cancelling,
        wanted=task.wanted,
        newest=task.newest,
        since_ms=task.since_ms,
    )


def _attempt_memory(attempt: Attempt) -> AttemptMemory:
    return AttemptMemory(
        attempt_id=attempt.row.attempt_id,
        renewed_ms=attempt.renewed_ms,
        terms_ms=attempt.terms_ms,
        stopping=attempt.stopping,
        silent=tuple(sorted(attempt.silent)),
        granted_ms=attempt.granted_ms,
        shrinks=tuple((rank, seq, term) for rank, (seq, term) in sorted(attempt.shrinks.items())),
        tenant=attempt.tenant,
        unseen=tuple(sorted(attempt.unseen_ms.items())),
        ended_by=tuple(sorted(attempt.ended_by_ms.items())),
        told_ms=attempt.told_ms,
        paced=attempt.paced,
        turned_by=attempt.turned_by,
    )


def restore_work(work: Work, image: WorkImage, promote_all: Callable[[], None]) -> None:
    """Fill an empty Work so that it decides as the imaged one would."""
    tenants = {memory.attempt_id: memory.tenant for memory in image.attempts}
    restore_accounts(work.accounts, image.accounts)
    load_work(work, (*image.rows, *image.live), promote_all, tenants)
    for job in image.jobs:
        _restore_job(work.jobs[job.job_id], job)
    for step in image.steps:
        _restore_step(work.jobs[step.job_id], step)
    work.wheel.restore(image.wheel, image.wheel_next)
    for task in image.tasks:
        found = work.task(task.task_id)
        assert found is not None
        found.cancelling, found.wanted, found.newest = task.cancelling, task.wanted, task.newest
        found.since_ms = task.since_ms
    for attempt in image.attempts:
        _restore_attempt(work.attempts[attempt.attempt_id], attempt)
    work.failures = {load.provider_id: list(load.failures) for load in image.loads}
    work.quarantined = dict(image.quarantined)
    work.asked = {memory.attempt_id: Asked(tenant=memory.tenant, providers=memory.providers) for memory in image.asked}
    work.faded_ms, work.unsaid = image.faded_ms, list(image.unsaid)
    for row in image.recent:
        work.recent[row.job_id] = row
        if row.idempotency_key:
            work.recent_keys[row.tenant, row.idempotency_key] = row.job_id
    for job_ in work.jobs.values():
        for step_ in job_.steps:
            fit_step(work, job_, step_)
            for task_ in step_.tasks.values():
                fit_task(work, job_, step_, task_)
    restore_memory(work.accounts, image.accounts)
    restore_queue(work, image.queue)
    work.lined_up_to = work.moves
    for provider_id in image.to_line_up:
        work.move(provider_id)
    work.place_due, work.paused = image.place_due, image.paused
    work.freed, work.looked_ms = {who: (at_ms, what) for who, at_ms, what in image.freed}, image.looked_ms
    work.next_job_id, work.next_token, work.next_audit = image.next_job_id, image.next_token, image.next_audit
    for plan in work.plans.values():
        plan.seen = work.moves  # what was made anew here is what it was


def _restore_job(job: Job, memory: JobMemory) -> None:
    job.retried_ms, job.stormed, job.past = list(memory.retried_ms), memory.stormed, list(memory.past)


def _restore_step(job: Job, memory: StepMemory) -> None:
    step = job.steps[memory.step]
    step.ready, step.closed = memory.ready, memory.closed
    step.lasted_ms = list(memory.lasted_ms)
    step.unblocked_by, step.unblocked_ms = memory.unblocked_by, memory.unblocked_ms


def _restore_attempt(attempt: Attempt, memory: AttemptMemory) -> None:
    attempt.renewed_ms, attempt.terms_ms = memory.renewed_ms, memory.terms_ms
    attempt.stopping, attempt.silent, attempt.granted_ms = memory.stopping, frozenset(memory.silent), memory.granted_ms
    attempt.shrinks = {rank: (seq, term) for rank, seq, term in memory.shrinks} or NOTHING_KNOWN
    attempt.unseen_ms = dict(memory.unseen) or NOTHING_KNOWN
    attempt.ended_by_ms = dict(memory.ended_by) or NOTHING_KNOWN
    attempt.told_ms, attempt.paced, attempt.turned_by = memory.told_ms, memory.paced, memory.turned_by
