"""Two runs side by side: what the difference of their makespans consists of. Tasks are matched by name and matrix key,
those without a name by their id."""

from __future__ import annotations

from dataclasses import dataclass, field

from coordinator.api_types.trace import Profile
from coordinator.api_types.trace_comparison import ComparedKind, ComparedSide, ComparedTask, Comparison

TASKS_MAX = 10_000
"""Rows of the answer; those with the greatest differences."""


@dataclass(slots=True)
class _Side:
    start_ns: int = 2**63 - 1
    end_ns: int = 0
    attempts: int = 0
    path_ns: int = 0
    tasks: set[str] = field(default_factory=set)


def compare(a: Profile, b: Profile) -> Comparison:
    """Run b against run a."""
    left, right = _rows(a), _rows(b)
    tasks = []
    for name, key in sorted(left.keys() | right.keys()):
        one, other = left.get((name, key)), right.get((name, key))
        a_seconds = None if one is None else max(one.end_ns - one.start_ns, 0) / 1e9
        b_seconds = None if other is None else max(other.end_ns - other.start_ns, 0) / 1e9
        tasks.append(
            ComparedTask(
                name=name,
                key=key,
                a_seconds=a_seconds,
                b_seconds=b_seconds,
                delta_seconds=(b_seconds or 0.0) - (a_seconds or 0.0),
                a_path_seconds=one.path_ns / 1e9 if one is not None else 0.0,
                b_path_seconds=other.path_ns / 1e9 if other is not None else 0.0,
                a_attempts=one.attempts if one is not None else 0,
                b_attempts=other.attempts if other is not None else 0,
            )
        )
    tasks.sort(
        key=lambda task: (
            -abs(task.b_path_seconds - task.a_path_seconds),
            -abs(task.delta_seconds),
            task.name,
            task.key,
        )
    )
    a_kinds, b_kinds = a.real_critical_path.by_kind, b.real_critical_path.by_kind
    kinds = [
        ComparedKind(
            kind=kind,
            a_ns=a_kinds.get(kind, 0),
            b_ns=b_kinds.get(kind, 0),
            delta_ns=b_kinds.get(kind, 0) - a_kinds.get(kind, 0),
        )
        for kind in a_kinds.keys() | b_kinds.keys()
    ]
    kinds.sort(key=lambda kind: (-abs(kind.delta_ns), kind.kind))
    delta_ns = b.real_critical_path.makespan_ns - a.real_critical_path.makespan_ns
    return Comparison(
        a=_side(a),
        b=_side(b),
        delta_ns=delta_ns,
        delta_seconds=delta_ns / 1e9,
        kinds=tuple(kinds),
        tasks=tuple(tasks[:TASKS_MAX]),
        notes=tuple(_notes(a, b, left, right, len(tasks))),
    )


def _side(profile: Profile) -> ComparedSide:
    return ComparedSide(
        workflow_id=profile.workflow_id,
        makespan_ns=profile.real_critical_path.makespan_ns,
        tasks=len(profile.per_data_id),
        attempts=len(profile.attempts),
        slots=profile.usage.slots,
    )


def _rows(profile: Profile) -> dict[tuple[str, str], _Side]:
    names = {attempt.task: (attempt.name or attempt.task, attempt.key) for attempt in profile.attempts}
    rows: dict[tuple[str, str], _Side] = {}
    for attempt in profile.attempts:
        row = rows.setdefault(names[attempt.task], _Side())
        row.start_ns, row.end_ns = min(row.start_ns, attempt.start_ns), max(row.end_ns, attempt.end_ns)
        row.attempts += 1
        row.tasks.add(attempt.task)
        for merged in attempt.merged:
            rows.setdefault(names.setdefault(merged, (merged, "")), _Side()).tasks.add(merged)
    for segment in profile.real_critical_path.segments:
        if segment.task in names:
            rows[names[segment.task]].path_ns += segment.end_ns - segment.start_ns
    return rows


def _notes(
    a: Profile, b: Profile, left: dict[tuple[str, str], _Side], right: dict[tuple[str, str], _Side], rows: int
) -> list[str]:
    notes = []
    alone_a, alone_b = len(left.keys() - right.keys()), len(right.keys() - left.keys())
    if alone_a or alone_b:
        notes.append(f"tasks in the first run only: {alone_a}; in the second only: {alone_b}")
    if rows > TASKS_MAX:
        notes.append(f"{rows - TASKS_MAX} tasks with smaller differences are left out")
    for name, profile in (("first", a), ("second", b)):
        if not profile.real_critical_path.finished:
            notes.append(f"the {name} run has not ended: it is compared as far as it came")
        if profile.skew.violations:
            notes.append(f"the {name} run's clocks differ, see its own analysis")
    return notes
