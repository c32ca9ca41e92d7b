"""Uploads: only what is missing, from where it broke off, as long as it takes, and not after somebody said stop."""

from __future__ import annotations

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest
from aiohttp import web

from coordinator import wire_data
from coordinator.agent import sending as agent_sending
from coordinator.agent.asking import Asking, Refused, Stale, Whose
from coordinator.agent.hashing import digest
from coordinator.agent.sending import Changed, Parcel, Sending
from coordinator.agent.tls import Endpoint, Trust
from coordinator.core.rows import LeaseToken

WHOSE = Whose("1.0.0.1", 0, LeaseToken(1, 7))
_UPLOADS = msgspec.json.Decoder(wire_data.UploadsRequest)
Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


class Source(NamedTuple):
    path: Path

    def open(self) -> int:
        return os.open(self.path, os.O_RDONLY)


class Head:
    """A coordinator's side of uploads: keeps what arrives, and disturbs it as a test says."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.parts: dict[str, bytearray] = {}
        self.wanted: dict[str, int] = {}
        self.received = 0
        """Bytes of bodies, those that were thrown away too."""
        self.asked = 0
        self.puts = 0
        self.under_way = self.most_under_way = 0
        self.on_ask: Answer = self._nothing
        self.on_put: Answer = self._nothing
        self.says_go_on = True
        self.cut_at: list[int] = []
        """Break the connection when so much of an upload is there."""

    @staticmethod
    async def _nothing(_request: web.Request) -> None:
        return None

    async def uploads(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        if (answer := await self.on_ask(request)) is not None:
            return answer
        asked = _UPLOADS.decode(await request.read())
        targets = []
        for blob in asked.blobs:
            self.wanted[blob.digest] = blob.size
            there = blob.digest in self.blobs
            offset = len(self.parts.get(blob.digest, b""))
            targets.append(
                wire_data.UploadTarget(digest=blob.digest, present=there, url=f"/up/{blob.digest}?s=1", offset=offset)
            )
        return web.Response(body=msgspec.json.encode(wire_data.UploadsAnswer(uploads=tuple(targets))))

    async def expected(self, _request: web.Request) -> None:
        """In place of aiohttp, which says `100 Continue` before anybody was asked."""

    async def look(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["digest"]
        return web.Response(headers={"Upload-Offset": str(len(self.parts.get(name, b"")))})

    async def put(self, request: web.Request) -> web.StreamResponse:
        self.puts += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            answer = await self.on_put(request)
            if answer is not None:
                return answer
            if self.says_go_on and "Expect" in request.headers:
                await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                request.writer.output_size = 0
            return await self._receive(request)
        finally:
            self.under_way -= 1

    async def _receive(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["digest"]
        part, size = self.parts.setdefault(name, bytearray()), self.wanted[name]
        begin = re.match(r"bytes (\d+)-(\d+)/(\d+)$", request.headers.get("Content-Range", f"bytes 0-0/{size}"))
        if begin is not None and int(begin[1]) != len(part):
            return web.Response(status=409, headers={"Upload-Offset": str(len(part))})
        async for piece in request.content.iter_any():
            self.received += len(piece)
            part += piece
            if self.cut_at and len(part) >= self.cut_at[0]:
                del self.cut_at[0]
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
        if len(part) < size:
            return web.Response(status=202, headers={"Upload-Offset": str(len(part))})
        content = bytes(self.parts.pop(name))
        if digest(content) != name:
            return problem(422, "bad_digest")
        self.blobs[name] = content
        return web.Response(status=201, body=b"{}")


def problem(status: int, code: str, **headers: str) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode({"code": code, "detail": code}), headers=headers)


@asynccontextmanager
async def sending(head: Head, at_once: int = 4) -> AsyncIterator[Sending]:
    """A sender whose coordinator is `head`."""
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/v1/attempts/{attempt}/uploads", head.uploads)
    app.router.add_route("HEAD", "/up/{digest}", head.look)
    app.router.add_put("/up/{digest}", head.put, expect_handler=head.expected)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    try:
        ask = Asking(lambda: 0.01)
        async with ask.open():
            endpoint = Endpoint("127.0.0.1", port, secure=False)
            ask.aim(endpoint, Trust(endpoint, ca="", pin=None, timeout_s=5.0), "the credential")
            yield Sending(ask, at_once, lambda: 0.01)
    finally:
        await runner.cleanup()


def parcel(directory: Path, content: bytes, name: str = "") -> Parcel:
    path = directory / (name or digest(content)[:8])
    path.write_bytes(content)
    return Parcel(digest(content), len(content), Source(path))


def send(head: Head, parcels: list[Parcel], at_once: int = 4) -> int:
    """What had to travel."""

    async def go() -> int:
        async with asyncio.timeout(60), sending(head, at_once) as sender:
            return await sender.send(WHOSE, parcels)

    return asyncio.run(go())


def test_only_what_is_missing_travels(tmp_path: Path) -> None:
    """What is there, and what is named twice, is sent no second time; an empty file is a file."""
    head = Head()
    there, fresh, empty = (parcel(tmp_path, content) for content in (b"there", b"fresh" * 1_000, b""))
    head.blobs[there.digest] = b"there"
    assert 5_000 == send(head, [there, fresh, fresh, empty])
    assert {b"there", b"fresh" * 1_000, b""} == set(head.blobs.values())
    assert 5_000 == head.received


def test_a_transfer_goes_on_where_it_broke_off(tmp_path: Path) -> None:
    """Three cuts in 40 MB: what is sent twice is below a hundredth; the last one falls behind the last byte."""
    head, content = Head(), os.urandom(40_000_000)
    head.cut_at = [10_000_000, 25_000_000, len(content)]
    assert len(content) == send(head, [parcel(tmp_path, content)])
    assert [content] == list(head.blobs.values())
    assert len(content) <= head.received <= 1.01 * len(content)
    assert 4 == head.puts


def test_several_travel_at_once_and_no_more_than_may(tmp_path: Path) -> None:
    """Over all attempts: a fleet of small files does not open a connection for each."""
    head = Head()

    async def slow(_request: web.Request) -> None:
        await asyncio.sleep(0.01)

    head.on_put = slow
    send(head, [parcel(tmp_path, os.urandom(200_000)) for _ in range(12)], at_once=3)
    assert 12 == len(head.blobs)
    assert 1 < head.most_under_way <= 3


def test_a_url_that_is_over_is_asked_for_again(tmp_path: Path) -> None:
    """Expired, burnt or unknown: another question gives another URL, from what had arrived."""
    head = Head()
    over = [problem(403, "bad_signature"), problem(410, "upload_gone"), problem(404, "not_found")]

    async def refuse(_request: web.Request) -> web.StreamResponse | None:
        return over.pop() if over else None

    head.on_put = refuse
    assert 5 == send(head, [parcel(tmp_path, b"bytes")])
    assert (4, 4) == (head.asked, head.puts)


def test_while_the_disk_over_there_is_full_no_byte_of_a_large_file_travels(tmp_path: Path) -> None:
    """It is asked before it is sent; when there is room it travels once."""
    head, refused = Head(), 0

    async def refuse(_request: web.Request) -> web.StreamResponse | None:
        nonlocal refused
        refused += 1
        return problem(507, "store_full", Connection="close") if refused <= 3 else None

    async def run() -> int:
        async with sending(head) as sender:
            await sender.send(WHOSE, [parcel(tmp_path, os.urandom(20_000_000))])
            return sender.sent_bytes

    head.on_put = refuse
    assert (20_000_000, 20_000_000) == (asyncio.run(run()), head.received)


def test_who_says_nothing_to_the_question_is_sent_the_file_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not everything between an agent and its coordinator knows it."""
    monkeypatch.setattr(agent_sending, "ASKED_S", 0.1)
    head = Head()
    head.says_go_on = False
    assert 3_000_000 == send(head, [parcel(tmp_path, os.urandom(3_000_000))])
    assert (2, 3_000_000) == (head.puts, head.received)


