"""First leases: tasks of one step that were never launched, of one node each, granted one after the other.

Most of what is ever granted is this. What is the same for all of them, and for all on one provider, is worked out once.
The rows are those that `leases.new_attempt` and `leases.grant` make of the same task; these serve all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from msgspec.structs import replace

from coordinator.core.amounts import Ask, Share
from coordinator.core.commands import Decision, FirstLeases, Grants, Send
from coordinator.core.ids import AttemptId, ConnId, Ms, ProviderId
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import add_share, lined_up, share_of
from coordinator.core.queue.causes import cause_of
from coordinator.core.queue.lines import fit_fresh, fit_step, has_room
from coordinator.core.rows import (
    AttemptRow,
    AttemptState,
    Choice,
    LeaseToken,
    RankRow,
    TaskRow,
    WorkState,
)
from coordinator.core.state import ClusterState
from coordinator.core.tenants.account import hold_more
from coordinator.core.work.endings import skip_doomed
from coordinator.core.work.leases import begin_work, connection, first_term_ms, rank_row
from coordinator.core.work.live import Attempt, Job, Line, Load, Step, Task
from coordinator.core.work.transitions import touch_step


class Spot(NamedTuple):
    """A provider, as it is for every grant that is made there."""

    who: ProviderId
    conn_id: ConnId | None
    load: Load
    share: Share
    ranks: tuple[RankRow, ...]
    why: str
    cause: str
    """What let those wait that are placed there."""
    ahead: bool = False
    """They stand in line there, and hold nothing until it is their turn."""


class Fresh:
    """Grants of one step within one Place. Between the first `give` and `close` nothing else may change the state."""

    def __init__(
        self, state: ClusterState, job: Job, step: Step, line: Line, ask: Ask, policy: Policy, out: Decision
    ) -> None:
        """All of them are given `ask`, and stood in `line`."""
        self._ask, self._line = ask, line
        self._state, self._job, self._step, self._policy, self._out = state, job, step, policy, out
        self._first = self._number = step.row.cursor
        self._term_ms: Ms = first_term_ms(state, step.spec, policy)
        self._ids: list[AttemptId] = []
        limit = step.spec.max_running
        self.left = step.spec.tasks - self._number
        """So many more may be given."""
        if limit is not None:
            self.left = min(self.left, limit - step.running)

    def at(self, who: ProviderId) -> Spot:
        """This provider, which has room for one more at least, and as many more as it is asked for here. GPUs are
        chosen for one alone."""
        state = self._state
        load = state.work.load_of(who)
        share = share_of(state.providers[who].offer, load, self._ask)
        assert share is not None, f"{who} has no room any more"
        return self._spot(who, load, share)

    def behind(self, who: ProviderId) -> Spot:
        """This provider, for those that stand in line there."""
        return self._spot(who, self._state.work.load_of(who), Share(ask=self._ask))._replace(ahead=True)

    def _spot(self, who: ProviderId, load: Load, share: Share) -> Spot:
        state = self._state
        cause = cause_of(state.work, self._line, self._step, None, (who,))
        return Spot(who, connection(state, who), load, share, (rank_row(state, who, share),), f"placed on {who}", cause)

    def room(self, at: Spot) -> int:
        """How many more fit there."""
        offer, load, ask = self._state.providers[at.who].offer, at.load, self._ask
        most = min(self.left, self._policy.attempts_per_provider_max - len(load.attempts))
        if ask.gpus:
            return min(most, 1)
        if ask.cpus:
            most = min(most, (offer.cpus - load.cpus) // ask.cpus)
        if ask.memory:
            most = min(most, (offer.memory - load.memory) // ask.memory)
        for name, amount in ask.named:
            most = min(most, (offer.named.get(name, 0) - load.named.get(name, 0)) // amount)
        return most

    def give(self, at: Spot, forecast: float, choices: Sequence[Choice]) -> None:
        """For each of these the next task gets its row, its first attempt and its lease there."""
        state, step, out, work = self._state, self._step, self._out, self._state.work
        job_id, step_number, number, tenant = step.row.job_id, step.row.step, self._number, self._job.row.tenant
        generation, now_ms = state.generation, state.now_ms
        _, conn_id, load, share, ranks, why, cause, ahead = at
        term_ms = self._term_ms
        attempts, held, ids, live = work.attempts, load.attempts, self._ids, step.tasks
        leases: list[tuple[AttemptId, LeaseToken]] = []
        renewed_ms, terms_ms = (now_ms,), (term_ms,)
        token_number, tasks, rows = work.next_token, [], []
        begins = number == self._first and WorkState.PENDING in (step.row.state, self._job.row.state)
        # What is different is put into one that is made whole: half the price of each.
        like = TaskRow(job_id=job_id, step=step_number, task=number, state=_STAGING, attempts=1, waits_for=cause)
        attempt_like = AttemptRow(
            job_id=job_id,
            step=step_number,
            task=number,
            attempt=1,
            state=_LEASED,
            created_at_ms=now_ms,
            ranks=ranks,
            term_ms=term_ms,
            reason=why,
            unblocked_by=cause,
            forecast=forecast,
            prefetched=ahead,
        )
        for choice in choices:
            token = LeaseToken(generation, token_number)
            token_number += 1
            task_row = replace(like, task=number)
            row = replace(attempt_like, task=number, token=token, choice=choice)
            tasks.append(task_row)
            rows.append(row)
            attempt_id = (job_id, step_number, number, 1)
            attempt = Attempt(row=row, renewed_ms=renewed_ms, terms_ms=terms_ms, granted_ms=now_ms, tenant=tenant)
            attempts[attempt_id] = attempt
            live[number] = Task(row=task_row, attempts=(attempt,), newest=token)
            held[attempt_id, 0] = tenant
            if ahead:
                load.behind[attempt_id, 0] = share
            leases.append((attempt_id, token))
            ids.append(attempt_id)
            number += 1
            if begins:  # its audit rows stand behind those of its first lease
                begins = False
                self._write(tasks, rows, [attempt_id])
                tasks, rows = [], []
                begin_work(state, self._job, step, out)
            if number in live:
                self.left = 0  # cancelled before its turn: `close` skips it
                break
        if tasks:
            self._write(tasks, rows, ids[len(ids) - len(rows) :])
        if conn_id is not None:
            out.sends.append(Send(conn_id, Grants(term_ms=term_ms, share=share, leases=leases, prefetched=ahead)))
        given = number - self._number
        work.next_token, self._number = token_number, number
        self.left = max(0, self.left - given)
        if ahead:
            lined_up(work, tenant, share, given)
        else:
            add_share(load, share, given)

    def _write(self, tasks: list[TaskRow], attempts: list[AttemptRow], ids: list[AttemptId]) -> None:
        state, work, out = self._state, self._state.work, self._out
        leases = FirstLeases(
            tenant=self._job.row.tenant,
            seq=work.next_audit,
            wall_ns=state.wall_ns,
            mono_ns=state.mono_ns,
            tasks=tasks,
            attempts=attempts,
            ids=ids,
        )
        work.next_audit = leases.last_seq + 1
        out.writes.append(leases)
        out.notes.append(leases)

    def close(self) -> int:
        """No more of it for now. How many were given."""
        state, step, work, job, given = self._state, self._step, self._state.work, self._job, len(self._ids)
        hold_more(work.accounts, job.row.tenant, job.row.job_id, self._ask, given)
        work.unanswered.update(dict.fromkeys(self._ids))
        work.wheel.put_all(self._ids, state.now_ms + self._policy.grant_ms)
        step.running += given
        touch_step(state, step, cursor=self._number)
        skip_doomed(state, job, step, self._out)
        if not has_room(step):
            fit_step(work, job, step)
        fit_fresh(work, job, step)
        return given


_STAGING, _LEASED = WorkState.STAGING, AttemptState.LEASED
