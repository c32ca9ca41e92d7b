"""The coordinator's side of an agent's data: blobs behind signed URLs, and what agents ask for attempts.

A part of `CoordinatorSide`, or a server of its own. What it was asked is in the lists; what goes wrong is in the plain
attributes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from aiohttp import web
from blake3 import blake3

from coordinator import wire_data
from coordinator.agent.asking import Asking
from coordinator.agent.tls import Endpoint, Trust
from coordinator.core.data.rows import FileEntry
from coordinator.core.ids import Digest
from coordinator.manifest import Manifest, encode

TENANT = "physics"
PIECE = 64 * 1024


def digest_of(data: bytes) -> Digest:
    return Digest(blake3(data).hexdigest())


class DataSide:
    """Answers for every attempt alike."""

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.answers: dict[str, bytes] = {}
        """What is sent instead of a blob's bytes."""
        self.cuts: dict[str, list[int]] = {}
        """Bytes of a blob after which the connection breaks: one for each time that it is asked for."""
        self.refusals: list[tuple[int, str]] = []
        """Status and code of the next answers to what is asked for attempts."""
        self.url_refusals: list[int] = []
        """The same of signed URLs."""
        self.ranges = True
        self.hold = asyncio.Event()
        """Bodies of blobs are sent while it is set."""
        self.hold.set()
        self.files: list[tuple[str, bytes, bool]] = []
        self.states: list[wire_data.SavedState] = []
        self.asked: list[tuple[str, str]] = []
        """(attempt, what) of every question that was answered."""
        self.restored: list[int] = []
        self.damaged: list[wire_data.DamagedRequest] = []
        self.saved: list[wire_data.CheckpointRequest] = []
        self.sent: dict[str, int] = {}
        """Bytes of each blob that left, over all connections."""
        self.gets: list[tuple[str, str]] = []
        """(digest, Range header) of every GET."""
        self.at_once = 0
        self.most_at_once = 0
        self.bearers: list[str] = []
        self._news = asyncio.Event()

    # ---- what there is

    def put(self, data: bytes) -> str:
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def needs(self, path: str, data: bytes, executable: bool = False) -> str:
        """An input of every attempt."""
        self.files.append((path, data, executable))
        return self.put(data)

    def saves(self, number: int, files: dict[str, bytes]) -> str:
        """A checkpoint of every attempt, newer than those before; the digest of its manifest."""
        entries = [FileEntry(path=path, digest=digest_of(data), size=len(data)) for path, data in sorted(files.items())]
        for data in files.values():
            self.put(data)
        digest = self.put(encode(Manifest(files=tuple(entries))))
        size = sum(map(len, files.values()))
        self.states.insert(0, wire_data.SavedState(number=number, manifest=digest, size=size, url=self.url(digest)))
        return digest

    @staticmethod
    def url(digest: str) -> str:
        return f"/v1/blobs/{TENANT}/{digest}?x=1&n=1&k=1&s=%2Bsigned"

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that is asked here."""
        async with asyncio.timeout(60):
            while not true():
                self._news.clear()
                await self._news.wait()

    # ---- the server

    def add_to(self, app: web.Application) -> None:
        app.router.add_post("/v1/attempts/{attempt}/{what}", self._on_question)
        app.router.add_get("/v1/blobs/{tenant}/{digest}", self._on_get)

    async def _on_question(self, request: web.Request) -> web.Response:
        self.bearers.append(request.headers["Authorization"])
        body = await request.read()
        what = request.match_info["what"]
        if self.refusals:
            status, code = self.refusals.pop(0)
            self._news.set()
            problem = {"status": status, "code": code, "detail": f"refused: {code}"}
            return web.json_response(problem, status=status, content_type="application/problem+json")
        self.asked.append((request.match_info["attempt"], what))
        self._news.set()
        match what:
            case "staging":
                msgspec.json.decode(body, type=wire_data.StagingRequest)
                return answer(
                    wire_data.StagingAnswer(
                        files=tuple(
                            wire_data.StagedFile(
                                path=path,
                                digest=digest_of(data),
                                size=len(data),
                                executable=executable,
                                url=self.url(digest_of(data)),
                            )
                            for path, data, executable in self.files
                        ),
                        checkpoints=tuple(self.states),
                        tenant=TENANT,
                    )
                )
            case "urls":
                digests = msgspec.json.decode(body, type=wire_data.UrlsRequest).digests
                return answer(
                    wire_data.UrlsAnswer(urls={digest: self.url(digest) for digest in digests if digest in self.blobs})
                )
            case "restored":
                self.restored.append(msgspec.json.decode(body, type=wire_data.RestoredRequest).number)
                return web.Response(status=204)
            case "damaged":
                self.damaged.append(msgspec.json.decode(body, type=wire_data.DamagedRequest))
                return web.Response(status=204)
            case "checkpoints":
                self.saved.append(msgspec.json.decode(body, type=wire_data.CheckpointRequest))
                return answer(wire_data.CheckpointAnswer(number=len(self.saved), next_ms=None))
            case _:
                return web.Response(status=404)

    async def _on_get(self, request: web.Request) -> web.StreamResponse:
        assert "Authorization" not in request.headers, "a credential was sent with a signed URL"
        assert request.raw_path.endswith("s=%2Bsigned"), "the URL was written anew"
        digest = request.match_info["digest"]
        self.gets.append((digest, request.headers.get("Range", "")))
        self._news.set()
        if self.url_refusals:
            return web.Response(status=self.url_refusals.pop(0), headers={"Retry-After": "0"})
        if digest not in self.blobs:
            return web.Response(status=404)
        data = self.answers.get(digest, self.blobs[digest])
        at = 0
        if self.ranges and "Range" in request.headers:
            assert request.headers["If-Range"] == f'"{digest}"'
            at = int(request.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        response = web.StreamResponse(status=206 if at else 200)
        if at:
            response.headers["Content-Range"] = f"bytes {at}-{len(data) - 1}/{len(data)}"
        response.content_length = len(data) - at
        await response.prepare(request)
        cuts = self.cuts.get(digest, [])
        end = cuts.pop(0) if cuts else len(data)
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            while at < end:
                await self.hold.wait()
                piece = data[at : min(at + PIECE, end)]
                await response.write(piece)
                at += len(piece)
                self.sent[digest] = self.sent.get(digest, 0) + len(piece)
            if end < len(data):
                assert request.transport is not None
                request.transport.close()  # what was written arrives, and then nothing
        finally:
            self.at_once -= 1
        return response


def answer(body: msgspec.Struct) -> web.Response:
    return web.Response(body=msgspec.json.encode(body), content_type="application/json")


@asynccontextmanager
async def data_side() -> AsyncIterator[tuple[DataSide, Asking]]:
    """A server of its own, and a client that is aimed at it."""
    side = DataSide()
    app = web.Application()
    side.add_to(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    endpoint = Endpoint("127.0.0.1", runner.addresses[0][1], secure=False)
    asking = Asking(draw=lambda: 0.01)
    try:
        async with asking.open():
            asking.aim(endpoint, Trust(endpoint, ca="", pin=None, timeout_s=5.0), "the-credential")
            yield side, asking
    finally:
        side.hold.set()
        await runner.cleanup()
