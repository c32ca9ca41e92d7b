"""What a run consisted of, in one form: as its spans tell it, or as the coordinator recorded it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analytics.traces.causes import Causes, causes_of
from analytics.traces.columns import NONE, Codes, Ints, Trace
from analytics.traces.graph import Edges, Ready, edges_of, latest_parents
from analytics.traces.lanes import Lanes, lanes_of
from analytics.traces.record import RunRecord
from analytics.traces.tree import Tree
from analytics.traces.units import DONE, NEVER, OPEN, OUTCOMES, Members, Tasks, Units, Work, work_of


@dataclass(slots=True)
class Model:
    """Ids and providers are numbered by the tables here."""

    ids: list[str]
    providers: list[str]
    work: Work
    edges: Edges
    cycles: list[str]
    parents: Ready
    lanes: Lanes
    causes: Causes


def model_of(trace: Trace, tree: Tree, until_ns: int = 0) -> Model:
    """As the spans and the lineage tell it; what has not ended lasts until `until_ns`, where that is known."""
    work = work_of(trace, tree, until_ns)
    edges, cycles = edges_of(trace.lineage, trace.data_ids, work.tasks.start)
    return _model(trace.data_ids, trace.providers, work, edges, cycles)


def model_of_record(record: RunRecord) -> Model:
    """As it was recorded. A step is an id without attempts, through which the data of its tasks passes."""
    ids = [task.task for task in record.tasks] + [step.step for step in record.steps]
    code = {text: number for number, text in enumerate(ids)}
    attempts = [one for one in record.attempts if one.task in code]
    providers = sorted({provider for one in attempts for provider in one.providers})
    at = {text: number for number, text in enumerate(providers)}
    until = record.ended_ns if record.ended_ns is not None else record.looked_at_ns

    def begun(number: int) -> int:
        one = attempts[number]
        return one.started_ns if one.prefetched and one.started_ns is not None else one.granted_ns

    def ended(number: int) -> int:
        one = attempts[number]
        return max(until if one.ended_ns is None else one.ended_ns, begun(number))

    order = sorted(range(len(attempts)), key=lambda n: (begun(n), ended(n), code[attempts[n].task]))
    place = {(attempts[n].task, attempts[n].attempt): row for row, n in enumerate(order)}
    rows = [attempts[n] for n in order]
    start, end = (np.array([take(n) for n in order], np.int64) for take in (begun, ended))
    staged = np.array([until if one.started_ns is None else one.started_ns for one in rows], np.int64)
    closing = np.array([until if one.exited_ns is None else one.exited_ns for one in rows], np.int64)
    outcomes = {outcome: number for number, outcome in enumerate(OUTCOMES)}
    units = Units(
        task=_codes([code[one.task] for one in rows]),
        number=_codes([one.attempt for one in rows]),
        provider=_codes([at[one.providers[0]] if one.providers else NONE for one in rows]),
        slot=np.full(len(rows), NONE, np.int32),
        start=start,
        end=end,
        staged=np.clip(staged, start, end),
        closing=np.clip(closing, start, end),
        outcome=np.array([outcomes[one.outcome] for one in rows], np.int8),
        before=_codes([place.get((one.task, one.attempt - 1), NONE) for one in rows]),
    )
    units.before = np.where(units.before < np.arange(len(rows)), units.before, NONE).astype(np.int32)
    members = Members(np.arange(len(rows), dtype=np.int32), units.task, units.start)
    work = Work(units, members, _tasks_of(units, len(ids)), np.zeros(0, np.int32), until)
    step_of = [code[task.step] for task in record.tasks if task.step in code]
    tasks = np.array([number for number, task in enumerate(record.tasks) if task.step in code], np.int32)
    into = np.array(step_of, np.int32)
    by_step = {step.step: [code[need] for need in step.needs if need in code] for step in record.steps}
    pairs = [(child, need) for child, task in enumerate(record.tasks) for need in by_step.get(task.step, ())]
    child = np.concatenate((into, _codes([one for one, _ in pairs])))
    parent = np.concatenate((tasks, _codes([one for _, one in pairs])))
    arranged = np.lexsort((parent, child))
    child, parent = child[arranged], parent[arranged]
    edges = Edges(child, parent, np.searchsorted(child, np.arange(len(ids) + 1)).astype(np.int64))
    return _model(ids, providers, work, edges, [])


def _codes(values: list[int]) -> Codes:
    return np.array(values, np.int32)


def _tasks_of(units: Units, ids: int) -> Tasks:
    start, end, ready = np.full(ids, 2**63 - 1), np.full(ids, NEVER), np.full(ids, NEVER)
    np.minimum.at(start, units.task, units.start)
    np.maximum.at(end, units.task, units.end)
    start[start == 2**63 - 1] = NEVER
    good = np.flatnonzero(units.outcome == DONE)
    np.maximum.at(ready, units.task[good], units.end[good])
    last, first = np.full(ids, NONE, np.int32), np.full(ids, NONE, np.int32)
    rows = np.arange(len(units), dtype=np.int32)
    last[units.task] = rows
    first[units.task[::-1]] = rows[::-1]
    last[units.task[good]] = good
    open_ = np.zeros(ids, bool)
    open_[last >= 0] = units.outcome[last[last >= 0]] == OPEN
    return Tasks(start, end, ready, ready != NEVER, last, first, open_)


def _model(ids: list[str], providers: list[str], work: Work, edges: Edges, cycles: list[str]) -> Model:
    parents = latest_parents(edges, work.tasks)
    units = work.units
    lanes = lanes_of(units.provider, units.slot, units.start, units.end)
    return Model(ids, providers, work, edges, cycles, parents, lanes, causes_of(work, parents, lanes))


def through(model: Model) -> Ints:
    """Per id when its data was there, of ids without attempts when that of their last source was."""
    at = model.work.tasks.ready.copy()
    hollow = (model.work.tasks.unit < 0) & (at == NEVER)
    at[hollow] = model.parents.at[hollow]
    return at
