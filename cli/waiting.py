"""Why a job waits, for people: what stands against it, its place in the queue, and what would help."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from msgspec.structs import replace

from cli import humane, output, terminal
from cli.placing import where
from cli.standing import standing
from cli.tenant import print_use
from coordinator.api_types.tenants import UsageEntry
from coordinator.api_types.why import JobWhy, Obstacle, StepWhy
from coordinator.api_types.work import TaskEntry

QUOTA = "quota:"
"""So begins a constraint that is a limit of the job's tenant."""
OBSTACLES = (
    output.Column("CONSTRAINT", lambda o: o.constraint),
    output.Column("RULES OUT", lambda o: str(o.providers), right=True),
    output.Column("WAITING", lambda o: "may help" if o.ever else "will not help"),
    output.Column("WHAT", lambda o: o.text, whole=True),
)


def print_why(answer: JobWhy, form: str, tasks: tuple[TaskEntry, ...] = ()) -> None:
    """Why it stands as it does, step by step; `tasks`: those of which it is told what holds them up."""
    if form == "json":
        output.print_json(answer)
        return
    print(terminal.safe(f"job {answer.job_id} is {standing(answer.state, answer.reason)}"))
    for step in answer.steps:
        if step.verdict != "ended":
            sys.stdout.write("\n")
            _print_step(step)
    if held := [line for task in tasks for line in held_up(task)]:
        sys.stdout.write("\n")
        for line in held:
            print(terminal.safe(line))


def held_up(task: TaskEntry) -> list[str]:
    """What keeps a task that was launched already from going on; nothing where nothing does."""
    if task.not_before is not None and humane.moment(task.not_before) > datetime.now(UTC):
        return [f"{task.task} is tried again {humane.left(task.not_before)}: {task.reason}"]
    said = []
    for attempt in task.tries:
        there = where(attempt)
        over = f", not before its lease is over {humane.left(attempt.lease_over_at)}" if attempt.lease_over_at else ""
        match attempt.state:
            case "in_doubt":
                said.append(f"{attempt.attempt} on {there} is in doubt ({attempt.reason}): replaced{over}")
            case "frozen":
                said.append(f"{attempt.attempt} on {there} is frozen: {attempt.reason}")
            case "reserved":
                said.append(f"{attempt.attempt} has its place reserved on {there}")
    return said


def _print_step(step: StepWhy) -> None:
    counts = f"{step.waiting} waiting, {step.running} running of {humane.count(step.tasks, 'task')}"
    print(terminal.safe(f"{step.name}: {counts}. {step.text}".rstrip()))
    if not step.waiting:
        return
    if step.verdict == "never":
        print("  waiting will not help")
    elif step.verdict == "wait":
        print(f"  {_ahead(step)}")
        if step.eta is not None:
            print(f"  {_start(step)}")
    against: list[Obstacle] = [one for one in step.obstacles if one.providers]
    if against and (step.able_now == 0 or any(holds_all_up(one) for one in against)):
        sys.stdout.write("\n")
        output.print_table(against, OBSTACLES, sys.stdout)
        sys.stdout.write("\n")
    if step.hint:
        print(terminal.safe(f"  what would help: {step.hint}"))


def holds_all_up(one: Obstacle) -> bool:
    """It stands against every provider, however free: a quota of the tenant, or a place that is kept for another."""
    return one.constraint.startswith(QUOTA) or one.constraint == "planned"


def place(why: JobWhy) -> str:
    """Where the first of its steps that waits stands, and when it is expected to start."""
    for step in why.steps:
        if step.verdict == "never":
            return "it cannot start as things are: coord job why says what would help"
        if step.waiting and step.verdict == "wait":
            return place_of(step)
    return ""


def place_of(step: StepWhy) -> str:
    """`3 places ahead of it in the queue, expected to start in 5m`."""
    return f"{_ahead(step)}, {_start(step)}" if step.eta is not None else _ahead(step)


def _ahead(step: StepWhy) -> str:
    return f"{humane.count(step.ahead, 'place')} ahead of it in the queue" if step.ahead else "first in the queue"


def _start(step: StepWhy) -> str:
    """`expected to start in 5m`."""
    assert step.eta is not None
    soon = humane.moment(step.eta) <= datetime.now(UTC)
    return f"expected to start {'at any moment' if soon else humane.left(step.eta)}"


def full_quotas(answer: JobWhy) -> set[str]:
    """The dimensions of the tenant's quota that hold some step of it up."""
    constraints = {one.constraint for step in answer.steps if step.waiting for one in step.obstacles}
    return {name.removeprefix(QUOTA) for name in constraints if name.startswith(QUOTA)}


def print_quotas(usage: UsageEntry, names: set[str]) -> None:
    """How those limits stand."""
    sys.stdout.write(f"\nlimits of tenant {terminal.safe(usage.tenant)}:\n")
    print_use(replace(usage, dimensions=tuple(one for one in usage.dimensions if one.name in names)))
