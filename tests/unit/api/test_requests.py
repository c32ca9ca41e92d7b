"""What is asked badly: every refusal is a problem that says what was asked, what is, and what to do."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import time
from typing import Any

import pytest

from coordinator.core.errors import Code, CoordError
from coordinator.service.api import connections
from coordinator.service.api.connections import connections_max
from coordinator.service.api.problems import STATUS
from coordinator.service.api.settings import ApiSettings
from tests.unit.api.rig import ADMIN, PATIENCE_S, Rig, served


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("poool=x", "did you mean pool?"),
        ("limit=5&limit=6", "twice"),
        ("limit=abc", "limit='abc'"),
        ("limit=1001", "<= 1000"),
        ("label=%zz", "escape"),
        ("label=%ff", "UTF-8"),
        ("label=%00", "NUL"),
        ("liveness=onlin", "did you mean online?"),
        ("&".join(f"a{i}=1" for i in range(100)), "no query parameter"),
    ],
)
def test_a_bad_query_is_refused_by_name(query: str, said: str) -> None:
    """Unknown, repeated, mistyped, out of range or badly escaped: 400 that names it."""

    async def test(rig: Rig) -> None:
        got = await rig.get(f"/v1/providers?{query}")
        assert "bad_request" == got.code and said in got.json["detail"] + got.json.get("hint", "")

    served(test)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "not JSON"),
        (b"\xff", "not"),
        (b"[]", "array"),
        (b'"x"', "str"),
        (b"{}", "name"),
        (b'{"name": 5}', "$.name"),
        (b'{"name": "a", "nots": ""}', "did you mean note?"),
        (b"[" * 100_000, "not"),
        (b'{"name":' * 50_000, "not"),
    ],
)
def test_a_bad_body_is_refused_with_where_it_goes_wrong(body: bytes, said: str) -> None:
    """Broken, wrong-typed, misspelt or deep JSON: 400, and the process lives on."""

    async def test(rig: Rig) -> None:
        got = await rig.ask("POST", "/v1/pools", data=body, headers={"Content-Type": "application/json"})
        assert "bad_request" == got.code and said in got.json["detail"] + got.json.get("hint", "")
        assert 200 == (await rig.get("/v1/pools")).status

    served(test)


def test_a_body_that_is_not_announced_as_json_is_refused() -> None:
    """A form that a page could send from anywhere changes nothing."""

    async def test(rig: Rig) -> None:
        for media in ("application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"):
            got = await rig.ask("POST", "/v1/pools", data=b'{"name":"x"}', headers={"Content-Type": media})
            assert "bad_request" == got.code and "application/json" in got.json["hint"]
        assert 1 == len((await rig.get("/v1/pools")).json["entries"])

    served(test)


def test_bodies_are_bounded_before_and_after_unpacking() -> None:
    """Too large as announced, as sent in chunks, and as unpacked: 413 each, without holding it all."""

    async def test(rig: Rig) -> None:
        announced = await rig.ask("POST", "/v1/pools", data=b" " * 20_000)
        bomb = gzip.compress(b" " * 5_000_000)
        assert len(bomb) < 10_000
        packed = await rig.ask(
            "POST", "/v1/pools", data=bomb, headers={"Content-Encoding": "gzip", "Content-Type": "application/json"}
        )
        for got in (announced, packed):
            assert "too_large" == got.code

        async def chunks() -> Any:
            for _ in range(100):
                yield b" " * 1_000

        async with rig.http.post(
            rig.url + "/v1/pools", data=chunks(), headers={"Authorization": f"Bearer {ADMIN}"}
        ) as response:
            assert 413 == response.status
        damaged = await rig.ask(
            "POST",
            "/v1/pools",
            data=b"\x1f\x8b\x08 this is no gzip",
            headers={"Content-Encoding": "gzip", "Content-Type": "application/json"},
        )
        assert "bad_request" == damaged.code

    served(test, ApiSettings(body_bytes_max=10_000))


def test_a_strangers_body_is_not_unpacked() -> None:
    """Half a megabyte of gzip that unpacks to half a gigabyte costs whoever has no token nothing of ours."""

    async def test(rig: Rig) -> None:
        bomb = gzip.compress(b" " * 2**29)
        began_s = time.process_time()
        got = await rig.ask("POST", "/v1/pools", None, data=bomb, headers={"Content-Encoding": "gzip"})
        assert 401 == got.status
        assert 200 == (await rig.get("/healthz", None)).status
        assert time.process_time() - began_s < 0.5

    served(test)


@pytest.mark.parametrize(
    "body",
    [
        gzip.compress(b'{"name":"a"}')[:-4],
        gzip.compress(b'{"name":') + gzip.compress(b'"a"}'),
        b"plain",
    ],
    ids=["cut", "two members", "none"],  # the bytes hold the time of day, and tests have the same names everywhere
)
def test_a_body_that_is_not_one_whole_gzip_member_is_refused(body: bytes) -> None:
    """Cut short, in two members, or not packed at all."""

    async def test(rig: Rig) -> None:
        packed = {"Content-Encoding": "gzip"}
        assert "bad_request" == (await rig.ask("POST", "/v1/pools", data=body, headers=packed)).code
        whole = gzip.compress(b'{"name":"a"}')
        assert 201 == (await rig.ask("POST", "/v1/pools", data=whole, headers=packed)).status
        other = await rig.ask("POST", "/v1/pools", data=whole, headers={"Content-Encoding": "br"})
        assert "bad_request" == other.code and "Content-Encoding" in other.json["detail"]

    served(test)


def test_connections_leave_files_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond what the process may open, less a reserve, a new connection is dropped; when one goes there is room."""
    assert (744, 50) == (connections_max(1_000), connections_max(100))
    monkeypatch.setattr(connections, "connections_max", lambda files_max: 20)

    async def test(rig: Rig) -> None:
        host, port = rig.url.removeprefix("http://").split(":")
        peers = [await asyncio.open_connection(host, int(port)) for _ in range(20)]
        reader, writer = await asyncio.open_connection(host, int(port))
        with contextlib.suppress(ConnectionResetError):
            assert b"" == await asyncio.wait_for(reader.read(), PATIENCE_S)
        for _, other in (*peers, (reader, writer)):
            other.close()
        async with asyncio.timeout(PATIENCE_S):
            while rig.connections():  # noqa: ASYNC110 - nobody tells of the last one
                await asyncio.sleep(0.01)
        assert 200 == (await rig.get("/healthz", None)).status

    served(test)


