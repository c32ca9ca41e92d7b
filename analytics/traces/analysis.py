"""One run's whole profile. Pure: a trace, and what the coordinator recorded of the run where it ran it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analytics.traces import skew as skews
from analytics.traces.causes import DEPENDENCY, NAMES
from analytics.traces.columns import ERROR, UNFINISHED, Codes, Trace
from analytics.traces.drag import drags
from analytics.traces.folding import folds
from analytics.traces.graph import Edges
from analytics.traces.inside import path_inside
from analytics.traces.model import Model, model_of_record, through
from analytics.traces.network import network_of
from analytics.traces.path import walked
from analytics.traces.profile import assets_of, breakdown, data_path, lineage_of, per_data
from analytics.traces.record import RunRecord
from analytics.traces.recorded_path import walked_record
from analytics.traces.rejects import told as told_of
from analytics.traces.seen import limits, seen_of
from analytics.traces.tree import Mask, Tree
from analytics.traces.units import NEVER, OUTCOMES, WAS_CANCELLED, WAS_LOST
from analytics.traces.usage import Held, usage_of
from coordinator.api_types.trace import AttemptEntry, BadRow, Counts, DragEntry, Profile, RealCriticalPath, Skew, Usage

HEARD_NS = 100_000_000
"""An agent has the answer so much later than the coordinator's row has the end: that is nobody's late child."""
DRAG_MAX = 10_000
"""Entries of the answer; the greatest."""


def analyze(
    trace: Trace,
    *,
    workflow_id: str = "",
    record: RunRecord | None = None,
    bad: Sequence[BadRow] = (),
    rejected: int = 0,
    submitted_ns: int | None = None,
    notes: Sequence[str] = (),
) -> Profile:
    """All that is said about a run.

    Where there is a `record`, causes and the whole's limits are the coordinator's; else they follow from the times in
    the spans, and each segment says so. `submitted_ns` is when a run without a record was submitted; None: with its
    first task, or where a span without a task lies around all of them, with that. `notes` are told among the answer's.
    O((V + E) log V).
    """
    told = seen_of(trace, record)
    unnamed = not bool((trace.spans.data >= 0).any())
    trace, tree, seen, skew, read = told
    said = [*notes, *([] if record is not None else _lacking_notes(trace, seen, unnamed, read))]
    if record is not None:
        skew = skews.measured(trace.clocks, record.offsets)
    said += _skew_notes(skew)
    if record is not None:
        model = model_of_record(record)
        path, on_path = walked_record(record)
        way: set[int] | None = None
    else:
        model = seen
        start_ns, end_ns = limits(told, submitted_ns)
        finished = not bool(seen.work.tasks.open.any())
        path, rows = walked(trace, seen.work, seen.causes, start_ns, end_ns, finished)
        way = set(rows)
        units = seen.work.units
        on_path = {(seen.ids[int(units.task[row])], int(units.number[row])) for row in rows}
        said += _inferred_notes(seen, rows)
    names = _names(trace, model, record)
    critical = _critical(model, on_path, way)
    # Arrays first, the long answers last: their structs are half of the memory that an analysis needs.
    drag = _drag(model, path)
    usage = _usage(model, path, record)
    folded = folds(model, *names, critical)
    inside = path_inside(trace, tree, path, _spans_of(seen, path))
    all_edges = Edges(
        trace.lineage.data,
        trace.lineage.source,
        np.searchsorted(trace.lineage.data, np.arange(len(trace.data_ids) + 1)).astype(np.int64),
    )
    tasks = seen.work.tasks
    known = tasks.start != NEVER
    duration_ns = int(tasks.end[known].max() - tasks.start[known].min()) if known.any() else 0
    whole, work_and_wall = breakdown(trace, tree, duration_ns)
    sent, first = told_of(trace.rejects)
    counts = _counts(trace, tree, seen, model, (*bad, *first), rejected + sent)
    late = np.flatnonzero(tree.late)
    if record is not None:
        late = late[trace.spans.end[late] - trace.spans.end[tree.parent[late]] > HEARD_NS]
    if len(late):
        said.append(f"{len(late)} spans ended after the span that they lie in; the path ends with the tasks")
    if seen.cycles:
        said.append("lineage has cycles; an edge of each was left out")
    return Profile(
        workflow_id=workflow_id or trace.workflow_id or (str(record.job_id) if record is not None else ""),
        event_count=len(trace.spans),
        data_ids=_data_ids(trace, seen),
        assets=assets_of(trace),
        lineage=lineage_of(trace),
        e2e_breakdown=whole,
        per_data_id=per_data(trace, tasks, all_edges, seen.parents),
        critical_path=data_path(trace, tree, seen.work, seen.parents),
        real_critical_path=path,
        attempts=_attempts(model, record, critical, *names),
        drag=drag,
        usage=usage,
        skew=skew,
        folded=folded,
        counts=counts,
        work_and_wall=work_and_wall,
        path_inside=inside,
        cycles=tuple(seen.cycles),
        notes=tuple(said),
    )


def _data_ids(trace: Trace, seen: Model) -> tuple[str, ...]:
    """Those that have spans."""
    return tuple(seen.ids[code] for code in np.flatnonzero(seen.work.tasks.start != NEVER).tolist())


def _lacking_notes(trace: Trace, seen: Model, unnamed: bool, read: bool) -> list[str]:
    """What files of spans did not say, what stands for it, and what to add."""
    notes = []
    if unnamed and len(trace.spans):
        notes.append("no span says its task: each outermost one is taken for a task (attribute data_id says it)")
    if read:
        notes.append("there is no lineage: what tasks read stands for it")
    elif not len(trace.lineage) and int((seen.work.tasks.start != NEVER).sum()) > 1:
        notes.append(
            "nothing says what was made from what, so causes are slots and times alone: rows of lineage (data_id, "
            "source_data_id) say it, or source_data_id of spans that read"
        )
    return notes


def _skew_notes(skew: Skew) -> list[str]:
    if skew.corrected:
        return [
            f"clocks differ: {skew.violations} tasks seem to start up to {skew.worst_ns / 1e6:.3g} ms before their "
            f"data was there; times were moved, and are within {skew.bound_ns / 1e6:.3g} ms of the truth, as far as "
            "causes tell"
        ]
    if not skew.consistent:
        return [
            f"{skew.violations} tasks start up to {skew.worst_ns / 1e6:.3g} ms before their data, and no offsets of "
            "clocks explain that: times are as recorded"
        ]
    if skew.offsets:
        return [
            "causes and times of attempts are the coordinator's; spans of programs are by their machines' clocks, "
            f"which are at most {skew.bound_ns / 1e6:.3g} ms from it"
        ]
    return []


def _inferred_notes(seen: Model, rows: list[int]) -> list[str]:
    causes, tasks = seen.causes, seen.work.tasks
    guessed = [row for row in rows if causes.kind[row] == DEPENDENCY and not tasks.exact[causes.via[row]]]
    if not guessed:
        return []
    return [
        f"of {len(guessed)} tasks on the path it is not recorded when their data was ready: "
        "the end of the attempt was taken"
    ]


def _critical(model: Model, on_path: set[tuple[str, int]], way: set[int] | None) -> Mask:
    """Per attempt: it is on the real path."""
    units = model.work.units
    out = np.zeros(len(units), bool)
    if way is not None:
        out[list(way)] = True
    else:
        out[:] = [
            (model.ids[task], number) in on_path
            for task, number in zip(units.task.tolist(), units.number.tolist(), strict=True)
        ]
    return out


def _attempts(
    model: Model, record: RunRecord | None, critical: Mask, names: dict[int, str], keys: dict[int, str]
) -> tuple[AttemptEntry, ...]:
    units, causes, ids = model.work.units, model.causes, model.ids
    merged = _merged(model)
    recorded = {(one.task, one.attempt): one.cause for one in record.attempts} if record is not None else {}
    outcomes = OUTCOMES
    numbers = units.number.tolist()
    tasks = units.task.tolist()
    out = []
    for row, (task, number, provider, lane, start, end, staged, outcome, kind, before, via, on) in enumerate(
        zip(
            tasks,
            numbers,
            units.provider.tolist(),
            model.lanes.lane.tolist(),
            units.start.tolist(),
            units.end.tolist(),
            units.staged.tolist(),
            units.outcome.tolist(),
            causes.kind.tolist(),
            causes.unit.tolist(),
            causes.via.tolist(),
            critical.tolist(),
            strict=True,
        )
    ):
        text = ids[task]
        if record is not None:
            cause = recorded[text, number]
        elif before < 0:
            cause = NAMES[kind]
        elif kind == DEPENDENCY:
            cause = f"dependency {ids[via]}"
        else:
            cause = f"{NAMES[kind]} {ids[tasks[before]]}.{numbers[before]}"
        out.append(
            AttemptEntry(
                task=text,
                attempt=number,
                provider=model.providers[provider] if provider >= 0 else "",
                slot=lane,
                start_ns=start,
                end_ns=end,
                outcome=outcomes[outcome],
                cause=cause,
                inferred=record is None,
                merged=merged.get(row, ()),
                critical=on,
                name=names.get(task, ""),
                key=keys.get(task, ""),
                staged_ns=staged if staged > start else None,
            )
        )
    return tuple(out)


def _names(trace: Trace, model: Model, record: RunRecord | None) -> tuple[dict[int, str], dict[int, str]]:
    """Names and keys by the task's number in `model.ids`."""
    if record is not None:
        steps = {step.step: step.name for step in record.steps}
        return (
            {code: name for code, task in enumerate(record.tasks) if (name := steps.get(task.step, ""))},
            {code: task.key for code, task in enumerate(record.tasks) if task.key},
        )
    spans = trace.spans
    labelled, keyed = (np.flatnonzero((column >= 0) & (spans.data >= 0)) for column in (spans.label, spans.key))
    return (
        {data: trace.labels[code] for data, code in _pairs(spans.data[labelled], spans.label[labelled])},
        {data: trace.labels[code] for data, code in _pairs(spans.data[keyed], spans.key[keyed])},
    )


