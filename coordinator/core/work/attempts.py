"""The execution controller: what agents say of their attempts, and how an attempt ends.

Only the current token counts. What an agent says twice counts once.
"""

from __future__ import annotations

from msgspec.structs import replace

from coordinator.core.commands import Decision, Promised, Send, Settled, StopAttempt
from coordinator.core.data.outcomes import publish_result, withdraw_result
from coordinator.core.data.passing import pass_on
from coordinator.core.data.saving import drop_checkpoints, saved_to_ms
from coordinator.core.data.uploads import end_uploads
from coordinator.core.events import AgentGranted, AgentRefused, AttemptExited, AttemptPhase
from coordinator.core.ids import AttemptId, ConnId, Ms, ProviderId, dotted
from coordinator.core.policy import Policy
from coordinator.core.queue.capacity import take_turn
from coordinator.core.queue.lines import fit_step, fit_task, has_room
from coordinator.core.rows import AttemptRow, AttemptState, EndCause, ExitInfo, LeaseToken, WorkState
from coordinator.core.snapshot import Liveness
from coordinator.core.state import ClusterState
from coordinator.core.tenants import metering
from coordinator.core.tenants.account import hold_for, let_go
from coordinator.core.tenants.charging import charge_exit, charge_lost
from coordinator.core.verdict.asking import ask
from coordinator.core.work.endings import end_task, rank_freed, stop, take_back
from coordinator.core.work.leases import (
    drop_if_free,
    free_rank,
    has_not_begun,
    home_of,
    is_over,
    launch,
    may_revive,
    part,
    send_launch,
)
from coordinator.core.work.live import NO_TOKEN, Attempt, Job, Step, Task, is_live, with_rank, without
from coordinator.core.work.retries import (
    again,
    backoff_ms,
    blame_provider,
    exit_code_of,
    failed,
    lost,
    praise_provider,
    told,
    unstaged,
)
from coordinator.core.work.transitions import (
    audit_attempt,
    move_attempt,
    move_job,
    move_step,
    move_task,
    put_attempt,
    set_rank,
)

OWN_FAULTS = frozenset(
    {
        EndCause.EXITED,
        EndCause.SIGNALLED,
        EndCause.TIMEOUT,
        EndCause.OOM,
        EndCause.LOG_FULL,
        EndCause.STALLED,
        EndCause.OUTPUT,
        EndCause.START,
    }
)
"""Ends that are the program's own, not its agent's or ours."""
LASTED_MAX = 100
STAGED = "its inputs are being brought there"
UPLOADING = "its program has ended, its outputs are being sent"


def addressed(state: ClusterState, conn_id: ConnId, attempt_id: AttemptId, rank: int) -> tuple[Attempt | None, bool]:
    """The attempt that an agent speaks of, and whether that agent may: the rank is on its provider. Of one that is only
    reserved no agent was told: without a token there is nothing that it could prove."""
    provider = state.provider_of(conn_id)
    attempt = state.work.attempts.get(attempt_id)
    if attempt is None or provider is None or attempt.row.token == NO_TOKEN:
        return None, provider is not None
    ranks = attempt.row.ranks
    return attempt, rank < len(ranks) and ranks[rank].provider_id == provider.row.provider_id


# ---- grants


def on_granted(state: ClusterState, event: AgentGranted, policy: Policy, out: Decision) -> None:
    """The lease is held there. When all ranks hold theirs, they are told to launch."""
    attempt, theirs = addressed(state, event.conn_id, event.attempt_id, event.rank)
    if not theirs:
        return
    if attempt is None or attempt.row.token != event.token or not is_live(attempt):
        order = StopAttempt(attempt_id=event.attempt_id, token=event.token, why="its lease was taken back", grace_ms=0)
        out.sends.append(Send(event.conn_id, order))
        return
    acknowledge(state, attempt, event.rank, policy, out)


