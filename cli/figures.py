"""`coord query reliability|availability|forecast|network`: who can be relied on, when, and for how long."""

from __future__ import annotations

import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from cli import heatmap, humane, output, terminal
from cli.completion import live_providers
from cli.options import FiniteRange, json_option, output_option, talks
from coordinator.api_types.reliability import Availability, Features, Forecast, NetworkAvailability, ReliabilityAnswer

if TYPE_CHECKING:
    from coordinator.client import Client

FIGURES_OLD_S = 600.0
EVIDENCE = {"never_observed": "none", "thin": "thin", "newcomer": "new"}
CELL_FIELDS = ("provider_id", "weekday", "hour", "share", "observed_seconds")
"""Of a cell of the week; weekday 0 is Monday, provider_id is null for the whole fleet."""
AS_OF = "As it was then: Unix seconds or ISO 8601 with a zone."

RELIABILITY = (
    output.Column("PROVIDER", lambda f: f.provider_id),
    output.Column(
        "SCORE", lambda f: humane.number(f.liveness_score), right=True, colour=lambda f: _grade(f.liveness_score)
    ),
    output.Column("UPTIME", lambda f: humane.share(f.uptime_pct), right=True, spare=True),
    output.Column("4H", lambda f: humane.share(f.p_stays_4h, 0), right=True, explained="A STAY LASTS 4H"),
    output.Column("8H", lambda f: humane.share(f.p_stays_8h, 0), right=True, explained="A STAY LASTS 8H"),
    output.Column(
        "MTBF",
        lambda f: (">" if f.mtbf_lower_bound else "") + humane.length(f.mtbf_seconds),
        right=True,
        explained="TIME BETWEEN FAILURES",
    ),
    output.Column("STAYS", lambda f: str(f.stays_count), right=True, spare=True),
    output.Column("FAILED", lambda f: humane.ago(f.last_failure_at), right=True, spare=True, explained="LAST FAILURE"),
    output.Column("DATA", lambda f: _evidence(f), explained="EVIDENCE"),
    output.Column("SCORE: UPTIME 4H 8H MTBF FAILED", lambda f: _terms(f), wide=True),
    output.Column(
        "8H, 90 % WITHIN", lambda f: f"{f.p_stays_8h_interval.low:.2f}-{f.p_stays_8h_interval.high:.2f}", wide=True
    ),
    output.Column("OBSERVED", lambda f: humane.length(f.observed_seconds), right=True, wide=True),
    output.Column("FAILURES", lambda f: str(f.failures_count), right=True, wide=True),
    output.Column("ONLINE", lambda f: "yes" if f.online else "no", wide=True),
    output.Column("SUSPECTED", lambda f: humane.share(f.suspicion) if f.suspicion else "-", right=True, wide=True),
    output.Column("FLAGS", lambda f: ",".join(f.flags), wide=True),
)
FORECAST = output.Column(
    "FORECAST",
    lambda f: "-" if f.forecast is None else f"{100 * f.forecast.probability:.0f} %",
    right=True,
    colour=lambda f: "" if f.forecast is None else _grade(f.forecast.probability),
)


@click.command()
@click.option("--min-score", type=FiniteRange(0, 1), help="Liveness score of at least this.")
@click.option("--max-score", type=FiniteRange(0, 1), help="Liveness score of at most this.")
@click.option("--min-uptime", type=FiniteRange(0, 1), help="Share of the observed time online.")
@click.option("--min-stays-4h", type=FiniteRange(0, 1), help="Probability that a stay lasts 4 h.")
@click.option("--min-stays-8h", type=FiniteRange(0, 1), help="Probability that a stay lasts 8 h.")
@click.option("--horizon", metavar="LENGTH", help="Add the forecast for so far ahead, like 8h.")
@click.option("--as-of", metavar="TIME", help=AS_OF)
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def reliability(
    client: Client,
    min_score: float | None,
    max_score: float | None,
    min_uptime: float | None,
    min_stays_4h: float | None,
    min_stays_8h: float | None,
    horizon: str | None,
    as_of: str | None,
    limit: int,
    output: output.Format,
) -> None:
    """Who can be relied on: by score, best first.

    \b
    coord query reliability --min-score 0.8
    coord query reliability --horizon 8h --min-stays-8h 0.7 -o csv
    coord query reliability --as-of 2026-11-01T00:00:00Z --limit 0 -o json
    """
    answer = client.reliability(
        min_score=min_score,
        max_score=max_score,
        min_uptime=min_uptime,
        min_stays_4h=min_stays_4h,
        min_stays_8h=min_stays_8h,
        horizon=horizon,
        as_of=as_of,
        limit=limit,
    )
    print_reliability(answer, output)


def print_reliability(answer: ReliabilityAnswer, form: output.Format) -> None:
    columns = [*RELIABILITY]
    if answer.filters.horizon_s is not None:
        ahead = humane.length(answer.filters.horizon_s).upper()
        columns[7] = FORECAST._replace(title=f"IN {ahead}", explained=f"STAYS {ahead} FROM NOW")
    empty = f"none of {answer.providers} providers fits"
    output.listing(answer, columns, form, name=lambda f: str(f.provider_id), empty=empty)
    if form in ("table", "wide") and answer.entries:
        sys.stdout.flush()
        shown = len(answer.entries)
        more = f", the first {shown} of {answer.matched} that fit" if shown < answer.matched else f", {shown} fit"
        aged = f", figures of {humane.ago(answer.computed_at)}" if _is_old(answer) else ""
        terminal.say(f"\n{answer.providers} providers{more}; as of {humane.clock(answer.as_of)} UTC{aged}")


