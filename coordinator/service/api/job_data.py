"""Routes of a job's data: what went into it, what it made, and the files of its results."""

from __future__ import annotations

from typing import Annotated

from aiohttp import web
from msgspec import Meta, Struct

from coordinator.api_types.data import CheckpointEntry, DataFile, InputEntry, JobData, StepInputs, TaskData
from coordinator.core.data.rows import CheckpointRow, FileEntry, OutputRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId, TaskId, dotted
from coordinator.core.rows import TaskRow
from coordinator.core.work.jobspec import Input, JobSpec
from coordinator.service.api.blobs import send_blob
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.jobs import spec_of
from coordinator.service.api.pages import Number, page_position, page_token
from coordinator.service.api.query import shown
from coordinator.service.api.route import Call, NoBody
from coordinator.service.api.scope import task_of, the_job, who
from coordinator.timetext import optional_text, to_text

CHECKPOINTS_SHOWN = 100
"""Of one task in an answer: the newest."""
LOOKED_AT = 1_000


class DataQuery(Struct, frozen=True, kw_only=True):
    step: Annotated[int, Meta(ge=0, le=1_000, description="only tasks of this step, by its number")] | None = None
    limit: Annotated[int, Meta(ge=1, le=500, description="tasks on one page")] = 100
    page: Annotated[str, Meta(description="next_page of the answer before")] | None = None


class FileQuery(Struct, frozen=True, kw_only=True):
    task: (
        Annotated[str, Meta(description="STEP.TASK whose result it is; may be left away where one alone has it")] | None
    ) = None


class _Position(Struct, frozen=True):
    step: Number
    task: Number


async def show_data(call: Call[DataQuery, NoBody]) -> JobData:
    """Inputs by step, and a page of the tasks that made something."""
    deps, query, job = call.deps, call.query, await the_job(call)
    spec = await spec_of(deps, job.job_id)
    position = page_position(query.page, _Position)
    after = (position.step, position.task) if position is not None else None
    entries: list[TaskData] = []
    while True:
        rows = await deps.store.job_tasks(job.job_id, LOOKED_AT, query.step, after, ())
        results = await _results(deps, job.job_id, rows)
        for row in rows:
            after = row.step, row.task
            found = await _task_data(deps, spec, row, results.get(row.task_id))
            if found is not None:
                entries.append(found)
                if len(entries) >= query.limit:
                    break
        if len(entries) >= query.limit or len(rows) < LOOKED_AT:
            break
    full = len(entries) >= query.limit and after is not None
    return JobData(
        inputs=tuple(_step_inputs(spec, number) for number in _steps_shown(spec, query)),
        entries=tuple(entries),
        next_page=page_token(_Position(*after)) if full and after is not None else None,
    )


def _steps_shown(spec: JobSpec, query: DataQuery) -> list[int]:
    """Steps with inputs or outputs, on the first page."""
    if query.page is not None:
        return []
    numbers = range(len(spec.steps)) if query.step is None else [query.step]
    return [n for n in numbers if n < len(spec.steps) and (spec.steps[n].inputs or spec.steps[n].outputs)]


def _step_inputs(spec: JobSpec, number: int) -> StepInputs:
    step = spec.steps[number]
    return StepInputs(
        step=number,
        name=step.name,
        inputs=tuple(_input(one, spec) for one in step.inputs),
        outputs=step.outputs,
    )


def _input(one: Input, spec: JobSpec) -> InputEntry:
    blob = one.step is None
    return InputEntry(
        path=one.path,
        digest=one.digest if blob else None,
        size=one.size if blob else None,
        executable=one.executable,
        from_step=None if one.step is None else spec.steps[one.step].name,
        pattern=None if blob else one.pattern,
    )


async def _results(deps: ApiDeps, job_id: JobId, rows: list[TaskRow]) -> dict[TaskId, OutputRow]:
    """Of these tasks, which stand in their order."""
    if not rows:
        return {}
    first = rows[0]
    found = await deps.store.outputs(job_id, len(rows), None, (first.step, first.task - 1))
    return {(row.job_id, row.step, row.task): row for row in found}


async def _task_data(deps: ApiDeps, spec: JobSpec, row: TaskRow, result: OutputRow | None) -> TaskData | None:
    states: list[CheckpointRow] = []
    if row.checkpoint:
        states = await deps.store.checkpoints(row.job_id, CHECKPOINTS_SHOWN, row.step, row.task)
    if result is None and not states:
        return None
    kept = set(row.checkpoints)
    return TaskData(
        task=dotted(row.task_id),
        step=spec.steps[row.step].name,
        attempt=result.attempt if result is not None else None,
        published_at=optional_text(result.at_ms if result is not None else None),
        outputs=tuple(_file(entry) for entry in result.files) if result is not None else (),
        size=result.size if result is not None else 0,
        checkpoints=tuple(_checkpoint(state, state.number in kept) for state in states),
    )


def _file(entry: FileEntry) -> DataFile:
    return DataFile(path=entry.path, digest=entry.digest, size=entry.size, executable=entry.executable)


def _checkpoint(row: CheckpointRow, kept: bool) -> CheckpointEntry:
    return CheckpointEntry(
        number=row.number,
        attempt=row.attempt,
        taken_at=to_text(row.taken_ms),
        published_at=to_text(row.published_ms),
        manifest=row.manifest,
        files=row.files,
        size=row.size,
        sent=row.sent,
        cost_ms=row.cost_ms,
        label=row.label,
        damaged=row.damaged,
        kept=kept,
    )


async def read_output(call: Call[FileQuery, NoBody]) -> web.StreamResponse:
    """The bytes of one file of a result."""
    deps, job, path = call.deps, await the_job(call), call.request.match_info["path"]
    if call.query.task is not None:
        step, task = task_of(call.query.task)
        rows = await deps.store.outputs(job.job_id, 1, step, (step, task - 1))
        rows = [row for row in rows if row.task == task]
    else:
        rows = await deps.store.outputs(job.job_id, LOOKED_AT + 1)
    found = [(row, entry) for row in rows for entry in row.files if entry.path == path]
    if not found:
        raise CoordError(
            Code.NOT_FOUND, f"no result of job {job.job_id} has a file {shown(path)}", f"coord job show {job.job_id}"
        )
    if len(found) > 1 or len(rows) > LOOKED_AT:
        raise CoordError(
            Code.BAD_REQUEST,
            f"several tasks of job {job.job_id} may have made {shown(path)}",
            "name one: task=STEP.TASK",
        )
    row, entry = found[0]
    return await send_blob(deps, call.request, row.tenant, entry.digest, by=who(call), size=entry.size)
