"""`coord query`: what the fleet's history says. The commands are in the files that it gathers them from."""

from __future__ import annotations

import click

from cli import figures, past, quality, sql


@click.group(short_help="Reliability, forecasts, history, and SQL over all of it.")
def query() -> None:
    """What the history of the fleet says: who can be relied on, when, and for how long.

    \b
    coord query reliability --min-score 0.8 --horizon 8h
    coord query availability lab-07
    coord query sql "SELECT provider_id, count(*) FROM sessions GROUP BY ALL"
    """


for command in (
    figures.reliability,
    figures.availability,
    figures.forecast,
    figures.network,
    past.sessions,
    past.heartbeats,
    quality.backtest,
    sql.sql,
):
    query.add_command(command)
