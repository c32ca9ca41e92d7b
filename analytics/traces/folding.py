"""Many tasks of one name as one line: `train x128: 120 ok, 8 failed, p50 3.1 s, p95 4.0 s, worst #77`.

Tasks without a name are folded where they were made from the very same data: the branches of a fan-out.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from coordinator.api_trace import Fold, Outcome

FOLDS_MAX = 1_000
"""The largest; the others are left out."""


@dataclass(slots=True, frozen=True)
class Folded:
    """One task, as folding needs it."""

    task: str
    name: str
    key: str
    outcome: Outcome
    start_ns: int
    end_ns: int
    attempts: int
    critical: bool
    group: object
    """Tasks without a name that have this in common are one."""


def folds(tasks: Iterable[Folded]) -> tuple[Fold, ...]:
    """In the order of their first start. A single task without a name is none."""
    groups: dict[object, list[Folded]] = {}
    for task in tasks:
        groups.setdefault(task.name or (None, task.group), []).append(task)
    wanted = [group for group in groups.values() if group[0].name or len(group) > 1]
    wanted.sort(key=lambda group: (-len(group), group[0].start_ns, group[0].task))
    made = [_fold(group) for group in wanted[:FOLDS_MAX]]
    return tuple(sorted(made, key=lambda fold: (fold.start_ns, fold.name)))


def _fold(group: list[Folded]) -> Fold:
    group = sorted(group, key=lambda task: task.task)
    lengths = sorted(task.end_ns - task.start_ns for task in group)
    worst = max(group, key=lambda task: (task.end_ns - task.start_ns, task.task))
    outcomes: dict[str, int] = {}
    for outcome in Outcome:
        count = sum(task.outcome is outcome for task in group)
        if count:
            outcomes[outcome.value] = count
    name = group[0].name or f"{_stem(group[0].task, group[-1].task)}*"
    p50, p95 = (_quantile(lengths, share) / 1e9 for share in (0.5, 0.95))
    said = ", ".join(f"{count} {outcome}" for outcome, count in outcomes.items())
    return Fold(
        name=name,
        count=len(group),
        outcomes=outcomes,
        p50_seconds=p50,
        p95_seconds=p95,
        max_seconds=lengths[-1] / 1e9,
        worst=worst.task,
        attempts=sum(task.attempts for task in group),
        critical=sum(task.critical for task in group),
        start_ns=min(task.start_ns for task in group),
        end_ns=max(task.end_ns for task in group),
        text=f"{name} x{len(group)}: {said}, p50 {p50:.3g} s, p95 {p95:.3g} s, worst #{worst.key or worst.task}",
    )


def _stem(one: str, other: str) -> str:
    """What two ids begin with alike."""
    alike = 0
    while alike < min(len(one), len(other)) and one[alike] == other[alike]:
        alike += 1
    return one[:alike]


def _quantile(lengths: list[int], share: float) -> int:
    """Nearest rank: the smallest that at least this share is no longer than."""
    rank = -int(-share * len(lengths) // 1)
    return lengths[max(rank, 1) - 1]
