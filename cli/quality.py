"""`coord query backtest`: how good the forecasts are on this fleet's own past."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from cli import humane, output, terminal
from cli.options import output_option, talks
from coordinator.api_types.reliability import Backtest

if TYPE_CHECKING:
    from coordinator.client import Client

Namer = Callable[[Any], str]

HORIZONS = (
    output.Column("HORIZON", lambda h: humane.length(h.horizon_s)),
    output.Column("CASES", lambda h: str(h.n), right=True),
    output.Column("STAYED", lambda h: humane.share(h.base_rate), right=True),
    output.Column("AUC", lambda h: humane.number(h.auc), right=True),
    output.Column("BRIER", lambda h: humane.number(h.brier), right=True),
    output.Column("LOG LOSS", lambda h: humane.number(h.log_loss), right=True),
    output.Column("BRIER OF BASE RATE", lambda h: humane.number(h.brier_base_rate), right=True),
)
BINS = (
    output.Column("FORECAST", lambda b: f"{100 * b.low:.0f}..{100 * b.high:.0f} %"),
    output.Column("CASES", lambda b: str(b.n), right=True),
    output.Column("MEAN FORECAST", lambda b: humane.share(b.mean_forecast), right=True),
    output.Column("STAYED", lambda b: humane.share(b.observed), right=True),
)


@click.command(short_help="How good forecasts would have been in the past.")
@click.option("--horizons", metavar="LENGTHS", default="4h,8h,24h", show_default=True, help="How far ahead.")
@click.option("--every", metavar="LENGTH", default="12h", show_default=True, help="Time between two cuts.")
@click.option("--window", metavar="LENGTH", default="14d", show_default=True, help="History behind each cut.")
@click.option("--from", "from_", metavar="TIME", help="No cut before this time.")
@click.option("--to", metavar="TIME", help="No cut after this time.")
@output_option
@talks
def backtest(
    client: Client,
    horizons: str,
    every: str,
    window: str,
    from_: str | None,
    to: str | None,
    output: output.Format,
) -> None:
    """How good the forecasts would have been on this fleet's own past: made with what was known then, against
    what came. `-o wide` adds the calibration.

    \b
    coord query backtest
    coord query backtest --horizons 1h,8h --every 6h -o json
    """
    if sys.stderr.isatty():
        terminal.say("making the forecasts of the past again ...")
    print_backtest(client.backtest(horizons=horizons, every=every, window=window, from_=from_, to=to), output)


def print_backtest(answer: Backtest, form: output.Format) -> None:
    if not answer.cuts and form in ("table", "wide"):
        terminal.say(answer.note or "there was no moment of the past to forecast from")
        return
    name: Namer = lambda h: f"{h.horizon_s:.0f}"  # noqa: E731
    output.listing(answer, HORIZONS, form, name=name, entries=answer.horizons)
    if form == "wide":
        for horizon in answer.horizons:
            click.echo(f"\ncalibration, {humane.length(horizon.horizon_s)} ahead")
            sys.stdout.flush()
            output.print_table(horizon.calibration, BINS, sys.stdout)
    if form in ("table", "wide"):
        span = f"{humane.clock(answer.from_)} to {humane.clock(answer.to)} UTC"
        terminal.say(f"\n{humane.count(answer.cuts, 'cut')} from {span}; model: {answer.model}. {answer.note}".rstrip())
