"""Routes of what analytics says: features, reliability, forecasts, availability, the backtest and SQL.

Answers are passed on as the worker made them, with the age of their figures.
"""

from __future__ import annotations

import asyncio
from typing import Annotated

from msgspec import Meta, Struct, field, structs

from coordinator.api_types.operations import SqlRequest
from coordinator.api_types.reliability import unobserved
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.ports.analytics import (
    Answer,
    AnyQuestion,
    AskAvailability,
    AskBacktest,
    AskFeatures,
    AskForecast,
    AskNetwork,
    AskReliability,
    AskSql,
)
from coordinator.service.api.deps import ApiDeps
from coordinator.service.api.history import known
from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call, NoBody, Ready, figures
from coordinator.service.api.verdicts import suspicions_at
from coordinator.timetext import asked_duration, asked_time, parse_duration, to_text

HORIZON_LEAST, HORIZON_MOST = parse_duration("1m"), parse_duration("30d")
WINDOW_LEAST, WINDOW_MOST = parse_duration("1h"), parse_duration("90d")
HORIZONS_MAX = 8
STATEMENT_CHARS_MAX = 100_000

Share = Annotated[float, Meta(ge=0.0, le=1.0)]
AsOf = Annotated[str, Meta(description="as it was then: Unix seconds or ISO 8601 with a zone; absent: now")]
Zone = Annotated[
    str,
    Meta(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_+/-]+$", description="time zone of the hours, IANA name"),
]
Horizon = Annotated[str, Meta(description="how far ahead, 1m to 30d: 30s 5m 8h 7d")]


class ReliabilityQuery(Struct, frozen=True, kw_only=True):
    min_score: Annotated[float, Meta(ge=0.0, le=1.0, description="liveness_score at least")] | None = None
    max_score: (
        Annotated[float, Meta(ge=0.0, le=1.0, description="liveness_score at most; 0 or absent: unbounded")] | None
    ) = None
    min_uptime: Annotated[float, Meta(ge=0.0, le=1.0, description="uptime_pct at least (0..1)")] | None = None
    min_stays_4h: Annotated[float, Meta(ge=0.0, le=1.0, description="p_stays_4h at least")] | None = None
    min_stays_8h: Annotated[float, Meta(ge=0.0, le=1.0, description="p_stays_8h at least")] | None = None
    limit: Annotated[int, Meta(ge=0, le=1_000_000, description="entries at most; 0: all")] = 100
    as_of: AsOf | None = None
    horizon: Annotated[str, Meta(description="adds the forecast for so far ahead, 1m to 30d")] | None = None


class FeaturesQuery(Struct, frozen=True, kw_only=True):
    as_of: AsOf | None = None
    time_zone: Zone = "UTC"


class ForecastQuery(Struct, frozen=True, kw_only=True):
    horizon: Horizon = "8h"
    as_of: AsOf | None = None


class NetworkQuery(Struct, frozen=True, kw_only=True):
    as_of: AsOf | None = None


class BacktestQuery(Struct, frozen=True, kw_only=True):
    horizons: Annotated[str, Meta(description="horizons, separated by commas, at most 8")] = "4h,8h,24h"
    every: Annotated[str, Meta(description="time between two cuts, 1h to 90d")] = "12h"
    window: Annotated[str, Meta(description="history behind each cut, 1h to 90d")] = "14d"
    from_: Annotated[str, Meta(description="the first cut is not before this time")] | None = field(
        default=None, name="from"
    )
    to: Annotated[str, Meta(description="the last cut is not after this time")] | None = None


class HeavyWork:
    """SQL and backtests under way: at most `sql_at_once`, further ones are refused, not queued."""

    def __init__(self, at_once: int) -> None:
        self._at_once = at_once
        self._now = 0

    def __enter__(self) -> None:
        if self._now >= self._at_once:
            raise CoordError(Code.TOO_MANY, f"{self._now} such questions run already", "ask again when one is done")
        self._now += 1

    def __exit__(self, *_: object) -> None:
        self._now -= 1


async def ask(deps: ApiDeps, question: AnyQuestion, wait_s: float | None = None) -> Answer:
    """The worker's answer; CoordError(TIMEOUT) after `ask_s`."""
    limit_s = wait_s if wait_s is not None else deps.settings.ask_s
    try:
        async with asyncio.timeout(limit_s):
            return await deps.analytics.ask(question)
    except TimeoutError:
        raise CoordError(
            Code.TIMEOUT, f"analytics gave no answer within {limit_s:g} s", "ask for less, or again later"
        ) from None


def as_of(text: str | None) -> Ms | None:
    """The moment that a question is about; None: now."""
    return asked_time(text, "as_of") if text is not None else None


