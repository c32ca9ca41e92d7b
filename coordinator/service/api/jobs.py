"""Routes of jobs that are there: look, cancel, retry. Everything read comes from what is durable."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from coordinator.api_types.why import JobWhy, StepWhy
from coordinator.api_types.work import AttemptEntry, JobDetails, JobEntry, Jobs, Tasks
from coordinator.core import commands, events
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, TaskId, dotted
from coordinator.core.rows import ENDED, JobRow, StepRow, TaskRow, WorkState
from coordinator.core.work.jobspec import JobSpec
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.outlook import of_attempt, of_job
from coordinator.service.api.pages import Number, page_position, page_token
from coordinator.service.api.query import NoQuery, nearest, shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import job_id_of, scope_of, task_of, the_job, who
from coordinator.service.api.standing import reason_of
from coordinator.service.api.verdicts import briefs_of
from coordinator.service.api.work_entries import (
    attempt_entry,
    ended_why,
    job_entry,
    step_entry,
    step_why,
    task_entry,
    unbegun_step,
)
from coordinator.timetext import optional_text

SHOWN_TASKS = 50
TRIES_MAX = 100
"""Of one task in an answer: the latest."""
TASKS_PAGE = 5_000
TEXT_CHARS_MAX = 500
_UNFINISHED = tuple(state for state in WorkState if state is not WorkState.COMPLETED)


class JobsQuery(Struct, frozen=True, kw_only=True):
    state: (
        Annotated[
            str, Meta(description="one or more of pending, staging, running, completed, failed, cancelled, with commas")
        ]
        | None
    ) = None
    name: Annotated[str, Meta(max_length=128, description="the job's name; may hold * and ?")] | None = None
    tenant: Annotated[str, Meta(description="only this tenant's jobs")] | None = None
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class TasksQuery(Struct, frozen=True, kw_only=True):
    step: Annotated[int, Meta(ge=0, le=1_000, description="only tasks of this step, by its number")] | None = None
    state: Annotated[str, Meta(description="only these states, with commas")] | None = None
    attempts: Annotated[bool, Meta(description="each task with its attempts, the latest hundred")] = False
    limit: Annotated[int, Meta(ge=1, le=1000, description="entries on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class CancelQuery(Struct, frozen=True, kw_only=True):
    task: Annotated[str, Meta(description="STEP.TASK: this task alone")] | None = None
    why: Annotated[str, Meta(max_length=500, description="the reason, for those who look at it later")] | None = None


class _JobsPosition(Struct, frozen=True):
    before: Number


class _TasksPosition(Struct, frozen=True):
    step: Number
    task: Number


# ---- looking


def running_of(deps: ApiDeps, job_id: JobId) -> dict[int, int]:
    """Tasks that run, by step; for display alone."""
    job = deps.engine.state.work.jobs.get(job_id)
    return {number: step.running for number, step in enumerate(job.steps)} if job is not None else {}


def entry_of(deps: ApiDeps, row: JobRow) -> JobEntry:
    """The job as it durably stands."""
    if row.state in ENDED:
        return job_entry(row, 0)
    row = structs.replace(row, reason=reason_of(deps.engine.state, row, deps.engine.policy))
    return job_entry(row, sum(running_of(deps, row.job_id).values()), of_job(deps.engine.state, row.job_id))


async def spec_of(deps: ApiDeps, job_id: JobId) -> JobSpec:
    """What the job consists of: from memory while it lives."""
    job = deps.engine.state.work.jobs.get(job_id)
    spec = job.spec if job is not None else await deps.store.job_spec(job_id)
    if spec is None:
        raise CoordError(Code.NOT_FOUND, f"job {job_id} was removed by its retention", "coord job list")
    return spec


def states_of(text: str | None) -> tuple[WorkState, ...]:
    """The states that a filter names."""
    found = []
    for name in text.split(",") if text else ():
        if name not in set(WorkState):
            near = nearest(name, list(WorkState))
            raise CoordError(
                Code.BAD_REQUEST,
                f"state: {shown(name)} is no state of a job" + (f" (did you mean {near}?)" if near else ""),
                f"there are: {', '.join(WorkState)}",
            )
        found.append(WorkState(name))
    return tuple(found)


async def list_jobs(call: Call[JobsQuery, NoBody]) -> Jobs:
    """A page of jobs, newest first."""
    query = call.query
    tenant = scope_of(call, query.tenant)
    position = page_position(query.page, _JobsPosition)
    before = JobId(position.before) if position is not None else None
    rows = await call.deps.store.jobs(tenant, query.limit + 1, before, states_of(query.state), query.name or "")
    more, rows = len(rows) > query.limit, rows[: query.limit]
    return Jobs(
        entries=tuple(entry_of(call.deps, row) for row in rows),
        next_page=page_token(_JobsPosition(rows[-1].job_id)) if more else None,
    )


async def show_job(call: Call[NoQuery, NoBody]) -> JobDetails:
    """A job with its steps and the first of its tasks, each with its attempts."""
    deps, job = call.deps, await the_job(call)
    spec = await spec_of(deps, job.job_id)
    running = running_of(deps, job.job_id)
    rows = {row.step: row for row in await deps.store.job_steps(job.job_id)}
    tasks = await _tasks(deps, job.job_id, spec, SHOWN_TASKS, None, None, (), True)
    return JobDetails(
        job=entry_of(deps, job),
        deadline=optional_text(spec.deadline_ms),
        steps=tuple(
            step_entry(rows[number], spec, running.get(number, 0))
            if number in rows
            else unbegun_step(job, number, spec)
            for number in range(len(spec.steps))
        ),
        tasks=tasks.entries,
        next_page=tasks.next_page,
    )


async def list_tasks(call: Call[TasksQuery, NoBody]) -> Tasks:
    """A page of tasks by step and number: those that were launched or are about to be."""
    query, job = call.query, await the_job(call)
    position = page_position(query.page, _TasksPosition)
    after = (position.step, position.task) if position is not None else None
    spec = await spec_of(call.deps, job.job_id)
    states = states_of(query.state)
    return await _tasks(call.deps, job.job_id, spec, query.limit, query.step, after, states, query.attempts)


async def _tasks(
    deps: ApiDeps,
    job_id: JobId,
    spec: JobSpec,
    limit: int,
    step: int | None,
    after: tuple[int, int] | None,
    states: tuple[WorkState, ...],
    attempts: bool,
) -> Tasks:
    rows = await deps.store.job_tasks(job_id, limit + 1, step, after, states)
    more, rows, now_ms = len(rows) > limit, rows[:limit], deps.engine.clock.now_ms()
    tries: dict[TaskId, list[AttemptEntry]] = {}
    wanted = [(row.step, row.task, row.attempts - TRIES_MAX) for row in rows] if attempts else []
    tried = await deps.store.attempts_of(job_id, wanted)
    verdicts = await briefs_of(deps, job_id, tried)
    for attempt in tried:
        verdict = verdicts.get(dotted(attempt.attempt_id)) if verdicts else None
        entry = attempt_entry(attempt, of_attempt(deps.engine.state, attempt), verdict)
        tries.setdefault(attempt.task_id, []).append(entry)
    return Tasks(
        entries=tuple(task_entry(row, spec.steps[row.step], tries.get(row.task_id, []), now_ms) for row in rows),
        next_page=page_token(_TasksPosition(rows[-1].step, rows[-1].task)) if more else None,
    )


async def why_job(call: Call[NoQuery, NoBody]) -> JobWhy:
    """Why it stands as it does. Of one that has ended: how each step ended."""
    job = await the_job(call)
    if job.state not in ENDED:
        try:
            return await _why_live(call, job)
        except CoordError as error:
            if error.code is not Code.NOT_FOUND:
                raise
        job = await the_job(call)  # it ended this moment
    deps = call.deps
    spec = await spec_of(deps, job.job_id)
    steps = tuple(ended_why(row, spec.steps[row.step]) for row in await deps.store.job_steps(job.job_id))
    return _why(job, len(deps.views.providers), steps)


async def _why_live(call: Call[NoQuery, NoBody], job: JobRow) -> JobWhy:
    result = await call.deps.engine.call(
        lambda request_id: events.JobExplain(
            at_ms=call.now_ms, request_id=request_id, tenant=scope_of(call), job_id=job.job_id
        )
    )
    assert isinstance(result, commands.Explanation)
    return _why(job, result.providers, tuple(step_why(one) for one in result.steps))


def _why(job: JobRow, providers: int, steps: tuple[StepWhy, ...]) -> JobWhy:
    return JobWhy(job_id=job.job_id, state=job.state.value, reason=job.reason, providers=providers, steps=steps)


# ---- changing


async def cancel_job(call: Call[CancelQuery, NoBody]) -> JobEntry:
    """Cancel it, or one task of it. Waiting tasks end at once, running ones when their agents have stopped them."""
    query = call.query
    known = await the_job(call)
    why = query.why or ""
    if not why.isprintable():
        raise CoordError(Code.BAD_REQUEST, "this reason is not taken", f"at most {TEXT_CHARS_MAX} printable characters")
    task = task_of(query.task) if query.task is not None else None
    result = await call.deps.engine.call(
        lambda request_id: events.JobCancel(
            at_ms=call.now_ms,
            request_id=request_id,
            tenant=scope_of(call),
            by=who(call),
            job_id=job_id_of(call),
            task=task,
            why=why,
            known=known,
        )
    )
    assert isinstance(result, JobRow)
    return entry_of(call.deps, result)


async def retry_job(call: Call[NoQuery, NoBody]) -> JobEntry:
    """Run again what failed, was lost or was cancelled; what completed stays."""
    deps, job = call.deps, await the_job(call)
    spec = await spec_of(deps, job.job_id)
    steps = tuple(await deps.store.job_steps(job.job_id))
    tasks = await _unfinished(deps, job.job_id, steps)
    result = await deps.engine.call(
        lambda request_id: events.JobRetry(
            at_ms=call.now_ms,
            request_id=request_id,
            tenant=scope_of(call),
            by=who(call),
            job_id=job.job_id,
            job=job,
            spec=spec,
            steps=steps,
            tasks=tasks,
        )
    )
    assert isinstance(result, JobRow)
    return entry_of(deps, result)


async def _unfinished(deps: ApiDeps, job_id: JobId, steps: tuple[StepRow, ...]) -> tuple[TaskRow, ...]:
    """Every task that has a row and did not complete."""
    bound = deps.settings.retry_tasks_max
    many = sum(row.failed + row.cancelled for row in steps)
    rows: list[TaskRow] = []
    after = None
    while page := await deps.store.job_tasks(job_id, TASKS_PAGE, None, after, _UNFINISHED):
        rows += page
        after = page[-1].step, page[-1].task
        if len(rows) > bound:
            raise CoordError(
                Code.TOO_LARGE, f"some {many} tasks of job {job_id} would run again", f"at most {bound}: submit it anew"
            )
    return tuple(rows)
