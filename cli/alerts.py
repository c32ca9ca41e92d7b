"""`coord alerts`: what needs attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from cli import humane, output, terminal
from cli.options import output_option, talks
from coordinator.api_types.operations import AlertEntry, Alerts

if TYPE_CHECKING:
    from coordinator.client import Client

_COLOUR = {"critical": "31", "warning": "33"}
COLUMNS = (
    output.Column("ALERT", lambda a: a.id, spare=True),
    output.Column("SEVERITY", lambda a: a.severity, colour=lambda a: _COLOUR.get(a.severity, "")),
    output.Column("STATE", lambda a: _state(a)),
    output.Column("KIND", lambda a: a.kind),
    output.Column("SUBJECT", lambda a: a.subject),
    output.Column("SINCE", lambda a: humane.ago(a.since), right=True),
    output.Column("LAST", lambda a: humane.ago(a.last), right=True, wide=True, explained="LAST SEEN"),
    output.Column("TIMES", lambda a: str(a.count), right=True),
    output.Column("WHAT", lambda a: a.text, whole=True),
    output.Column("TO DO", lambda a: a.hint, wide=True),
    output.Column("RESOLVED", lambda a: humane.ago(a.resolved_at), wide=True),
    output.Column("ACKNOWLEDGED", lambda a: humane.ago(a.acknowledged_at), wide=True),
    output.Column("BY", lambda a: a.acknowledged_by or "-", wide=True),
)


def _state(entry: AlertEntry) -> str:
    if entry.resolved_at is not None:
        return "resolved"
    return "firing" if entry.acknowledged_at is None else "acknowledged"


@click.command(short_help="What needs attention now.")
@click.option("--all", "everything", is_flag=True, help="Also those that are over (kept for a day).")
@click.option(
    "--ack", metavar="ALERT", help="Say that somebody looks after this one; it stands until its cause is gone."
)
@output_option
@talks
def alerts(client: Client, everything: bool, ack: str | None, output: output.Format) -> None:
    """List the alerts that stand. They end by themselves when their cause does.

    \b
    coord alerts
    coord alerts --all -o wide
    coord alerts --ack 7
    """
    if ack is not None:
        entry = client.acknowledge(ack)
        terminal.say(terminal.safe(f"acknowledged: {entry.kind} of {entry.subject}, {entry.text}"))
        return
    answer = client.alerts()
    if not everything:
        answer = replace(answer, entries=tuple(a for a in answer.entries if a.resolved_at is None))
    print_alerts(answer, output)


def print_alerts(answer: Alerts, form: output.Format) -> None:
    output.listing(answer, COLUMNS, form, name=lambda a: f"{a.kind}/{a.subject}", empty="nothing needs attention")
