"""What was made from what: lineage as a graph without cycles. Iterative, O(V + E): chains and fan-outs of any size.

An id that has no attempt of its own (a step that stands for all of its tasks, a task whose spans were lost) is passed
through: its data is there when that of its own sources is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import NONE, Codes, Ints, Lineage
from analytics.traces.units import NEVER, Tasks

CYCLES_MAX = 20
"""That are written out; edges are left out until there is none."""
CYCLE_LENGTH_MAX = 50
"""Ids of one that are written out."""


@dataclass(slots=True)
class Edges:
    """`child` was made from `parent`; sorted by (child, parent), each once, no cycles."""

    child: Codes
    parent: Codes
    offset: NDArray[np.int64]
    """Where each id's edges begin; one more at the end."""

    def parents(self, task: int) -> Codes:
        return self.parent[self.offset[task] : self.offset[task + 1]]


@dataclass(slots=True)
class Ready:
    """Per id: the parent whose data came last, and when. NONE and NEVER where no parent has any."""

    parent: Codes
    """An id that has an attempt."""
    at: Ints


def edges_of(lineage: Lineage, ids: list[str], start: Ints) -> tuple[Edges, list[str]]:
    """The edges, and the cycles that were cut, as `a -> b -> a`. `start` (per id) makes the usual case cheap: where
    every edge leads to a later start there is no cycle."""
    child, parent = lineage.data, lineage.source
    cycles: list[str] = []
    if len(child) and not (start[parent] < start[child]).all():
        kept, cycles = _without_cycles(child, parent, ids)
        child, parent = child[kept], parent[kept]
    return Edges(child, parent, np.searchsorted(child, np.arange(len(ids) + 1)).astype(np.int64)), cycles


def _without_cycles(child: Codes, parent: Codes, ids: list[str]) -> tuple[NDArray[np.intp], list[str]]:
    """Edges that stay. Ids are taken away from the sources on; what remains lies on cycles or behind one, and is
    walked depth first: an edge that comes back to the walk's own way closes a cycle."""
    count = len(ids)
    by_parent = np.argsort(parent, kind="stable")
    begin = np.searchsorted(parent[by_parent], np.arange(count + 1)).tolist()
    targets = child[by_parent].tolist()
    waits = np.bincount(child, minlength=count).tolist()
    free = [node for node in range(count) if not waits[node]]
    while free:
        node = free.pop()
        for target in targets[begin[node] : begin[node + 1]]:
            waits[target] -= 1
            if not waits[target]:
                free.append(target)
    cut: list[int] = []
    cycles: list[str] = []
    if any(waits):
        edge_numbers = by_parent.tolist()
        state = bytearray(count)  # 1: on the way, 2: done
        for root in range(count):
            if not waits[root] or state[root]:
                continue
            way, places = [root], [begin[root]]
            state[root] = 1
            while way:
                node = way[-1]
                if places[-1] == begin[node + 1]:
                    state[node] = 2
                    way.pop()
                    places.pop()
                    continue
                target, edge = targets[places[-1]], edge_numbers[places[-1]]
                places[-1] += 1
                if state[target] == 1:
                    cut.append(edge)
                    if len(cycles) < CYCLES_MAX:
                        cycles.append(_written(way[way.index(target) :], ids))
                elif waits[target] and not state[target]:
                    state[target] = 1
                    way.append(target)
                    places.append(begin[target])
    kept = np.ones(len(child), bool)
    kept[cut] = False
    return np.flatnonzero(kept), cycles


def _written(ring: list[int], ids: list[str]) -> str:
    least = ring.index(min(ring))
    names = [ids[node] for node in ring[least:] + ring[:least]]
    if len(names) > CYCLE_LENGTH_MAX:
        names = [*names[: CYCLE_LENGTH_MAX - 1], f"... {len(names) - CYCLE_LENGTH_MAX} more ...", names[-1]]
    return " -> ".join([*names, names[0]])


def latest_parents(edges: Edges, tasks: Tasks) -> Ready:
    """Per id the parent whose data came last; of several at once the one that started last, then the last id."""
    count = len(tasks.ready)
    at, via = tasks.ready.copy(), np.arange(count, dtype=np.int32)
    hollow = np.flatnonzero((tasks.unit < 0) & (np.diff(edges.offset) > 0))
    if len(hollow):
        _pass_through(edges, tasks, hollow, at, via)
    best, when = np.full(count, NONE, np.int32), np.full(count, NEVER)
    if not len(edges.child):
        return Ready(best, when)
    known = np.flatnonzero(at[edges.parent] != NEVER)
    child, source = edges.child[known], via[edges.parent[known]]
    order = np.lexsort((source, tasks.start[source], at[source], child))
    last = np.ones(len(order), bool)
    last[:-1] = child[order][1:] != child[order][:-1]
    chosen = order[last]
    best[child[chosen]] = source[chosen]
    when[child[chosen]] = at[source[chosen]]
    return Ready(best, when)


def _pass_through(edges: Edges, tasks: Tasks, hollow: NDArray[Any], at: Ints, via: Codes) -> None:
    """Ids without attempts take what their sources have, sources first."""
    pending = {int(node) for node in hollow.tolist()}
    for first in hollow.tolist():
        way = [first]
        while way:
            node = way[-1]
            if node not in pending:
                way.pop()
                continue
            sources = edges.parents(node)
            inner = [one for one in sources.tolist() if one in pending] if len(pending) > 1 else []
            if inner and inner != [node]:
                way.extend(inner)
                continue
            pending.discard(node)
            known = sources[at[sources] != NEVER]
            if len(known):
                best = known[np.lexsort((via[known], tasks.start[via[known]], at[known]))[-1]]
                at[node], via[node] = at[best], via[best]
