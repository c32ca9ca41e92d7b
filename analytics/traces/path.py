"""The real critical path of a run of which there are spans alone: back from the end, each time to what was waited for.

O(length of the path), once the causes are known. Each cause lies in front of what it unblocked, in the order of
attempts, so the walk ends.
"""

from __future__ import annotations

from analytics.traces.causes import DEPENDENCY, NAMES, RETRY, SUBMIT, Causes
from analytics.traces.columns import Trace
from analytics.traces.tiling import Tiling
from analytics.traces.units import DONE, FAILED, OPEN, WAS_CANCELLED, WAS_LOST, Members, Work
from coordinator.api_types.trace import RealCriticalPath, SegmentKind

RUNS = {
    DONE: SegmentKind.RUN,
    FAILED: SegmentKind.FAILED_RUN,
    WAS_LOST: SegmentKind.LOST_RUN,
    WAS_CANCELLED: SegmentKind.CANCELLED_RUN,
    OPEN: SegmentKind.RUN,
}


def walked(
    trace: Trace, work: Work, causes: Causes, start_ns: int, end_ns: int, finished: bool
) -> tuple[RealCriticalPath, list[int]]:
    """The path from `start_ns` to `end_ns`, and the attempts on it, last first."""
    tiling = Tiling(start_ns, end_ns)
    units, ids = work.units, trace.data_ids
    way: list[int] = []
    if not len(units):
        return tiling.finish(finished), way
    own_parts = _own_parts(work.members, len(units))
    unit = _last(work)
    via = int(units.task[unit])
    tiling.lay(int(units.end[unit]), SegmentKind.SETTLE)
    while unit >= 0:
        way.append(unit)
        task, number = ids[int(units.task[unit])], int(units.number[unit])
        code = int(units.provider[unit])
        provider = trace.providers[code] if code >= 0 else ""
        kind, before, member = int(causes.kind[unit]), int(causes.unit[unit]), int(causes.via[unit])
        source = _source(trace, work, kind, before, member)
        cause = f"{NAMES[kind]} {source}" if source else NAMES[kind]
        if via != int(units.task[unit]):
            tiling.lay(
                max(own_parts.get((unit, via), int(units.end[unit])), int(units.start[unit])),
                SegmentKind.RUN,
                ids[via],
                number,
                provider,
                f"merged {task}",
                True,
            )
            tiling.step(ids[via], number, "merged", task, True)
        outcome = int(units.outcome[unit])
        if outcome == DONE:
            tiling.lay(int(units.closing[unit]), SegmentKind.UPLOAD, task, number, provider, cause, True)
        tiling.lay(int(units.staged[unit]), RUNS[outcome], task, number, provider, cause, True)
        tiling.lay(int(units.start[unit]), SegmentKind.STAGING, task, number, provider, cause, True)
        since = start_ns if kind == SUBMIT else int(causes.at[unit])
        waited = SegmentKind.BACKOFF if kind == RETRY else SegmentKind.DISPATCH
        tiling.lay(since, waited, task, number, provider, cause, True)
        from_task = None if before < 0 else ids[member if kind == DEPENDENCY else int(units.task[before])]
        tiling.step(task, number, NAMES[kind], from_task, True)
        unit, via = before, (member if kind == DEPENDENCY else int(units.task[before]))
    return tiling.finish(finished), way


def _last(work: Work) -> int:
    """The attempt that ended last; of several the one that started last, then the last task."""
    units = work.units
    ends = units.end == units.end.max()
    rows = ends.nonzero()[0]
    return int(rows[-1])


def _source(trace: Trace, work: Work, kind: int, before: int, member: int) -> str:
    if before < 0:
        return ""
    if kind == DEPENDENCY:
        return trace.data_ids[member]
    return f"{trace.data_ids[int(work.units.task[before])]}.{int(work.units.number[before])}"


def _own_parts(members: Members, units: int) -> dict[tuple[int, int], int]:
    """When a merged task's own part of its attempt began."""
    return dict(
        zip(
            zip(members.unit[units:].tolist(), members.task[units:].tolist(), strict=True),
            members.own[units:].tolist(),
            strict=True,
        )
    )
