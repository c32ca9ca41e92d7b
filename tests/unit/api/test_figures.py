"""Routes of analytics: what is asked of the worker, what is passed on, and what happens without it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from coordinator.api_types.reliability import Features
from coordinator.core.errors import Code, CoordError
from coordinator.ports.analytics import (
    AnyQuestion,
    AskAvailability,
    AskBacktest,
    AskFeatures,
    AskForecast,
    AskNetwork,
    AskReliability,
    AskSql,
)
from coordinator.service.api.settings import ApiSettings
from coordinator.timetext import DAY_MS, HOUR_MS
from tests.unit.api.rig import READER, Rig, served

MOMENT = 1_547_399_272_000

ASKED: list[tuple[str, AnyQuestion]] = [
    ("/v1/providers/reliability", AskReliability()),
    (
        "/v1/providers/reliability?min_score=0.8&max_score=0&min_uptime=0.5&min_stays_4h=0.1&min_stays_8h=1"
        "&limit=0&as_of=1547399272&horizon=8h",
        AskReliability(
            min_score=0.8,
            max_score=0.0,
            min_uptime=0.5,
            min_stays_4h=0.1,
            min_stays_8h=1.0,
            limit=0,
            as_of_ms=MOMENT,
            horizon_ms=8 * HOUR_MS,
        ),
    ),
    ("/v1/providers/a/liveness", AskFeatures(provider_id="a")),
    (
        "/v1/providers/a/liveness?as_of=2019-01-13T18:07:52%2B01:00&time_zone=Asia/Kolkata",
        AskFeatures(provider_id="a", as_of_ms=MOMENT, time_zone="Asia/Kolkata"),
    ),
    ("/v1/providers/a/forecast", AskForecast(provider_id="a", horizon_ms=8 * HOUR_MS)),
    ("/v1/providers/a/forecast?horizon=1.5h", AskForecast(provider_id="a", horizon_ms=5_400_000)),
    ("/v1/providers/a/availability", AskAvailability(provider_id="a")),
    ("/v1/availability?time_zone=UTC", AskAvailability()),
    ("/v1/network/availability", AskNetwork()),
    ("/v1/backtest", AskBacktest()),
    (
        "/v1/backtest?horizons=1h,2d&every=6h&window=7d&from=1547399272&to=2019-01-13T17:07:52Z",
        AskBacktest(
            horizons_ms=(HOUR_MS, 2 * DAY_MS), every_ms=6 * HOUR_MS, window_ms=7 * DAY_MS, from_ms=MOMENT, to_ms=MOMENT
        ),
    ),
]


@pytest.mark.parametrize(("path", "question"), ASKED, ids=[path[:60] for path, _ in ASKED])
def test_a_route_asks_what_its_parameters_say_and_passes_the_answer_on(path: str, question: AnyQuestion) -> None:
    """The worker's bytes are the answer, with the age of their figures."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        rig.analytics.says(type(question), {"figures": [1, 2.5]})
        rig.analytics.computed_at_ms = rig.clock.now_ms() - 42_500
        got = await rig.get(path, READER)
        assert 200 == got.status, got.body
        assert b'{"figures":[1,2.5]}' == got.body and got.headers["Age"] in ("42", "43")
        assert [question] == rig.analytics.asked

    served(test)


