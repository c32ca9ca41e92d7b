"""`coord job`: the jobs, how each stands and why, and what may be done to one."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli import humane, output, terminal
from cli.completion import live_tenants
from cli.jobids import live_jobs, named, whole_job
from cli.options import Reach, output_option, reaches, talks
from cli.paging import collect
from cli.standing import COLOURS, PAGE_MAX, STATES, progress, share, took
from coordinator.api_types.work import JobEntry, Jobs

if TYPE_CHECKING:
    from coordinator.client import Client


def _age(entry: JobEntry) -> str:
    return humane.ago(entry.submitted_at)


PROGRESS = output.Column("PROGRESS", lambda j: share(j.progress), right=True)
"""Only where some program says how far it is, and so is:"""
ENDS = output.Column("ENDS", lambda j: humane.left(j.eta), right=True, explained="EXPECTED TO END")
COLUMNS = (
    output.Column("JOB", lambda j: str(j.job_id), right=True),
    output.Column("NAME", lambda j: j.name),
    output.Column("STATE", lambda j: j.state, colour=lambda j: COLOURS.get(j.state, "")),
    output.Column("DONE", progress, right=True, explained="TASKS COMPLETED"),
    output.Column("RUNS", lambda j: str(j.counts.running), right=True, explained="TASKS RUNNING"),
    PROGRESS,
    ENDS,
    output.Column("SUBMITTED", _age, right=True),
    output.Column("TOOK", took, right=True, explained="SINCE ITS START"),
    output.Column("REASON", lambda j: j.reason),
    output.Column("TENANT", lambda j: j.tenant, wide=True),
    output.Column("PRIORITY", lambda j: str(j.priority), right=True, wide=True),
    output.Column("COST", lambda j: j.cost_text, right=True, wide=True),
    output.Column("ESTIMATE", lambda j: j.estimate_text, right=True, wide=True),
    output.Column("BY", lambda j: j.submitted_by, wide=True),
    output.Column("MANUAL RETRIES", lambda j: str(j.retries), right=True, wide=True),
)

job_argument = click.argument("job", shell_complete=live_jobs)


@click.group(short_help="Jobs: list, show, outputs, why, wait, cancel, retry.")
def job() -> None:
    """The jobs. A job is its number, a task JOB.STEP.TASK; last (or @) is the newest job.

    \b
    coord job list --state running
    coord job show last
    coord job why 12
    """


@job.command("list")
@click.option("--state", help=f"Only these, separated by commas: {', '.join(STATES)}.")
@click.option("--name", metavar="PATTERN", help="Only names like this; * and ? stand for anything.")
@click.option("--tenant", shell_complete=live_tenants, help="Only of this tenant (an admin may).")
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def list_jobs(
    client: Client, state: str | None, name: str | None, tenant: str | None, limit: int, output: output.Format
) -> None:
    """List the jobs, newest first.

    \b
    coord job list
    coord job list --state pending,running --name 'night*'
    coord job list --limit 0 -o jsonl
    """
    answer = collect(
        lambda size, page: client.jobs.list(state=state, name=name, tenant=tenant, limit=size, page=page),
        limit, PAGE_MAX,
    )  # fmt: skip
    print_jobs(answer, output, filtered=bool(state or name or tenant))


def print_jobs(answer: Jobs, form: output.Format, *, filtered: bool = False) -> None:
    empty = "no job fits; without --state, --name and --tenant all are listed" if filtered else _EMPTY
    told = any(entry.progress is not None for entry in answer.entries)
    columns = [column for column in COLUMNS if told or column not in (PROGRESS, ENDS)]
    output.listing(answer, columns, form, name=lambda j: str(j.job_id), empty=empty)
    if answer.next_page is not None and form in ("table", "wide") and sys.stdout.isatty():
        terminal.say("older ones: --limit 0")


_EMPTY = "there is no job yet: coord submit -- COMMAND"


@job.command(short_help="A job, its steps and tasks, and each attempt.")
@job_argument
@click.option("--tasks", is_flag=True, help="Every task with its attempts, however many.")
@output_option
@talks
def show(client: Client, job: str, tasks: bool, output: output.Format) -> None:
    """Show a job, what it asks, its steps, and its tasks with where each attempt ran and how it ended; of many tasks
    those that failed, else those that run.

    \b
    coord job show 12
    coord job show 12.0.7
    coord job show last --tasks -o json
    """
    from cli import jobverdicts, jobview

    found = named(client, job)
    read = output in ("table", "wide")
    if tasks or found.task is not None:
        those = jobview.tasks_of(client, found)
        jobview.print_tasks(those, output)
        if read and found.task is not None:
            jobverdicts.print_verdicts(client, those.entries)
            jobview.print_data(client, found.job_id, output, f"{found.job_id}.{found.step}.{found.task}")
    else:
        answer = client.jobs.show(found.job_id)
        why = client.jobs.why(found.job_id) if read and answer.job.state == "pending" else None
        notable = jobview.notable(client, answer) if read else ()
        jobview.print_job(answer, output, why, notable)
        if read:
            jobverdicts.print_verdicts(client, notable or answer.tasks[: jobview.TASKS_SHOWN])
        if read and jobview.has_data(answer):
            jobview.print_data(client, found.job_id, output)


@job.command()
@job_argument
@click.option("--get", "to", metavar="DIR", type=click.Path(path_type=Path, file_okay=False), help="Fetch them there.")
@click.option("--match", metavar="PATTERN", help="Only files like this; * stays within a directory, ** does not.")
@click.option("--force", is_flag=True, help="With --get: also in place of other files.")
@output_option
@talks
def outputs(client: Client, job: str, to: Path | None, match: str | None, force: bool, output: output.Format) -> None:
    """List what a job, or one task of it, has made: the files that its outputs name, each with size and digest. With
    --get they are fetched and verified; of a job with several steps or tasks each task's files lie beneath STEP/TASK.

    \b
    coord job outputs 12
    coord job outputs last --get results
    coord job outputs 12.0.7 --match '*.pt' --get .
    """
    from cli import jobdata

    found = named(client, job)
    answer = jobdata.outputs_of(client, found, match)
    if to is not None:
        jobdata.fetch_outputs(client, found.job_id, answer, to, force=force, picked=match is not None)
    else:
        jobdata.print_outputs(answer, output, picked=match is not None)


@job.command(short_help="Why a job does not run, and what would help.")
@job_argument
@click.option(
    "-o", "--output", type=click.Choice(("table", "json")), default="table", show_default=True, help="How to print it."
)
@talks
def why(client: Client, job: str, output: str) -> None:
    """Say why a job stands as it does: per constraint how many providers it rules out, and what would help.

    \b
    coord job why 12
    coord job why last -o json
    """
    from cli import waiting

    job_id = named(client, job).job_id
    answer = client.jobs.why(job_id)
    live = (
        client.jobs.tasks(job_id, state="pending,staging,running", attempts=True).entries if output == "table" else ()
    )
    waiting.print_why(answer, output, live)
    if output == "table" and (full := waiting.full_quotas(answer)):
        usage = client.tenants.usage(client.jobs.show(job_id).job.tenant)
        waiting.print_quotas(usage.entries[0], full)


@job.command(short_help="Wait until they have ended; the exit status is theirs.")
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=live_jobs)
@click.option("--timeout", metavar="LENGTH", help="Give up after so long (exit status 75); the jobs go on.")
@reaches
def wait(reach: Reach, jobs: tuple[str, ...], timeout: str | None) -> int:
    """Wait until they have ended, and end with the exit status of the first that did not complete.

    \b
    coord job wait 12
    coord job wait 12 13 14 --timeout 2h
    """
    from cli.following import wait_for_all

    return wait_for_all(reach, jobs, timeout)


@job.command()
@click.argument("jobs", nargs=-1, required=True, metavar="JOB...", shell_complete=live_jobs)
@click.option("--task", metavar="STEP.TASK", help="This one task alone, like 0.7; or name it: 12.0.7.")
@click.option("--why", metavar="TEXT", help="Said with it in the job's record.")
@talks
def cancel(client: Client, jobs: tuple[str, ...], task: str | None, why: str | None) -> None:
    """Cancel jobs, or one task. What waits ends at once, what runs when its processes have been stopped.

    \b
    coord job cancel 12
    coord job cancel 12.0.7 --why "wrong data"
    coord job cancel 12 13
    """
    for text in jobs:
        found = named(client, text)
        if found.task is not None and task is not None:
            raise click.UsageError(f"{found} names a task already: leave --task away")
        one = task or found.task_text
        entry = client.jobs.cancel(found.job_id, task=one, why=why)
        what = f"task {entry.job_id}.{terminal.safe(one)}" if one else f"job {entry.job_id} ({progress(entry)} done)"
        terminal.say(f"{what} {_stands(entry, one)}")


def _stands(entry: JobEntry, task: str | None) -> str:
    """What came of the wish to cancel it: one that had ended stays as it ended."""
    if entry.state in ("completed", "failed"):
        return f"has ended already: its job is {entry.state}" if task else f"has ended already: {entry.state}"
    if entry.state == "cancelled" or task:
        return "is cancelled"
    return f"is being cancelled: coord job wait {entry.job_id}"


@job.command()
@job_argument
@talks
def retry(client: Client, job: str) -> None:
    """Run again what failed, was lost or was cancelled. What completed stays; budgets begin anew.

    \b
    coord job retry 12
    """
    entry = client.jobs.retry(whole_job(client, job))
    counts = entry.counts
    terminal.say(f"job {entry.job_id} runs again: {counts.tasks - counts.completed} of {counts.tasks} tasks to do")
