"""The order of steps: each after those that it needs, otherwise as they stand in the file."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from coordinator.core.errors import CoordError
from coordinator.core.work.jobspec import Input, StepSpec
from coordinator.jobfile.inputs import FORMS, Wish, step_of, wished
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
    for i, one in enumerate(drafts):
        known = []
        for need in one.needs:
            if need.value in by_name:
                known.append(by_name[need.value])
            else:
                near = problems.nearest(need.value, by_name)
                hint = f"did you mean {near}?" if near else f"there are: {', '.join(list(by_name)[:20])}"
                problems.add(need.path, f"there is no step {shown(need.value)}", hint)
        known += [
            by_name[name]
            for wish in one.inputs
            if isinstance(wish, Wish) and (name := step_of(wish, by_name)) and by_name[name] != i
        ]
        needs.append(tuple(dict.fromkeys(known)))
    taken = [_taken(i, drafts, by_name, problems) for i in range(len(drafts))]
    order = _sorted(needs)
    if len(order) < len(drafts):
        circle = _circle(needs, set(range(len(drafts))) - set(order))
        said = " -> ".join(drafts[i].spec.name for i in circle)
        problems.add(
            f"{drafts[circle[0]].path}.needs", f"steps wait for each other: {said}", "one of them has to begin"
        )
        return ()
    place = {i: at for at, i in enumerate(order)}
    return tuple(
        replace(
            drafts[i].spec,
            needs=tuple(sorted(place[j] for j in needs[i])),
            inputs=tuple(one if one.step is None else replace(one, step=place[one.step]) for one in taken[i]),
        )
        for i in order
    )


def _taken(i: int, drafts: Sequence[Draft], by_name: Mapping[str, int], problems: Problems) -> tuple[Input, ...]:
    """The inputs of one step; those that are outputs name their step by its place in the file."""
    made = []
    for one in drafts[i].inputs:
        if isinstance(one, Input):
            made.append(one)
            continue
        name = step_of(one, by_name)
        if name is None:
            said = one.text.partition(":")[0]
            near = problems.nearest(said, by_name)
            hint = f"did you mean {near}?" if near else FORMS
            problems.add(one.path, f"there is no step {shown(said)}", hint)
        elif by_name[name] == i:
            problems.add(one.path, "a step cannot take outputs of its own", "name a step before it")
        elif not drafts[by_name[name]].spec.outputs:
            problems.add(one.path, f"step {name} declares no outputs", 'write outputs = ["*.parquet"] there')
        else:
            try:
                made.append(wished(one, by_name[name], name))
            except CoordError as error:
                problems.add(one.path, error.message, error.hint)
    return tuple(dict.fromkeys(made))


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
