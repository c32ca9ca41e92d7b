"""`coord query`: what the fleet's history says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from cli import heatmap, humane, output, terminal
from cli.completion import live_providers
from cli.options import json_option, output_option, talks
from cli.paging import collect
from coordinator.api_types import (
    Availability,
    Backtest,
    Features,
    Forecast,
    NetworkAvailability,
    ReliabilityAnswer,
    SqlAnswer,
    WindowOf,
)

if TYPE_CHECKING:
    from coordinator.client import Client

PAGE_MAX = 500
FIGURES_OLD_S = 600.0
EVIDENCE = {"never_observed": "none", "thin": "thin", "newcomer": "new"}
AS_OF = "As it was then: Unix seconds or ISO 8601 with a zone."
WINDOWS = ("24h", "1d", "7d", "30d")
NUMBERS = frozenset({"TINYINT", "SMALLINT", "INTEGER", "BIGINT", "HUGEINT", "FLOAT", "DOUBLE", "DECIMAL", "UBIGINT"})
Namer = Callable[[Any], str]


@click.group(short_help="Reliability, forecasts, history, and SQL over all of it.")
def query() -> None:
    """What the history of the fleet says: who can be relied on, when, and for how long.

    \b
    coord query reliability --min-score 0.8 --horizon 8h
    coord query availability lab-07
    coord query sql "SELECT provider_id, count(*) FROM sessions GROUP BY ALL"
    """


RELIABILITY = (
    output.Column("PROVIDER", lambda f: f.provider_id),
    output.Column(
        "SCORE", lambda f: humane.number(f.liveness_score), right=True, colour=lambda f: _grade(f.liveness_score)
    ),
    output.Column("UPTIME", lambda f: humane.share(f.uptime_pct), right=True),
    output.Column("4H", lambda f: humane.share(f.p_stays_4h, 0), right=True),
    output.Column("8H", lambda f: humane.share(f.p_stays_8h, 0), right=True),
    output.Column("MTBF", lambda f: (">" if f.mtbf_lower_bound else "") + humane.length(f.mtbf_seconds), right=True),
    output.Column("STAYS", lambda f: str(f.stays_count), right=True),
    output.Column("FAILED", lambda f: humane.ago(f.last_failure_at), right=True),
    output.Column("DATA", lambda f: _evidence(f)),
    output.Column("TERMS", lambda f: _terms(f), wide=True),
    output.Column("90% 8H", lambda f: f"{f.p_stays_8h_interval.low:.2f}-{f.p_stays_8h_interval.high:.2f}", wide=True),
    output.Column("OBSERVED", lambda f: humane.length(f.observed_seconds), right=True, wide=True),
    output.Column("FAILURES", lambda f: str(f.failures_count), right=True, wide=True),
    output.Column("ONLINE", lambda f: "yes" if f.online else "no", wide=True),
    output.Column("FLAGS", lambda f: ",".join(f.flags), wide=True),
)
FORECAST = output.Column(
    "FORECAST",
    lambda f: "-" if f.forecast is None else f"{100 * f.forecast.probability:.0f} %",
    right=True,
    colour=lambda f: "" if f.forecast is None else _grade(f.forecast.probability),
)


@query.command()
@click.option("--min-score", type=click.FloatRange(0, 1), help="Liveness score of at least this.")
@click.option("--max-score", type=click.FloatRange(0, 1), help="Liveness score of at most this.")
@click.option("--min-uptime", type=click.FloatRange(0, 1), help="Share of the observed time online.")
@click.option("--min-stays-4h", type=click.FloatRange(0, 1), help="Probability that a stay lasts 4 h.")
@click.option("--min-stays-8h", type=click.FloatRange(0, 1), help="Probability that a stay lasts 8 h.")
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
        columns[7] = FORECAST._replace(title=f"IN {humane.length(answer.filters.horizon_s).upper()}")
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


@query.command()
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
    NO_COLOR=1 coord query availability lab-07
    """
    print_availability(client.availability(provider, time_zone=time_zone, as_of=as_of), output)


def print_availability(answer: Availability, form: output.Format) -> None:
    name = answer.provider_id or "fleet"
    if form not in ("table", "wide"):
        output.single(answer, form, name=name)
        return
    uptime = humane.share(answer.uptime_pct)
    click.echo(f"{name}: online {uptime} of the observed time in {answer.window_days:g} days, {answer.time_zone}\n")
    sys.stdout.flush()
    heatmap.draw(answer.hourly_availability, sys.stdout)


SESSIONS = (
    output.Column("CONNECTED", lambda s: humane.clock(s.connected_at)),
    output.Column("DISCONNECTED", lambda s: humane.clock(s.disconnected_at) if s.disconnected_at else "open"),
    output.Column("FOR", lambda s: humane.length(s.duration_seconds), right=True),
    output.Column("REASON", lambda s: s.disconnect_reason or "-"),
    output.Column("ID", lambda s: str(s.session_id), right=True, wide=True),
    output.Column("LAST HEARTBEAT", lambda s: humane.clock(s.last_heartbeat_at), wide=True),
    output.Column("COORDINATOR", lambda s: s.coordinator_id, wide=True),
    output.Column("REQUESTS", lambda s: str(s.requests_served), right=True, wide=True),
    output.Column("TOKENS", lambda s: str(s.tokens_generated), right=True, wide=True),
)
HEARTBEATS = (
    output.Column("OBSERVED", lambda b: humane.clock(b.observed_at)),
    output.Column("STATUS", lambda b: b.status),
    output.Column("CPU", lambda b: humane.share(b.cpu_usage, 0), right=True),
    output.Column("PRESSURE", lambda b: humane.share(b.memory_pressure), right=True),
    output.Column("FREE GB", lambda b: humane.number(b.memory_available_gb, 1), right=True),
    output.Column("THERMAL", lambda b: b.thermal_state or "-"),
    output.Column("GPU GB", lambda b: humane.number(b.gpu_memory_active_gb, 1), right=True, wide=True),
    output.Column("GPU CACHE", lambda b: humane.number(b.gpu_memory_cache_gb, 1), right=True, wide=True),
    output.Column("BACKEND", lambda b: b.backend_state or "-", wide=True),
    output.Column("MODEL", lambda b: b.active_model or "-", wide=True),
    output.Column("CAPACITY", lambda b: humane.number(b.capacity, 1), right=True, wide=True),
)
HOURS = (
    output.Column("HOUR", lambda h: humane.clock(h.hour)),
    output.Column("COUNT", lambda h: str(h.count), right=True),
    output.Column("CPU", lambda h: humane.share(h.mean_cpu_usage, 0), right=True),
    output.Column("PRESSURE", lambda h: humane.share(h.mean_memory_pressure), right=True),
    output.Column("FREE GB", lambda h: humane.number(h.mean_memory_available_gb, 1), right=True),
    output.Column("WORST THERMAL", lambda h: h.worst_thermal_state or "-"),
)


