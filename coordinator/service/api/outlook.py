"""What is foreseen of work that runs, for display alone: how far it is, when it should end, what is saved of it."""

from __future__ import annotations

from itertools import chain, islice
from typing import NamedTuple

from coordinator.core.data.lasting import left_ms
from coordinator.core.data.saving import saved_to_ms
from coordinator.core.ids import JobId, Ms
from coordinator.core.rows import AttemptRow, Progress
from coordinator.core.state import ClusterState
from coordinator.core.work.live import Attempt, Job, is_live

TASKS_MAX = 1_000
"""Live tasks of a job that are looked at."""
COARSE_MS = Ms(30_000)
"""When one ended that nobody saw end is known to a few heartbeats: less than that is not said to be kept of it."""


class Outlook(NamedTuple):
    """Of a job, or of one attempt."""

    progress: float | None = None
    """0..1; None: nobody says."""
    ends_ms: Ms | None = None
    """When it should end, as fast as until now; None: nothing tells."""


NOTHING = Outlook()


def of_job(state: ClusterState, job_id: JobId) -> Outlook:
    """Of one that lives, over all of its tasks. Its end is told where none of them waits, and all tell theirs."""
    job = state.work.jobs.get(job_id)
    if job is None:
        return NOTHING
    told: list[float] = []
    ends: list[Ms | None] = []
    for task in islice(chain.from_iterable(step.tasks.values() for step in job.steps), TASKS_MAX):
        live = [attempt for attempt in task.attempts if is_live(attempt)]
        said = [attempt.row.progress.fraction for attempt in live if attempt.row.progress is not None]
        told += [fraction for fraction in said[-1:] if fraction is not None]
        ends += [ends_ms(state, attempt) for attempt in live[-1:]]
    known = [one for one in ends if one is not None]
    all_run = len(known) == len(ends) == job.row.tasks - _ended(job)
    progress = min(1.0, (job.row.completed + sum(told)) / job.row.tasks) if told else None
    return Outlook(progress, max(known) if all_run and known else None)


def _ended(job: Job) -> int:
    return job.row.completed + job.row.failed + job.row.cancelled


def ends_ms(state: ClusterState, attempt: Attempt) -> Ms | None:
    """When it should end, by what its program says of its progress."""
    left = left_ms(state, attempt)
    return state.now_ms + left if left is not None else None


class Standing(NamedTuple):
    """Of an attempt."""

    progress: Progress | None
    ends_ms: Ms | None
    saved_ms: Ms | None
    """Of what it did, or had done when it ended without a result: how much is in a checkpoint."""


def of_attempt(state: ClusterState, row: AttemptRow) -> Standing:
    """What its program said last, which is written now and then alone, and what follows from it."""
    attempt = state.work.attempts.get(row.attempt_id)
    if attempt is None or not is_live(attempt):
        return Standing(row.progress, None, _kept_ms(row))
    task, began_ms = state.work.task(row.task_id), attempt.row.started_at_ms
    saved_ms = None
    if task is not None and task.row.saved_ms is not None and began_ms is not None:
        saved_ms = saved_to_ms(task.row, began_ms) - began_ms
    return Standing(attempt.row.progress, ends_ms(state, attempt), saved_ms or None)


def _kept_ms(row: AttemptRow) -> Ms | None:
    """Of one that ended without a result: what it had done less what was lost with it."""
    if row.lost_ms is None or row.started_at_ms is None or row.ended_at_ms is None:
        return None
    told_ms = [rank.exit.ran_ms or rank.exit.lived_ms for rank in row.ranks if rank.exit is not None]
    if told_ms and len(told_ms) == len(row.ranks) and all(told_ms):
        done_ms = min(max(told_ms), row.ended_at_ms - row.started_at_ms)
        return max(0, done_ms - row.lost_ms) or None
    until_ms = row.ended_at_ms if row.doubted_at_ms is None else row.doubted_at_ms
    kept_ms = until_ms - row.started_at_ms - row.lost_ms
    return kept_ms if kept_ms >= COARSE_MS else None
