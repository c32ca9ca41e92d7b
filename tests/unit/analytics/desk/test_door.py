"""What is bounded and what is refused at the door, in the contract's own shape."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from analytics.attribution.desk import front as front_module
from tests.unit.analytics.desk.service import STOPS, WELL, serving
from tests.unit.analytics.desk.test_http import in_flight, refused


def test_who_is_beyond_the_number_of_jobs_is_refused_or_makes_room(tmp_path: Path) -> None:
    """Idle ones go, the oldest first; where all are worked on the answer is 503."""

    async def story() -> None:
        async with serving(tmp_path, jobs_max=2) as service:
            a, b, c, d = (service.log(f"{name}.log", WELL) for name in "abcd")
            for log in (a, b, c):
                assert 200 == (await service.post(log)).status
            known = [entry["log_path"] for entry in (await service.request("GET", "/jobs")).body["entries"]]
            assert [str(b), str(c)] == known
            for log in (b, c):
                await service.post(log, analysis_intent="progressive")
            reply = await service.post(d)
            assert (503, "job_limit_reached") == refused(reply) and "1" == reply.headers["Retry-After"]

    asyncio.run(story())


def test_too_many_analyses_are_refused(tmp_path: Path) -> None:
    """A bounded number waits; the next is told to come again."""

    async def story() -> None:
        async with serving(tmp_path, waiting_max=1, settle_s=0.5) as service:
            first = asyncio.ensure_future(service.get(service.log("a.log", STOPS), wait=True))
            await service.until(lambda: in_flight(service), "nothing was in flight")
            assert (503, "unavailable") == refused(await service.get(service.log("b.log", STOPS), wait=True))
            assert 200 == (await first).status

    asyncio.run(story())


def test_rates_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """429, with when to come again."""
    monkeypatch.setitem(front_module.RATES, "POST", (0.001, 3.0))

    async def story() -> None:
        async with serving(tmp_path) as service:
            log = service.log(text=WELL)
            replies = [await service.post(log) for _ in range(4)]
            assert [200, 200, 200, 429] == [reply.status for reply in replies]
            assert (429, "too_many_requests") == refused(replies[-1]) and "Retry-After" in replies[-1].headers
            assert 200 == (await service.get(log, wait=False)).status

    asyncio.run(story())


def test_a_large_body_is_refused(tmp_path: Path) -> None:
    """Before it is read."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            body = {"log_path": "/x", "user": "u" * 100_000}
            assert (413, "too_large") == refused(await service.request("POST", "/logs", json=body))

    asyncio.run(story())


@pytest.mark.parametrize("headers", ({"Origin": "http://127.0.0.1:50050"}, {"Origin": "null"}))
def test_pages_are_refused(tmp_path: Path, headers: dict[str, str]) -> None:
    """Whatever they say they are from."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            for method, route in (("GET", "/healthz"), ("GET", "/logs"), ("POST", "/logs"), ("GET", "/nope")):
                assert (403, "forbidden") == refused(await service.request(method, route, headers=headers))

    asyncio.run(story())


@pytest.mark.parametrize(("host", "status"), [
    ("127.0.0.1:50050", 200), ("localhost", 200), ("[::1]:80", 200), ("[::1]", 200),
    ("evil.example:50050", 403), ("127.0.0.1.evil.example", 403), ("localhost@evil", 403), ("", 403),
])  # fmt: skip
def test_over_tcp_the_host_is_checked(tmp_path: Path, host: str, status: int) -> None:
    """A name that somebody points at loopback is not one of ours."""

    async def story() -> None:
        async with serving(tmp_path, loopback=True) as service:
            reply = await service.request("GET", "/healthz", headers={"Host": host})
            assert status == reply.status or (host == "" and reply.status == 400)

    asyncio.run(story())


def test_other_routes_and_methods_are_refused_in_the_same_shape(tmp_path: Path) -> None:
    """404 and 405."""

    async def story() -> None:
        async with serving(tmp_path) as service:
            assert (404, "not_found") == refused(await service.request("GET", "/print"))
            assert (405, "method_not_allowed") == refused(await service.request("PUT", "/logs"))
            assert (422, "unprocessable") == refused(await service.request("GET", "/logs"))
            reply = await service.request("GET", "/logs", params={"log_path": "/x", "wait": "maybe"})
            assert (422, "unprocessable") == refused(reply)

    asyncio.run(story())
