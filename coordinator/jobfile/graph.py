"""The order of steps: each after those that it needs, otherwise as they stand in the file."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

from msgspec.structs import replace

from coordinator.core.work.jobspec import StepSpec
from coordinator.jobfile.problems import Problems, shown
from coordinator.jobfile.steps import Draft


def ordered(drafts: Sequence[Draft], problems: Problems) -> tuple[StepSpec, ...]:
    """The steps in their order, their needs as numbers. Unknown needs, double names and cycles are told."""
    by_name: dict[str, int] = {}
    for i, one in enumerate(drafts):
        if one.spec.name in by_name:
            problems.add(f"{one.path}.name", f"two steps are called {one.spec.name}", "give each a name of its own")
        by_name.setdefault(one.spec.name, i)
    needs: list[tuple[int, ...]] = []
    for one in drafts:
        known = []
        for need in one.needs:
            if need.value in by_name:
                known.append(by_name[need.value])
            else:
                near = problems.nearest(need.value, by_name)
                hint = f"did you mean {near}?" if near else f"there are: {', '.join(list(by_name)[:20])}"
                problems.add(need.path, f"there is no step {shown(need.value)}", hint)
        needs.append(tuple(dict.fromkeys(known)))
    order = _sorted(needs)
    if len(order) < len(drafts):
        circle = _circle(needs, set(range(len(drafts))) - set(order))
        said = " -> ".join(drafts[i].spec.name for i in circle)
        problems.add(
            f"{drafts[circle[0]].path}.needs", f"steps wait for each other: {said}", "one of them has to begin"
        )
        return ()
    place = {i: at for at, i in enumerate(order)}
    return tuple(replace(drafts[i].spec, needs=tuple(sorted(place[j] for j in needs[i]))) for i in order)


def _sorted(needs: Sequence[tuple[int, ...]]) -> list[int]:
    """Those that can begin some time, the earliest in the file first where there is a choice (Kahn's algorithm)."""
    left = [len(ones) for ones in needs]
    follow: list[list[int]] = [[] for _ in needs]
    for i, ones in enumerate(needs):
        for j in ones:
            follow[j].append(i)
    ready = [i for i, n in enumerate(left) if n == 0]
    order = []
    while ready:
        i = heapq.heappop(ready)
        order.append(i)
        for j in follow[i]:
            left[j] -= 1
            if left[j] == 0:
                heapq.heappush(ready, j)
    return order


def _circle(needs: Sequence[tuple[int, ...]], stuck: set[int]) -> list[int]:
    """One cycle among `stuck`, its first step again at its end: every one of them needs another one of them.

    a -> b reads: b waits for a."""
    walk: list[int] = []
    seen: dict[int, int] = {}
    at = min(stuck)
    while at not in seen:
        seen[at] = len(walk)
        walk.append(at)
        at = next(j for j in needs[at] if j in stuck)
    circle = walk[seen[at] :][::-1]
    first = circle.index(min(circle))
    turned = circle[first:] + circle[:first]
    return [*turned, turned[0]]
