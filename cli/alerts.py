"""`coord alerts`: what needs attention."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click
from msgspec.structs import replace

from cli import humane, output
from cli.options import output_option, talks
from coordinator.api_types import Alerts

if TYPE_CHECKING:
    from coordinator.client import Client

_COLOUR = {"critical": "31", "warning": "33"}
COLUMNS = (
    output.Column("SEVERITY", lambda a: a.severity, colour=lambda a: _COLOUR.get(a.severity, "")),
    output.Column("STATE", lambda a: "firing" if a.resolved_at is None else "resolved"),
    output.Column("KIND", lambda a: a.kind),
    output.Column("SUBJECT", lambda a: a.subject),
    output.Column("SINCE", lambda a: humane.ago(a.since), right=True),
    output.Column("LAST", lambda a: humane.ago(a.last), right=True, wide=True, explained="LAST SEEN"),
    output.Column("TIMES", lambda a: str(a.count), right=True),
    output.Column("WHAT", lambda a: a.text, whole=True),
    output.Column("TO DO", lambda a: a.hint, wide=True),
    output.Column("RESOLVED", lambda a: humane.ago(a.resolved_at), wide=True),
)


@click.command(short_help="What needs attention now.")
@click.option("--all", "everything", is_flag=True, help="Also those that are over (kept for a day).")
@output_option
@talks
def alerts(client: Client, everything: bool, output: output.Format) -> None:
    """List the alerts that stand. They end by themselves when their cause does.

    \b
    coord alerts
    coord alerts --all -o wide
    """
    answer = client.alerts()
    if not everything:
        answer = replace(answer, entries=tuple(a for a in answer.entries if a.resolved_at is None))
    print_alerts(answer, output)


def print_alerts(answer: Alerts, form: output.Format) -> None:
    output.listing(answer, COLUMNS, form, name=lambda a: f"{a.kind}/{a.subject}", empty="nothing needs attention")