async def show_liveness(call: Call[FeaturesQuery, NoBody]) -> Ready | Struct:
    """A provider's features. One that is enrolled and was never seen is answered, too."""
    provider_id, asked_ms = call.provider_id, as_of(call.query.as_of)
    await known(call.deps, provider_id)
    suspected = dict(suspicions_at(call.deps, asked_ms)).get(provider_id, 0.0)
    question = AskFeatures(
        provider_id=provider_id, as_of_ms=asked_ms, time_zone=call.query.time_zone, suspicion=suspected
    )
    try:
        return figures(await ask(call.deps, question), call.deps.engine.clock.now_ms())
    except CoordError as error:
        if error.code is not Code.NOT_FOUND:
            raise
    unseen = unobserved(provider_id, to_text(asked_ms if asked_ms is not None else call.now_ms))
    return structs.replace(unseen, suspicion=suspected)


async def list_reliability(call: Call[ReliabilityQuery, NoBody]) -> Ready:
    """Who can be relied on: filtered, by score, uptime and id."""
    query = call.query
    horizon_ms = (
        asked_duration(query.horizon, "horizon", HORIZON_LEAST, HORIZON_MOST) if query.horizon is not None else None
    )
    question = AskReliability(
        min_score=query.min_score,
        max_score=query.max_score,
        min_uptime=query.min_uptime,
        min_stays_4h=query.min_stays_4h,
        min_stays_8h=query.min_stays_8h,
        horizon_ms=horizon_ms,
        as_of_ms=as_of(query.as_of),
        limit=query.limit,
        suspicions=suspicions_at(call.deps, as_of(query.as_of)),
    )
    return figures(await ask(call.deps, question), call.deps.engine.clock.now_ms())


async def show_forecast(call: Call[ForecastQuery, NoBody]) -> Ready:
    """P(it stays), or null for a provider that is not online."""
    provider_id = call.provider_id
    horizon_ms = asked_duration(call.query.horizon, "horizon", HORIZON_LEAST, HORIZON_MOST)
    asked_ms = as_of(call.query.as_of)
    await known(call.deps, provider_id)
    question = AskForecast(provider_id=provider_id, horizon_ms=horizon_ms, as_of_ms=asked_ms)
    try:
        return figures(await ask(call.deps, question), call.deps.engine.clock.now_ms())
    except CoordError as error:
        if error.code is not Code.NOT_FOUND:
            raise
    return Ready(body=b"null")


async def show_network(call: Call[NetworkQuery, NoBody]) -> Ready:
    """The whole fleet's uptime."""
    return figures(await ask(call.deps, AskNetwork(as_of_ms=as_of(call.query.as_of))), call.deps.engine.clock.now_ms())


async def show_fleet_availability(call: Call[FeaturesQuery, NoBody]) -> Ready:
    """The fleet's 7x24 grid."""
    question = AskAvailability(as_of_ms=as_of(call.query.as_of), time_zone=call.query.time_zone)
    return figures(await ask(call.deps, question), call.deps.engine.clock.now_ms())


async def show_availability(call: Call[FeaturesQuery, NoBody]) -> Ready:
    """One provider's 7x24 grid."""
    provider_id, asked_ms = call.provider_id, as_of(call.query.as_of)
    await known(call.deps, provider_id)
    question = AskAvailability(provider_id=provider_id, as_of_ms=asked_ms, time_zone=call.query.time_zone)
    return figures(await ask(call.deps, question), call.deps.engine.clock.now_ms())


async def show_backtest(call: Call[BacktestQuery, NoBody], work: HeavyWork) -> Ready:
    """How good the forecast was on the fleet's own past."""
    query = call.query
    asked = query.horizons.split(",")
    if len(asked) > HORIZONS_MAX:
        raise CoordError(Code.BAD_REQUEST, f"horizons: {len(asked)} are too many", f"give at most {HORIZONS_MAX}")
    question = AskBacktest(
        horizons_ms=tuple(asked_duration(text, "horizons", HORIZON_LEAST, HORIZON_MOST) for text in asked),
        every_ms=asked_duration(query.every, "every", WINDOW_LEAST, WINDOW_MOST),
        window_ms=asked_duration(query.window, "window", WINDOW_LEAST, WINDOW_MOST),
        from_ms=asked_time(query.from_, "from") if query.from_ is not None else None,
        to_ms=asked_time(query.to, "to") if query.to is not None else None,
    )
    with work:
        return figures(await ask(call.deps, question, 5 * call.deps.settings.ask_s), call.deps.engine.clock.now_ms())


async def run_sql(call: Call[NoQuery, SqlRequest], work: HeavyWork) -> Ready:
    """A SELECT over the documented views, in a process of its own."""
    statement = call.body.statement
    if not statement.strip():
        raise CoordError(Code.BAD_REQUEST, "there is no statement", 'send {"statement": "select ..."}')
    if len(statement) > STATEMENT_CHARS_MAX:
        raise CoordError(
            Code.TOO_LARGE, f"the statement has more than {STATEMENT_CHARS_MAX} characters", "send a shorter one"
        )
    question = AskSql(statement=statement, timeout_s=call.body.timeout_s, rows_max=call.body.rows_max)
    with work:
        return figures(await ask(call.deps, question, call.body.timeout_s + 10.0), call.deps.engine.clock.now_ms())
