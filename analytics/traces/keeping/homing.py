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
from coordinator.ports_trace import TracePart

NOT_A_JOB = "the trace is no job's of this coordinator"
NOT_YOURS = "the trace or the task is another job's"
Rows = NDArray[np.bool_]


class Homed(NamedTuple):
    """Rows of one job, or with None those that nobody may have."""

    job_id: JobId | None
    trace: Trace
    rows: int
    why: str = ""


def by_trace(trace: Trace, coordinator_id: str, may: Callable[[JobId], bool]) -> Iterator[Homed]:
    """The spans of each job that `may` have some, by their traces; the others together. Assets and lineage have no
    trace: they are nobody's here."""
    homes = [job_of(bytes.fromhex(text), coordinator_id) for text in trace.traces]
    allowed = [job_id if job_id is not None and may(job_id) else None for job_id in homes]
    numbers = np.array([job_id if job_id is not None else -1 for job_id in allowed], np.int64)
    of_row = numbers[trace.spans.trace] if len(numbers) else np.empty(0, np.int64)
    nothing = np.zeros(len(trace.assets), bool), np.zeros(len(trace.lineage), bool)
    for job_id in sorted({one for one in allowed if one is not None}):
        mine = of_row == job_id
        foreign = mine & _of_another(trace, job_id)[trace.spans.data]
        if foreign.any():
            yield Homed(None, trace, int(foreign.sum()), NOT_YOURS)
        kept = mine & ~foreign
        if kept.any():
            yield Homed(job_id, subset(trace, kept, *nothing), int(kept.sum()))
    others = int((of_row == -1).sum()) + len(trace.assets) + len(trace.lineage)
    if others:
        yield Homed(None, trace, others, NOT_A_JOB)


def by_claim(trace: Trace, coordinator_id: str, part: TracePart) -> Iterator[Homed]:
    """Everything that a claim covers, completed by what the claim says; what is another job's, together."""
    assert part.job_id is not None
    spans, job_id = trace.spans, part.job_id
    homes = [job_of(bytes.fromhex(text), coordinator_id) for text in trace.traces]
    another = np.array([home not in (None, job_id) for home in homes] or [False])
    stranger = np.array([home is None for home in homes] or [False])
    foreign_ids = _of_another(trace, job_id)
    foreign = another[spans.trace] | foreign_ids[spans.data] | foreign_ids[spans.batch] if len(spans) else _no_rows()
    lost_assets = foreign_ids[trace.assets.data]
    lost_edges = foreign_ids[trace.lineage.data]
    lost = int(foreign.sum()) + int(lost_assets.sum()) + int(lost_edges.sum())
    if lost:
        yield Homed(None, trace, lost, NOT_YOURS)
    mine = subset_of_claim(trace, stranger[spans.trace] if len(spans) else _no_rows(), coordinator_id, part)
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


def _of_another(trace: Trace, job_id: JobId) -> Rows:
    """For each of `data_ids`, and at its end for none: whether it is a task of another job than this one."""
    own, prefix = str(job_id), f"{job_id}."
    found = [_is_task(text) and text != own and not text.startswith(prefix) for text in trace.data_ids]
    return np.array([*found, False])


def _is_task(text: str) -> bool:
    """Whether it is written as tasks of ours are: `12.0.3`. Programs may have names of their own."""
    numbers = text.split(".")
    return len(numbers) == 3 and all(number.isascii() and number.isdecimal() for number in numbers)


def _code(table: list[str], text: str) -> int:
    """The number of a string in a table, which gets it where it has it not."""
    try:
        return table.index(text)
    except ValueError:
        table.append(text)
        return len(table) - 1


def _no_rows() -> Rows:
    return np.empty(0, bool)