def test_what_passes_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate, a full disk, a restart: tried again, not before the coordinator said."""
    head = Head()
    passing = [problem(507, "store_full"), problem(429, "too_fast", **{"Retry-After": "3"}), problem(503, "")]
    waited: list[float] = []
    sleep = asyncio.sleep

    async def noted(for_s: float) -> None:
        waited.append(for_s)
        await sleep(0)

    async def refuse(_request: web.Request) -> web.StreamResponse | None:
        return passing.pop() if passing else None

    head.on_put = refuse
    monkeypatch.setattr(asyncio, "sleep", noted)
    assert 5 == send(head, [parcel(tmp_path, b"bytes")])
    assert 3.0 in waited


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [(409, "stale_token", Stale), (403, "quota", Refused), (413, "too_large", Refused), (422, "bad_digest", Changed)],
)
def test_what_no_repetition_mends_ends_it(tmp_path: Path, status: int, code: str, raised: type[Exception]) -> None:
    """At once, and the others with it: nothing more is sent for an attempt that is not ours."""
    head = Head()

    async def refuse(_request: web.Request) -> web.StreamResponse:
        return problem(status, code)

    head.on_put = refuse
    with pytest.raises(raised):
        send(head, [parcel(tmp_path, os.urandom(100)) for _ in range(3)])
    assert head.puts <= 3


def test_a_file_that_was_cut_meanwhile_is_told(tmp_path: Path) -> None:
    """It is not waited for bytes that will never come."""
    head, one = Head(), parcel(tmp_path, b"x" * 5_000_000)
    one.source.path.write_bytes(b"x")  # type: ignore[attr-defined]
    with pytest.raises(Changed):
        send(head, [one])
    assert {} == head.blobs


class Slow(NamedTuple):
    """A file whose disk takes its time."""

    path: Path
    begun: threading.Event
    go_on: threading.Event

    def open(self) -> int:
        self.begun.set()
        self.go_on.wait(10)
        return os.open(self.path, os.O_RDONLY)


def test_a_file_that_is_opened_for_nobody_is_closed(tmp_path: Path) -> None:
    """One parcel is refused while another is being opened: an agent that tries for days keeps no file open for it."""
    head, content = Head(), b"x" * 10_000
    slow = Slow(tmp_path / "slow", threading.Event(), threading.Event())
    slow.path.write_bytes(content)

    async def refuse(_request: web.Request) -> web.StreamResponse:
        await asyncio.to_thread(slow.begun.wait, 10)
        return problem(403, "quota")

    async def go() -> None:
        head.on_put = refuse
        async with asyncio.timeout(60), sending(head) as sender:
            with pytest.raises(Refused):
                await sender.send(WHOSE, [parcel(tmp_path, b"refused"), Parcel(digest(content), len(content), slow)])
            slow.go_on.set()
            await asyncio.get_running_loop().shutdown_default_executor()
            await asyncio.sleep(0)

    asyncio.run(go())
    held = [link.resolve() for link in Path("/proc/self/fd").iterdir()]
    assert slow.path not in held