async def raw(rig: Rig, sent: bytes) -> bytes:
    """The problem that comes back for these bytes."""
    port = int(rig.url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        await writer.drain()
        return await asyncio.wait_for(reader.readuntil(b"}"), PATIENCE_S)
    finally:
        writer.close()


def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    """Half a body: 504 when its time is over."""

    async def test(rig: Rig) -> None:
        head = f"POST /v1/pools HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n"
        answer = await raw(rig, (head + 'Content-Length: 100\r\nConnection: close\r\n\r\n{"name"').encode())
        assert answer.startswith(b"HTTP/1.1 504") and b'"code":"timeout"' in answer

    served(test, ApiSettings(body_s=0.2))


@pytest.mark.parametrize(
    "sent",
    [
        b"BREW /v1/pools HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET http://[::bad HTTP/1.1\r\n\r\n",
        b"GET /v1/pools HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: x\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: " + b"y" * 20_000 + b"\r\n\r\n",
        b"\r\n\r\n\x00\x00\r\n\r\n",
    ],
)
def test_what_is_no_http_is_answered_shortly_and_logged_without_a_trace(
    sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A problem, our headers, no version of any software, no echo of the bytes, no stack trace in the log."""

    async def test(rig: Rig) -> None:
        answer = await raw(rig, sent + b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.") and b" 400 " in answer.split(b"\r\n")[0]
        assert b"application/problem+json" in answer and b"aiohttp" not in answer and b"BREW" not in answer

    with caplog.at_level(logging.DEBUG):
        served(test)
    assert not [record for record in caplog.records if record.exc_info]


def test_absolute_targets_and_doubled_hosts_are_refused() -> None:
    """There is one way to say which host and path are meant."""

    async def test(rig: Rig) -> None:
        auth = f"Authorization: Bearer {ADMIN}\r\nConnection: close\r\n\r\n"
        for head in (
            "GET http://evil.example/v1/pools HTTP/1.1\r\nHost: localhost\r\n",
            "GET http://localhost/v1/pools HTTP/1.1\r\nHost: localhost\r\n",
            "GET /v1/pools HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n",
            "GET /v1/pools HTTP/1.1\r\n",
            "GET * HTTP/1.1\r\nHost: localhost\r\n",
        ):
            answer = await raw(rig, (head + auth).encode())
            assert b" 400 " in answer.split(b"\r\n")[0] or b" 403 " in answer.split(b"\r\n")[0], head

    served(test)


def test_a_failure_of_ours_is_a_reference_and_nothing_more(caplog: pytest.LogCaptureFixture) -> None:
    """500 `internal`: the answer has no word of the exception, the log has it beside the same reference."""

    async def test(rig: Rig) -> None:
        rig.analytics.fail = RuntimeError("the secret innards")
        got = await rig.get("/v1/network/availability")
        assert 500 == got.status and "internal" == got.code
        assert b"innards" not in got.body and b"Traceback" not in got.body
        reference = got.json["instance"].rsplit(":", 1)[1]
        assert any(reference in record.getMessage() and record.exc_info for record in caplog.records)

    with caplog.at_level(logging.ERROR):
        served(test)


def test_every_code_has_one_status_and_the_client_reads_it_back() -> None:
    """The table is total, and statuses are those of failing requests."""
    assert set(STATUS) == set(Code)
    assert all(400 <= status < 600 for status in STATUS.values())


@pytest.mark.parametrize(
    ("code", "status", "retry"),
    [
        (Code.STORE_FULL, 507, True),
        (Code.ANALYTICS_UNAVAILABLE, 503, True),
        (Code.TIMEOUT, 504, False),
        (Code.BAD_SQL, 400, False),
    ],
)
def test_refusals_of_the_parts_behind_reach_the_caller(code: Code, status: int, retry: bool) -> None:
    """Code, message and hint as they were; Retry-After where waiting helps."""

    async def test(rig: Rig) -> None:
        rig.analytics.fail = CoordError(code, "what is", "what to do")
        got = await rig.get("/v1/network/availability")
        assert (status, code.value) == (got.status, got.code)
        assert ("what is", "what to do") == (got.json["detail"], got.json["hint"])
        assert retry == ("Retry-After" in got.headers)

    served(test)


def test_a_full_disk_is_507_and_readyz_says_so_while_reads_go_on() -> None:
    """Writers are refused, readers are served, /readyz turns 503 and back."""

    async def test(rig: Rig) -> None:
        assert 200 == (await rig.get("/readyz", None)).status
        rig.store.fault = CoordError(Code.STORE_FULL, "the disk is full", "free some")
        assert "store_full" == (await rig.post("/v1/pools", {"name": "x"})).code
        assert 200 == (await rig.get("/v1/pools")).status
        ready = await rig.get("/readyz", None)
        assert 503 == ready.status and ready.json["store"].startswith("full since ")
        rig.store.fault = None
        assert 201 == (await rig.post("/v1/pools", {"name": "x"})).status
        assert 200 == (await rig.get("/readyz", None)).status

    served(test)
