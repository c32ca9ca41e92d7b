"""What people ask of jobs: submit, cancel, run again."""

from __future__ import annotations

from bisect import insort

from msgspec.structs import replace

from coordinator.core.commands import Decision, Put, Reply
from coordinator.core.data.inputs import hold_inputs, with_inputs
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import JobCancel, JobRetry, JobSubmit
from coordinator.core.ids import JobId, TenantName, dotted
from coordinator.core.policy import Policy
from coordinator.core.queue.lines import fit_step
from coordinator.core.rows import ENDED, JobRow, LeaseToken, SpecRow, StepRow, TaskRow, TenantRow, WorkState
from coordinator.core.state import ClusterState
from coordinator.core.tenants.admission import admit, known_tenant, plan_for
from coordinator.core.tenants.reservations import MONEY_MAX, Plan, leaves_queue, set_aside_again
from coordinator.core.work import graph
from coordinator.core.work.endings import cancel_job, cancel_task, open_steps, settle_job, skip_doomed
from coordinator.core.work.jobspec import JobSpec
from coordinator.core.work.live import Job, Step, Task, Work
from coordinator.core.work.loading import add_job
from coordinator.core.work.transitions import move_job, move_step, move_task, new_task, put_task, touch_job, touch_step

# ---- submit


def on_submit(state: ClusterState, event: JobSubmit, policy: Policy, out: Decision) -> None:
    """One job, or the one that this idempotency key made before. Its size costs nothing: an array is a range."""
    known = _made_before(state.work, event)
    if known is not None:
        if known.body_digest != event.body_digest:
            raise CoordError(
                Code.CONFLICT,
                f"this idempotency key made job {known.job_id} of another body",
                "use a new key for another job, or send the same body again",
            )
        out.replies.append(Reply(event.request_id, known))
        return
    if len(state.work.jobs) >= policy.jobs_max:
        raise CoordError(
            Code.TOO_MANY, f"{policy.jobs_max} jobs are live, no more are taken", "wait for some to end, or cancel some"
        )
    if event.spec.deadline_ms is not None and event.spec.deadline_ms <= state.now_ms:
        raise CoordError(Code.BAD_JOB, "the job's deadline has passed already", "give a later one")
    tenant = known_tenant(state, event.tenant)
    if not event.any_priority:
        _check_priority(tenant, event.spec, "ask for less, or have an admin submit it")
    plan = plan_for(state, tenant, event.spec)
    admit(state, tenant, event.spec, plan.cost, policy)
    spec, blobs = with_inputs(state, event.tenant, event.spec, event.inputs)
    job = _new_job(state, event, spec, plan, out)
    if blobs:
        hold_inputs(state, job, blobs, policy, out)
    open_steps(state, job, out, "submit")
    out.replies.append(Reply(event.request_id, job.row))


def _check_priority(tenant: TenantRow, spec: JobSpec, hint: str) -> None:
    if spec.priority > tenant.priority_max:
        raise CoordError(
            Code.FORBIDDEN,
            f"priority {spec.priority} is above {tenant.priority_max}, the most that {tenant.name} may ask for",
            hint,
        )


def _made_before(work: Work, event: JobSubmit) -> JobRow | None:
    """The job that this key made: live, ended lately, or what the store knew when it was asked."""
    if not event.idempotency_key:
        return None
    key = (event.tenant, event.idempotency_key)
    job_id = work.by_key.get(key) or work.recent_keys.get(key)
    if job_id is None:
        return event.known
    job = work.jobs.get(job_id)
    return job.row if job is not None else work.recent[job_id]


def _new_job(state: ClusterState, event: JobSubmit, spec: JobSpec, plan: Plan, out: Decision) -> Job:
    work = state.work
    job_id = work.next_job_id
    work.next_job_id = JobId(job_id + 1)
    row = JobRow(
        job_id=job_id,
        tenant=event.tenant,
        name=spec.name,
        state=WorkState.PENDING,
        submitted_at_ms=state.now_ms,
        by=event.by,
        tasks=sum(step.tasks for step in spec.steps),
        idempotency_key=event.idempotency_key,
        body_digest=event.body_digest,
        priority=spec.priority,
        estimate=plan.cost,
    )
    out.writes.append(Put(SpecRow(job_id=job_id, spec=spec)))
    steps = [
        StepRow(job_id=job_id, step=number, state=WorkState.PENDING, task_estimate=each)
        for number, each in enumerate(plan.tasks)
    ]
    job = add_job(work, row, spec, steps)
    move_job(state, job, WorkState.PENDING, out, why="waits for capacity", by=event.by, unblocked_by="submit")
    for step in job.steps:
        touch_step(state, step, reason=f"waits for {graph.waits_for(job, step)}" if step.spec.needs else "")
    return job


# ---- cancel