def test_sql_is_passed_on_with_its_bounds() -> None:
    """Statement, time limit and row limit reach the worker; nonsense does not."""

    async def test(rig: Rig) -> None:
        rig.analytics.says(AskSql, {"columns": []})
        body: dict[str, Any] = {"statement": "select 1", "timeout_s": 5, "rows_max": 7}
        assert 200 == (await rig.post("/v1/sql", body, READER)).status
        assert [AskSql(statement="select 1", timeout_s=5.0, rows_max=7)] == rig.analytics.asked
        for bad in ({}, {"statement": " "}, {**body, "timeout_s": 0}, {**body, "rows_max": 10**9}, {**body, "x": 1}):
            assert "bad_request" == (await rig.post("/v1/sql", bad, READER)).code
        assert "too_large" == (await rig.post("/v1/sql", {"statement": "x" * 100_001}, READER)).code

    served(test)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/providers/reliability?min_score=1.1",
        "/v1/providers/reliability?min_score=nan",
        "/v1/providers/reliability?max_score=-0.1",
        "/v1/providers/reliability?limit=-1",
        "/v1/providers/reliability?horizon=31d",
        "/v1/providers/reliability?horizon=8",
        "/v1/providers/reliability?as_of=yesterday",
        "/v1/providers/reliability?as_of=2019-01-13T18:07:52",
        "/v1/providers/a/forecast?horizon=30s",
        "/v1/providers/a/forecast?horizon=-8h",
        "/v1/providers/a/liveness?time_zone=../../etc/passwd",
        "/v1/backtest?horizons=",
        "/v1/backtest?horizons=1h,2h,3h,4h,5h,6h,7h,8h,9h",
        "/v1/backtest?every=0s",
        "/v1/backtest?from=x",
    ],
)
def test_what_makes_no_sense_is_refused_before_the_worker_is_asked(path: str) -> None:
    """400 that names the parameter."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        got = await rig.get(path)
        name = path.split("?")[1].split("=")[0]
        assert "bad_request" == got.code and name in got.json["detail"], got.body
        assert [] == rig.analytics.asked

    served(test)


def test_who_is_enrolled_and_was_never_seen_is_answered_honestly() -> None:
    """Features that know nothing and say so; a forecast of null."""

    async def test(rig: Rig) -> None:
        await rig.enrol("new")
        got = await rig.get("/v1/providers/new/liveness")
        features = msgspec.json.decode(got.body, type=Features)
        assert 0.0 == features.liveness_score and "never_observed" in features.flags
        assert ((None,) * 24,) * 7 == features.hourly_availability and not features.online
        assert b"null" == (await rig.get("/v1/providers/new/forecast")).body

    served(test)


def test_without_the_worker_the_rest_serves_on() -> None:
    """503 with Retry-After for figures; providers, sessions and health answer; readiness does not depend on it."""

    async def test(rig: Rig) -> None:
        await rig.enrol("a")
        rig.analytics.up = False
        rig.analytics.fail = CoordError(Code.ANALYTICS_UNAVAILABLE, "the worker is down", "wait")
        got = await rig.get("/v1/providers/reliability")
        assert "analytics_unavailable" == got.code and "Retry-After" in got.headers
        assert 200 == (await rig.get("/v1/providers")).status
        assert 200 == (await rig.get("/v1/providers/a/sessions")).status
        ready = await rig.get("/readyz", None)
        assert (200, "down") == (ready.status, ready.json["analytics"])

    served(test)


def test_an_answer_that_does_not_come_is_not_waited_for() -> None:
    """504 after the bound."""

    async def test(rig: Rig) -> None:
        rig.analytics.gate.clear()
        assert "timeout" == (await rig.get("/v1/network/availability")).code

    served(test, ApiSettings(ask_s=0.1))


def test_heavy_questions_are_refused_beyond_a_few_at_a_time() -> None:
    """429 for the third of SQL and backtests; when one is done there is room again."""

    async def test(rig: Rig) -> None:
        rig.analytics.gate.clear()
        rig.analytics.says(AskSql, {})
        running = [asyncio.ensure_future(rig.post("/v1/sql", {"statement": "select 1"})) for _ in range(2)]
        for _ in running:
            await rig.analytics.arrivals.get()
        assert "too_many" == (await rig.post("/v1/sql", {"statement": "select 1"})).code
        assert "too_many" == (await rig.get("/v1/backtest")).code
        rig.analytics.gate.set()
        assert [200, 200] == [got.status for got in await asyncio.gather(*running)]
        assert 200 == (await rig.post("/v1/sql", {"statement": "select 1"})).status

    served(test)
