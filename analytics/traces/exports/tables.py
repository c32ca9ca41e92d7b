"""The page's tables: the same figures as the views of the command line, each cell a text, or a number to sort by and
its text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from coordinator.api_types.trace import IDLE, EventSummary, Profile, Segment
from coordinator.lengths import S, long, part

ROWS_MAX = 500
INFERRED = "~ was not recorded, it follows from the times alone"
Cell = str | int | tuple[float, str]
Column = tuple[str, bool]
"""A title, and whether it is a number."""


def took(length_ns: float) -> tuple[float, str]:
    """A length of time, sorted by itself."""
    return length_ns, long(length_ns)


def share(length_ns: float, of_ns: float) -> tuple[float, str]:
    return (length_ns / of_ns if of_ns else 0.0), part(length_ns, of_ns)


def because(segment: Segment) -> str:
    """What let its attempt go on, marked where no coordinator recorded that."""
    return f"~ {segment.cause}" if segment.inferred and segment.cause else segment.cause


def about(profile: Profile) -> str:
    path = profile.real_critical_path
    whole = long(path.makespan_ns)
    return f"{whole} from submission to end" if path.finished else f"{whole} so far: it still runs"


def facts(profile: Profile) -> list[tuple[str, str]]:
    used, counts = profile.usage, profile.counts
    found = [
        ("tasks", str(counts.tasks)),
        ("attempts", str(counts.attempts)),
        ("spans", str(counts.spans)),
        ("slots", str(used.slots)),
        ("useful", part(used.useful_ns, used.capacity_ns)),
    ]
    for name, number in (("retried", counts.retried), ("lost", counts.lost), ("failed spans", counts.failed),
                         ("without an end", counts.unfinished), ("rejected rows", counts.rejected)):  # fmt: skip
        if number:
            found.append((name, str(number)))
    return found


def tables(profile: Profile, numbers: dict[str, int]) -> list[dict[str, Any]]:
    """Those that have rows. `numbers` of tasks let the page find them in the timeline."""
    path, used = profile.real_critical_path, profile.usage
    zero, whole = path.start_ns, path.makespan_ns
    by_kind = sorted(path.by_kind.items(), key=lambda item: (-item[1], item[0]))
    longest = sorted(path.segments, key=lambda one: (one.start_ns - one.end_ns, one.start_ns))[:ROWS_MAX]
    found = [
        _table(
            "What the critical path consists of",
            (("kind", False), ("time", True), ("share", True)),
            ((kind.replace("_", " "), took(ns), share(ns, whole)) for kind, ns in by_kind if ns),
        ),
        _table(
            "Critical path",
            (("at", True), ("time", True), ("kind", False), ("task", False), ("try", True), ("provider", False),
             ("because of", False)),
            (
                (took(one.start_ns - zero), took(one.end_ns - one.start_ns), one.kind.replace("_", " "), one.task,
                 one.attempt or "", one.provider, because(one))
                for one in sorted(longest, key=lambda one: one.start_ns)
            ),
            [numbers.get(one.task, -1) for one in sorted(longest, key=lambda one: one.start_ns)],
            all_of=len(path.segments),
            which="longest",
            say=INFERRED if any(one.inferred for one in path.segments) else "",
        ),
        _table(
            "Drag: how much shorter it were if this cost nothing",
            (("task", False), ("drag", True), ("of the run", True), ("took", True)),
            ((one.task, took(one.drag_ns), share(one.drag_ns, whole), took(one.duration_ns)) for one in profile.drag),
            [numbers.get(one.task, -1) for one in profile.drag],
            all_of=len(profile.drag),
        ),
        _table(
            "What the slots were used for",
            (("what", False), ("slot time", True), ("share", True)),
            (
                (name, took(length_ns), share(length_ns, used.capacity_ns))
                for name, length_ns in (
                    ("useful", used.useful_ns), ("failed", used.failed_ns), ("lost", used.lost_ns),
                    ("cancelled", used.cancelled_ns), ("staging", used.staging_ns), ("not ended", used.unfinished_ns),
                    ("idle", used.idle_ns),
                    *((f"idle: {IDLE.get(why, why)}", length_ns) for why, length_ns in used.idle_why.items()),
                )
                if length_ns
            ),
        ),
        _table(
            "Tasks by name",
            (("name", False), ("tasks", True), ("ends", False), ("p50", True), ("p95", True), ("most", True),
             ("worst", False), ("on path", True)),
            (
                (one.name, one.count, ", ".join(f"{n} {what}" for what, n in one.outcomes.items() if n),
                 took(one.p50_seconds * S), took(one.p95_seconds * S), took(one.max_seconds * S), one.worst,
                 one.critical)
                for one in profile.folded
            ),
            [numbers.get(one.worst, -1) for one in profile.folded],
            all_of=len(profile.folded),
        ),
        _waits(profile, numbers),
        _events("Hardware", profile.e2e_breakdown.hardware_summary),
        _events("Network", profile.e2e_breakdown.network_summary),
    ]  # fmt: skip
    return [one for one in found if one["rows"]]


def _waits(profile: Profile, numbers: dict[str, int]) -> dict[str, Any]:
    waited = [one for one in profile.per_data_id if one.queuing_delay_seconds > 0]
    waited.sort(key=lambda one: (-one.queuing_delay_seconds, one.data_id))
    return _table(
        "Waiting once all data was there",
        (("task", False), ("waited", True), ("took", True), ("last parent", False)),
        (
            (one.data_id, took(one.queuing_delay_seconds * S), took(one.duration_seconds * S),
             one.blocking_parent_data_id or "")
            for one in waited
        ),
        [numbers.get(one.data_id, -1) for one in waited],
        all_of=len(waited),
    )  # fmt: skip


def _events(title: str, summary: EventSummary) -> dict[str, Any]:
    rows = zip(summary.event_type, summary.count, summary.total_seconds, summary.avg_seconds, summary.min_seconds,
               summary.max_seconds, strict=True)  # fmt: skip
    return _table(
        title,
        (("event", False), ("count", True), ("total", True), ("average", True), ("least", True), ("most", True)),
        (
            (name, count, *(took(seconds * S) for seconds in figures))
            for name, count, *figures in sorted(rows, key=lambda row: -row[2])
        ),
    )


def _table(
    title: str,
    columns: Sequence[Column],
    rows: Iterable[Sequence[Cell]],
    tasks: Sequence[int] = (),
    *,
    all_of: int = 0,
    which: str = "first",
    say: str = "",
) -> dict[str, Any]:
    shown = [row for row, _ in zip(rows, range(ROWS_MAX), strict=False)]
    some = f"the {which} {len(shown)} of {all_of}" if all_of > len(shown) else ""
    note = "; ".join(one for one in (some, say) if one)
    return {"title": title, "note": note, "columns": columns, "rows": shown, "tasks": list(tasks[: len(shown)])}