def _pairs(data: Codes, code: Codes) -> list[tuple[int, int]]:
    """Sorted downwards, so that of several for one the first in the alphabet stays."""
    order = np.lexsort((code, data))[::-1]
    return list(zip(data[order].tolist(), code[order].tolist(), strict=True))


def _merged(model: Model) -> dict[int, tuple[str, ...]]:
    members = model.work.members
    out: dict[int, list[str]] = {}
    begin = len(model.work.units)
    for unit, task in zip(members.unit[begin:].tolist(), members.task[begin:].tolist(), strict=True):
        out.setdefault(unit, []).append(model.ids[task])
    return {unit: tuple(tasks) for unit, tasks in out.items()}


def _counts(trace: Trace, tree: Tree, seen: Model, model: Model, bad: Sequence[BadRow], rejected: int) -> Counts:
    spans, units = trace.spans, model.work.units
    return Counts(
        tasks=int((seen.work.tasks.start != NEVER).sum()),
        spans=len(spans),
        duplicates=trace.duplicates,
        unfinished=int((spans.end == UNFINISHED).sum()),
        failed=int((spans.status == ERROR).sum()),
        orphans=int(tree.orphan.sum()),
        roots=int((tree.parent < 0).sum()),
        late_children=int(tree.late.sum()),
        attempts=len(units),
        retried=len(np.unique(units.task[units.before >= 0])),
        cancelled=int((units.outcome == WAS_CANCELLED).sum()),
        lost=int((units.outcome == WAS_LOST).sum()),
        without_task=int((tree.data < 0).sum()),
        rejected=rejected,
        bad=tuple(bad),
    )