def acknowledge(state: ClusterState, attempt: Attempt, rank: int, policy: Policy, out: Decision) -> None:
    home = home_of(state.work, attempt)
    if home is None:
        return
    row = attempt.row.ranks[rank]
    if row.launched and not row.running and row.exit is None:
        send_launch(state, home[0], home[1], attempt, rank, policy, out)  # the order was lost
    if attempt.row.state is not AttemptState.LEASED or row.acked:
        return
    attempt.renewed_ms = with_rank(attempt.renewed_ms, rank, state.now_ms)
    ranks = attempt.row.ranks
    if len(ranks) == 1 or all(row.acked for number, row in enumerate(ranks) if number != rank):
        job, step, _ = home
        launch(state, job, step, attempt, policy, out)
        if not all(is_there(state, row.provider_id) for row in ranks):
            # After a full disk nobody has doubted it yet: the next tick does.
            state.work.wheel.put(attempt.row.attempt_id, state.now_ms)
    else:
        attempt.row = set_rank(attempt.row, rank, acked=True)
        put_attempt(attempt, out)


def is_there(state: ClusterState, provider_id: ProviderId) -> bool:
    provider = state.providers.get(provider_id)
    return provider is not None and provider.phase is Liveness.ONLINE


def on_refused(state: ClusterState, event: AgentRefused, policy: Policy, out: Decision) -> None:
    """The agent does not take it: nothing is held there. The task is tried again after a backoff."""
    attempt, theirs = addressed(state, event.conn_id, event.attempt_id, event.rank)
    if attempt is None or not theirs or attempt.row.token != event.token or attempt.row.ranks[event.rank].launched:
        return
    if not is_live(attempt):
        rank_freed(state, attempt, event.rank, out)
        return
    home = home_of(state.work, attempt)
    where = attempt.row.ranks[event.rank].provider_id
    free_rank(state, attempt, event.rank)
    why = f"refused by {where}: {event.why}"
    take_back(state, attempt, why, out)
    blame_provider(state, where, attempt.row.job_id, policy, out)
    if home is not None:
        job, step, task = home
        delay_ms = backoff_ms(step.spec.retry, task.row.attempts, dotted(attempt.row.attempt_id), policy)
        again(state, job, step, task, out, why=why, waits_for="backoff", delay_ms=delay_ms)


def unanswered(state: ClusterState, attempt: Attempt, why: str, out: Decision) -> None:
    """A grant that came to nothing: fenced, its task is free for another provider at once, and nobody is charged."""
    home = home_of(state.work, attempt)
    take_back(state, attempt, why, out)
    if home is not None:
        job, step, task = home
        again(state, job, step, task, out, why=why, waits_for=f"lease {dotted(attempt.row.attempt_id)}")


# ---- phases


def on_phase(state: ClusterState, event: AttemptPhase, policy: Policy, out: Decision) -> None:
    """It runs, it is frozen, or it runs again; or what it needs is brought, or what it made is sent. One that does not
    count any more is to be ended there."""
    attempt, theirs = addressed(state, event.conn_id, event.attempt_id, event.rank)
    if not theirs:
        return
    if attempt is None or attempt.row.token != event.token or not is_live(attempt):
        order = StopAttempt(attempt_id=event.attempt_id, token=event.token, why="its lease is not current", grace_ms=0)
        out.sends.append(Send(event.conn_id, order))
        return
    if attempt.row.ranks[event.rank].launched:
        take_phase(state, attempt, event.rank, event.phase, policy, out, event.ran_ms)


def take_phase(
    state: ClusterState, attempt: Attempt, rank: int, phase: str, policy: Policy, out: Decision, ran_ms: Ms = 0
) -> None:
    """What an agent says of a rank that was launched: `staging`, `running`, `frozen` or `uploading`. Of one in doubt it
    is noted only. Who uploads runs, for all that concerns its lease."""
    row = attempt.row
    by = f"agent:{row.ranks[rank].provider_id}"
    if phase == "staging":
        _is_staged(state, attempt, rank, out)
        return
    if not row.ranks[rank].running:
        attempt.row = row = set_rank(row, rank, running=True)
        _take_turn(state, attempt, rank)
        row = attempt.row
        if row.state is not AttemptState.STAGING or not runs(row):
            put_attempt(attempt, out)  # else it is written as it begins
    if row.state is AttemptState.STAGING and runs(row):
        begin(state, attempt, by, out, ran_ms)
    row = attempt.row
    if phase == "frozen":
        if row.state is AttemptState.RUNNING:
            move_attempt(state, attempt, AttemptState.FROZEN, out, why="frozen by its agent", by=by)
    elif row.state is AttemptState.FROZEN:
        move_attempt(state, attempt, AttemptState.RUNNING, out, why="thawed", by=by)
    row = attempt.row
    uploads = phase == "uploading" and row.state is AttemptState.RUNNING and row.ranks[rank].exit is None
    if uploads and row.reason != UPLOADING:
        put_attempt(attempt, out, reason=UPLOADING)


