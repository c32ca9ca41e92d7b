"""Profiles for tests of views: a run with nothing in it, and what a test adds to that."""

from __future__ import annotations

from typing import Any

from coordinator.api_types.trace import (
    AttemptEntry,
    Breakdown,
    Counts,
    DataEntry,
    DataPath,
    EventSummary,
    LineageEntry,
    Outcome,
    Profile,
    RealCriticalPath,
    Segment,
    SegmentKind,
    Skew,
    Usage,
    WorkAndWall,
)

S = 1_000_000_000
BEGAN = 1_777_420_800 * S


def an_attempt(task: str, start_s: float, end_s: float, **more: Any) -> AttemptEntry:
    """One that went well, on `p1` unless it says otherwise. Seconds since the run began."""
    told: dict[str, Any] = {
        "attempt": 1, "provider": "p1", "slot": 0, "outcome": Outcome.OK, "cause": "submit", "inferred": False,
    }  # fmt: skip
    start_ns, end_ns = BEGAN + round(start_s * S), BEGAN + round(end_s * S)
    return AttemptEntry(task=task, start_ns=start_ns, end_ns=end_ns, **{**told, **more})


def a_segment(kind: SegmentKind, start_s: float, end_s: float, **more: Any) -> Segment:
    told: dict[str, Any] = {"task": "t", "attempt": 1, "provider": "p1", "cause": "submit"}
    return Segment(
        kind=kind, start_ns=BEGAN + round(start_s * S), end_ns=BEGAN + round(end_s * S), **{**told, **more}
    )  # fmt: skip


def a_path(*segments: Segment) -> RealCriticalPath:
    """The path that these tile."""
    by_kind: dict[str, int] = {}
    for one in segments:
        by_kind[one.kind] = by_kind.get(one.kind, 0) + one.end_ns - one.start_ns
    length_ns = sum(by_kind.values())
    return RealCriticalPath(
        makespan_seconds=length_ns / S, makespan_ns=length_ns, start_ns=BEGAN, end_ns=BEGAN + length_ns,
        segments=segments, by_kind=by_kind,
    )  # fmt: skip


def a_datum(task: str, *parents: str, waited_s: float = 0.0) -> DataEntry:
    """A task whose last parent is the last one named."""
    return DataEntry(
        data_id=task, start_time="2026-04-29T00:00:00Z", end_time="2026-04-29T00:00:01Z", duration_seconds=1.0,
        queuing_delay_seconds=waited_s, parent_data_ids=parents,
        blocking_parent_data_id=parents[-1] if parents else None,
    )  # fmt: skip


def an_edge(task: str, source: str) -> LineageEntry:
    return LineageEntry(data_id=task, source_data_id=source, created_at="")


def a_profile(**more: Any) -> Profile:
    """A run of which nothing is known, but for what is given."""
    nothing = EventSummary()
    told: dict[str, Any] = {
        "workflow_id": "7", "event_count": 0, "data_ids": (), "assets": (), "lineage": (),
        "e2e_breakdown": Breakdown(hardware_summary=nothing, network_summary=nothing, workflow_duration_seconds=0.0,
                                   total_network_seconds=0.0),
        "per_data_id": (), "critical_path": DataPath(), "real_critical_path": a_path(), "attempts": (), "drag": (),
        "usage": Usage(slots=0, slots_basis="seen", wall_ns=0, capacity_ns=0, useful_ns=0, failed_ns=0, lost_ns=0,
                       cancelled_ns=0, staging_ns=0, unfinished_ns=0, idle_ns=0, idle_why={}, useful_fraction=0.0),
        "skew": Skew(corrected=False, bound_ns=0, violations=0, worst_ns=0), "folded": (), "counts": Counts(),
        "work_and_wall": WorkAndWall(compute_work_seconds=0.0, compute_wall_seconds=0.0, network_work_seconds=0.0,
                                     network_wall_seconds=0.0),
    }  # fmt: skip
    return Profile(**{**told, **more})


def a_graph(*edges: tuple[str, str]) -> Profile:
    """Tasks and edges `(task, source)`; the source that is named last came last."""
    parents: dict[str, list[str]] = {}
    for task, source in edges:
        parents.setdefault(source, [])
        parents.setdefault(task, []).append(source)
    return a_profile(
        data_ids=tuple(sorted(parents)),
        lineage=tuple(an_edge(task, source) for task, source in edges),
        per_data_id=tuple(a_datum(task, *parents[task]) for task in sorted(parents)),
    )
