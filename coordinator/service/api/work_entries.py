"""Rows of work as the structs of answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from coordinator.api_types.happenings import EventEntry
from coordinator.api_types.why import Obstacle, StepWhy
from coordinator.api_types.work import (
    AttemptEntry,
    AvoidedEntry,
    ChoiceEntry,
    Counts,
    ExitEntry,
    JobEntry,
    ProgressEntry,
    RankEntry,
    StepEntry,
    TaskEntry,
    VerdictBrief,
)
from coordinator.core import commands
from coordinator.core.amounts import UNIT, decimal_text
from coordinator.core.ids import Ms, dotted
from coordinator.core.rows import AttemptRow, AuditRow, Choice, ExitInfo, JobRow, Progress, StepRow, TaskRow, WorkState
from coordinator.core.work.jobspec import JobSpec, StepSpec, task_values
from coordinator.jobfile.describe import ask_text, command_of, settings_of
from coordinator.service.api.outlook import NOTHING, Outlook, Standing
from coordinator.timetext import optional_text, to_text


def job_entry(row: JobRow, running: int, outlook: Outlook = NOTHING) -> JobEntry:
    """One job; `running` of its tasks run, and are so far."""
    return JobEntry(
        job_id=row.job_id,
        tenant=row.tenant,
        name=row.name,
        state=row.state.value,
        reason=row.reason,
        submitted_at=to_text(row.submitted_at_ms),
        started_at=optional_text(row.started_at_ms),
        ended_at=optional_text(row.ended_at_ms),
        submitted_by=row.by,
        cancelling=row.cancelling,
        retries=row.retries,
        counts=_counts(row.tasks, running, row.completed, row.failed, row.cancelled),
        priority=row.priority,
        estimate=row.estimate,
        estimate_text=decimal_text(row.estimate),
        cost=row.cost,
        cost_text=decimal_text(row.cost),
        promised_at=optional_text(row.promised_at_ms),
        progress=outlook.progress,
        eta=optional_text(outlook.ends_ms),
    )


def _counts(tasks: int, running: int, completed: int, failed: int, cancelled: int) -> Counts:
    """What runs is counted elsewhere than what has ended: it never makes the sum wrong."""
    left = max(0, tasks - completed - failed - cancelled)
    running = min(running, left)
    return Counts(
        tasks=tasks,
        waiting=left - running,
        running=running,
        completed=completed,
        failed=failed,
        cancelled=cancelled,
    )


def step_entry(row: StepRow, spec: JobSpec, running: int) -> StepEntry:
    step = spec.steps[row.step]
    return StepEntry(
        step=row.step,
        name=step.name,
        state=row.state.value,
        reason=row.reason,
        needs=tuple(spec.steps[i].name for i in step.needs),
        when=step.when.value,
        nodes=step.nodes,
        counts=_counts(step.tasks, running, row.completed, row.failed, row.cancelled),
        resources=tuple(map(ask_text, step.asks)),
        command=command_of(step, 0),
        settings=settings_of(step),
    )


def unbegun_step(job: JobRow, number: int, spec: JobSpec) -> StepEntry:
    """A step that has no row yet."""
    return step_entry(StepRow(job_id=job.job_id, step=number, state=WorkState.PENDING), spec, 0)


def task_entry(row: TaskRow, step: StepSpec, tries: Sequence[AttemptEntry], now_ms: Ms) -> TaskEntry:
    return TaskEntry(
        task=dotted(row.task_id),
        step=step.name,
        number=row.task,
        values=task_values(step, row.task),
        state=row.state.value,
        reason=row.reason,
        attempts=row.attempts,
        failures=row.failures,
        losses=row.losses,
        not_before=optional_text(row.not_before_ms),
        failed_on=row.failed_on,
        straggler=row.straggler,
        started_at=optional_text(row.started_at_ms),
        ended_at=optional_text(row.ended_at_ms),
        exit_code=row.exit_code,
        waits_for=row.waits_for,
        tries=tuple(tries),
        avoids=_avoids(row, now_ms),
    )


def _avoids(row: TaskRow, now_ms: Ms) -> tuple[AvoidedEntry, ...]:
    """Where a task is not to go, oldest first."""
    return tuple(
        AvoidedEntry(
            provider_id=one.provider_id,
            at=to_text(one.at_ms),
            until=to_text(one.until_ms) if one.until_ms > now_ms else None,
            why=one.why,
        )
        for one in (row.judged.avoid if row.judged is not None else ())
    )


def attempt_entry(row: AttemptRow, standing: Standing, verdict: VerdictBrief | None = None) -> AttemptEntry:
    return AttemptEntry(
        attempt=dotted(row.attempt_id),
        number=row.attempt,
        state=row.state.value,
        reason=row.reason,
        created_at=to_text(row.created_at_ms),
        started_at=optional_text(row.started_at_ms),
        ended_at=optional_text(row.ended_at_ms),
        doubted_at=optional_text(row.doubted_at_ms),
        lease_over_at=optional_text(row.lease_over_ms),
        unblocked_by=row.unblocked_by,
        forecast=row.forecast,
        ranks=tuple(
            RankEntry(
                rank=number,
                provider_id=rank.provider_id,
                cpus=rank.share.ask.cpus / UNIT,
                memory=rank.share.ask.memory,
                gpus=tuple(index for index, _ in rank.share.gpus),
                launched=rank.launched,
                running=rank.running,
                released=rank.released,
                exit=_exit(rank.exit) if rank.exit is not None else None,
            )
            for number, rank in enumerate(row.ranks)
        ),
        choice=_choice(row.choice) if row.choice is not None else None,
        prefetched=row.prefetched,
        restored=row.restored,
        progress=_progress(standing.progress) if standing.progress is not None else None,
        eta=optional_text(standing.ends_ms),
        saved_ms=standing.saved_ms,
        lost_ms=row.lost_ms,
        verdict=verdict,
    )


def _progress(told: Progress) -> ProgressEntry:
    return ProgressEntry(at=to_text(told.at_ms), fraction=told.fraction, values=dict(told.values), text=told.text)


def _choice(choice: Choice) -> ChoiceEntry:
    return ChoiceEntry(
        among=choice.among,
        run_ms=choice.run_ms,
        loss_ms=choice.loss_ms,
        fit=choice.fit,
        basis=choice.basis,
        backfilled=choice.backfilled,
        fetch=choice.fetch,
    )


def _exit(info: ExitInfo) -> ExitEntry:
    return ExitEntry(
        cause=info.cause.value,
        code=info.code,
        signal=info.signal,
        text=info.text,
        ran_seconds=info.ran_ms / 1_000,
        out_bytes=info.out_bytes,
        err_bytes=info.err_bytes,
        dropped_bytes=info.dropped_bytes,
        memory_max=info.memory_max,
        cpu_seconds=info.cpu_ms / 1_000,
    )


def step_why(found: commands.StepExplanation) -> StepWhy:
    return StepWhy(
        step=found.step,
        name=found.name,
        tasks=found.tasks,
        waiting=found.waiting,
        running=found.running,
        verdict=found.verdict,
        text=found.text,
        hint=found.hint,
        able_now=found.able_now,
        able_ever=found.able_ever,
        eta=optional_text(found.eta_ms),
        obstacles=tuple(
            Obstacle(constraint=one.constraint, providers=one.providers, text=one.text, ever=one.ever)
            for one in found.obstacles
        ),
        ahead=found.ahead,
    )


def ended_why(row: StepRow, step: StepSpec) -> StepWhy:
    """A step of a job that has ended."""
    return StepWhy(
        step=row.step,
        name=step.name,
        tasks=step.tasks,
        waiting=0,
        running=0,
        verdict="ended",
        text=row.reason or row.state.value,
        hint="",
        able_now=0,
        able_ever=0,
        eta=None,
        obstacles=(),
    )


def event_entry(row: AuditRow) -> EventEntry:
    return EventEntry(
        seq=row.seq,
        at=to_text(row.wall_ns // 1_000_000),
        wall_ns=row.wall_ns,
        mono_ns=row.mono_ns,
        entity=row.entity,
        subject=row.subject,
        before=row.before,
        after=row.after,
        why=row.why,
        by=row.by,
        unblocked_by=row.unblocked_by,
        tenant=row.tenant,
        job_id=row.job_id,
        provider_id=row.provider_id,
    )
