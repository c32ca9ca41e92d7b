"""Answers that stay open: events, waiting, and how every one of them ends with its token."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable

import aiohttp
import msgspec
import pytest

from coordinator.api_types.happenings import EventEntry
from coordinator.core.commands import TokenForgotten
from coordinator.service.api.settings import ApiSettings
from tests.unit.api.rig import ADMIN, READER, TENANT, Rig, a_service, served
from tests.unit.api.worked import Work, eventually, listening

BODY = {"command": ["true"]}
OPEN = ("/v1/events", "/v1/jobs/1000/logs?follow=true", "/v1/jobs/1000/wait")
PLAIN_OPEN = ("/v1/jobs/1000/logs?follow=true", "/v1/jobs/1000/wait?timeout=5m")


async def a_token(rig: Rig, **more: object) -> tuple[str, str]:
    """A fresh reader's token and its id."""
    made = (await rig.post("/v1/tokens", {"role": "read-only", **more})).json
    return made["token"], made["entry"]["token_id"]


async def cut(answer: Awaitable[object]) -> None:
    """The answer breaks off: it has neither an end nor a last chunk."""
    with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
        await answer


@pytest.mark.parametrize("path", OPEN)
def test_every_stream_is_cut_when_its_token_is_revoked_and_no_other_one(path: str) -> None:
    """At once, though nothing is said on it."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        token, token_id = await a_token(rig)
        other, _ = await a_token(rig)
        headers = {"Accept": "text/event-stream"}
        async with (
            rig.http.get(rig.url + path, headers={"Authorization": f"Bearer {token}", **headers}) as response,
            rig.http.get(rig.url + path, headers={"Authorization": f"Bearer {other}", **headers}) as unharmed,
        ):
            assert 200 == response.status == unharmed.status
            assert 204 == (await rig.ask("DELETE", f"/v1/tokens/{token_id}")).status
            await cut(response.content.read())
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await unharmed.content.read()
        assert 401 == (await rig.get(path, token)).status

    served(test)


@pytest.mark.parametrize("path", PLAIN_OPEN)
def test_what_waits_without_being_a_stream_ends_with_its_token_too(path: str) -> None:
    """A long poll is told so; plain bytes that were begun break off."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        token, token_id = await a_token(rig)
        headers = {"Authorization": f"Bearer {token}", "Accept": "text/plain"}

        async def ask() -> int:
            async with rig.http.get(rig.url + path, headers=headers) as response:
                await response.read()
                return response.status

        asking = asyncio.ensure_future(ask())
        await asyncio.wait((asking,), timeout=0.05)
        await rig.ask("DELETE", f"/v1/tokens/{token_id}")
        if "wait" in path:
            assert 401 == await asking
        else:
            await cut(asking)

    served(test)


def test_a_stream_ends_when_its_token_expires_or_is_forgotten() -> None:
    """The clock of the token is the clock of the stream."""

    async def test(rig: Rig) -> None:
        token, _ = await a_token(rig, expires_in_s=0.4)
        async with listening(rig, "/v1/events", token) as events:
            await cut(anext(events))
        token, token_id = await a_token(rig)
        async with listening(rig, "/v1/events", token) as events:
            rig.views.apply([TokenForgotten(rig.views.tokens[token_id])])  # type: ignore[index]
            await cut(anext(events))

    served(test)


def test_streams_are_bounded_of_a_token_and_in_all_and_make_room_when_they_end() -> None:
    """429 that says how many there are."""

    async def test(rig: Rig) -> None:
        async with contextlib.AsyncExitStack() as stack:
            for _ in range(2):
                await stack.enter_async_context(listening(rig, "/v1/events", ADMIN))
            got = await rig.get("/v1/events", ADMIN)
            assert (429, "too_many") == (got.status, got.code)
            await stack.enter_async_context(listening(rig, "/v1/events", READER))
            assert 429 == (await rig.get("/v1/events", TENANT)).status
        await eventually(lambda: rig.deps.feed.followers == 0, "the streams' end")
        async with listening(rig, "/v1/events", ADMIN):
            pass

    served(test, ApiSettings(streams_per_token_max=2, streams_max=3, streams_idle_s=0.05))


def test_a_silent_stream_says_that_it_is_there() -> None:
    """A comment, which no client takes for an event; and it notices that its reader has left."""

    async def test(rig: Rig) -> None:
        headers = {"Authorization": f"Bearer {ADMIN}"}
        async with rig.http.get(rig.url + "/v1/events", headers=headers) as response:
            assert b": here\n" == await response.content.readline()
            assert 1 == rig.deps.feed.followers
        await eventually(lambda: rig.deps.feed.followers == 0, "the reader's leaving being noticed")

    served(test, ApiSettings(streams_idle_s=0.05))


