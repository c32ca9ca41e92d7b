"""Drag: how much shorter the run were if a task cost nothing and all else kept its length and its order (S. Devaux,
"Total Project Control", 1999). Of every task, in one pass.

Without a node the run is as long as the longest way that avoids it, or as the longest way through it less its own cost.
Nodes are numbered so that edges lead upwards: a way that avoids node u has exactly one edge that jumps over u, so the
first is a maximum over intervals, which a table of powers of two answers for all nodes together.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import Ints
from analytics.traces.network import Network
from analytics.traces.units import NEVER


def drags(network: Network) -> Ints:
    """Nanoseconds per node. O((V + E) log V), O(V + E) memory."""
    count = len(network)
    if not count:
        return np.zeros(0, np.int64)
    end = int(network.end.max())
    rest, spared = _rest(network)
    over = rest + network.overhead
    reach = network.available + over[network.child]
    roots = np.flatnonzero(network.root)
    every = np.arange(count)
    low = np.concatenate((network.parent + 1, np.zeros(len(roots), np.int64), every + 1))
    high = np.concatenate((network.child - 1, roots - 1, np.full(count, count - 1)))
    length = np.concatenate((reach, network.start[roots] + rest[roots], network.end))
    avoiding = _greatest_over(count, low, high, length)
    through = network.start + spared
    shortest: Ints = np.maximum(np.maximum(avoiding, through), network.start_ns)
    return np.maximum(end - shortest, 0)


def _rest(network: Network) -> tuple[Ints, Ints]:
    """Per node from its start: the longest way to the end of any, and the same if it cost nothing itself."""
    rest = (network.end - network.start).tolist()
    spared = [0] * len(rest)
    overhead = network.overhead.tolist()
    order = np.argsort(-network.child, kind="stable")
    offset = (network.available - network.start[network.parent])[order].tolist()
    for parent, child, own in zip(network.parent[order].tolist(), network.child[order].tolist(), offset, strict=True):
        behind = overhead[child] + rest[child]
        if own + behind > rest[parent]:
            rest[parent] = own + behind
        if behind > spared[parent]:
            spared[parent] = behind
    return np.array(rest, np.int64), np.array(spared, np.int64)


def _greatest_over(count: int, low: NDArray[Any], high: NDArray[Any], value: NDArray[Any]) -> NDArray[np.int64]:
    """Per place the greatest value of the intervals [low, high] that hold it; NEVER of none."""
    held = high >= low
    low, high, value = low[held], high[held], value[held]
    best = np.full(count, NEVER)
    if not len(low):
        return best
    level = np.frexp((high - low + 1).astype(np.float64))[1] - 1
    widest = int(level.max())
    for power in range(widest, -1, -1):
        wide = 1 << power
        if power < widest:
            # What holds a stretch of twice the width from a place on holds the stretches from it and from its middle.
            pushed = best.copy()
            np.maximum(pushed[wide:], best[:-wide], out=pushed[wide:])
            best = pushed
        here = level == power
        np.maximum.at(best, low[here], value[here])
        np.maximum.at(best, high[here] - wide + 1, value[here])
    return best
