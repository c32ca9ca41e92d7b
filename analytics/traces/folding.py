"""Many tasks of one name as one line: `train x128: 120 ok, 8 failed, p50 3.1 s, p95 4.0 s, worst #77`.

Tasks without a name are folded where they were made from the very same data: the branches of a fan-out.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from analytics.traces.columns import Ints
from analytics.traces.graph import Edges
from analytics.traces.model import Model
from analytics.traces.units import OUTCOMES
from coordinator.api_types.trace import Fold, Outcome

FOLDS_MAX = 1_000
"""The largest; the others are left out."""
_MIX = np.uint64(0x9E3779B97F4A7C15)
"""2^64 / the golden ratio: spreads what is multiplied by it over all bits."""


def folds(
    model: Model, names: Mapping[int, str], keys: Mapping[int, str], critical: NDArray[np.bool_]
) -> tuple[Fold, ...]:
    """In the order of their first start. A single task without a name is none. `names` and `keys` are by the number of
    the task in `model.ids`, `critical` is per attempt. O(n log n)."""
    units, tasks = model.work.units, model.work.tasks
    if not len(units):
        return ()
    codes, attempts = np.unique(units.task, return_counts=True)
    last = np.empty(len(model.ids), np.int64)
    last[units.task] = np.arange(len(units))
    on_path = np.zeros(len(model.ids), bool)
    on_path[units.task[critical]] = True
    group = _groups(model, codes, names)
    start, end = tasks.start[codes], tasks.end[codes]
    order = np.lexsort((codes, end - start, group))
    begin = np.flatnonzero(np.append(True, group[order][1:] != group[order][:-1]))
    size = np.diff(np.append(begin, len(order)))
    named = np.array([int(code) in names for code in codes[order[begin]].tolist()], bool)
    chosen = np.flatnonzero(named | (size > 1))
    chosen = chosen[np.lexsort((start[order[begin[chosen]]], -size[chosen]))][:FOLDS_MAX]
    outcome = units.outcome[last[codes]]
    made = []
    for one in chosen.tolist():
        rows = order[begin[one] : begin[one] + size[one]]
        counts = np.bincount(outcome[rows], minlength=len(OUTCOMES)).tolist()
        worst = int(codes[rows[-1]])
        members = np.sort(codes[rows])
        name = names.get(worst) or f"{_stem(model.ids[members[0]], model.ids[members[-1]])}*"
        made.append(
            _fold(
                name,
                {said: count for said, count in zip(OUTCOMES, counts, strict=True) if count},
                (end - start)[rows],
                model.ids[worst],
                keys.get(worst, ""),
                int(attempts[rows].sum()),
                int(on_path[codes[rows]].sum()),
                int(start[rows].min()),
                int(end[rows].max()),
            )
        )
    return tuple(sorted(made, key=lambda fold: (fold.start_ns, fold.name)))


def _groups(model: Model, codes: NDArray[np.int32], names: Mapping[int, str]) -> NDArray[np.uint64]:
    """Equal numbers for tasks of one name, and for those without one that have the same parents: the sum of these,
    each mixed to 64 bits."""
    number = {text: place for place, text in enumerate(sorted(set(names.values())))}
    edges: Edges = model.edges
    sums = np.zeros(len(model.ids), np.uint64)
    mixed = (edges.parent.astype(np.uint64) + np.uint64(1)) * _MIX
    np.add.at(sums, edges.child, mixed ^ (mixed >> np.uint64(29)))
    groups = sums[codes] | np.uint64(1 << 63)
    if number:
        of_code = np.full(len(model.ids), -1, np.int64)
        of_code[list(names)] = [number[text] for text in names.values()]
        named = of_code[codes] >= 0
        groups[named] = of_code[codes[named]].astype(np.uint64)
    return groups


def _fold(
    name: str,
    outcomes: dict[Outcome, int],
    lengths: Ints,
    worst: str,
    key: str,
    attempts: int,
    critical: int,
    start_ns: int,
    end_ns: int,
) -> Fold:
    """`lengths` rise."""
    p50, p95 = (_quantile(lengths, share) / 1e9 for share in (0.5, 0.95))
    said = ", ".join(f"{count} {outcome.value}" for outcome, count in outcomes.items())
    return Fold(
        name=name,
        count=len(lengths),
        outcomes={outcome.value: count for outcome, count in outcomes.items()},
        p50_seconds=p50,
        p95_seconds=p95,
        max_seconds=int(lengths[-1]) / 1e9,
        worst=worst,
        attempts=attempts,
        critical=critical,
        start_ns=start_ns,
        end_ns=end_ns,
        text=f"{name} x{len(lengths)}: {said}, p50 {p50:.3g} s, p95 {p95:.3g} s, worst #{key or worst}",
    )


def _stem(one: str, other: str) -> str:
    """What two ids begin with alike."""
    alike = 0
    while alike < min(len(one), len(other)) and one[alike] == other[alike]:
        alike += 1
    return one[:alike]


def _quantile(lengths: Ints, share: float) -> int:
    """Nearest rank: the smallest that at least this share is no longer than."""
    rank = -int(-share * len(lengths) // 1)
    return int(lengths[max(rank, 1) - 1])