def _is_staged(state: ClusterState, attempt: Attempt, rank: int, out: Decision) -> None:
    """What it needs is being brought: that takes as long as it takes, and nobody is slow to begin."""
    row = attempt.row
    if row.state is not AttemptState.STAGING or row.ranks[rank].running or attempt.stopping:
        return
    state.work.wheel.drop(row.attempt_id)
    if row.reason != STAGED:
        put_attempt(attempt, out, reason=STAGED)


def _take_turn(state: ClusterState, attempt: Attempt, rank: int) -> None:
    """A prefetched one runs: it holds its share. Where the end of the one before it was not heard of, there is no room
    yet: it stays in line and is the next to hold some, and nothing else is placed there until then."""
    who = attempt.row.ranks[rank].provider_id
    provider = state.providers.get(who)
    if not attempt.row.prefetched or provider is None:
        return
    if take_turn(state.work, who, attempt.row.attempt_id, rank, provider.offer):
        attempt.row = replace(attempt.row, prefetched=False)


def runs(row: AttemptRow) -> bool:
    """All ranks run, or have."""
    return all(rank.running or rank.exit is not None for rank in row.ranks)


def begin(state: ClusterState, attempt: Attempt, by: str, out: Decision, ran_ms: Ms = 0) -> None:
    """All ranks run, the last one for so long. Whoever is RUNNING or FROZEN has begun: what it is charged counts from
    there."""
    began_ms = max(attempt.row.created_at_ms, state.now_ms - ran_ms)
    home = home_of(state.work, attempt)
    if not attempt.stopping:
        state.work.wheel.drop(attempt.row.attempt_id)
    attempt.row = turned(attempt)
    move_attempt(state, attempt, AttemptState.RUNNING, out, by=by, started_at_ms=began_ms)
    if home is None:
        return
    job, step, task = home
    metering.start(state.work.accounts, attempt.tenant, attempt.row, step.row.task_estimate)
    move_task(state, job, task, WorkState.RUNNING, out, by=by, started_at_ms=began_ms)
    _is_under_way(state, job, step, began_ms, out)
    watch_pace(state, step)


def turned(attempt: Attempt) -> AttemptRow:
    """Its row, with what gave it its turn where it was granted ahead: that is what it had waited for last."""
    row = attempt.row
    return replace(row, unblocked_by=attempt.turned_by) if attempt.turned_by not in ("", row.unblocked_by) else row


def _is_under_way(state: ClusterState, job: Job, step: Step, began_ms: Ms, out: Decision) -> None:
    """Something of this step runs: so do the step and the job."""
    if step.row.state is not WorkState.RUNNING:
        move_step(state, job, step, WorkState.RUNNING, out)
    if job.row.state is not WorkState.RUNNING:
        if job.row.started_at_ms is None and job.row.promised_at_ms is not None:
            out.notes.append(
                Promised(
                    job_id=job.row.job_id,
                    tenant=job.row.tenant,
                    promised_at_ms=job.row.promised_at_ms,
                    started_at_ms=began_ms,
                )
            )
        move_job(state, job, WorkState.RUNNING, out, started_at_ms=job.row.started_at_ms or began_ms)


def watch_pace(state: ClusterState, step: Step) -> None:
    """Have the step looked at for stragglers."""
    key = (step.row.job_id, step.row.step)
    if key not in state.work.wheel:
        state.work.wheel.put(key, state.now_ms + PACE_EVERY_MS)


PACE_EVERY_MS = 15_000
"""How often a running step is looked at for stragglers."""


# ---- ends


