"""Many acknowledgements at once: what an agent holds of one step is launched together.

Most of what agents say is this. The rows, orders and appointments are those that `attempts.on_granted` makes of each by
itself, in the order in which they came; it serves whatever is not as it should be, or is not alike.
"""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from coordinator.core.commands import Decision, Launched, Launches, Send
from coordinator.core.events import AgentGranted, LeasesHeld
from coordinator.core.ids import AttemptId
from coordinator.core.policy import Policy
from coordinator.core.rows import AttemptRow, AttemptState, LeaseToken, RankRow
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState, Provider
from coordinator.core.work.attempts import on_granted
from coordinator.core.work.leases import HELD, launch_order, patience_ms
from coordinator.core.work.live import Attempt, Job, Step
from coordinator.core.work.transitions import answered


class _Alike(NamedTuple):
    """What attempts have in common that are launched together."""

    job: Job
    step: Step
    rank: RankRow
    prefetched: bool


def on_held(state: ClusterState, event: LeasesHeld, policy: Policy, out: Decision) -> None:
    """Each of them is held there."""
    provider = state.provider_of(event.conn_id)
    together: _Together | None = None
    for attempt_id, rank, token in event.held:
        attempt = state.work.attempts.get(attempt_id)
        row = attempt.row if attempt is not None else None
        if together is None or row is None or not together.takes(row):
            if together is not None:
                together.close()
            together = None
            alike = _alike(state, provider, row) if row is not None and provider is not None else None
            if alike is not None:
                together = _Together(state, event, alike, policy, out)
        if attempt is not None and together is not None and _is_offered(attempt.row, rank, token):
            together.add(attempt_id, attempt)
            continue
        if together is not None:
            together.close()
            together = None
        one = AgentGranted(at_ms=event.at_ms, conn_id=event.conn_id, attempt_id=attempt_id, rank=rank, token=token)
        on_granted(state, one, policy, out)
    if together is not None:
        together.close()


def _is_offered(row: AttemptRow, rank: int, token: LeaseToken) -> bool:
    """It waits for this very word."""
    return row.state is _LEASED and rank == 0 and row.token == token and not row.ranks[0].acked


_LEASED, _STAGING = AttemptState.LEASED, AttemptState.STAGING


def _alike(state: ClusterState, provider: Provider, row: AttemptRow) -> _Alike | None:
    """What may be launched together with this one; None: it goes its own way. Who keeps checkpoints is told which, and
    who is not there any more is doubted with the next tick."""
    job = state.work.jobs.get(row.job_id)
    ranks = row.ranks
    if job is None or len(ranks) != 1 or ranks[0].provider_id != provider.row.provider_id:
        return None
    step = job.steps[row.step]
    if row.task not in step.tasks or step.spec.checkpoint is not None or provider.phase is not Liveness.ONLINE:
        return None
    return _Alike(job, step, ranks[0], row.prefetched)


class _Together:
    """Attempts that are launched together: until `close` nothing else may change the state."""

    def __init__(self, state: ClusterState, event: LeasesHeld, alike: _Alike, policy: Policy, out: Decision) -> None:
        self._state, self._event, self._alike, self._policy, self._out = state, event, alike, policy, out
        self._job_id, self._number, self._tasks = alike.job.row.job_id, alike.step.row.step, alike.step.tasks
        self._seen: tuple[RankRow, ...] | None = None
        self._ranks = (replace(alike.rank, acked=True, launched=True),)
        self._renewed_ms = (state.now_ms,)
        self._rows: list[AttemptRow] = []
        self._first: Attempt | None = None
        self._leases: list[tuple[AttemptId, LeaseToken]] = []

    def takes(self, row: AttemptRow) -> bool:
        """Whether this one is alike: of the same step, with an equal rank."""
        ranks = row.ranks
        return (
            row.job_id == self._job_id
            and row.step == self._number
            and (ranks is self._seen or self._has_its(ranks))
            and row.prefetched is self._alike.prefetched
            and row.task in self._tasks
        )

    def _has_its(self, ranks: tuple[RankRow, ...]) -> bool:
        if len(ranks) != 1 or ranks[0] != self._alike.rank:
            return False
        self._seen = ranks  # those of leases that were given together are one object
        return True

    def add(self, attempt_id: AttemptId, attempt: Attempt) -> None:
        row = attempt.row = replace(attempt.row, state=_STAGING, reason=HELD, ranks=self._ranks)
        attempt.renewed_ms = self._renewed_ms
        self._first = self._first or attempt
        self._rows.append(row)
        self._leases.append((attempt_id, row.token))

    def close(self) -> None:
        """Write, order and remember: no more come to it."""
        if self._first is None:
            return
        state, work, out = self._state, self._state.work, self._out
        ids = [attempt_id for attempt_id, _ in self._leases]
        job, step, _, prefetched = self._alike
        answered(work, ids)
        launched = Launched(
            tenant=job.row.tenant,
            seq=work.next_audit,
            wall_ns=state.wall_ns,
            mono_ns=state.mono_ns,
            attempts=self._rows,
            ids=ids,
        )
        work.next_audit = launched.last_seq + 1
        out.writes.append(launched)
        out.notes.append(launched)
        order = launch_order(state, job, step, self._first, 0, self._policy)
        out.sends.append(Send(self._event.conn_id, Launches(like=order, leases=self._leases)))
        work.wheel.put_all(ids, state.now_ms + patience_ms(prefetched, self._policy))
