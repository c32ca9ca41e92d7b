"""What is known of the work besides its rows, carried over a rollback: renewals above all.

What agents said and a full disk undid they say again: grants and ends are repeated until they are answered.
"""

from __future__ import annotations

from collections.abc import Set

from msgspec.structs import replace

from coordinator.core.ids import JobId
from coordinator.core.queue.capacity import count_behind
from coordinator.core.queue.image import carry_queue
from coordinator.core.rows import AttemptState, TaskRow
from coordinator.core.state import ClusterState
from coordinator.core.tenants.account import counted, hold_for, let_go
from coordinator.core.tenants.charging import unseen_since
from coordinator.core.tenants.image import carry_accounts
from coordinator.core.work.live import Attempt, Job, Task, Work


def carry_work(old: Work, state: ClusterState, undone: Set[JobId] = frozenset()) -> None:
    """`state` was just loaded, its sessions are carried over: the leases go on as they were renewed. Numbers that were
    used are not used again.

    Of the jobs in `undone` rows were rolled back: how they ended is asked of the store.
    """
    fresh = state.work
    fresh.next_job_id = max(fresh.next_job_id, old.next_job_id)
    fresh.next_token = max(fresh.next_token, old.next_token)
    fresh.freed, fresh.looked_ms = dict(old.freed), old.looked_ms
    fresh.asked, fresh.faded_ms = dict(old.asked), old.faded_ms
    for attempt_id, attempt in fresh.attempts.items():
        _carry_attempt(state, old.attempts.get(attempt_id), attempt)
        for rank, row in enumerate(attempt.row.ranks):
            if not row.released:
                fresh.loads[row.provider_id].attempts[attempt_id, rank] = attempt.tenant
    count_behind(fresh)
    carry_accounts(old.accounts, fresh.accounts)
    for job_id, job in fresh.jobs.items():
        before = old.jobs.get(job_id)
        if before is not None:
            _carry_job(fresh, before, job)
    fresh.failures = {provider_id: list(failures) for provider_id, failures in old.failures.items()}
    fresh.recent = {
        job_id: row for job_id, row in old.recent.items() if job_id not in fresh.jobs and job_id not in undone
    }
    fresh.recent_keys = {key: job_id for key, job_id in old.recent_keys.items() if job_id in fresh.recent}
    carry_queue(old, fresh)
    fresh.ask_place()


def _carry_attempt(state: ClusterState, before: Attempt | None, attempt: Attempt) -> None:
    """One that ended here and not on the disk may be held by its agent still: its lease counts from now. That was
    nobody's sign of life."""
    ranks = range(len(attempt.row.ranks))
    if before is None or before.row.token != attempt.row.token:
        attempt.renewed_ms = tuple([state.now_ms for _ in ranks])
        attempt.unseen_ms = unseen_since(state, attempt, state.now_ms)
        attempt.granted_ms = state.now_ms
        return
    attempt.renewed_ms, attempt.unseen_ms = before.renewed_ms, before.unseen_ms
    attempt.ended_by_ms = before.ended_by_ms
    attempt.terms_ms = tuple([min(before.terms_ms[rank], attempt.row.term_ms) for rank in ranks])
    attempt.granted_ms = before.granted_ms
    attempt.told_ms, attempt.paced, attempt.turned_by = before.told_ms, before.paced, before.turned_by
    if before.row.progress is not None:
        attempt.row = replace(attempt.row, progress=before.row.progress)
    if attempt.row.state is AttemptState.IN_DOUBT:  # else the next tick doubts it again
        attempt.silent = before.silent
    if attempt.tenant != before.tenant and counted(attempt.row):
        let_go(state.work.accounts, attempt.tenant, attempt.row)
        hold_for(state.work.accounts, before.tenant, attempt.row)
    attempt.tenant = before.tenant


def _carry_job(fresh: Work, before: Job, job: Job) -> None:
    job.retried_ms, job.stormed, job.past = list(before.retried_ms), before.stormed, list(before.past)
    for old_step, step in zip(before.steps, job.steps, strict=True):
        step.lasted_ms = list(old_step.lasted_ms)
        step.unblocked_by, step.unblocked_ms = old_step.unblocked_by, old_step.unblocked_ms
        for number in step.retry:
            known = old_step.tasks.get(number)
            if known is not None:
                step.tasks[number].since_ms = known.since_ms
                _carry_wait(fresh, known.row, step.tasks[number])


def _carry_wait(work: Work, before: TaskRow, task: Task) -> None:
    """It waits for the same verdict and not for longer: a start may have cut that, and not durably."""
    row = task.row
    if row.judged is None or before.judged is None or row.judged.awaits is None:
        return
    was_ms, is_ms = before.not_before_ms, row.not_before_ms
    if row.judged.awaits == before.judged.awaits and was_ms is not None and is_ms is not None and was_ms < is_ms:
        task.row = replace(row, not_before_ms=was_ms)
        work.wheel.put(row.task_id, was_ms)