@query.command()
@click.argument("provider", shell_complete=live_providers)
@click.option("--window", type=click.Choice(WINDOWS), default="7d", show_default=True, help="How far back.")
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def sessions(client: Client, provider: str, window: str, limit: int, output: output.Format) -> None:
    """A provider's sessions, newest first.

    \b
    coord query sessions lab-07 --window 30d --limit 0 -o csv
    """
    answer = collect(
        lambda size, page: client.sessions(provider, window=window, limit=size, page=page), limit, PAGE_MAX
    )
    print_rows(answer, SESSIONS, output, lambda s: str(s.session_id))


@query.command()
@click.argument("provider", shell_complete=live_providers)
@click.option("--window", type=click.Choice(WINDOWS), default="7d", show_default=True, help="How far back.")
@click.option("--hourly", is_flag=True, help="The rollup by whole hours instead.")
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="At most so many; 0: all.")
@output_option
@talks
def heartbeats(client: Client, provider: str, window: str, hourly: bool, limit: int, output: output.Format) -> None:
    """A provider's heartbeats, newest first, or their hourly rollup.

    \b
    coord query heartbeats lab-07 --limit 10
    coord query heartbeats lab-07 --hourly --window 24h -o json
    """
    if hourly:
        hours = collect(
            lambda size, page: client.hours(provider, window=window, limit=size, page=page), limit, PAGE_MAX
        )
        print_rows(hours, HOURS, output, lambda h: str(h.hour))
    else:
        beats = collect(
            lambda size, page: client.heartbeats(provider, window=window, limit=size, page=page), limit, PAGE_MAX
        )
        print_rows(beats, HEARTBEATS, output, lambda b: str(b.observed_at))


def print_rows(answer: WindowOf, columns: Sequence[output.Column], form: output.Format, name: Namer) -> None:
    """A list over a window."""
    empty = f"nothing of {answer.provider_id} in the last {answer.window}: --window looks further back"
    output.listing(answer, columns, form, name=name, empty=empty)


@query.command()
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


@query.command()
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


@query.command()
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
    name: Namer = lambda h: f"{h.horizon_s:.0f}"  # noqa: E731
    output.listing(answer, HORIZONS, form, name=name, entries=answer.horizons, empty="there were no cuts to look at")
    if form == "wide":
        for horizon in answer.horizons:
            click.echo(f"\ncalibration, {humane.length(horizon.horizon_s)} ahead")
            sys.stdout.flush()
            output.print_table(horizon.calibration, BINS, sys.stdout)
    if form in ("table", "wide"):
        span = f"{humane.clock(answer.from_)} to {humane.clock(answer.to)} UTC"
        terminal.say(f"\n{answer.cuts} cuts from {span}; model: {answer.model}. {answer.note}".rstrip())


@query.command()
@click.argument("statement")
@click.option("--limit", type=click.IntRange(1), default=10_000, show_default=True, help="Rows at most.")
@click.option("--timeout", type=click.FloatRange(0.1, 600), default=30.0, show_default=True, help="In seconds.")
@output_option
@talks
def sql(client: Client, statement: str, limit: int, timeout: float, output: output.Format) -> None:
    """Ask read-only SQL (DuckDB's) over the documented views: docs/reference/views.md. `-` reads stdin.

    \b
    coord query sql "SELECT disconnect_reason, count(*) AS n FROM sessions GROUP BY ALL ORDER BY n DESC"
    coord query sql - -o csv < question.sql
    """
    text = sys.stdin.read() if statement == "-" else statement
    print_sql(client.sql(text, rows_max=limit, timeout_s=timeout), output)


def print_sql(answer: SqlAnswer, form: output.Format) -> None:
    """Rows of a query: its own columns are the table's."""
    rows = [dict(zip(answer.columns, values, strict=True)) for values in answer.entries]
    match form:
        case "json":
            output.print_json(answer)
        case "jsonl" | "csv" | "name":
            output.print_dicts(answer.columns, rows, form)
        case _:
            columns = [
                output.Column(title, _value_of(title), right=_is_number(kind))
                for title, kind in zip(answer.columns, answer.types, strict=True)
            ]
            output.print_table(rows, columns, sys.stdout, cut=form == "table" and sys.stdout.isatty())
    if answer.truncated:
        terminal.say(f"there were more than {len(rows)} rows: --limit shows more of them")


def _value_of(column: str) -> Namer:
    return lambda row: output.text_of(row[column])


def _is_number(kind: str) -> bool:
    return kind.split("(")[0] in NUMBERS