def on_exited(state: ClusterState, event: AttemptExited, policy: Policy, out: Decision) -> None:
    """The end of a rank. It counts once, and only under the token that is current; every report is answered."""
    attempt, theirs = addressed(state, event.conn_id, event.attempt_id, event.rank)
    if not theirs:
        return
    if attempt is not None:
        take_exit(state, attempt, event.rank, event.token, event.exit, policy, out)
    settled = Settled(attempt_id=event.attempt_id, rank=event.rank, token=event.token)
    out.sends.append(Send(event.conn_id, settled))


def take_exit(
    state: ClusterState,
    attempt: Attempt,
    rank: int,
    token: LeaseToken,
    exit: ExitInfo,
    policy: Policy,
    out: Decision,
) -> None:
    """An exit report of this rank, from whatever message it came."""
    row = attempt.row
    if row.ranks[rank].released and row.ranks[rank].exit is not None:
        return
    by = f"agent:{row.ranks[rank].provider_id}"
    if token != row.token:
        return
    if not is_live(attempt) and may_revive(state, attempt):
        revive(state, attempt, out, f"{row.ranks[rank].provider_id} came back with its end")
    if is_live(attempt):
        end_rank(state, attempt, rank, as_it_counts(state, attempt, rank, exit), by, policy, out)
        return
    attempt.row = set_rank(attempt.row, rank, exit=exit)
    if row.state is not AttemptState.TAKEN_BACK:
        audit_attempt(state, attempt, out, "late", row.state.value, f"{told(exit)}; set aside, it was fenced", by)
    rank_freed(state, attempt, rank, out)


def as_it_counts(state: ClusterState, attempt: Attempt, rank: int, exit: ExitInfo) -> ExitInfo:
    """A success without its declared result is none: its agent kept the result to itself."""
    home = home_of(state.work, attempt) if rank == 0 and is_success(exit) else None
    if home is None or not home[1].spec.outputs:
        return exit
    return replace(exit, cause=EndCause.AGENT, code=None, text="its outputs were not published")


def end_rank(
    state: ClusterState, attempt: Attempt, rank: int, exit: ExitInfo, by: str, policy: Policy, out: Decision
) -> None:
    """No process of this rank is left. One that failed ends the whole attempt."""
    _note_start(state, attempt, exit, out)
    charge_exit(state, attempt, rank, exit, out)
    free_rank(state, attempt, rank)
    attempt.row = set_rank(attempt.row, rank, exit=exit)
    if attempt.silent:
        attempt.silent -= {rank}
    attempt.shrinks = without(attempt.shrinks, rank)
    if finish(state, attempt, by, policy, out):
        return
    put_attempt(attempt, out)
    home = home_of(state.work, attempt)
    if home is not None and not is_success(exit) and not attempt.stopping:
        job, step, _ = home
        where = attempt.row.ranks[rank].provider_id
        stop(state, job, step, attempt, f"rank {rank} on {where}: {told(exit)}", out)


def _note_start(state: ClusterState, attempt: Attempt, exit: ExitInfo, out: Decision) -> None:
    """A short one may have ended before it was said to run: when it began follows from how long it ran."""
    row = attempt.row
    home = home_of(state.work, attempt)
    if row.started_at_ms is not None or len(row.ranks) > 1 or exit.cause not in OWN_FAULTS or home is None:
        return
    job, step, task = home
    began_ms = max(row.created_at_ms, state.now_ms - exit.ran_ms)
    attempt.row = replace(row, started_at_ms=began_ms)
    task.row = replace(task.row, started_at_ms=began_ms)
    _is_under_way(state, job, step, began_ms, out)


def is_success(exit: ExitInfo) -> bool:
    return exit.cause is EndCause.EXITED and exit.code == 0


