"""Claims: an agent acts for a rank of an attempt. Only the current token counts, and only its own provider's."""

from __future__ import annotations

from typing import NamedTuple

from coordinator.core.data.events import Claim
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import dotted
from coordinator.core.rows import AttemptState
from coordinator.core.state import ClusterState
from coordinator.core.work.leases import home_of, may_revive
from coordinator.core.work.live import NO_TOKEN, Attempt, Job, Step, Task, is_live


class Claimed(NamedTuple):
    job: Job
    step: Step
    task: Task
    attempt: Attempt


def stale(claim: Claim) -> CoordError:
    """What is answered to a claim that does not count."""
    return CoordError(
        Code.STALE_TOKEN,
        f"attempt {dotted(claim.attempt_id)} is not yours under this token",
        "it was ended or given to another provider: stop it and forget what it wanted written",
    )


def _not_connected(claim: Claim) -> CoordError:
    return CoordError(
        Code.UNREACHABLE,
        f"{claim.provider_id} was lost, and has not connected again",
        "connect; then the attempt goes on, if nobody else was given its task meanwhile",
    )


def claimed(state: ClusterState, claim: Claim, *, reserved: bool = False) -> Claimed:
    """What this claim is for; CoordError(STALE_TOKEN) unless the attempt is live, was launched there, and the token is
    the current one. With `reserved` also of one that is only reserved, and has none.

    One that was given up and not replaced yet may go on when its agent has connected: until then UNREACHABLE.
    """
    attempt = state.work.attempts.get(claim.attempt_id)
    if attempt is None or not is_theirs(attempt, claim):
        raise stale(claim)
    if not is_live(attempt):
        raise _not_connected(claim) if may_revive(state, attempt) else stale(claim)
    rank = attempt.row.ranks[claim.rank]
    waits = attempt.row.state is AttemptState.RESERVED
    if waits != (claim.token == NO_TOKEN) or (waits and not reserved):
        raise stale(claim)
    home = home_of(state.work, attempt)
    if home is None or (not waits and (not rank.launched or rank.released or rank.exit is not None)):
        raise stale(claim)
    return Claimed(*home, attempt)


def still_wanted(state: ClusterState, claim: Claim) -> Claimed:
    """The same, of one whose work is still wanted: what is being cancelled saves and sends nothing more."""
    found = claimed(state, claim)
    if found.task.cancelling:
        raise stale(claim)
    return found


def is_theirs(attempt: Attempt, claim: Claim) -> bool:
    """The token is this attempt's, and the rank is on the provider that claims it."""
    row = attempt.row
    return (
        claim.token == row.token
        and 0 <= claim.rank < len(row.ranks)
        and row.ranks[claim.rank].provider_id == claim.provider_id
    )
