"""`coord events` and `coord audit`: every transition, and everything that people did."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
import msgspec

from cli import humane, output, terminal
from cli.jobids import live_jobs, whole_job
from cli.options import output_option, talks
from cli.paging import collect
from coordinator.api_types.happenings import Audit, EventEntry

if TYPE_CHECKING:
    from coordinator.client import Client

PAGE_MAX = 1000
ENTITIES = (
    "job", "step", "task", "attempt", "provider", "token", "pool", "tenant", "artifact", "checkpoint", "transfer",
)  # fmt: skip
_COLOURS = {
    "completed": "32", "failed": "31", "lost": "31", "cancelled": "33", "in_doubt": "33", "frozen": "33",
    "running": "36",
}  # fmt: skip

COLUMNS = (
    output.Column("WHEN", lambda e: humane.clock(e.at)),
    output.Column("WHAT", lambda e: e.entity, spare=True),
    output.Column("WHICH", lambda e: e.subject),
    output.Column("BECAME", lambda e: e.after, colour=lambda e: _COLOURS.get(e.after, "")),
    output.Column("WAS", lambda e: e.before or "-", spare=True),
    output.Column("WHERE", lambda e: e.provider_id or "-"),
    output.Column("UNBLOCKED BY", lambda e: e.unblocked_by or "-", wide=True),
    output.Column("BY", lambda e: e.by, wide=True),
    output.Column("WALL NS", lambda e: str(e.wall_ns), right=True, wide=True),
    output.Column("MONO NS", lambda e: str(e.mono_ns), right=True, wide=True),
    output.Column("WHY", lambda e: e.why or "-"),
)


def line(event: EventEntry) -> str:
    """One event as a line of a stream."""
    moment = humane.moment(event.at).strftime("%H:%M:%S.%f")[:-3]
    where = f" on {event.provider_id}" if event.provider_id and event.entity != "provider" else ""
    why = f": {event.why}" if event.why else ""
    after = f", after {event.unblocked_by}" if event.unblocked_by else ""
    return f"{moment} {event.entity} {event.subject} {event.after}{where}{why}{after}"


@click.command(short_help="What happens, as it happens.")
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens from now on.")
@click.option("--job", metavar="JOB", help="Only of this job.", shell_complete=live_jobs)
@click.option("--entity", type=click.Choice(ENTITIES), help="Only of these.")
@click.option("--limit", type=click.IntRange(0), default=20, show_default=True, help="So many of what was; 0: all.")
@click.option(
    "-o", "--output", type=click.Choice(("table", "jsonl")), default="table", show_default=True, help="A line each."
)
@talks
def events(client: Client, follow: bool, job: str | None, entity: str | None, limit: int, output: str) -> None:
    """Print the last events, oldest first; with -f go on with new ones until Ctrl-C. None is missed in between.

    \b
    coord events -f
    coord events --job 12 --limit 0
    coord events -f --entity attempt -o jsonl
    """
    job_id = whole_job(client, job) if job is not None else None
    past = collect(
        lambda size, page: client.audit(job_id=job_id, entity=entity, limit=size, page=page), limit, PAGE_MAX
    )
    for event in reversed(past.entries):
        print_event(event, output)
    if follow:
        newest = max((event.seq for event in past.entries), default=0)
        for event in client.events(job_id=job_id, entity=entity, after=newest):
            print_event(event, output)


def print_event(event: EventEntry, form: str) -> None:
    if form == "jsonl":
        text = terminal.safe_json(msgspec.json.encode(event).decode())
    else:
        text = terminal.safe(line(event))
        code = _COLOURS.get(event.after, "")
        text = f"\x1b[{code}m{text}\x1b[0m" if code and terminal.has_colour(sys.stdout) else text
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


@click.command(short_help="The record of every transition and of what people did.")
@click.option("--job", metavar="JOB", help="Only of this job.", shell_complete=live_jobs)
@click.option("--entity", type=click.Choice(ENTITIES), help="Only of these.")
@click.option("--subject", metavar="ID", help="Only of this one: 12.0.7.2, a provider's id.")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def audit(
    client: Client, job: str | None, entity: str | None, subject: str | None, limit: int, output: output.Format
) -> None:
    """List what happened, newest first: each transition once, with its time on two clocks, why, and by whom.

    \b
    coord audit --job 12
    coord audit --entity provider --limit 0 -o jsonl
    coord audit --subject 12.0.7.2 -o wide
    """
    job_id = whole_job(client, job) if job is not None else None
    answer = collect(
        lambda size, page: client.audit(job_id=job_id, entity=entity, subject=subject, limit=size, page=page),
        limit, PAGE_MAX,
    )  # fmt: skip
    print_audit(answer, output)


def print_audit(answer: Audit, form: output.Format) -> None:
    output.listing(answer, COLUMNS, form, name=lambda e: str(e.seq), empty="nothing has happened")