def _is_old(answer: ReliabilityAnswer) -> bool:
    """Whether the figures are remembered ones, because there is no worker to make new ones."""
    age_s = (datetime.now(UTC) - humane.moment(answer.computed_at)).total_seconds()
    return answer.filters.as_of is None and age_s > FIGURES_OLD_S


def _evidence(features: Features) -> str:
    """The flags that a reader must not miss, in a word each; `-o wide` has all of them."""
    return ",".join(word for flag, word in EVIDENCE.items() if flag in features.flags) or "good"


def _terms(features: Features) -> str:
    terms = features.score_terms
    parts = (terms.uptime, terms.stays_4h, terms.stays_8h, terms.mtbf, terms.recent_failure)
    return " ".join(f"{part:+.2f}" for part in parts)


def _grade(value: float) -> str:
    return "32" if value >= 0.8 else "33" if value >= 0.5 else "31"


@click.command(short_help="The week of a provider, or of the whole fleet.")
@click.argument("provider", required=False, shell_complete=live_providers)
@click.option("--time-zone", default="UTC", show_default=True, help="Of the hours, like Europe/Berlin.")
@click.option("--as-of", metavar="TIME", help=AS_OF)
@output_option
@talks
def availability(
    client: Client, provider: str | None, time_zone: str, as_of: str | None, output: output.Format
) -> None:
    """The week of a provider, or of the whole fleet: share of the observed time online by weekday and hour.

    \b
    coord query availability
    coord query availability lab-07 --time-zone Europe/Berlin
    coord query availability lab-07 -o csv       (a row an hour of the week; weekday 0 is Monday)
    """
    print_availability(client.availability(provider, time_zone=time_zone, as_of=as_of), output)


def cells(answer: Availability) -> list[dict[str, object]]:
    """The grid in long form: a row an hour of the week."""
    return [
        dict(zip(CELL_FIELDS, (answer.provider_id, weekday, hour, share, observed_s), strict=True))
        for weekday, (shares, observed) in enumerate(
            zip(answer.hourly_availability, answer.observed_seconds, strict=True)
        )
        for hour, (share, observed_s) in enumerate(zip(shares, observed, strict=True))
    ]


def print_availability(answer: Availability, form: output.Format) -> None:
    name = answer.provider_id or "fleet"
    if form in ("csv", "jsonl"):
        output.print_dicts(CELL_FIELDS, cells(answer), form)
        return
    if form not in ("table", "wide"):
        output.single(answer, form, name=name)
        return
    uptime = humane.share(answer.uptime_pct)
    click.echo(f"{name}: online {uptime} of the observed time in {answer.window_days:g} days, {answer.time_zone}\n")
    sys.stdout.flush()
    heatmap.draw(answer.hourly_availability, sys.stdout)


@click.command(short_help="How likely it is that a provider stays.")
@click.argument("provider", shell_complete=live_providers)
@click.option("--horizon", metavar="LENGTH", default="8h", show_default=True, help="How far ahead.")
@click.option("--as-of", metavar="TIME", help=AS_OF)
@output_option
@talks
def forecast(client: Client, provider: str, horizon: str, as_of: str | None, output: output.Format) -> None:
    """How likely it is that a provider stays without a break until then. JSON null when it is not online.

    \b
    coord query forecast lab-07
    coord query forecast lab-07 --horizon 24h -o json
    """
    print_forecast(provider, client.forecast(provider, horizon=horizon, as_of=as_of), output)


def print_forecast(provider: str, answer: Forecast | None, form: output.Format) -> None:
    if answer is None:
        if form in ("json", "jsonl"):
            click.echo("null")
        else:
            terminal.say(f"{terminal.safe(provider)} is not online: there is no stay to forecast")
    elif form not in ("table", "wide"):
        output.single(answer, form, name=provider)
    else:
        chance, low, high = (f"{100 * value:.0f}" for value in (answer.probability, answer.low, answer.high))
        age, online = humane.length(answer.age_s), humane.length(answer.online_s)
        rests = f"here for {age}, left {answer.departures} times in {online}"
        flags = f" [{', '.join(answer.flags)}]" if answer.flags else ""
        ahead = humane.length(answer.horizon_s)
        click.echo(f"{provider}: stays {ahead} with {chance} % ({low}..{high} %); {rests} online{flags}")


@click.command()
@click.option("--as-of", metavar="TIME", help=AS_OF)
@json_option
@talks
def network(client: Client, as_of: str | None, output: str) -> None:
    """The whole fleet's uptime.

    \b
    coord query network
    coord query network --as-of 2026-11-01T00:00:00Z -o json
    """
    print_network(client.network(as_of=as_of), output)


def print_network(answer: NetworkAvailability, form: str) -> None:
    if form == "json":
        output.print_json(answer)
        return
    output.print_facts([
        ("providers", f"{answer.providers} observed in {answer.window_days:g} days"),
        ("mean uptime", humane.share(answer.mean_uptime_pct)),
        ("p10, p50, p90", ", ".join(map(humane.share, (
            answer.p10_uptime_pct, answer.p50_uptime_pct, answer.p90_uptime_pct)))),
        ("highly reliable", f"{answer.highly_reliable} (uptime of at least 95 %)"),
        ("as of", f"{humane.clock(answer.as_of)} UTC"),
    ])  # fmt: skip