def theirs(tenant: TenantName | None, row: JobRow | None, job_id: JobId) -> JobRow:
    """`row`, if this tenant may know of it. Another tenant's job does not exist."""
    if row is None or (tenant is not None and row.tenant != tenant):
        raise CoordError(Code.NOT_FOUND, f"there is no job {job_id}", "coord job list shows those there are")
    return row


def on_cancel(state: ClusterState, event: JobCancel, policy: Policy, out: Decision) -> None:
    """What waits has ended when this is answered; what runs is told to stop. One that ended stays as it is."""
    work = state.work
    job = work.jobs.get(event.job_id)
    row = theirs(event.tenant, job.row if job is not None else work.recent.get(event.job_id, event.known), event.job_id)
    why = event.why or f"cancelled by {event.by}"
    if job is None:
        if row.state not in ENDED:
            raise CoordError(Code.CONFLICT, f"job {event.job_id} ended this moment", "look again: coord job show")
        out.replies.append(Reply(event.request_id, row))
        return
    if event.task is None:
        cancel_job(state, job, why, out, by=event.by)
    else:
        _cancel_one(state, job, *event.task, why, event.by, out)
    out.replies.append(Reply(event.request_id, job.row))


def _cancel_one(state: ClusterState, job: Job, number: int, task_number: int, why: str, by: str, out: Decision) -> None:
    """One task. Before its first launch it is marked, and ends when its turn comes."""
    name = dotted((job.row.job_id, number, task_number))
    if not (0 <= number < len(job.steps) and 0 <= task_number < job.steps[number].spec.tasks):
        raise CoordError(Code.NOT_FOUND, f"there is no task {name}", f"coord job show {job.row.job_id}")
    step = job.steps[number]
    task = step.tasks.get(task_number)
    if task is None and (task_number < step.row.cursor or step.closed):
        raise CoordError(Code.CONFLICT, f"task {name} has ended", f"coord job show {job.row.job_id}")
    if task is not None and task.cancelling:
        return
    if task is not None:
        put_task(task, out, reason=graph.CANCELLING + why)
        cancel_task(state, job, step, task, why, out, by)
        return
    row = TaskRow(
        job_id=job.row.job_id, step=number, task=task_number, state=WorkState.PENDING, reason=graph.CANCELLING + why
    )
    task = new_task(state, job, row, out, "")
    task.cancelling = True
    step.tasks[task_number] = task
    skip_doomed(state, job, step, out)


def on_deadline(state: ClusterState, job_id: JobId, out: Decision) -> None:
    """Unfinished by its deadline: cancelled."""
    job = state.work.jobs.get(job_id)
    if job is not None:
        cancel_job(state, job, "deadline", out)


# ---- run again


def on_retry(state: ClusterState, event: JobRetry, policy: Policy, out: Decision) -> None:
    """Run again what did not complete, with fresh budgets and placed anew. What completed stays.

    What the store said must not be older than what is known here: a task that was run again meanwhile and completed
    would run twice.
    """
    work = state.work
    job = work.jobs.get(event.job_id)
    known = job.row if job is not None else work.recent.get(event.job_id, event.job)
    row = theirs(event.tenant, known, event.job_id)
    if row.retries != event.job.retries or (job is None and event.job.state not in ENDED):
        raise CoordError(Code.CONFLICT, f"job {event.job_id} has changed this moment", "ask again")
    if row.cancelling and job is not None:
        raise CoordError(Code.CONFLICT, f"job {event.job_id} is being cancelled", "wait for its end")
    if event.spec.deadline_ms is not None and event.spec.deadline_ms <= state.now_ms:
        raise CoordError(Code.CONFLICT, f"the deadline of job {event.job_id} has passed", "submit it again")
    if row.failed + row.cancelled == 0:
        raise CoordError(
            Code.CONFLICT, f"nothing of job {event.job_id} failed or was cancelled", "there is nothing to run again"
        )
    _check_rows(job, event)
    _admit_again(state, row, job, event, policy)
    if job is None:
        if len(work.jobs) >= policy.jobs_max:
            raise CoordError(
                Code.TOO_MANY, f"{policy.jobs_max} jobs are live, no more are taken", "wait, or cancel some"
            )
        job = add_job(work, row, event.spec, _steps_again(state, row, event))
        _reorder(work, event.job_id)
        work.recent.pop(event.job_id, None)
        work.recent_keys.pop((row.tenant, row.idempotency_key), None)
        for step in job.steps:
            step.ready = step.closed = graph.has_ended(step)
    _run_again(state, job, event, out)
    out.replies.append(Reply(event.request_id, job.row))


