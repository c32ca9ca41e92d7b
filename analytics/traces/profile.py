"""The profile as the original analyzer gives it, field by field, and right where that one is not.

Totals by type are the lengths of its spans, each once however many tasks its batch served, the task's root left out (it
contains them). A type may lie in another one (a program's spans in the `run` that it was): work counts what is within
once. Network totals are the union of the intervals. Unfinished spans count in `event_count` alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import COMPUTE, NETWORK, TASK_SPAN, UNFINISHED, Assets, Ints, Lineage, Trace
from analytics.traces.graph import Edges, Ready
from analytics.traces.intervals import union_ns
from analytics.traces.tree import Tree, nearest
from analytics.traces.units import NEVER, Tasks, Work
from coordinator.api_types.trace import (
    ActiveWait,
    AssetEntry,
    Breakdown,
    DataEntry,
    DataPath,
    EventSummary,
    LineageEntry,
    WorkAndWall,
)

Mask = NDArray[np.bool_]


def instants(times: Ints, zone: str) -> list[str]:
    """ISO 8601 with as many digits as are needed: none, 6 or 9. `zone` is what is written behind."""
    if not len(times):
        return []
    if (times % 1_000).any():
        texts: list[str] = np.datetime_as_string(times.astype("datetime64[ns]")).tolist()
    else:
        texts = np.datetime_as_string((times // 1_000).astype("datetime64[us]")).tolist()
    return [
        text[:19] + zone if not ns else text[:26] + zone if not ns % 1_000 else text + zone
        for text, ns in zip(texts, (times % 1_000_000_000).tolist(), strict=True)
    ]


def _shared_instants(times: Ints) -> list[str]:
    """One text for all rows of one time: what a task was made from was often made at once."""
    present, inverse = np.unique(times, return_inverse=True)
    texts = instants(present, "+00:00")
    return [texts[place] for place in inverse.tolist()]


def assets_of(trace: Trace) -> tuple[AssetEntry, ...]:
    """One an asset: its newest version; of equal ones the one that was made last."""
    held: Assets = trace.assets
    order = np.lexsort((held.data, held.created, held.version, held.guid))
    guid = held.guid[order]
    last = np.ones(len(order), bool)
    last[:-1] = guid[1:] != guid[:-1]
    chosen = order[last]
    counts = np.diff(np.append(-1, np.flatnonzero(last))).tolist()
    return tuple(
        AssetEntry(
            asset_guid=trace.guids[code],
            latest_data_id=trace.data_ids[data],
            latest_version=version,
            user_id=trace.users[user] if user >= 0 else "",
            versions=count,
            created_at=created,
        )
        for code, data, version, user, count, created in zip(
            held.guid[chosen].tolist(),
            held.data[chosen].tolist(),
            held.version[chosen].tolist(),
            held.user[chosen].tolist(),
            counts,
            instants(held.created[chosen], "+00:00"),
            strict=True,
        )
    )


def lineage_of(trace: Trace) -> tuple[LineageEntry, ...]:
    """By (data id, source)."""
    edges: Lineage = trace.lineage
    ids = trace.data_ids
    return tuple(
        LineageEntry(data_id=ids[data], source_data_id=ids[source], created_at=created)
        for data, source, created in zip(
            edges.data.tolist(), edges.source.tolist(), _shared_instants(edges.created), strict=True
        )
    )


def _events(trace: Trace, kind: int) -> Mask:
    spans = trace.spans
    task = trace.names.index(TASK_SPAN) if TASK_SPAN in trace.names else -2
    mask: Mask = (spans.kind == kind) & (spans.name != task) & (spans.end != UNFINISHED)
    return mask


def summary(trace: Trace, rows: Mask) -> EventSummary:
    """Lengths by name, sorted by it."""
    spans = trace.spans
    names, lengths = spans.name[rows], spans.end[rows] - spans.start[rows]
    present, inverse = np.unique(names, return_inverse=True)
    count = np.bincount(inverse, minlength=len(present)).tolist()
    total, least, most = (
        np.zeros(len(present), np.int64),
        np.full(len(present), 2**63 - 1),
        np.zeros(len(present), np.int64),
    )
    np.add.at(total, inverse, lengths)
    np.minimum.at(least, inverse, lengths)
    np.maximum.at(most, inverse, lengths)
    return EventSummary(
        event_type=tuple(trace.names[code] for code in present.tolist()),
        count=tuple(count),
        total_seconds=tuple(ns / 1e9 for ns in total.tolist()),
        avg_seconds=tuple(ns / 1e9 / n for ns, n in zip(total.tolist(), count, strict=True)),
        min_seconds=tuple(ns / 1e9 for ns in least.tolist()),
        max_seconds=tuple(ns / 1e9 for ns in most.tolist()),
    )


def breakdown(trace: Trace, tree: Tree, duration_ns: int) -> tuple[Breakdown, WorkAndWall]:
    """From end to end."""
    spans = trace.spans
    compute, network = _events(trace, COMPUTE), _events(trace, NETWORK)
    network_wall = union_ns(spans.start[network], spans.end[network])
    whole = Breakdown(
        hardware_summary=summary(trace, compute),
        network_summary=summary(trace, network),
        workflow_duration_seconds=duration_ns / 1e9,
        total_network_seconds=network_wall / 1e9,
    )
    return whole, WorkAndWall(
        compute_work_seconds=_work_ns(trace, tree, compute) / 1e9,
        compute_wall_seconds=union_ns(spans.start[compute], spans.end[compute]) / 1e9,
        network_work_seconds=_work_ns(trace, tree, network) / 1e9,
        network_wall_seconds=network_wall / 1e9,
    )


def _work_ns(trace: Trace, tree: Tree, rows: Mask) -> int:
    """The lengths of these spans together, less what of each the ones within it cover: those count themselves."""
    spans = trace.spans
    around = nearest(tree.parent, rows)
    around = np.where(tree.parent >= 0, around[tree.parent], -1)
    inner = np.flatnonzero(rows & (around >= 0))
    whole = int((spans.end[rows] - spans.start[rows]).sum())
    if not len(inner):
        return whole
    outer = around[inner]
    start = np.clip(spans.start[inner], spans.start[outer], spans.end[outer])
    end = np.clip(spans.end[inner], start, spans.end[outer])
    order = np.lexsort((start, outer))
    _, group = np.unique(outer[order], return_inverse=True)
    moments = np.unique(np.concatenate((start, end)))
    # Groups one behind the other on one axis: the furthest end so far of an earlier group lies in front of them all.
    axis = group * len(moments)
    begin, stop = np.searchsorted(moments, start[order]), np.searchsorted(moments, end[order])
    reached = np.append(0, np.maximum.accumulate(axis + stop)[:-1]) - axis
    begin = np.minimum(np.maximum(begin, reached), stop)
    return whole - int((moments[stop] - moments[begin]).sum())


def per_data(trace: Trace, tasks: Tasks, lineage: Edges, parents: Ready) -> tuple[DataEntry, ...]:
    """One a task that has spans. `lineage` has all edges that were recorded, those that close cycles too."""
    ids = trace.data_ids
    held = np.flatnonzero(tasks.start != NEVER)
    open_ = tasks.open[held]
    start, end = tasks.start[held], tasks.end[held]
    at = parents.at[held]
    delay = np.where(at != NEVER, np.maximum(start - np.where(at != NEVER, at, start), 0), 0)
    offset = lineage.offset.tolist()
    sources = list(map(ids.__getitem__, lineage.parent.tolist()))
    return tuple(
        DataEntry(
            data_id=ids[code],
            start_time=begun,
            end_time=None if unended else ended,
            duration_seconds=length,
            queuing_delay_seconds=waited,
            parent_data_ids=tuple(sources[offset[code] : offset[code + 1]]),
            blocking_parent_data_id=ids[blocking] if blocking >= 0 else None,
        )
        for code, begun, ended, unended, length, waited, blocking in zip(
            held.tolist(),
            instants(start, "Z"),
            instants(end, "Z"),
            open_.tolist(),
            ((end - start) / 1e9).tolist(),
            (delay / 1e9).tolist(),
            parents.parent[held].tolist(),
            strict=True,
        )
    )


def data_path(trace: Trace, tree: Tree, work: Work, parents: Ready) -> DataPath:
    """Back from the task that ended last, always to the parent whose data came last. A stretch counts once: a task is
    active from its start (or its parent's data, if that came later) until its data is ready, the last one to its
    end."""
    tasks = work.tasks
    if not len(work.units):
        return DataPath()
    held = np.flatnonzero(tasks.start != NEVER)
    node = int(held[np.lexsort((held, tasks.start[held], tasks.end[held]))[-1]])
    path, blocking, starts = [node], parents.parent.tolist(), tasks.start.tolist()
    seen = {node}
    while (parent := blocking[node]) >= 0 and parent not in seen and starts[parent] != NEVER:
        path.append(parent)
        seen.add(parent)
        node = parent
    path.reverse()
    rows = np.array(path)
    ready = np.maximum(tasks.ready[rows], tasks.start[rows[0]])
    ready[-1] = max(int(tasks.end[rows[-1]]), int(tasks.start[rows[0]]))
    ready = np.maximum.accumulate(ready)
    start = np.minimum(np.maximum.accumulate(tasks.start[rows]), ready)
    before = np.append(start[0], ready[:-1])
    wait = np.maximum(start - before, 0)
    active = ready - before - wait
    on_path = np.zeros(len(trace.data_ids) + 1, bool)
    on_path[rows] = True
    # A merged batch's common work is in its leader's spans.
    on_path[work.units.task[tasks.unit[rows][tasks.unit[rows] >= 0]]] = True
    spans_on = on_path[tree.data] & (tree.data >= 0)
    network = _events(trace, NETWORK) & spans_on
    spans = trace.spans
    return DataPath(
        path=tuple(trace.data_ids[code] for code in path),
        critical_path_seconds=int(ready[-1] - start[0]) / 1e9,
        active_wait_breakdown=ActiveWait(
            data_id=tuple(trace.data_ids[code] for code in path),
            active_seconds=tuple(ns / 1e9 for ns in active.tolist()),
            wait_seconds=tuple(ns / 1e9 for ns in wait.tolist()),
        ),
        hardware_summary=summary(trace, _events(trace, COMPUTE) & spans_on),
        network_summary=summary(trace, network),
        total_network_seconds=union_ns(spans.start[network], spans.end[network]) / 1e9,
    )
