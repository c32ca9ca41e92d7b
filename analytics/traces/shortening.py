"""A profile of a large run as one answer: of every table that has a row a task the most important ones, and how many
were left out. The paths are never shortened: they are the answer, and sum to the whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from msgspec import structs

from coordinator.api_types.trace import DataEntry, EventSummary, Outcome, Profile

Row = TypeVar("Row")


def shortened(profile: Profile, rows_max: int) -> Profile:
    """Tasks of the real path first, then those of which an attempt came to nothing, then those that waited and took
    longest; each table stays in its own order. `left_out` has the rest by table. 0: all of it."""
    if not rows_max:
        return profile
    left_out: dict[str, int] = {}

    def kept(name: str, rows: Sequence[Row], importance: Callable[[Row], Any]) -> tuple[Row, ...]:
        """The smallest `importance` first; of equal ones those that come first."""
        if len(rows) <= rows_max:
            return tuple(rows)
        left_out[name] = len(rows) - rows_max
        chosen = sorted(range(len(rows)), key=lambda at: (importance(rows[at]), at))[:rows_max]
        return tuple(rows[at] for at in sorted(chosen))

    critical = {task for one in profile.attempts if one.critical for task in (one.task, *one.merged)}
    failed = {one.task for one in profile.attempts if one.outcome is not Outcome.OK}

    def of_task(one: DataEntry) -> tuple[bool, bool, float]:
        waited_s = one.queuing_delay_seconds + one.duration_seconds
        return one.data_id not in critical, one.data_id not in failed, -waited_s

    tasks = kept("per_data_id", profile.per_data_id, of_task)
    shown = {one.data_id for one in tasks}
    whole, path = profile.e2e_breakdown, profile.critical_path
    found = structs.replace(
        profile,
        per_data_id=tasks,
        data_ids=kept("data_ids", profile.data_ids, lambda one: one not in shown),
        attempts=kept(
            "attempts",
            profile.attempts,
            lambda one: (not one.critical, one.outcome is Outcome.OK, one.start_ns - one.end_ns),
        ),
        lineage=kept(
            "lineage",
            profile.lineage,
            lambda one: 2 - (one.data_id in shown) - (one.source_data_id in shown),
        ),
        assets=kept("assets", profile.assets, lambda one: one.latest_data_id not in shown),
        drag=kept("drag", profile.drag, lambda one: -one.drag_ns),
        folded=kept("folded", profile.folded, lambda one: (-one.critical, -one.count, -one.max_seconds)),
        path_inside=kept("path_inside", profile.path_inside, lambda one: -one.self_ns),
        e2e_breakdown=structs.replace(
            whole,
            hardware_summary=_types(whole.hardware_summary, rows_max),
            network_summary=_types(whole.network_summary, rows_max),
        ),
        critical_path=structs.replace(
            path,
            hardware_summary=_types(path.hardware_summary, rows_max),
            network_summary=_types(path.network_summary, rows_max),
        ),
    )
    types = sum(len(one.event_type) for one in (whole.hardware_summary, whole.network_summary))
    kept_types = (found.e2e_breakdown.hardware_summary, found.e2e_breakdown.network_summary)
    if types > (some := sum(len(one.event_type) for one in kept_types)):
        left_out["e2e_breakdown"] = types - some
    return structs.replace(found, left_out=left_out)


def _types(summary: EventSummary, rows_max: int) -> EventSummary:
    """The types with the greatest totals, in their order."""
    if len(summary.event_type) <= rows_max:
        return summary
    totals = summary.total_seconds
    rows = sorted(sorted(range(len(totals)), key=lambda at: (-totals[at], at))[:rows_max])
    columns = {name: tuple(getattr(summary, name)[at] for at in rows) for name in EventSummary.__struct_fields__}
    return EventSummary(**columns)
