"""What people type where a job is meant: `12`, `12.0.7`, `12.0.7.2`, and `last` or `@` for the newest."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import click

from cli import terminal
from coordinator.core.errors import Code, CoordError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from coordinator.client import Client

NEWEST = ("last", "@")
WHAT = "a job is its number (12), a task JOB.STEP.TASK (12.0.7); last or @ is the newest job"
COMPLETED_MAX = 100


class Named(NamedTuple):
    """A job, or one task or attempt of it."""

    job_id: int
    step: int | None = None
    task: int | None = None
    attempt: int | None = None

    @property
    def task_text(self) -> str | None:
        """The task as `STEP.TASK`; None when the whole job is meant."""
        return None if self.task is None else f"{self.step}.{self.task}"

    def __str__(self) -> str:
        return ".".join(str(part) for part in self if part is not None)


def named(client: Client, text: str) -> Named:
    """What `text` names. Asks only for the newest. CoordError(BAD_REQUEST) when it names nothing."""
    first, dot, rest = text.partition(".")
    if first in NEWEST:
        first = str(newest(client))
    parts = [first, *rest.split(".")] if dot else [first]
    if not all(part.isascii() and part.isdigit() and len(part) <= 15 for part in parts) or len(parts) not in (1, 3, 4):
        raise CoordError(Code.BAD_REQUEST, f"{terminal.safe(text[:40])} names no job", WHAT)
    return Named(*map(int, parts))


def whole_job(client: Client, text: str) -> int:
    """The job that `text` names, where one of its tasks would not do."""
    found = named(client, text)
    if found.task is not None:
        raise CoordError(Code.BAD_REQUEST, f"{found} is a task, and a job is meant here", f"its job is {found.job_id}")
    return found.job_id


def newest(client: Client) -> int:
    """The number of the job that was submitted last. CoordError(NOT_FOUND) when there is none."""
    for entry in client.jobs.list(limit=1).entries:
        return entry.job_id
    raise CoordError(Code.NOT_FOUND, "there is no job yet", "submit one: coord submit -- COMMAND")


def live_jobs(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Numbers of the newest jobs that begin like this. Silence when nobody answers at once."""
    from click.shell_completion import CompletionItem

    from cli.completion import quick_client

    try:
        with quick_client(ctx) as client:
            entries = client.jobs.list(limit=COMPLETED_MAX).entries
    except CoordError:
        return []
    return [
        CompletionItem(str(entry.job_id), help=terminal.safe(f"{entry.name} {entry.state}"))
        for entry in entries
        if str(entry.job_id).startswith(incomplete)
    ]
