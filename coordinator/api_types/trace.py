"""Structs of what is answered about a trace: where the time of a run went.

Times are integer nanoseconds, Unix time (`*_ns`); lengths also in seconds (`*_seconds`). The fields up to
`critical_path` are those of the analyzer that these traces come from, under its names; the others say what that one
left out. Cause strings are written as in `AuditRow.unblocked_by`, and `dependency TASK` and `merged TASK` beside them.
"""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct


class SegmentKind(StrEnum):
    """What a stretch of the real critical path was."""

    RUN = "run"
    """The program of an attempt that ended well, or still runs."""
    FAILED_RUN = "failed_run"
    """An attempt whose work came to nothing: it failed, and another one followed or none."""
    LOST_RUN = "lost_run"
    """An attempt that was lost with its provider, up to its last sign of life."""
    CANCELLED_RUN = "cancelled_run"
    STAGING = "staging"
    """Inputs were brought, the program was started."""
    UPLOAD = "upload"
    """The program had ended, its outputs were still brought."""
    DISPATCH = "dispatch"
    """All that it needed was there: deciding, leasing and telling the agent."""
    QUEUE = "queue"
    """It waited for a slot, and which attempt held it is not known."""
    LIMIT = "limit"
    """A quota, a budget or a job's own limit held it."""
    BACKOFF = "backoff"
    """A retry was held until its time."""
    LOST = "lost"
    """A provider was silent: doubt, and waiting for the end of the lease."""
    VERDICT = "verdict"
    """It waited for what its last attempt's log says."""
    PROVIDER = "provider"
    """It waited for a provider to come."""
    SETTLE = "settle"
    """The last work had ended, the job not yet."""
    UNKNOWN = "unknown"
    """Nothing that was recorded says what this was."""


class Outcome(StrEnum):
    """What became of an attempt."""

    OK = "ok"
    FAILED = "failed"
    LOST = "lost"
    CANCELLED = "cancelled"
    UNFINISHED = "unfinished"


class EventSummary(Struct, frozen=True, kw_only=True):
    """Columns of equal length, one row an event type, sorted by it. Totals are work: overlaps count twice."""

    event_type: tuple[str, ...] = ()
    count: tuple[int, ...] = ()
    total_seconds: tuple[float, ...] = ()
    avg_seconds: tuple[float, ...] = ()
    min_seconds: tuple[float, ...] = ()
    max_seconds: tuple[float, ...] = ()


class AssetEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One asset, by its newest version."""

    asset_guid: str
    latest_data_id: str
    latest_version: int
    user_id: str
    versions: int
    created_at: str


class LineageEntry(Struct, frozen=True, kw_only=True, gc=False):
    """`data_id` was made from `source_data_id`."""

    data_id: str
    source_data_id: str
    created_at: str


class Breakdown(Struct, frozen=True, kw_only=True):
    """From end to end. Network seconds are the union of the intervals."""

    hardware_summary: EventSummary
    network_summary: EventSummary
    workflow_duration_seconds: float
    total_network_seconds: float


class DataEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One task: from the start of its first attempt to the end of its last."""

    data_id: str
    start_time: str | None
    end_time: str | None
    """None: nothing of it has ended yet."""
    duration_seconds: float
    queuing_delay_seconds: float
    parent_data_ids: tuple[str, ...]
    blocking_parent_data_id: str | None


class ActiveWait(Struct, frozen=True, kw_only=True):
    """Columns of equal length, one row a task of the path. Their sums are `critical_path_seconds` together."""

    data_id: tuple[str, ...] = ()
    active_seconds: tuple[float, ...] = ()
    wait_seconds: tuple[float, ...] = ()


class DataPath(Struct, frozen=True, kw_only=True):
    """Back from the data that came last, each time to the parent whose data came last: dependencies alone."""

    path: tuple[str, ...] = ()
    critical_path_seconds: float = 0.0
    active_wait_breakdown: ActiveWait = ActiveWait()
    hardware_summary: EventSummary = EventSummary()
    network_summary: EventSummary = EventSummary()
    total_network_seconds: float = 0.0


