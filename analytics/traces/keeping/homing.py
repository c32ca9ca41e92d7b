"""Whose the rows of an upload are: each goes to the job that it may go to, or is rejected. Nothing here touches a disk.

A trace of `coord` names its job by its id. Under an attempt's claim a trace that is no job's of ours is one that the
program's SDK began by itself: it joins the job's, under the span that was handed to the program.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import NONE, Trace
from analytics.traces.keeping.packing import subset
from coordinator.core.ids import JobId
from coordinator.core.work.traceids import job_of, run_span_id, trace_id
from coordinator.ports.traces import TracePart

NOT_A_JOB = "the trace is no job's of this coordinator"
NOT_YOURS = "the trace or the task is another job's"
JOBS_MAX = 256
"""That one body may tell of."""
NOBODY, NO_JOB = -1, -2
Rows = NDArray[np.bool_]
Jobs = NDArray[np.int64]


class Homed(NamedTuple):
    """Rows of one job, or with None those that nobody may have."""

    job_id: JobId | None
    trace: Trace
    rows: int
    why: str = ""


def by_trace(trace: Trace, coordinator_id: str, may: Callable[[JobId], bool]) -> Iterator[Homed]:
    """The spans of each job that `may` have some, by their traces; the others together. Assets and lineage have no
    trace: they are nobody's here. O(rows) for each of JOBS_MAX jobs at most."""
    homes = {job_of(bytes.fromhex(text), coordinator_id) for text in trace.traces} - {None}
    allowed = {job_id for job_id in sorted(home for home in homes if home is not None)[:JOBS_MAX] if may(job_id)}
    numbers = np.array([_home(text, coordinator_id, allowed) for text in trace.traces] or [NOBODY], np.int64)
    spans = trace.spans
    of_row = numbers[spans.trace]
    tasks = _jobs_of(trace)
    foreign = (of_row != NOBODY) & (_another(tasks[spans.data], of_row) | _another(tasks[spans.batch], of_row))
    nothing = np.zeros(len(trace.assets), bool), np.zeros(len(trace.lineage), bool)
    if foreign.any():
        yield Homed(None, trace, int(foreign.sum()), NOT_YOURS)
    for job_id in sorted(allowed):
        kept = (of_row == job_id) & ~foreign
        if kept.any():
            yield Homed(job_id, subset(trace, kept, *nothing), int(kept.sum()))
    others = int((of_row == NOBODY).sum()) + len(trace.assets) + len(trace.lineage)
    if others:
        yield Homed(None, trace, others, NOT_A_JOB if len(homes) <= JOBS_MAX else f"more than {JOBS_MAX} jobs at once")


def _home(text: str, coordinator_id: str, allowed: set[JobId]) -> int:
    job_id = job_of(bytes.fromhex(text), coordinator_id)
    return job_id if job_id is not None and job_id in allowed else NOBODY


def by_claim(trace: Trace, coordinator_id: str, part: TracePart) -> Iterator[Homed]:
    """Everything that a claim covers, completed by what the claim says; what is another job's, together."""
    assert part.job_id is not None
    spans, job_id = trace.spans, part.job_id
    homes = [job_of(bytes.fromhex(text), coordinator_id) for text in trace.traces]
    another = np.array([home not in (None, job_id) for home in homes] or [False])
    stranger = np.array([home is None for home in homes] or [False])
    tasks = _jobs_of(trace)
    foreign = another[spans.trace] | _another(tasks[spans.data], job_id) | _another(tasks[spans.batch], job_id)
    lost_assets = _another(tasks[trace.assets.data], job_id)
    lost_edges = _another(tasks[trace.lineage.data], job_id)
    lost = int(foreign.sum()) + int(lost_assets.sum()) + int(lost_edges.sum())
    if lost:
        yield Homed(None, trace, lost, NOT_YOURS)
    mine = subset_of_claim(trace, stranger[spans.trace], coordinator_id, part)
    kept = subset(mine, ~foreign, ~lost_assets, ~lost_edges)
    count = len(kept.spans) + len(kept.assets) + len(kept.lineage)
    if count:
        yield Homed(job_id, kept, count)


def subset_of_claim(trace: Trace, strange: Rows, coordinator_id: str, part: TracePart) -> Trace:
    """The trace with what the claim says where its rows do not; `strange` rows join the job's trace."""
    assert part.job_id is not None
    spans = trace.spans
    if part.attempt and strange.any():
        own = _code(trace.traces, trace_id(coordinator_id, part.job_id).hex())
        above = int.from_bytes(run_span_id(f"{part.task}.{part.attempt}", part.rank), "big")
        spans.trace = np.where(strange, np.int32(own), spans.trace)
        spans.parent = np.where(strange & (spans.parent == 0), np.uint64(above), spans.parent)
    if part.task and (unsaid := spans.data == NONE).any():
        spans.data = np.where(unsaid, np.int32(_code(trace.data_ids, part.task)), spans.data)
    if part.provider and (unsaid := spans.provider == NONE).any():
        spans.provider = np.where(unsaid, np.int32(_code(trace.providers, part.provider)), spans.provider)
    if part.attempt and trace.data_ids:
        own_task = np.array([text == part.task for text in trace.data_ids])
        unsaid = (spans.attempt == 0) & own_task[spans.data]
        spans.attempt = np.where(unsaid, np.int32(part.attempt), spans.attempt)
    return trace


def _jobs_of(trace: Trace) -> Jobs:
    """Of each of `data_ids`, and at its end of none: the job whose task it is, NOBODY where it is no task of ours."""
    return np.array([*map(_job_of_task, trace.data_ids), NOBODY], np.int64)


def _job_of_task(text: str) -> int:
    """Tasks of ours are written `12.0.3`. Programs may have names of their own."""
    numbers = text.split(".")
    if len(numbers) != 3 or not all(number.isascii() and number.isdecimal() for number in numbers):
        return NOBODY
    return int(numbers[0]) if len(numbers[0]) <= 15 else NO_JOB


def _another(jobs: Jobs, own: Jobs | int) -> Rows:
    """Where a task is of a job, and not of this one."""
    found: Rows = (jobs != NOBODY) & (jobs != own)
    return found


def _code(table: list[str], text: str) -> int:
    """The number of a string in a table, which gets it where it has it not."""
    try:
        return table.index(text)
    except ValueError:
        table.append(text)
        return len(table) - 1
