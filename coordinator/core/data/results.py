"""Results: a task's outputs count once, with the end of the attempt that made them, under the current token.

The agent of rank 0 says both in one breath. Where other ranks of the attempt still run, its files wait in the attempt's
row until all are in; they are held all the while.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core import audit
from coordinator.core.commands import Decision, Put, Reply
from coordinator.core.data.answers import Published
from coordinator.core.data.blobs import all_there, refer
from coordinator.core.data.caches import also_cached
from coordinator.core.data.claims import is_theirs, stale
from coordinator.core.data.events import Claim, OutputsPublished
from coordinator.core.data.live import LATE_MAX, RESULTS_MAX, remember
from coordinator.core.data.outcomes import holder_of_result
from coordinator.core.data.rows import HoldRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import dotted
from coordinator.core.plural import count as counted
from coordinator.core.policy import Policy
from coordinator.core.state import ClusterState
from coordinator.core.work.attempts import end_rank, is_success, revive
from coordinator.core.work.leases import home_of, may_revive
from coordinator.core.work.live import Attempt, is_live


def on_outputs(state: ClusterState, event: OutputsPublished, policy: Policy, out: Decision) -> None:
    """The end of rank 0 and what it made: one decision."""
    claim = event.claim
    if _is_repeated(state, event):
        out.replies.append(Reply(event.request_id, Published(repeated=True)))
        return
    attempt = _current(state, claim)
    if attempt is None:
        _audit_late(state, event, out)
        out.replies.append(Reply(event.request_id, stale(claim)))
        return
    files = tuple(sorted(event.files, key=lambda entry: entry.path))
    _check(state, attempt, event, policy)
    tenant = attempt.tenant
    blobs = all_there(state, tenant, {(entry.digest, entry.size): None for entry in files}, event.known)
    by = f"agent:{claim.provider_id}"
    if not is_live(attempt):
        revive(state, attempt, out, f"{claim.provider_id} came back with its result")
    for blob in blobs:
        refer(state, blob, policy, out)
    digests = tuple(sorted({entry.digest for entry in files}))
    out.writes.append(Put(HoldRow(tenant=tenant, holder=holder_of_result(attempt.row.task_id), digests=digests)))
    attempt.row = replace(attempt.row, outputs=files)
    remember(state.data.results, claim.attempt_id, RESULTS_MAX)
    if event.cached:
        also_cached(state, state.providers[claim.provider_id], event.cached, policy)
    end_rank(state, attempt, claim.rank, event.exit, by, policy, out)
    out.replies.append(Reply(event.request_id, Published()))


def _is_repeated(state: ClusterState, event: OutputsPublished) -> bool:
    """It counted before: its answer was lost."""
    claim, attempt = event.claim, state.work.attempts.get(event.claim.attempt_id)
    if attempt is not None:
        ended = is_theirs(attempt, claim) and attempt.row.ranks[claim.rank].exit is not None
        return ended and (bool(attempt.row.outputs) or claim.attempt_id in state.data.results)
    if claim.attempt_id in state.data.results:
        return True
    row = event.published
    return row is not None and (row.job_id, row.step, row.task, row.attempt) == claim.attempt_id


def _current(state: ClusterState, claim: Claim) -> Attempt | None:
    """The attempt, if its token is the newest of its task: live, or given up and not replaced yet."""
    attempt = state.work.attempts.get(claim.attempt_id)
    if attempt is None or not is_theirs(attempt, claim) or home_of(state.work, attempt) is None:
        return None
    rank = attempt.row.ranks[claim.rank]
    if not rank.launched or rank.exit is not None or rank.released:
        return None
    return attempt if is_live(attempt) or may_revive(state, attempt) else None


def _check(state: ClusterState, attempt: Attempt, event: OutputsPublished, policy: Policy) -> None:
    home = home_of(state.work, attempt)
    assert home is not None
    _, step, _ = home
    if not step.spec.outputs or event.claim.rank:
        raise CoordError(Code.BAD_REQUEST, "only rank 0 of a step with outputs publishes some", "report its exit")
    if not is_success(event.exit):
        raise CoordError(Code.BAD_REQUEST, "outputs are those of a success", "report its exit alone")
    paths = {entry.path for entry in event.files}
    if not paths or len(paths) != len(event.files) or len(paths) > policy.outputs_max:
        raise CoordError(
            Code.BAD_REQUEST,
            f"{len(event.files)} files under {len(paths)} paths are no result",
            f"publish 1 to {policy.outputs_max} files, each under a path of its own",
        )


def _audit_late(state: ClusterState, event: OutputsPublished, out: Decision) -> None:
    """What a fenced attempt made is set aside: nobody holds its blobs. Told once of each attempt."""
    claim = event.claim
    attempt, job = state.work.attempts.get(claim.attempt_id), state.work.jobs.get(claim.attempt_id[0])
    tenant = attempt.tenant if attempt is not None else job.row.tenant if job is not None else None
    theirs = attempt is None or is_theirs(attempt, claim)
    if tenant is None or not theirs or claim.attempt_id in state.data.late:
        return
    remember(state.data.late, claim.attempt_id, LATE_MAX)
    audit.record(
        state,
        out,
        "attempt",
        dotted(claim.attempt_id),
        "late",
        why=f"its result of {counted(len(event.files), 'file')} is set aside: its task is another's, or over",
        by=f"agent:{claim.provider_id}",
        tenant=tenant,
        job_id=claim.attempt_id[0],
        provider_id=claim.provider_id,
    )