def finish(state: ClusterState, attempt: Attempt, by: str, policy: Policy, out: Decision) -> bool:
    """End the attempt if nothing of it can be running any more."""
    if not all(is_over(state, attempt, rank) for rank in range(len(attempt.row.ranks))):
        return False
    home = home_of(state.work, attempt)
    assert home is not None, f"{dotted(attempt.row.attempt_id)} is live and its task is not"
    job, step, task = home
    part(state, attempt)
    exits = [row.exit for row in attempt.row.ranks]
    code = exit_code_of(exits[0]) if exits[0] is not None else None
    succeeded = all(exit is not None and is_success(exit) for exit in exits)
    if attempt.row.outputs:
        if succeeded:
            pass_on(state, job, step, attempt.row.outputs)
        publish_result(state, attempt, by, out) if succeeded else withdraw_result(attempt, out)
    if succeeded:
        _completed(state, job, step, task, attempt, by, policy, out)
    elif task.cancelling:
        why = attempt.stopping or "cancelled"
        _close(state, attempt, AttemptState.CANCELLED, why, by, out)
        end_task(state, job, step, task, WorkState.CANCELLED, out, why=why, by=by, exit_code=code)
    else:
        _unsuccessful(state, job, step, task, attempt, exits, by, policy, out)
    return True


def _unsuccessful(
    state: ClusterState,
    job: Job,
    step: Step,
    task: Task,
    attempt: Attempt,
    exits: list[ExitInfo | None],
    by: str,
    policy: Policy,
    out: Decision,
) -> None:
    """It failed by itself, or was lost: by the first rank whose end was its own. A prefetched one that never began is
    as if it had not been granted."""
    for rank, exit in enumerate(exits):
        if exit is not None and exit.cause in OWN_FAULTS and not is_success(exit):
            _close(state, attempt, AttemptState.FAILED, told(exit), by, out)
            failed(state, job, step, task, attempt, rank, exit, policy, out)
            return
    for rank, exit in enumerate(exits):
        if exit is not None and exit.cause is EndCause.STAGE:
            _close(state, attempt, AttemptState.LOST, told(exit), by, out)
            unstaged(state, job, step, task, attempt, rank, exit, policy, out)
            return
    why = _loss(attempt, exits)
    if has_not_begun(attempt) and all(row.released for row in attempt.row.ranks):
        _close(state, attempt, AttemptState.TAKEN_BACK, why, by, out)
        again(state, job, step, task, out, why=why, waits_for=f"lease {dotted(attempt.row.attempt_id)}")
        return
    _close(state, attempt, AttemptState.LOST, why, by, out)
    ask(state, job, step, task, attempt, policy, out)
    lost(state, job, step, task, attempt, why, policy, out)


def _loss(attempt: Attempt, exits: list[ExitInfo | None]) -> str:
    for rank, exit in enumerate(exits):
        where = attempt.row.ranks[rank].provider_id
        if exit is None:
            return f"{where} is silent and its lease is over"
        if not is_success(exit) and (exit.cause is not EndCause.STOPPED or not attempt.stopping):
            return f"{where}: {told(exit)}"
    return attempt.stopping or "lost"


def _close(state: ClusterState, attempt: Attempt, to: AttemptState, why: str, by: str, out: Decision) -> None:
    metered_ms, lost_ms = attempt.row.metered_ms, None
    if to is not AttemptState.COMPLETED:
        lost_ms = lost_work_ms(state, attempt)
    for rank, row in enumerate(attempt.row.ranks):
        if row.exit is None:
            metered_ms = charge_lost(state, attempt, rank, out) or metered_ms
        if row.orphaned or row.provider_id not in state.providers:  # nobody will ever say that it is free
            free_rank(state, attempt, rank)
    if attempt.row.attempt_id in state.data.by_attempt:
        end_uploads(state, attempt.row.attempt_id, out)
    silent = any(not row.released for row in attempt.row.ranks)
    attempt.row = turned(attempt)
    let_go(state.work.accounts, attempt.tenant, attempt.row)
    move_attempt(
        state,
        attempt,
        to,
        out,
        why=why,
        by=by,
        fenced=silent,
        ended_at_ms=state.now_ms,
        metered_ms=metered_ms,
        lost_ms=lost_ms,
    )
    state.work.wheel.drop(attempt.row.attempt_id)
    drop_if_free(state.work, attempt)


