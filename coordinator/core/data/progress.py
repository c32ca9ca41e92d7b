"""Progress: what programs say of how far they are. The newest word counts; it is written now and then."""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import AttemptChanged, Decision, Put
from coordinator.core.data.events import AttemptProgress
from coordinator.core.policy import Policy
from coordinator.core.rows import Progress
from coordinator.core.state import ClusterState
from coordinator.core.work.attempts import addressed
from coordinator.core.work.live import is_live


def on_progress(state: ClusterState, event: AttemptProgress, policy: Policy, out: Decision) -> None:
    """Of rank 0: each rank may speak, one is shown. What was not launched has nobody who could say it."""
    attempt, theirs = addressed(state, event.conn_id, event.attempt_id, event.rank)
    if attempt is None or not theirs or attempt.row.token != event.token or not is_live(attempt) or event.rank:
        return
    if not attempt.row.ranks[0].launched:
        return
    before = attempt.row.progress
    told = Progress(at_ms=state.now_ms, fraction=event.fraction, values=event.values, text=event.text)
    if told.fraction is None and before is not None:
        told = replace(told, fraction=before.fraction)
    if attempt.paced is None and told.fraction is not None:
        attempt.paced = told.at_ms, told.fraction
    attempt.row = replace(attempt.row, progress=told)
    if state.now_ms - attempt.told_ms >= policy.progress_save_ms:
        attempt.told_ms = state.now_ms
        out.writes.append(Put(attempt.row))
    out.notes.append(AttemptChanged(row=attempt.row, tenant=attempt.tenant))
