"""What if: the recorded graph played again as list scheduling, on another number of slots or without some tasks.

A task begins when its data and a slot are there and its recorded overhead has passed; of several that are ready the one
that began first in the record is taken. Played unchanged this gives not quite the recorded makespan (limits, backoffs
and slots that differ are not part of it): that error is what the answer is to be judged by.
"""

from __future__ import annotations

from collections.abc import Sequence
from heapq import heapify, heappop, heappush

import numpy as np

from analytics.traces.columns import Trace
from analytics.traces.model import Model, model_of_record, through
from analytics.traces.network import Network, network_of
from analytics.traces.record import RunRecord
from analytics.traces.seen import limits, seen_of
from coordinator.api_types.trace_comparison import WhatIf

SLOTS_MAX = 1_000_000
WITHOUT_MAX = 1_000


def what_if(
    trace: Trace, record: RunRecord | None = None, *, slots: int | None = None, without: Sequence[str] = ()
) -> WhatIf:
    """How long the run would have been on `slots` slots, if the tasks in `without` (ids, or names of steps) cost
    nothing. ValueError says which of them the run does not have, or what is wrong with `slots`. O((V + E) log V)."""
    if slots is not None and not 1 <= slots <= SLOTS_MAX:
        raise ValueError(f"slots is {slots}, not between 1 and {SLOTS_MAX}")
    if len(without) > WITHOUT_MAX:
        raise ValueError(f"{len(without)} tasks are more than {WITHOUT_MAX}")
    if record is None:
        seen = seen_of(trace, None)
        model, names = seen.model, _names_of(seen.trace)
        start_ns, end_ns = limits(seen, None)
        there = 0
    else:
        model = model_of_record(record)
        step_names = {step.step: step.name for step in record.steps}
        names = {}
        for task in record.tasks:
            names.setdefault(step_names.get(task.step, ""), []).append(task.task)
        start_ns, there = record.submitted_ns, record.slots
        end_ns = max(record.ended_ns if record.ended_ns is not None else record.looked_at_ns, start_ns)
    if not len(model.work.units):
        raise ValueError("the run has no tasks yet")
    network = network_of(model.work, model.edges, model.lanes, through(model), start_ns)
    spared = _spared(model, network, names, without)
    recorded = end_ns - start_ns
    # What came behind the last task stays as long as it was.
    fixed_ns = max(end_ns - int(network.end.max()), 0) - start_ns
    lanes = max(model.lanes.count, 1)
    unchanged = replayed(network, lanes, frozenset()) + fixed_ns
    predicted = replayed(network, slots if slots is not None else lanes, spared) + fixed_ns
    notes = [
        "a task with its retries holds one slot; limits, quotas and which provider suits which task are not replayed",
    ]
    if there > lanes:
        notes.append(f"{there} slots were there, {lanes} of them were ever busy at once: that is what was replayed")
    return WhatIf(
        slots=slots if slots is not None else lanes,
        without=tuple(without),
        recorded_ns=recorded,
        unchanged_ns=unchanged,
        error_ns=unchanged - recorded,
        error_fraction=(unchanged - recorded) / recorded if recorded else 0.0,
        predicted_ns=predicted,
        saved_ns=unchanged - predicted,
        recorded_slots=lanes,
        notes=tuple(notes),
    )


def _names_of(trace: Trace) -> dict[str, list[str]]:
    spans = trace.spans
    rows = np.flatnonzero((spans.label >= 0) & (spans.data >= 0))
    pairs = set(zip(spans.label[rows].tolist(), spans.data[rows].tolist(), strict=True))
    names: dict[str, list[str]] = {}
    for label, data in pairs:
        names.setdefault(trace.labels[label], []).append(trace.data_ids[data])
    return names


def _spared(model: Model, network: Network, names: dict[str, list[str]], without: Sequence[str]) -> frozenset[int]:
    node_of = {model.ids[code]: node for node, code in enumerate(network.task.tolist())}
    out: set[int] = set()
    for text in without:
        tasks = [text] if text in node_of else names.get(text, [])
        found = {node_of[task] for task in tasks if task in node_of}
        if not found:
            raise ValueError(f"the run has no task {text[:80]!a} of its own")
        out |= found
    return frozenset(out)


def replayed(network: Network, slots: int, spared: frozenset[int]) -> int:
    """When the run ends. Nodes in `spared` cost nothing and hold no slot."""
    count = len(network)
    data = np.flatnonzero(~network.slot)
    order = data[np.argsort(network.parent[data], kind="stable")]
    begin = np.searchsorted(network.parent[order], np.arange(count + 1)).tolist()
    children = network.child[order].tolist()
    offset = (network.available - network.start[network.parent])[order].tolist()
    waits = np.bincount(network.child[data], minlength=count).tolist()
    overhead, length = network.overhead.tolist(), (network.end - network.start).tolist()
    light = network.hollow.tolist()
    for node in spared:
        light[node] = True
        length[node] = 0
    # Events: (when, 0: a slot is free again | 1: data for a node is there, which node).
    events = [(network.start_ns, 1, node) for node in range(count) if not waits[node]]
    for node in range(count):
        waits[node] = max(waits[node], 1)
    heapify(events)
    ready: list[int] = []
    free, end = slots, network.start_ns
    while events:
        now = events[0][0]
        while events and events[0][0] == now:
            _, what, node = heappop(events)
            if not what:
                free += 1
                continue
            waits[node] -= 1
            if waits[node]:
                continue
            if not light[node]:
                heappush(ready, node)
                continue
            begun = now + overhead[node]
            end = max(end, begun + length[node])
            for edge in range(begin[node], begin[node + 1]):
                heappush(events, (max(begun, now), 1, children[edge]))
        while free and ready:
            node = heappop(ready)
            free -= 1
            begun = max(now + overhead[node], network.start_ns)
            stop = begun + length[node]
            end = max(end, stop)
            heappush(events, (max(stop, now), 0, node))
            for edge in range(begin[node], begin[node + 1]):
                heappush(events, (max(begun + offset[edge], now), 1, children[edge]))
    return end