def _drag(model: Model, path: RealCriticalPath) -> tuple[DragEntry, ...]:
    network = network_of(model.work, model.edges, model.lanes, through(model), path.start_ns)
    drag = drags(network)
    drag[network.hollow] = 0
    rows = np.flatnonzero(drag > 0)
    rows = rows[np.lexsort((network.task[rows], -drag[rows]))][:DRAG_MAX]
    return tuple(
        DragEntry(task=model.ids[task], drag_ns=ns, drag_seconds=ns / 1e9, duration_ns=length)
        for task, ns, length in zip(
            network.task[rows].tolist(),
            drag[rows].tolist(),
            (network.end - network.start)[rows].tolist(),
            strict=True,
        )
    )


def _usage(model: Model, path: RealCriticalPath, record: RunRecord | None) -> Usage:
    units, causes = model.work.units, model.causes
    rows = np.arange(len(units))
    provider = units.provider
    retried = units.before >= 0
    before = np.where(retried, units.end[units.before], NEVER) if len(units) else units.end
    before_lost = retried & (units.outcome[units.before] == WAS_LOST) if len(units) else retried
    again = np.full(len(units), NEVER)
    if record is not None:
        over = {(one.task, one.attempt): one.ready_ns for one in record.attempts if one.ready_ns is not None}
        keys = zip(units.task.tolist(), units.number.tolist(), before.tolist(), strict=True)
        again = np.array([over.get((model.ids[task], number), end) for task, number, end in keys], np.int64)
        ranks = {(one.task, one.attempt): one.providers for one in record.attempts}
        code = {text: number for number, text in enumerate(model.providers)}
        held = [
            [code[text] for text in ranks[model.ids[task], number]] or [-1]
            for task, number in zip(units.task.tolist(), units.number.tolist(), strict=True)
        ]
        rows = np.repeat(rows, [len(one) for one in held])
        provider = np.array([one for several in held for one in several], np.int32)
    return usage_of(
        Held(
            provider=provider,
            slot=units.slot[rows],
            start=units.start[rows],
            end=units.end[rows],
            staged=units.staged[rows],
            outcome=units.outcome[rows],
            ready=causes.ready[rows],
            before=before[rows],
            before_lost=before_lost[rows],
            again=again[rows],
        ),
        path.start_ns,
        path.end_ns,
        record.slots if record is not None else 0,
    )


def _spans_of(seen: Model, path: RealCriticalPath) -> dict[tuple[str, int], Codes]:
    """Rows of the spans of each attempt on the path."""
    units = seen.work.units
    wanted = {(segment.task, segment.attempt) for segment in path.segments}
    wanted |= {
        (segment.cause.removeprefix("merged "), segment.attempt)
        for segment in path.segments
        if segment.cause.startswith("merged ")
    }
    texts = {task for task, _ in wanted}
    codes = [code for code, text in enumerate(seen.ids) if text in texts]
    on = np.zeros(len(seen.ids), bool)
    on[codes] = True
    order = np.argsort(seen.work.unit_of, kind="stable").astype(np.int32)
    begin = np.searchsorted(seen.work.unit_of[order], np.arange(len(units) + 1)).tolist()
    rows = np.flatnonzero(on[units.task])
    return {
        (seen.ids[code], number): order[begin[row] : begin[row + 1]]
        for row, code, number in zip(rows.tolist(), units.task[rows].tolist(), units.number[rows].tolist(), strict=True)
    }
