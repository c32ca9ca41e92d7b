"""What the coordinator itself recorded of a run: when each attempt was given, began, ended, and what let it go on.

Made from stored rows (`recorded.py`); where there is one the analysis takes causes and the coordinator's clock from it,
and infers nothing. All times are integer nanoseconds of that one clock.
"""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.trace import ClockOffset, Outcome


class StepRecord(Struct, frozen=True, kw_only=True):
    """A step: a barrier between its tasks and those of the steps that need it."""

    step: str
    """`12.0`."""
    name: str
    needs: tuple[str, ...] = ()
    """Steps that must have ended before: `12.0`."""
    ended_ns: int | None = None


class TaskRecord(Struct, frozen=True, kw_only=True, gc=False):
    """A task: `12.0.7`."""

    task: str
    step: str
    key: str = ""
    """Its place in the matrix, as people write it: `lr=0.1`; of an array its number."""
    outcome: Outcome = Outcome.UNFINISHED
    ended_ns: int | None = None


class AttemptRecord(Struct, frozen=True, kw_only=True):
    """One attempt, and the times at which it went on. None: it never did, or has not yet."""

    task: str
    attempt: int
    """From 1."""
    providers: tuple[str, ...]
    """Of its ranks; the first is where it is drawn."""
    outcome: Outcome
    cause: str
    """`AuditRow.unblocked_by` of it: the last of all that had held it back. Empty: not known."""
    granted_ns: int
    """The lease was given."""
    staging_ns: int | None = None
    """Its agent had it."""
    started_ns: int | None = None
    """Its program ran (the last rank's)."""
    exited_ns: int | None = None
    """Its program ended; from then on its outputs were brought."""
    doubted_ns: int | None = None
    """Its provider fell silent: the last sign of life."""
    ended_ns: int | None = None
    """It held its slot no more; of one that was lost, when its lease was over."""
    ready_ns: int | None = None
    """Its own task asked for a place: from then on only slots, limits and providers held it. Of a retry after backing
    off: when that was over. None: as soon as what went before it had ended."""
    prefetched: bool = False
    """It was given ahead, and stood in line behind another at its provider."""
    reason: str = ""


class RunRecord(Struct, frozen=True, kw_only=True):
    """A job, from its submission to its end or to when it was looked at."""

    job_id: int
    name: str
    submitted_ns: int
    ended_ns: int | None
    looked_at_ns: int
    """The coordinator's clock when this was read; bounds what is unfinished."""
    outcome: Outcome
    steps: tuple[StepRecord, ...]
    tasks: tuple[TaskRecord, ...]
    attempts: tuple[AttemptRecord, ...]
    slots: int = 0
    """As many tasks as could have run at once on the providers that it ran on; 0: not known."""
    offsets: tuple[ClockOffset, ...] = ()
    """Of agents' clocks against the coordinator's, measured by heartbeats."""