def _check_rows(job: Job | None, event: JobRetry) -> None:
    """The store told of exactly the tasks that failed or were cancelled. A task of them that it knows as running is too
    old a look: it would be lost."""
    told: dict[int, int] = {}
    steps = {row.step: row for row in event.steps}
    for row in event.tasks:
        live = job is not None and row.task in job.steps[row.step].tasks
        early = row.task >= (job.steps[row.step].row if job is not None else steps[row.step]).cursor
        if row.state in (WorkState.FAILED, WorkState.CANCELLED) and not live and not early:
            told[row.step] = told.get(row.step, 0) + 1
    for number, spec in enumerate(event.spec.steps):
        if job is not None:
            step = job.steps[number]
            counts, never = step.row, graph.fresh_tasks_of_closed(step)
        else:
            counts = steps[number]
            never = spec.tasks - counts.cursor
        if counts.failed + counts.cancelled - never != told.get(number, 0):
            raise CoordError(Code.CONFLICT, f"job {event.job_id} has changed this moment", "ask again")


def _steps_again(state: ClusterState, row: JobRow, event: JobRetry) -> list[StepRow]:
    """The rows of the steps of a job that had ended: what is set aside for a task is made of the prices of now."""
    plan = plan_for(state, known_tenant(state, row.tenant), event.spec)
    rows = sorted(event.steps, key=lambda step: step.step)
    return [replace(row, task_estimate=each) for row, each in zip(rows, plan.tasks, strict=True)]


def _admit_again(state: ClusterState, row: JobRow, job: Job | None, event: JobRetry, policy: Policy) -> None:
    """What is run again is set aside for again, and admitted as if it were new."""
    tenant = known_tenant(state, row.tenant)
    if event.tenant is not None:  # else an admin runs it again
        _check_priority(tenant, event.spec, "have an admin run it again, or submit it with less")
    if job is None:
        plan = plan_for(state, tenant, event.spec)
        steps = _steps_again(state, row, event)
        cost = plan.rest + sum(step.task_estimate * (step.failed + step.cancelled) for step in steps)
        admit(state, tenant, event.spec, cost, policy)
    else:
        cost = sum(step.row.task_estimate * (step.row.failed + step.row.cancelled) for step in job.steps)
        admit(state, tenant, event.spec, cost, policy, anew=False)


def _reorder(work: Work, job_id: JobId) -> None:
    """Jobs stand in the order of their submission."""
    later = [other for other in work.jobs if other > job_id]
    for other in later:
        work.jobs[other] = work.jobs.pop(other)


def _run_again(state: ClusterState, job: Job, event: JobRetry, out: Decision) -> None:
    touch_job(state, job, retries=job.row.retries + 1, cancelling="", ended_at_ms=None)
    job.past = []
    before = job.reserved if job.row.state not in ENDED else 0
    if job.row.state in ENDED:
        leaves_queue(state.work.accounts, job, -1)
        move_job(state, job, WorkState.PENDING, out, why="waits for capacity", by=event.by, unblocked_by="submit")
    reopened: list[Step] = []
    for step in job.steps:
        if step.row.failed or step.row.cancelled:
            reopened.append(step)
            _reopen(state, job, step, event, out)
    touch_job(state, job, estimate=min(job.row.estimate + job.reserved - before, MONEY_MAX))
    _put_back(state, job, event, out)
    open_steps(state, job, out, "submit")
    for step in reopened:
        if step.ready:
            fit_step(state.work, job, step)
    settle_job(state, job, out, "submit")


def _reopen(state: ClusterState, job: Job, step: Step, event: JobRetry, out: Decision) -> None:
    """Its tasks that failed or were cancelled are open again."""
    ended = graph.has_ended(step)
    set_aside_again(state.work.accounts, job, step, step.row.failed + step.row.cancelled)
    touch_job(state, job, failed=job.row.failed - step.row.failed, cancelled=job.row.cancelled - step.row.cancelled)
    touch_step(state, step, failed=0, cancelled=0)
    step.closed = False
    if ended:
        step.ready = False
        move_step(state, job, step, WorkState.PENDING, out, why="run again", by=event.by)


def _put_back(state: ClusterState, job: Job, event: JobRetry, out: Decision) -> None:
    """Their rows stay, with fresh budgets. Nothing that was issued before may come back for them."""
    newest = LeaseToken(state.generation, state.work.next_token - 1)
    for row in event.tasks:
        step = job.steps[row.step]
        early = row.task >= step.row.cursor  # cancelled before its turn: its turn is still to come
        if row.state not in (WorkState.FAILED, WorkState.CANCELLED) or row.task in step.tasks or early:
            continue
        task = Task(row=row, newest=newest, since_ms=state.now_ms)
        step.tasks[row.task] = task
        insort(step.retry, row.task)
        move_task(
            state,
            job,
            task,
            WorkState.PENDING,
            out,
            why="run again",
            by=event.by,
            failures=0,
            losses=0,
            not_before_ms=None,
            failed_on=(),
            unstaged_on=(),
            judged=None,
            straggler=False,
            started_at_ms=None,
            ended_at_ms=None,
            exit_code=None,
            waits_for="submit",
        )
