"""The run as a network of tasks, with which its schedule can be worked out again: for drag, and for what-if.

A node is a task with all its attempts (and all that was merged into them), or an id without attempts that passes data
through. An edge says when something of its parent was available to its child: data, or the slot. A node begins when
the last of these is there and its own overhead has passed; the overhead is what makes this give the recorded times.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import NONE, Codes, Ints
from analytics.traces.graph import Edges
from analytics.traces.lanes import Lanes
from analytics.traces.units import NEVER, Work


@dataclass(slots=True)
class Network:
    """Nodes in the order of their start; every edge leads from a lower to a higher number."""

    task: Codes
    start: Ints
    end: Ints
    overhead: Ints
    """From the last thing that it needed (or the run's start) to its own start."""
    parent: Codes
    child: Codes
    available: Ints
    """Per edge: when what the child needs was there."""
    slot: NDArray[np.bool_]
    """Per edge: it is the slot, not data."""
    hollow: NDArray[np.bool_]
    """Per node: it has no attempt and takes no slot."""
    root: NDArray[np.bool_]
    """Per node: nothing came before it."""
    start_ns: int

    def __len__(self) -> int:
        return len(self.start)


def network_of(work: Work, edges: Edges, lanes: Lanes, through: Ints, start_ns: int) -> Network:
    """`through` is per id when its data was there, also of those that pass it through. O((V + E) log V)."""
    units, members, tasks = work.units, work.members, work.tasks
    ids = len(tasks.ready)
    node_of = np.full(ids, NONE, np.int32)
    owners = np.unique(units.task)
    node_of[owners] = np.arange(len(owners), dtype=np.int32)
    merged = members.task[len(units) :]
    lone = merged[node_of[merged] < 0]
    node_of[lone] = node_of[units.task[tasks.unit[lone]]]
    hollow = np.flatnonzero((node_of < 0) & (through != NEVER))
    node_of[hollow] = len(owners) + np.arange(len(hollow), dtype=np.int32)
    task = np.concatenate((owners, hollow)).astype(np.int32)
    count = len(task)
    start, end = np.full(count, 2**63 - 1), np.full(count, NEVER)
    of_unit = node_of[units.task]
    np.minimum.at(start, of_unit, units.start)
    np.maximum.at(end, of_unit, units.end)
    start[len(owners) :] = end[len(owners) :] = through[hollow]
    is_hollow = np.arange(count) >= len(owners)
    # A hollow node at the moment of a real one's start lies before it.
    order = np.lexsort((task, ~is_hollow, start))
    place = np.empty(count, np.int32)
    place[order] = np.arange(count, dtype=np.int32)
    node_of = np.where(node_of >= 0, place[node_of], NONE) if count else node_of
    start, end, task, is_hollow = start[order], end[order], task[order], is_hollow[order]

    source, target = node_of[edges.parent], node_of[edges.child]
    data = (source >= 0) & (target >= 0) & (through[edges.parent] != NEVER)
    of_unit = node_of[units.task]
    first = np.full(count, NONE, np.int32)
    first[of_unit[::-1]] = np.arange(len(units), dtype=np.int32)[::-1]
    held = np.flatnonzero(first >= 0)
    before = lanes.previous[first[held]]
    held, before = held[before >= 0], before[before >= 0]
    parent = np.concatenate((source[data], of_unit[before])).astype(np.int32)
    child = np.concatenate((target[data], held)).astype(np.int32)
    available = np.concatenate((through[edges.parent[data]], units.end[before]))
    slot = np.arange(len(parent)) >= int(data.sum())
    forward = parent < child
    parent, child, available, slot = parent[forward], child[forward], available[forward], slot[forward]
    available = np.maximum(available, start[parent])
    last = np.full(count, NEVER)
    np.maximum.at(last, child, available)
    root = last == NEVER
    overhead = start - np.where(root, start_ns, last)
    return Network(task, start, end, overhead, parent, child, available, slot, is_hollow, root, start_ns)


def makespan_without(network: Network, node: int) -> int:
    """The end of the run if one node cost nothing, by working out the whole schedule again. O(V + E)."""
    starts = network.start.tolist()
    offset = (network.available - network.start[network.parent]).tolist()
    latest = [network.start_ns if root else NEVER for root in network.root.tolist()]
    order = np.argsort(network.child, kind="stable").tolist()
    parents, children, overhead = network.parent.tolist(), network.child.tolist(), network.overhead.tolist()
    lengths = (network.end - network.start).tolist()
    at, edge, end = [0] * len(starts), 0, network.start_ns
    for number in range(len(starts)):
        while edge < len(order) and children[order[edge]] == number:
            one = order[edge]
            source = parents[one]
            latest[number] = max(latest[number], at[source] + (0 if source == node else offset[one]))
            edge += 1
        at[number] = latest[number] + overhead[number]
        end = max(end, at[number] + (0 if number == node else lengths[number]))
    return end
