"""The view `lineage`: which task's data was made from which, each task once, however many ways lead to it."""

from __future__ import annotations

from collections.abc import Iterator

from cli import humane, terminal
from cli.traceviews.sheet import Sheet
from coordinator.api_types.trace import Profile

INDENT_MAX = 24
"""Steps to the right; what lies deeper stands no further right."""
SIBLINGS_MAX = 12
ALSO_MAX = 4


def show(profile: Profile, sheet: Sheet) -> None:
    """A tree in which a task stands below the parent whose data came last; its others are named beside it."""
    tree = Tree(profile)
    sheet.line(
        f"{humane.count(len(tree.nodes), 'task')}, {humane.count(len(profile.lineage), 'edge')}; each task once, below "
        "the parent whose data came last"
    )
    for cycle in profile.cycles:
        sheet.line(f"a cycle, broken where it closes: {cycle}")
    sheet.line()
    every = tree.lines(siblings=SIBLINGS_MAX if sheet.limit else 0, ascii_only=not sheet.blocks)
    for shown, (text, critical) in enumerate(every):
        if sheet.limit and shown >= sheet.limit * 5:
            sheet.line(f"... {len(tree.nodes)} tasks in all; --limit 0 has them")
            return
        cut = text if not sheet.tty or len(text) <= sheet.width else text[: sheet.width - 1] + "…"
        sheet.raw(sheet.painted(terminal.safe(cut), "1" if critical else ""))


class Tree:
    """Each task below one of its parents."""

    def __init__(self, profile: Profile) -> None:
        self._parents: dict[str, list[str]] = {}
        for edge in profile.lineage:
            self._parents.setdefault(edge.data_id, []).append(edge.source_data_id)
        last = {one.data_id: one.blocking_parent_data_id for one in profile.per_data_id}
        self.nodes = list(dict.fromkeys([*profile.data_ids, *(p for ps in self._parents.values() for p in ps),
                                         *self._parents]))  # fmt: skip
        self._below: dict[str | None, list[str]] = {}
        self._critical = {step.task for step in profile.real_critical_path.steps}
        chosen = {node: last.get(node) or next(iter(self._parents.get(node, ())), None) for node in self.nodes}
        for node in self._without_cycles(chosen):
            chosen[node] = None
        for node in self.nodes:
            self._below.setdefault(chosen[node], []).append(node)
        self._chosen = chosen
        names: dict[str, str] = {}
        for one in profile.attempts:
            if one.name and one.name != one.task:
                names.setdefault(one.task, f"{one.name} {one.key}".rstrip())
        self._names = names

    def _without_cycles(self, chosen: dict[str, str | None]) -> list[str]:
        """One task of each ring of chosen parents."""
        settled: set[str] = set()
        rings = []
        for first in self.nodes:
            walk: dict[str, None] = {}
            at: str | None = first
            while at is not None and at not in settled and at not in walk:
                walk[at] = None
                at = chosen.get(at)
            if at is not None and at in walk:
                rings.append(at)
            settled.update(walk)
        return rings

    def lines(self, *, siblings: int, ascii_only: bool) -> Iterator[tuple[str, bool]]:
        """Each line, and whether its task is on the critical path. An only child stands below its parent in the same
        column, so a chain stays one. `siblings`: no more of one parent; 0: all."""
        tee, corner, rail, down = ("|-", "`-", "| ", "|") if ascii_only else ("├─", "└─", "│ ", "↓")
        stack: list[tuple[str, str, str, bool]] = []

        def push(parent: str | None, ahead: str) -> None:
            below = self._below.get(parent, [])
            ranked = sorted(below, key=lambda one: (one not in self._critical, one not in self._below))
            kept = ranked[:siblings] if siblings and len(ranked) > siblings + 1 else ranked
            left = len(below) - len(kept)
            entries = []
            for child in kept:
                if parent is None:
                    entries.append((child, "", "", False))
                elif len(below) == 1:
                    entries.append((child, ahead, f"{down} ", False))
                else:
                    last = child is kept[-1] and not left
                    entries.append((child, ahead, f"{corner if last else tee} ", True))
            if left:
                entries.append(("", ahead, f"... {left} more{f' of {parent}' if parent else ''}", False))
            stack.extend(reversed(entries))

        push(None, "")
        while stack:
            node, ahead, mark, branches = stack.pop()
            if not node:
                yield ahead + mark, False
                continue
            yield ahead + mark + self._said(node), node in self._critical
            if not branches or len(ahead) >= 2 * INDENT_MAX:
                push(node, ahead)
            else:
                push(node, ahead + (f"{rail} " if mark.startswith(tee) else "   "))

    def _said(self, node: str) -> str:
        """The task, its name, and its other parents."""
        others = [one for one in self._parents.get(node, []) if one != self._chosen[node]]
        beside = f"  also from {', '.join(others[:ALSO_MAX])}" if others else ""
        if len(others) > ALSO_MAX:
            beside += f" and {len(others) - ALSO_MAX} more"
        name = self._names.get(node, "")
        return f"{node}{f'  {name}' if name else ''}{beside}"