class Segment(Struct, frozen=True, kw_only=True, gc=False):
    """A stretch of the real critical path. Ends where the next one starts."""

    start_ns: int
    end_ns: int
    kind: SegmentKind
    task: str
    """Empty: of the job as a whole."""
    attempt: int
    """0: of none."""
    provider: str
    cause: str
    """What let this attempt (of a wait: the one that waited) go on."""
    inferred: bool = False
    """The cause was not recorded: it follows from times alone."""


class PathStep(Struct, frozen=True, kw_only=True, gc=False):
    """A task on the real path, and what it had waited for last."""

    task: str
    attempt: int
    cause: str
    """`dependency`, `slot`, `submit`, `merged`, `retry`, or a word of `AuditRow.unblocked_by`."""
    from_task: str | None
    """Of which task; None: of none."""
    inferred: bool = False


class RealCriticalPath(Struct, frozen=True, kw_only=True):
    """From submission to the end, tiled: the segments' lengths sum to `makespan_ns` exactly."""

    makespan_seconds: float
    makespan_ns: int
    start_ns: int
    end_ns: int
    segments: tuple[Segment, ...]
    steps: tuple[PathStep, ...] = ()
    """In the order of time."""
    by_kind: dict[str, int] = {}
    """Nanoseconds of each kind of segment; they sum to `makespan_ns`."""
    finished: bool = True
    """False: it still ran, `end_ns` is when it was looked at."""


class AttemptEntry(Struct, frozen=True, kw_only=True, gc=False):
    """One try of a task, or of a merged batch of tasks."""

    task: str
    attempt: int
    provider: str
    slot: int
    """Which of its provider's lanes, from 0: never two at a time in one."""
    start_ns: int
    end_ns: int
    """Unfinished: when it was looked at."""
    outcome: Outcome
    cause: str
    inferred: bool
    merged: tuple[str, ...] = ()
    """Other tasks that it ran too."""
    critical: bool = False
    """It is on the real critical path."""
    name: str = ""
    """What people call it: of many with one name its key is beside it."""
    key: str = ""
    """Which of them: `lr=0.1`, or a number."""
    staged_ns: int | None = None
    """When its inputs were there and its program began, where that is known."""


class DragEntry(Struct, frozen=True, kw_only=True, gc=False):
    """How much shorter the run were, if this task cost nothing and all else kept its length and its order."""

    task: str
    drag_ns: int
    drag_seconds: float
    duration_ns: int


IDLE = {
    "before_first": "before the slot's first attempt",
    "no_ready_task": "no task was ready",
    "lost": "the next attempt's last machine was lost",
    "backoff": "the next attempt backed off",
    "dispatch": "the next task was ready, and not yet there",
    "after_last": "after the slot's last attempt",
    "never_used": "never used",
}
"""Why a slot was idle, as people are told."""


class Usage(Struct, frozen=True, kw_only=True):
    """wall x slots, in nanoseconds: useful + failed + lost + cancelled + staging + unfinished + idle."""

    slots: int
    slots_basis: str
    """`recorded`, or `seen`: as many as were ever busy at once on each provider."""
    wall_ns: int
    capacity_ns: int
    useful_ns: int
    failed_ns: int
    lost_ns: int
    cancelled_ns: int
    staging_ns: int
    unfinished_ns: int
    idle_ns: int
    idle_why: dict[str, int]
    """Nanoseconds by the keys of IDLE; they sum to `idle_ns`."""
    useful_fraction: float


class ClockOffset(Struct, frozen=True, kw_only=True):
    """How far a provider's clock is ahead: what was taken from its times, and within which bounds it must lie."""

    provider: str
    offset_ns: int
    low_ns: int
    high_ns: int
    basis: str
    """`heartbeats` (measured by its agent), `causes` (no task starts before the data that it needs)."""