def test_a_stop_of_the_coordinator_cuts_streams_and_lets_no_other_begin() -> None:
    """Nobody takes a cut stream for a whole one, and the stop is not held up."""

    async def run() -> None:
        async with asyncio.timeout(60), a_service() as rig:
            work = Work(rig)
            await work.begin()
            async with listening(rig, "/v1/jobs/1000/logs?follow=true") as logs, listening(rig, "/v1/events") as events:
                waiting = asyncio.ensure_future(rig.get("/v1/jobs/1000/wait?timeout=5m"))
                await asyncio.wait((waiting,), timeout=0.05)
                await rig.app.shutdown()
                await cut(anext(logs))
                await cut(anext(events))
                assert 503 == (await waiting).status
                assert 503 == (await rig.get("/v1/events")).status

    asyncio.run(run())


def test_a_relay_that_is_closed_ends_no_log_that_goes_on() -> None:
    """Its followers end with it; the attempt does not."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        first = await work.start()
        await work.prints(first, b"x\n")
        async with listening(rig, "/v1/jobs/1000/logs?follow=true") as events:
            await anext(events)
            await rig.deps.relay.close()
            await cut(anext(events))

    served(test)


def test_events_come_as_they_become_durable_and_go_on_behind_any_of_them() -> None:
    """By their number: what happens next, what happened after one, one job alone, one entity alone."""

    async def test(rig: Rig) -> None:
        async with listening(rig, "/v1/events") as events:
            first = (await rig.post("/v1/jobs", BODY)).json["job_id"]
            seen = [await anext(events)]
            assert ("job", str(first)) == (told(seen[0].data).entity, told(seen[0].data).subject)
            second = (await rig.post("/v1/jobs", BODY)).json["job_id"]
            await rig.ask("DELETE", f"/v1/jobs/{first}")
            while told(seen[-1].data).after != "cancelled" or told(seen[-1].data).entity != "job":
                seen.append(await anext(events))
        numbers = [told(event.data).seq for event in seen]
        assert list(range(numbers[0], numbers[0] + len(numbers))) == numbers == [int(event.id) for event in seen]
        for path, last_id in ((f"/v1/events?after={numbers[0]}", None), ("/v1/events", str(numbers[0]))):
            async with listening(rig, path, last_id=last_id) as events:
                assert seen[1:] == [await anext(events) for _ in seen[1:]]
        async with listening(rig, f"/v1/events?after=0&job={second}&entity=job") as events:
            assert second == told((await anext(events)).data).job_id
        got = (await rig.get(f"/v1/audit?job={first}&limit=1000")).json
        assert [n for n in reversed(numbers) if n in {e["seq"] for e in got["entries"]}] == [
            e["seq"] for e in got["entries"]
        ]
        page = (await rig.get("/v1/audit?limit=1")).json
        assert numbers[-1] == page["entries"][0]["seq"]
        assert numbers[-2] == (await rig.get(f"/v1/audit?limit=1&page={page['next_page']}")).json["entries"][0]["seq"]

    served(test)


@pytest.mark.parametrize(
    ("path", "last_id"),
    [
        ("/v1/events?entity=jobs", None),
        ("/v1/events", "x"),
        ("/v1/events", "-1"),
        ("/v1/audit?entity=x", None),
        ("/v1/events?after=-1", None),
    ],
)
def test_events_that_cannot_be_meant_are_refused(path: str, last_id: str | None) -> None:
    """400 at once, no stream."""

    async def test(rig: Rig) -> None:
        headers = {"Last-Event-ID": last_id} if last_id is not None else {}
        assert 400 == (await rig.get(path, headers=headers)).status

    served(test)


def told(data: str) -> EventEntry:
    return msgspec.json.decode(data, type=EventEntry)


def test_waiting_ends_with_the_job_or_with_the_time() -> None:
    """As it stands after the time; at once for one that has ended; when it begins to run where that was asked."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        path = "/v1/jobs/1000/wait"
        assert "running" == (await rig.get(f"{path}?timeout=0s")).json["state"]
        assert "running" == (await rig.get(f"{path}?until=running&timeout=5m")).json["state"]
        waiting = asyncio.ensure_future(rig.get(f"{path}?timeout=5m"))
        await asyncio.wait((waiting,), timeout=0.05)
        async with listening(rig, path) as events:
            assert "running" == (await anext(events)).id
            await work.end()
            assert "completed" == (await waiting).json["state"]
            assert [("job", "completed"), ("end", "completed")] == [(e.name, e.id) async for e in events]
        assert "completed" == (await rig.get(f"{path}?timeout=5m")).json["state"]
        for query in ("timeout=6m", "timeout=x", "until=dead"):
            assert 400 == (await rig.get(f"{path}?{query}")).status

    served(test)
