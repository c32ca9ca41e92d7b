"""What the coordinator itself knows of a job's run, as spans, assets, lineage and a `RunRecord`: a view of stored rows.

Nothing is written for it: attempts, their transitions, results and the job's specification are there anyway. Times are
those that `coord job show` gives: milliseconds of the coordinator's clock, as nanoseconds.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from analytics.traces.building import TraceBuilder
from analytics.traces.columns import Trace
from analytics.traces.record import AttemptRecord, RunRecord, StepRecord, TaskRecord
from analytics.traces.recorded_spans import assets_of, lineage_of, spans_of
from analytics.traces.rows import JobRows, Moments, rows_of, version
from coordinator.api_types.trace import Outcome
from coordinator.core.ids import JobId, dotted
from coordinator.core.queue.capacity import GB
from coordinator.core.rows import AttemptRow, AttemptState, Resources, WorkState
from coordinator.core.work.jobspec import StepSpec, task_values

MS = 1_000_000
"""Nanoseconds."""
NOT_NEEDED = "not needed any more"
"""Why a replacement is taken back that nobody needs."""
_OUTCOME = {
    WorkState.COMPLETED: Outcome.OK,
    WorkState.FAILED: Outcome.FAILED,
    WorkState.CANCELLED: Outcome.CANCELLED,
}
_OUTCOME_OF_ATTEMPT = {
    AttemptState.COMPLETED: Outcome.OK,
    AttemptState.FAILED: Outcome.FAILED,
    AttemptState.LOST: Outcome.LOST,
    AttemptState.CANCELLED: Outcome.CANCELLED,
}


class Version(NamedTuple):
    """`text` is another one when a transition of the job was recorded since."""

    text: str
    ended: bool


class Recorded(NamedTuple):
    """Of one job."""

    trace: Trace
    record: RunRecord


class Recorder:
    """Reads the coordinator's database; one thread at a time. Raises CoordError where it cannot be read."""

    def __init__(self, truth: Path, coordinator_id: str) -> None:
        self._truth = truth
        self._coordinator_id = coordinator_id

    def version(self, job_id: JobId) -> Version | None:
        """Cheap. None: there is no such job."""
        found = version(self._truth, job_id)
        if found is None:
            return None
        job, last = found
        return Version(f"{job.state} {job.retries} {last}", job.ended_at_ms is not None)

    def read(self, job_id: JobId, now_ns: int) -> Recorded | None:
        """None: there is no such job. O(its attempts)."""
        rows = rows_of(self._truth, job_id)
        if rows is None:
            return None
        record = record_of(rows, now_ns)
        builder = TraceBuilder(details=True)
        builder.add_spans(spans_of(rows, record, self._coordinator_id))
        builder.add_assets(list(assets_of(rows)))
        builder.add_lineage(list(lineage_of(rows)))
        return Recorded(builder.finish(), record)


def record_of(rows: JobRows, now_ns: int) -> RunRecord:
    """What it says of the run, until `now_ns` where it goes on."""
    job = rows.job
    submitted_ns = job.submitted_at_ms * MS
    ended_ns = job.ended_at_ms * MS if job.ended_at_ms is not None else None
    ends = {row.task_id: _ns(row.ended_at_ms) for row in rows.tasks}
    last: dict[int, int] = {}
    for (_, step, _), end in ends.items():
        if end is not None:
            last[step] = max(last.get(step, 0), end)
    return RunRecord(
        job_id=job.job_id,
        name=job.name,
        submitted_ns=submitted_ns,
        ended_ns=ended_ns,
        looked_at_ns=max(submitted_ns, ended_ns if ended_ns is not None else now_ns),
        outcome=_OUTCOME.get(job.state, Outcome.UNFINISHED),
        steps=tuple(
            StepRecord(
                step=dotted((job.job_id, row.step)),
                name=rows.spec.steps[row.step].name,
                needs=tuple(dotted((job.job_id, needed)) for needed in rows.spec.steps[row.step].needs),
                ended_ns=last.get(row.step) if row.state in _OUTCOME else None,
            )
            for row in rows.steps
        ),
        tasks=tuple(
            TaskRecord(
                task=dotted(row.task_id),
                step=dotted(row.task_id[:2]),
                key=key_of(rows.spec.steps[row.step], row.task),
                outcome=_OUTCOME.get(row.state, Outcome.UNFINISHED),
                ended_ns=_ns(row.ended_at_ms),
            )
            for row in rows.tasks
        ),
        attempts=tuple(_attempts(rows)),
        slots=_slots(rows),
    )