def last_ran_ms(state: ClusterState, attempt: Attempt, rank: int) -> Ms:
    """Until when a rank ran at most, as far as was heard of it."""
    rank_ms = attempt.unseen_ms.get(rank, attempt.renewed_ms[rank]) + state.interval_ms
    doubted_ms = attempt.row.doubted_at_ms
    return min(rank_ms, state.now_ms, doubted_ms if doubted_ms is not None else rank_ms)


def lost_work_ms(state: ClusterState, attempt: Attempt) -> Ms | None:
    """How much of what it did until its end no checkpoint has. None: it never began.

    The end of one that nobody saw end is that of its session: when it broke, or one interval after its last heartbeat;
    where it is known how long it outlived its agent, that counts.
    """
    began_ms = attempt.row.started_at_ms
    if began_ms is None:
        return None
    ended_ms = began_ms
    for rank, row in enumerate(attempt.row.ranks):
        ran_ms = row.exit.ran_ms or row.exit.lived_ms if row.exit is not None else 0
        if ran_ms:
            rank_ms = min(began_ms + ran_ms, state.now_ms)
        else:
            rank_ms = attempt.ended_by_ms.get(rank) or last_ran_ms(state, attempt, rank)
        ended_ms = max(ended_ms, rank_ms)
    task = state.work.task(attempt.row.task_id)
    return max(0, ended_ms - saved_to_ms(task.row if task is not None else None, began_ms))


def _completed(
    state: ClusterState, job: Job, step: Step, task: Task, attempt: Attempt, by: str, policy: Policy, out: Decision
) -> None:
    _close(state, attempt, AttemptState.COMPLETED, "", by, out)
    ask(state, job, step, task, attempt, policy, out)
    exit = attempt.row.ranks[0].exit
    assert exit is not None
    step.lasted_ms = [*step.lasted_ms[-(LASTED_MAX - 1) :], exit.ran_ms]
    for row in attempt.row.ranks:
        praise_provider(state, row.provider_id, out)
    if task.row.checkpoints:
        drop_checkpoints(attempt.tenant, task, out)
    end_task(state, job, step, task, WorkState.COMPLETED, out, by=by, exit_code=0)


def give_up(state: ClusterState, attempt: Attempt, why: str, policy: Policy, out: Decision) -> None:
    """It counts as lost, whether it runs or not: from now on its token is an old one."""
    home = home_of(state.work, attempt)
    assert home is not None
    job, step, task = home
    part(state, attempt)
    if attempt.row.outputs:
        withdraw_result(attempt, out)
    _close(state, attempt, AttemptState.LOST, why, "coord", out)
    ask(state, job, step, task, attempt, policy, out)
    lost(state, job, step, task, attempt, why, policy, out)


# ---- lost, and back before anybody else was given the task


def revive(state: ClusterState, attempt: Attempt, out: Decision, why: str) -> None:
    """It goes on as if it had been in doubt all the time. The loss is not charged."""
    work = state.work
    task = work.task(attempt.row.task_id)
    job = work.jobs[attempt.row.job_id]
    assert task is not None
    step = job.steps[attempt.row.step]
    for other in task.attempts:
        take_back(state, other, "not needed any more", out)
    task.attempts = (*task.attempts, attempt)
    charged = 0 if has_not_begun(attempt) else 1
    attempt.stopping = ""
    attempt.silent = frozenset()
    was_open = has_room(step)
    step.running += 1
    if task.row.task in step.retry:
        step.retry.remove(task.row.task)
    work.wheel.drop(task.row.task_id)
    task.row = replace(task.row, losses=max(0, task.row.losses - charged), not_before_ms=None)
    begun = attempt.row.started_at_ms is not None
    move_attempt(
        state,
        attempt,
        AttemptState.RUNNING if begun else AttemptState.STAGING,
        out,
        why=why,
        ended_at_ms=None,
        doubted_at_ms=None,
        lease_over_ms=None,
        lost_ms=None,
    )
    hold_for(work.accounts, attempt.tenant, attempt.row)
    metering.start(work.accounts, attempt.tenant, attempt.row, step.row.task_estimate)
    move_task(state, job, task, WorkState.RUNNING if begun else WorkState.STAGING, out, why=why)
    fit_task(state.work, job, step, task)
    if was_open and not has_room(step):
        fit_step(state.work, job, step)
