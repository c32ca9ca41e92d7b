"""Bodies that are refused are not sent: who asks first hears it before a byte, who does not is stopped soon after."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import pytest

from coordinator.core.errors import Code, CoordError
from tests.unit.api.raw import content, offset_of, opened, part, raw
from tests.unit.api.rig import Rig, served
from tests.unit.api.worked import eventually

MB = 1_000_000
FULL = CoordError(Code.STORE_FULL, "no room", "make some")
ASKS = {"Expect": "100-continue"}
BUFFERS = 16 * MB
"""What two sockets and the answer's last words may hold of a body that nobody reads."""


def push(url: str, target: str, size: int, chunk: bytes) -> tuple[int, bytes]:
    """Send a body of `size` bytes without looking up, as simple programs do. -> (bytes that left, the answer)"""
    parts = urlsplit(url)
    sent = 0
    with socket.create_connection((parts.hostname, parts.port), timeout=20) as plain:
        plain.sendall(f"PUT {target} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {size}\r\n\r\n".encode())
        try:
            while sent < size:
                sent += plain.send(chunk)
        except ConnectionError:
            pass
        return sent, plain.recv(65_536)


async def arrived(rig: Rig, size: int) -> None:
    await eventually(lambda: rig.deps.data.meters.ingress_total >= size, "bytes arrive")


@pytest.mark.parametrize("uv", [False, True])
def test_who_asks_first_hears_of_a_full_disk_before_a_byte_has_left(uv: bool) -> None:
    """507 instead of `100 Continue`, and the connection ends: no later request is taken for the body."""

    async def test(rig: Rig) -> None:
        what = content(1_000)
        url = (await opened(rig, what))["url"]
        rig.store.blob_files.fault = FULL
        async with raw(rig) as connection:
            await connection.ask("PUT", url, ASKS, length=len(what))
            got = await connection.answer()
            assert (507, "store_full", "close") == (got.status, got.code, got.headers["Connection"])
            async with asyncio.timeout(60):
                assert await connection.ended()
        assert 0 == rig.deps.data.meters.ingress_total

    served(test, uv=uv)


def test_who_asks_first_and_may_is_told_so_and_keeps_the_connection() -> None:
    """`100 Continue` once its place is known to be there; two bodies over one connection."""

    async def test(rig: Rig) -> None:
        async with raw(rig) as connection:
            for seed in (1, 2):
                what = content(50_000, seed)
                await connection.ask("PUT", (await opened(rig, what))["url"], ASKS, length=len(what))
                assert 100 == (await connection.head()).status
                await connection.send(what.data)
                assert 201 == (await connection.answer()).status

    served(test)


def test_who_asks_first_for_what_the_signature_does_not_allow_sends_nothing() -> None:
    """Refused at the door: nobody without a right to send is told to go on."""

    async def test(rig: Rig) -> None:
        what = content(50_000)
        url = (await opened(rig, what))["url"]
        async with raw(rig) as connection:
            await connection.ask("PUT", url[:-2] + "AA", ASKS, length=len(what))
            got = await connection.answer()
            assert (403, "close") == (got.status, got.headers["Connection"])
            async with asyncio.timeout(60):
                assert await connection.ended()
        async with raw(rig) as connection:
            await connection.ask("PUT", url, {"Expect": "a miracle"}, length=len(what))
            assert (400, "bad_request") == ((got := await connection.answer()).status, got.code)

    served(test)


@pytest.mark.parametrize("uv", [False, True])
def test_who_sends_without_asking_is_stopped_after_some_megabytes_and_told_why(uv: bool) -> None:
    """Of 200 MB not more leaves than buffers hold, when the disk is full at first, and when it fills up under way."""

    async def test(rig: Rig) -> None:
        chunk, size, files = bytes(MB), 200 * MB, rig.store.blob_files
        for already in (0, 20 * MB):
            got = await rig.post("/v1/uploads", {"digest": f"{already:064x}", "size": size, "tenant": "physics"})
            files.fault = None if already else FULL
            sending = asyncio.create_task(asyncio.to_thread(push, rig.url, got.json["url"], size, chunk))
            await arrived(rig, already)
            before, files.fault = rig.deps.data.meters.ingress_total, FULL
            sent, answer = await sending
            assert b" 507 " in answer[:20], answer[:200]
            assert sent < before + BUFFERS, (sent, before)
            files.fault = None

    served(test, uv=uv)


def test_a_small_body_that_is_refused_costs_no_connection() -> None:
    """It is read and thrown away; the next request goes over the same one."""

    async def test(rig: Rig) -> None:
        what = content(50_000)
        url = (await opened(rig, what))["url"]
        async with raw(rig) as connection:
            for _ in range(2):
                await connection.ask("PUT", url, part(10, len(what), len(what)), what.data[10:])
                got = await connection.answer()
                assert (409, 0) == (got.status, offset_of(got))
            await connection.ask("PUT", url, None, what.data)
            assert 201 == (await connection.answer()).status

    served(test)
