"""Answers about jobs for tests of how they are shown."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from coordinator.api_types.happenings import EventEntry, LogEvent
from coordinator.api_types.why import StepPlan, StepWhy
from coordinator.api_types.work import AttemptEntry, Counts, ExitEntry, JobEntry, RankEntry, TaskEntry

AT = "2026-11-22T04:31:05.000Z"


def counts(tasks: int = 1, **others: int) -> Counts:
    """The rest waits."""
    known = {"running": 0, "completed": 0, "failed": 0, "cancelled": 0} | others
    return Counts(tasks=tasks, waiting=tasks - sum(known.values()), **known)


def a_job(job_id: int = 12, **changes: Any) -> JobEntry:
    entry = JobEntry(
        job_id=job_id, tenant="default", name="train", state="pending", reason="", submitted_at=AT, started_at=None,
        ended_at=None, submitted_by="token:1", cancelling="", retries=0, counts=counts(),
    )  # fmt: skip
    return replace(entry, **changes)


def an_exit(cause: str = "exited", code: int | None = None, signal: int | None = None) -> ExitEntry:
    return ExitEntry(
        cause=cause, code=code, signal=signal, text="", ran_seconds=1.0, out_bytes=0, err_bytes=0, dropped_bytes=0,
        memory_max=0, cpu_seconds=0.0,
    )  # fmt: skip


def an_attempt(number: int = 1, state: str = "running", where: str = "alpha", **changes: Any) -> AttemptEntry:
    end = changes.pop("exit", None)
    rank = RankEntry(
        rank=0, provider_id=where, cpus=1.0, memory=0, gpus=(), launched=True, running=True, released=end is not None,
        exit=end,
    )  # fmt: skip
    entry = AttemptEntry(
        attempt=f"12.0.0.{number}", number=number, state=state, reason="", created_at=AT, started_at=AT, ended_at=AT,
        doubted_at=None, lease_over_at=None, unblocked_by="", forecast=None, ranks=(rank,),
    )  # fmt: skip
    return replace(entry, **changes)


def a_task(*tries: AttemptEntry, **changes: Any) -> TaskEntry:
    entry = TaskEntry(
        task="12.0.0", step="main", number=0, values={}, state="running", reason="", attempts=len(tries), failures=0,
        losses=0, not_before=None, failed_on=(), straggler=False, started_at=AT, ended_at=None, exit_code=None,
        waits_for="", tries=tries,
    )  # fmt: skip
    return replace(entry, **changes)


def an_event(subject: str, after: str, **changes: Any) -> EventEntry:
    entry = EventEntry(
        seq=1, at=AT, wall_ns=0, mono_ns=0, entity="attempt", subject=subject, before="", after=after, why="",
        by="coord", unblocked_by="", tenant="default", job_id=12, provider_id=None,
    )  # fmt: skip
    return replace(entry, **changes)


def a_piece(data: str, attempt: str = "12.0.0.1", stream: str = "stdout", **changes: Any) -> LogEvent:
    piece = LogEvent(attempt=attempt, rank=0, stream=stream, offset=0, at=AT, data=data)
    return replace(piece, **changes)


def a_plan(name: str, *needs: str, **changes: Any) -> StepPlan:
    plan = StepPlan(
        step=0, name=name, needs=needs, when="succeeded", tasks=1, nodes=1, resources=("1 cpu",),
        commands=(("true",),), settings={},
    )  # fmt: skip
    return replace(plan, **changes)


def a_why(name: str, **changes: Any) -> StepWhy:
    why = StepWhy(
        step=0, name=name, tasks=1, waiting=1, running=0, verdict="wait", text="", hint="", able_now=1, able_ever=1,
        eta=None, obstacles=(),
    )  # fmt: skip
    return replace(why, **changes)
