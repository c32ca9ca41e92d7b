"""Checkpoints: published under the current token, the last ones kept, damaged ones left out.

Numbers count up over all attempts of a task. A checkpoint is rank 0's; every rank restores it.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import audit
from coordinator.core.commands import Decision, Put, Reply
from coordinator.core.data.answers import CheckpointTaken
from coordinator.core.data.blobs import all_there, fade, find, refer
from coordinator.core.data.claims import Claimed, claimed, still_wanted
from coordinator.core.data.events import AttemptRestored, CheckpointDamaged, CheckpointPublished
from coordinator.core.data.outcomes import holder_of_checkpoint
from coordinator.core.data.rows import CheckpointRow, HoldRow
from coordinator.core.data.saving import drop_checkpoint, every_ms
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, dotted
from coordinator.core.plural import count as counted
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.core.work.transitions import put_attempt, put_task

MEAN_OF = 4
"""A new cost moves the mean by the fourth part, and counts as so many times the mean at most: what waited an hour for
the network cost no hour, and is not to be saved the more seldom for it."""
COST_LEAST_MS: Ms = 1_000
"""What the mean is taken for at least when it is said how much a new one may differ."""


def on_published(state: ClusterState, event: CheckpointPublished, policy: Policy, out: Decision) -> None:
    """One more, or the newest one again."""
    found = still_wanted(state, event.claim)
    _check(found, event, policy)
    job, step, task, attempt = found
    if event.manifest == task.row.manifest and task.row.checkpoint in task.row.checkpoints:
        row = _row(state, found, event, task.row.checkpoint)
    else:
        wanted = [(digest, None) for digest in event.digests]
        for blob in all_there(state, job.row.tenant, wanted, event.known):
            refer(state, blob, policy, out)
        row = _row(state, found, event, task.row.checkpoint + 1)
        _take(state, found, row, event, policy, out)
    next_ms = every_ms(state, attempt, task, step.spec, policy)
    out.replies.append(Reply(event.request_id, CheckpointTaken(row=row, next_ms=next_ms)))


def _check(found: Claimed, event: CheckpointPublished, policy: Policy) -> None:
    if found.step.spec.checkpoint is None or event.claim.rank:
        raise CoordError(
            Code.BAD_REQUEST, "only rank 0 of a step that says checkpoint takes some", "say checkpoint in the job file"
        )
    if event.manifest not in event.digests or len(set(event.digests)) != len(event.digests):
        raise CoordError(Code.BAD_REQUEST, "a checkpoint's digests are its manifest's and its files'", "each once")
    if event.files > policy.checkpoint_files_max or len(event.digests) > policy.checkpoint_files_max + 1:
        raise CoordError(
            Code.TOO_LARGE,
            f"a checkpoint of {event.files} files, {policy.checkpoint_files_max} are taken",
            "write fewer and larger ones",
        )


def _row(state: ClusterState, found: Claimed, event: CheckpointPublished, number: int) -> CheckpointRow:
    of, now = found.attempt.row, state.now_ms
    began_ms = of.started_at_ms if of.started_at_ms is not None else of.created_at_ms
    return CheckpointRow(
        job_id=of.job_id,
        step=of.step,
        task=of.task,
        number=number,
        attempt=of.attempt,
        tenant=found.job.row.tenant,
        taken_ms=min(max(now - event.age_ms, began_ms), now),
        published_ms=now,
        manifest=event.manifest,
        files=event.files,
        size=event.size,
        sent=event.sent,
        cost_ms=event.cost_ms,
        label=event.label,
    )


def _take(
    state: ClusterState, found: Claimed, row: CheckpointRow, event: CheckpointPublished, policy: Policy, out: Decision
) -> None:
    task, rule = found.task, found.step.spec.checkpoint
    assert rule is not None
    out.writes.append(Put(row))
    holder = holder_of_checkpoint(task.row.task_id, row.number)
    out.writes.append(Put(HoldRow(tenant=row.tenant, holder=holder, digests=tuple(sorted(event.digests)))))
    kept = (*task.row.checkpoints, row.number)
    for number in kept[: -max(1, rule.keep)]:
        drop_checkpoint(row.tenant, task.row.task_id, number, out)
    fresh = frozenset(event.digests)
    for known in event.let_go:
        blob = find(state, row.tenant, known.digest, known)
        if blob is not None and blob.digest not in fresh:
            fade(state, blob, policy, out)
    put_task(
        task,
        out,
        checkpoints=kept[-max(1, rule.keep) :],
        checkpoint=row.number,
        manifest=row.manifest,
        saved_ms=max(row.taken_ms, task.row.saved_ms or 0),
        checkpoint_cost_ms=_mean(task.row.checkpoint_cost_ms, min(row.cost_ms, policy.checkpoint_max_ms)),
    )
    _audit(state, found, row.number, "published", _in_words(row), out)


def _mean(before: Ms | None, cost_ms: Ms) -> Ms:
    if before is None:
        return cost_ms
    return before + (min(cost_ms, MEAN_OF * max(before, COST_LEAST_MS)) - before) // MEAN_OF


def _in_words(row: CheckpointRow) -> str:
    label = f"{row.label}: " if row.label else ""
    return f"{label}{counted(row.files, 'file')}, {counted(row.size, 'byte')}, {row.sent} of them sent"


def on_damaged(state: ClusterState, event: CheckpointDamaged, out: Decision) -> None:
    """It is not offered again, and nobody holds what is left of it. Again: nothing."""
    found = claimed(state, event.claim)
    task, number = found.task, event.number
    if number in task.row.checkpoints:
        row = event.known
        drop_checkpoint(found.job.row.tenant, task.row.task_id, number, out, row_too=False)
        if row is not None and (row.job_id, row.step, row.task, row.number) == (*task.row.task_id, number):
            out.writes.append(Put(replace(row, damaged=event.why[:200] or "it could not be restored")))
        left = tuple(n for n in task.row.checkpoints if n != number)
        put_task(task, out, checkpoints=left, saved_ms=task.row.saved_ms if left else None)
        _audit(state, found, number, "damaged", event.why, out)
    out.replies.append(Reply(event.request_id, None))


def on_restored(state: ClusterState, event: AttemptRestored, out: Decision) -> None:
    """From where this attempt begins. Said by every rank, told once."""
    found = claimed(state, event.claim)
    if event.number not in found.task.row.checkpoints:
        raise CoordError(
            Code.NOT_FOUND, f"checkpoint {event.number} of this task is not kept", "restore one that staging names"
        )
    if found.attempt.row.restored != event.number:
        put_attempt(found.attempt, out, restored=event.number)
        _audit(state, found, event.number, "restored", f"by attempt {dotted(event.claim.attempt_id)}", out)
    out.replies.append(Reply(event.request_id, None))


def _audit(state: ClusterState, found: Claimed, number: int, what: str, why: str, out: Decision) -> None:
    row = found.attempt.row
    audit.record(
        state,
        out,
        "checkpoint",
        f"{dotted(row.task_id)}.{number}",
        what,
        why=why,
        by=f"agent:{row.ranks[0].provider_id}",
        tenant=found.job.row.tenant,
        job_id=row.job_id,
        provider_id=row.ranks[0].provider_id,
    )
