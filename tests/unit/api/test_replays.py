"""Idempotency-Key: one key, one request, one answer."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from coordinator.core.ids import TokenId
from coordinator.service.api.replays import Replays
from coordinator.service.api.settings import ApiSettings
from tests.unit.api.rig import ADMIN, Rig, served

CSV = b"provider_id,connected_at,disconnected_at,disconnect_reason\na,1547399272,1547405552,read_error\n"


def keyed(key: str) -> dict[str, str]:
    return {"Idempotency-Key": key}


def test_the_same_key_and_request_get_the_same_answer_once_carried_out() -> None:
    """Also for a secret that is shown once: the repeat shows the same one, and only one token was made."""

    async def test(rig: Rig) -> None:
        body = {"role": "read-only"}
        first = await rig.post("/v1/tokens", body, headers=keyed("k1"))
        again = await rig.post("/v1/tokens", body, headers=keyed("k1"))
        assert (first.status, first.body) == (again.status, again.body) and 201 == first.status
        assert "Idempotency-Replayed" not in first.headers and "true" == again.headers["Idempotency-Replayed"]
        other = await rig.post("/v1/tokens", body, headers=keyed("k2"))
        assert other.body != first.body
        assert 3 == len([row for row in rig.views.tokens.values() if row.role == "read-only"])

    served(test)


def test_a_key_that_came_with_another_request_is_a_conflict() -> None:
    """Another body or another path under the same key: 409; another caller's key is his own."""

    async def test(rig: Rig) -> None:
        other = (await rig.post("/v1/tokens", {"role": "admin"})).json["token"]
        assert 201 == (await rig.post("/v1/pools", {"name": "a"}, headers=keyed("k"))).status
        assert "conflict" == (await rig.post("/v1/pools", {"name": "b"}, headers=keyed("k"))).code
        assert "conflict" == (await rig.post("/v1/tokens", {"role": "admin"}, headers=keyed("k"))).code
        assert 201 == (await rig.post("/v1/pools", {"name": "b"}, other, headers=keyed("k"))).status

    served(test)


def test_a_refusal_is_an_answer_too_and_a_failure_is_not() -> None:
    """409 is replayed as it was; after a full disk the same key is tried again."""

    async def test(rig: Rig) -> None:
        await rig.post("/v1/pools", {"name": "a"})
        first = await rig.post("/v1/pools", {"name": "a"}, headers=keyed("k"))
        await rig.ask("DELETE", "/v1/pools/a")
        again = await rig.post("/v1/pools", {"name": "a"}, headers=keyed("k"))
        assert first.body == again.body and "conflict" == again.code
        rig.analytics.fail = RuntimeError("down")
        assert 500 == (await rig.post("/v1/sql", {"statement": "select 1"}, headers=keyed("s"))).status
        rig.analytics.fail = None
        assert 404 == (await rig.post("/v1/sql", {"statement": "select 1"}, headers=keyed("s"))).status

    served(test)


def test_two_at_once_are_carried_out_once() -> None:
    """The second waits for the first one's answer."""

    async def test(rig: Rig) -> None:
        rig.store.gate.clear()
        both = [
            asyncio.ensure_future(rig.ask("POST", "/v1/import/sessions", data=CSV, headers=keyed("k")))
            for _ in range(2)
        ]
        done, waiting = await asyncio.wait(both, timeout=0.2)
        assert not done and 2 == len(waiting)
        rig.store.gate.set()
        first, second = await asyncio.gather(*both)
        assert (200, first.body) == (second.status, second.body) and 1 == rig.store.imports

    served(test)


@pytest.mark.parametrize("key", ["", " ", "x" * 129, "a b", "\u00e4"])
def test_a_key_that_is_none_is_refused(key: str) -> None:
    """1 to 128 visible ASCII characters."""

    async def test(rig: Rig) -> None:
        got = await rig.post("/v1/pools", {"name": "a"}, headers=keyed(key))
        assert "bad_request" == got.code and 1 == len((await rig.get("/v1/pools")).json["entries"])

    served(test)


def test_what_is_remembered_is_bounded_in_number_and_age() -> None:
    """Beyond the bounds the oldest answers go: the key then counts as new."""

    async def test(rig: Rig) -> None:
        for i in range(6):
            await rig.post("/v1/pools", {"name": f"p{i}"}, ADMIN, headers=keyed(f"k{i}"))
        assert "conflict" == (await rig.post("/v1/pools", {"name": "p0"}, headers=keyed("k0"))).code
        assert 201 == (await rig.post("/v1/pools", {"name": "p5"}, headers=keyed("k5"))).status
        rig.clock.ahead_ms += 3_601_000
        assert "conflict" == (await rig.post("/v1/pools", {"name": "p5"}, headers=keyed("k5"))).code

    served(test, ApiSettings(remembered_per_token_max=3))


def test_who_waited_for_a_failure_tries_in_turn_and_leaves_nothing_behind() -> None:
    """Two at once are never carried out at once, also after a failure; and a key that failed takes no room."""

    async def main() -> None:
        replays = Replays(ApiSettings(remembered_per_token_max=4), lambda: 0.0)
        under_way = most = 0

        async def fail() -> web.StreamResponse:
            nonlocal under_way, most
            under_way += 1
            most = max(most, under_way)
            await asyncio.sleep(0)
            under_way -= 1
            return web.Response(status=503)

        for round_ in range(5):
            tries = (replays.once(TokenId("t"), f"k{round_}", "same", fail) for _ in range(4))
            assert [503] * 4 == [answer.status for answer in await asyncio.gather(*tries)]
        assert (1, 0) == (most, len(replays))

    asyncio.run(main())
