"""The coordinator's own spans of a run, its assets and its lineage, from the rows of the job.

    job
      task            one for each attempt, from its grant until it held nothing more
        leased        until its agent had it
        staged        until its program ran: starting it, and bringing what it needs
        run           one for each rank: the program, which the program's own spans stand under
        frozen        its lease was not renewed
        dump to storage   its outputs were brought, where it declares some: at its end they are there
      queued          before each attempt; under the job, since no attempt was there yet

Attributes are those of OpenTelemetry's conventions for CI/CD (`cicd.pipeline...`, `cicd.worker...`), with those of the
analyzer that this one comes from (`data_id`, `batch_id`, `flowmesh.type`) beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import msgspec

from analytics.traces.building import AssetRow, LineageRow, SpanRow
from analytics.traces.columns import CANCELLED, LOST, NONE, READY_SPAN, TASK_SPAN, UNFINISHED
from analytics.traces.record import AttemptRecord, RunRecord
from analytics.traces.rows import JobRows
from coordinator.api_types.trace import Outcome
from coordinator.core.ids import dotted
from coordinator.core.rows import AttemptRow
from coordinator.core.work.jobspec import StepSpec
from coordinator.core.work.traceids import ATTEMPT, run_span_id, span_id, trace_id

WHOLE_MAX = 20_000
"""Of a run with more attempts than that the waits have no spans of their own: the record has them."""
EDGES_MAX = 64
"""More dependencies between the tasks of two steps go through the step that is needed, as a node of its own."""
JOB, QUEUED, LEASED, STAGED, RUN, FROZEN = "job", "queued", "leased", "staged", "run", "frozen"
_RESULT = {
    Outcome.OK: "success",
    Outcome.FAILED: "failure",
    Outcome.LOST: "error",
    Outcome.CANCELLED: "cancellation",
}
_STATUS = {Outcome.OK: "OK", Outcome.FAILED: "ERROR", Outcome.LOST: "ERROR"}
_FLAGS = {Outcome.LOST: LOST, Outcome.CANCELLED: CANCELLED}
_ENCODE = msgspec.json.Encoder().encode


class _Whose(NamedTuple):
    """What all spans of an attempt have in common."""

    trace: str
    name: str
    """Of the attempt."""
    task: str
    attempt: int
    provider: str
    label: str
    key: str
    details: bytes
    root: int


def spans_of(rows: JobRows, record: RunRecord, coordinator_id: str) -> Iterator[SpanRow]:
    """All of them; those that go on have no end."""
    job = rows.job
    trace = trace_id(coordinator_id, job.job_id).hex()
    job_span = _number(span_id(str(job.job_id), JOB))
    pipeline: dict[str, Any] = {"cicd.pipeline.name": job.name, "cicd.pipeline.run.id": str(job.job_id)}
    result = _RESULT.get(record.outcome)
    yield SpanRow(
        trace=trace,
        span=job_span,
        name=JOB,
        start_ns=record.submitted_ns,
        end_ns=record.ended_ns if record.ended_ns is not None else UNFINISHED,
        status=_STATUS.get(record.outcome, "UNSET"),
        flags=_FLAGS.get(record.outcome, 0),
        kind="marker",
        workflow_id=str(job.job_id),
        details=_details(
            pipeline | ({"cicd.pipeline.result": result} if result else {}) | {"coord.tenant": job.tenant}
        ),
    )
    keys = {task.task: task.key for task in record.tasks}
    free = _Free(rows, record)
    for row, attempt in zip(rows.attempts, record.attempts, strict=True):
        step, name = rows.spec.steps[row.step], dotted(row.attempt_id)
        said: dict[str, Any] = pipeline | {
            "cicd.pipeline.task.name": step.name,
            "cicd.pipeline.task.run.id": name,
            "cicd.worker.id": attempt.providers[0],
            "data_id": attempt.task,
            "batch_id": attempt.task,
            "coord.attempt": attempt.attempt,
            "coord.unblocked_by": attempt.cause,
            "coord.reason": attempt.reason,
        }
        if attempt.outcome in _RESULT:
            said["cicd.pipeline.task.run.result"] = _RESULT[attempt.outcome]
            said["coord.outcome"] = attempt.outcome
        if key := keys.get(attempt.task):
            said["coord.key"] = key
        whose = _Whose(
            trace=trace,
            name=name,
            task=attempt.task,
            attempt=attempt.attempt,
            provider=attempt.providers[0],
            label=step.name,
            key=key or "",
            details=_details(said),
            root=_number(span_id(name, ATTEMPT)),
        )
        free_ns = free.since(attempt)
        yield from _attempt_spans(row, attempt, whose, job_span, step)
        if len(rows.attempts) <= WHOLE_MAX:
            yield from _waits(attempt, whose, job_span, free_ns, step)
        moments = rows.moments.get(name)
        for number, (start_ns, end_ns) in enumerate(moments.frozen if moments is not None else ()):
            yield _child(whose, f"{FROZEN} {number}", FROZEN, start_ns, end_ns, "marker")


def _waits(attempt: AttemptRecord, whose: _Whose, job_span: int, free_ns: int, step: StepSpec) -> Iterator[SpanRow]:
    """Before it began."""
    end_ns = attempt.ended_ns if attempt.ended_ns is not None else UNFINISHED
    if free_ns < attempt.granted_ns:
        yield SpanRow(
            trace=whose.trace,
            span=_number(span_id(whose.name, QUEUED)),
            parent=job_span,
            name=QUEUED,
            start_ns=free_ns,
            end_ns=attempt.granted_ns,
            kind="marker",
            details=whose.details,
        )
    had_ns = attempt.staging_ns if attempt.staging_ns is not None else attempt.started_ns
    yield _child(whose, LEASED, LEASED, attempt.granted_ns, had_ns if had_ns is not None else end_ns, "marker")
    if attempt.staging_ns is not None:
        until_ns = attempt.started_ns if attempt.started_ns is not None else end_ns
        kind = "network" if step.inputs else "marker"
        yield _child(whose, STAGED, STAGED, attempt.staging_ns, until_ns, kind)


def _attempt_spans(
    row: AttemptRow, attempt: AttemptRecord, whose: _Whose, job_span: int, step: StepSpec
) -> Iterator[SpanRow]:
    """As a whole, and what ran of it."""
    end_ns = attempt.ended_ns if attempt.ended_ns is not None else UNFINISHED
    yield SpanRow(
        trace=whose.trace,
        span=whose.root,
        parent=job_span,
        name=TASK_SPAN,
        start_ns=attempt.granted_ns,
        end_ns=end_ns,
        data_id=whose.task,
        batch_id=whose.task,
        provider=whose.provider,
        slot=NONE,
        attempt=whose.attempt,
        label=whose.label,
        key=whose.key,
        status=_STATUS.get(attempt.outcome, "UNSET"),
        flags=_FLAGS.get(attempt.outcome, 0),
        details=whose.details,
    )
    if attempt.started_ns is None:
        return
    ran_ns = attempt.exited_ns if attempt.exited_ns is not None else end_ns
    for rank, held in enumerate(row.ranks):
        rank_ns = ran_ns
        if held.exit is not None and held.exit.ran_ms and ran_ns != UNFINISHED:
            rank_ns = min(ran_ns, attempt.started_ns + held.exit.ran_ms * 1_000_000)
        run = _child(whose, "", RUN, attempt.started_ns, rank_ns, "compute")
        run.span, run.provider = _number(run_span_id(whose.name, rank)), held.provider_id
        yield run
    if attempt.exited_ns is not None and step.outputs and attempt.outcome is Outcome.OK:
        yield _child(whose, READY_SPAN, READY_SPAN, attempt.exited_ns, end_ns, "network")


def _child(whose: _Whose, what: str, name: str, start_ns: int, end_ns: int, kind: str) -> SpanRow:
    return SpanRow(
        trace=whose.trace,
        span=_number(span_id(whose.name, what)) if what else 0,
        parent=whose.root,
        name=name,
        start_ns=start_ns,
        end_ns=max(start_ns, end_ns) if end_ns != UNFINISHED else UNFINISHED,
        data_id=whose.task,
        batch_id=whose.task,
        provider=whose.provider,
        attempt=whose.attempt,
        label=whose.label,
        key=whose.key,
        kind=kind,
        details=whose.details,
    )


class _Free:
    """From when on an attempt could have been given a place, had there been one: its step was ready, the attempt of its
    task before it was over."""

    def __init__(self, rows: JobRows, record: RunRecord) -> None:
        ended = {step.step: step.ended_ns for step in record.steps}
        self._ready = {
            step.step: max([ended[needed] or record.submitted_ns for needed in step.needs], default=record.submitted_ns)
            for step in record.steps
        }
        self._job = rows.job.job_id
        self._over: dict[str, int] = {}

    def since(self, attempt: AttemptRecord) -> int:
        """Asked in the order of the attempts."""
        step = attempt.task.rpartition(".")[0]
        free_ns = max(self._ready[step], self._over.get(attempt.task, 0))
        if attempt.ended_ns is not None:
            self._over[attempt.task] = attempt.ended_ns
        return free_ns


def assets_of(rows: JobRows) -> Iterator[AssetRow]:
    """The files that tasks made; a file that a step makes again is another version of it."""
    for result in rows.results:
        task = dotted((result.job_id, result.step, result.task))
        for file in result.files:
            yield AssetRow(
                data_id=task,
                asset_guid=f"{task}/{file.path}",
                version=result.attempt,
                user_id=result.tenant,
                created_ns=result.at_ms * 1_000_000,
            )


def lineage_of(rows: JobRows) -> Iterator[LineageRow]:
    """A task was made from those of the steps that its step needs."""
    job_id, created_ns = rows.job.job_id, rows.job.submitted_at_ms * 1_000_000
    known: dict[int, list[str]] = {}
    for task in rows.tasks:
        known.setdefault(task.step, []).append(dotted(task.task_id))
    joints: set[int] = set()
    for number, step in enumerate(rows.spec.steps):
        for needed in step.needs:
            below, above = known.get(number, []), known.get(needed, [])
            if len(below) * len(above) <= EDGES_MAX:
                yield from (
                    LineageRow(data_id=b, source_data_id=a, created_ns=created_ns) for b in below for a in above
                )
                continue
            joint = dotted((job_id, needed))
            if needed not in joints:
                joints.add(needed)
                yield from (LineageRow(data_id=joint, source_data_id=a, created_ns=created_ns) for a in above)
            yield from (LineageRow(data_id=b, source_data_id=joint, created_ns=created_ns) for b in below)


def _number(span: bytes) -> int:
    return int.from_bytes(span, "big")


def _details(attributes: dict[str, Any]) -> bytes:
    return _ENCODE({"attributes": attributes, "kind": 1, "resource": {"service.name": "coord"}})