class Skew(Struct, frozen=True, kw_only=True):
    """What is known of the clocks that took these times."""

    corrected: bool
    """Times were moved by the offsets below; False: they are as recorded."""
    bound_ns: int
    """No time of the analysis is farther from the truth than this, as far as the recorded causes tell."""
    violations: int
    """Tasks that seem to have started before the data they needed was there."""
    worst_ns: int
    """By how much at most."""
    offsets: tuple[ClockOffset, ...] = ()
    consistent: bool = True
    """False: no offsets explain all of it; clocks were stepped, or lineage is wrong."""


class Fold(Struct, frozen=True, kw_only=True, gc=False):
    """Tasks of one name together: `train x128: 120 ok, p50 3.1 s, p95 4.0 s, worst #77`."""

    name: str
    count: int
    outcomes: dict[str, int]
    """Of their last attempts."""
    p50_seconds: float
    p95_seconds: float
    max_seconds: float
    worst: str
    """The task that took longest."""
    attempts: int
    critical: int
    """How many of them are on the real path."""
    start_ns: int = 0
    """Of the first."""
    end_ns: int = 0
    """Of the last."""
    text: str = ""


class BadRow(Struct, frozen=True, kw_only=True):
    """A row that was left out, and why."""

    source: str
    """The file or upload."""
    line: int
    """From 1; of formats without lines: which span."""
    why: str


class Counts(Struct, frozen=True, kw_only=True):
    """How sound the material was."""

    tasks: int = 0
    """That have spans."""
    spans: int = 0
    """Different ones."""
    duplicates: int = 0
    """Rows that repeat a span, an asset or an edge; nothing counts twice."""
    unfinished: int = 0
    failed: int = 0
    orphans: int = 0
    """Their parent is not here."""
    roots: int = 0
    late_children: int = 0
    """They ended after their parent."""
    attempts: int = 0
    retried: int = 0
    """Tasks with more than one attempt."""
    cancelled: int = 0
    lost: int = 0
    without_task: int = 0
    """Spans that name no task, nor does one above them."""
    rejected: int = 0
    bad: tuple[BadRow, ...] = ()
    """The first of the rejected ones."""


class WorkAndWall(Struct, frozen=True, kw_only=True):
    """Work is the sum of lengths; wall is the union of the intervals: two that overlap for 3 s are 6 and 3."""

    compute_work_seconds: float
    compute_wall_seconds: float
    network_work_seconds: float
    network_wall_seconds: float


class InnerTime(Struct, frozen=True, kw_only=True):
    """What the program did while it was on the real path: time that no span further in explains."""

    name: str
    kind: str
    count: int
    self_ns: int


class Profile(Struct, frozen=True, kw_only=True):
    """All that is said about one run."""

    workflow_id: str
    event_count: int
    data_ids: tuple[str, ...]
    assets: tuple[AssetEntry, ...]
    lineage: tuple[LineageEntry, ...]
    e2e_breakdown: Breakdown
    per_data_id: tuple[DataEntry, ...]
    critical_path: DataPath
    real_critical_path: RealCriticalPath
    attempts: tuple[AttemptEntry, ...]
    """By (start, end, task, attempt)."""
    drag: tuple[DragEntry, ...]
    """Those above 0, the greatest first."""
    usage: Usage
    skew: Skew
    folded: tuple[Fold, ...]
    counts: Counts
    work_and_wall: WorkAndWall
    path_inside: tuple[InnerTime, ...] = ()
    """The greatest first; they sum to the run segments of the real path."""
    cycles: tuple[str, ...] = ()
    """`a -> b -> a`: edges that close one are left out."""
    notes: tuple[str, ...] = ()
    """What a reader must know to judge these figures, one sentence each."""
    left_out: dict[str, int] = {}
    """Of which table how many rows are not in this answer, the least important ones; empty: none."""