def key_of(step: StepSpec, task: int) -> str:
    """Which of the tasks of a step it is, as people write it: `lr=0.1`; of an array its number or its item."""
    if step.tasks == 1:
        return ""
    values = task_values(step, task)
    axes = [f"{name}={values[name]}" for name, _ in step.matrix]
    if step.items or step.array:
        return ",".join([values.get("item", values["index"]), *axes])
    return ",".join(axes) or values["index"]


def _attempts(rows: JobRows) -> Iterator[AttemptRecord]:
    never = Moments()
    for row in rows.attempts:
        moments = rows.moments.get(dotted(row.attempt_id), never)
        granted_ns = moments.leased_ns if moments.leased_ns is not None else row.created_at_ms * MS
        started_ns, ended_ns = _ns(row.started_at_ms), _ns(row.ended_at_ms)
        if started_ns is not None:
            granted_ns = min(granted_ns, started_ns)
        staging_ns = moments.staging_ns
        if staging_ns is not None and started_ns is not None:
            staging_ns = min(staging_ns, started_ns)  # a short one is heard to begin after it has ended
        yield AttemptRecord(
            task=dotted(row.task_id),
            attempt=row.attempt,
            providers=tuple(rank.provider_id for rank in row.ranks),
            outcome=outcome_of(row),
            cause=row.unblocked_by,
            granted_ns=granted_ns,
            staging_ns=staging_ns,
            started_ns=started_ns,
            exited_ns=_exited_ns(row, started_ns, ended_ns) if rows.spec.steps[row.step].outputs else None,
            doubted_ns=_ns(row.doubted_at_ms),
            ended_ns=ended_ns,
            ready_ns=granted_ns if row.unblocked_by == "backoff" else None,
            prefetched=row.prefetched,
            reason=row.reason,
        )


def outcome_of(row: AttemptRow) -> Outcome:
    """What became of it. What was taken back before it began is lost, unless nobody needed it."""
    if row.state is AttemptState.TAKEN_BACK:
        return Outcome.CANCELLED if row.reason == NOT_NEEDED else Outcome.LOST
    return _OUTCOME_OF_ATTEMPT.get(row.state, Outcome.UNFINISHED)


def _exited_ns(row: AttemptRow, started_ns: int | None, ended_ns: int | None) -> int | None:
    """When its last program had ended: from then on its outputs were brought."""
    exits = [rank.exit for rank in row.ranks]
    if started_ns is None or any(exit is None for exit in exits):
        return None
    ran_ns = max(exit.ran_ms for exit in exits if exit is not None) * MS
    return min(started_ns + ran_ns, ended_ns) if ended_ns is not None else started_ns + ran_ns


def _slots(rows: JobRows) -> int:
    """As many of the tasks of its largest step as fit at once on the providers that it ran on; 0: not known."""
    used = {rank.provider_id for row in rows.attempts for rank in row.ranks}
    if not used or not rows.spec.steps:
        return 0
    step = max(rows.spec.steps, key=lambda spec: spec.tasks)
    fit = sum(_fit(step, rows.offers[who]) for who in used if who in rows.offers)
    return max(fit // step.nodes, 1 if fit else 0)


def _fit(step: StepSpec, offer: Resources) -> int:
    """How many ranks of it."""
    ask = step.asks[0]
    rooms = [
        room
        for wanted, room in (
            (ask.cpus, round(offer.cpus * 1_000_000) // max(1, ask.cpus)),
            (ask.memory, round(offer.memory_gb * GB) // max(1, ask.memory)),
            (ask.gpus, len(offer.gpus) * 1_000_000 // max(1, ask.gpus)),
        )
        if wanted
    ]
    return min(rooms) if rooms else 0


def _ns(at_ms: int | None) -> int | None:
    return at_ms * MS if at_ms is not None else None
