"""The coordinator's side of the wire, as a real aiohttp server that a test tells how to behave."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
from aiohttp import WSMsgType, web

from coordinator import wire
from coordinator.core.commands import CloseCode
from coordinator.core.ids import dotted
from tests.unit.agent.data_side import DataSide

JOIN = "coord-join-0123456789abcdef"
DEADLINE_S = 60.0
T = TypeVar("T")
_FRAME = msgspec.json.Decoder(wire.FromAgent | list[wire.FromAgent])


class CoordinatorSide:
    """Accepts one provider's agent. What it saw is in the lists; what it does is in the plain attributes."""

    def __init__(self) -> None:
        self.interval_s = 0.05
        self.lost_after_s = 20.0
        self.credential = "coord-agent-the-credential"
        self.enrol_status = 200
        self.enrol_problem: dict[str, str] = {}
        self.acks = True
        self.reading = asyncio.Event()
        self.reading.set()
        self.clock_ahead_ms = 0.0
        self.draining = False
        self.on_hello: Callable[[wire.Hello], tuple[int, str] | None] = lambda hello: None
        self.enrolled: list[wire.EnrolRequest] = []
        self.bearers: list[str] = []
        self.hellos: list[wire.Hello] = []
        self.beats: list[wire.Heartbeat] = []
        self.byes: list[wire.Bye] = []
        self.version = 1
        self.said: list[wire.FromAgent] = []
        """Granted, refused, phase, exited and progress messages, in order."""
        self.logs: dict[tuple[str, int, int], bytearray] = {}
        """By attempt, rank and stream."""
        self.frames: list[wire.LogChunk] = []
        self.data = DataSide()
        self.cached: list[wire.Cached] = []
        self.keeps_logs = True
        self.pongs = 0
        self.closed = 0
        self.open: list[web.WebSocketResponse] = []
        self.port = 0
        self._news = asyncio.Event()
        self._runner: web.AppRunner | None = None

    def of(self, kind: type[T]) -> list[T]:
        """What was said of this kind."""
        return [message for message in self.said if isinstance(message, kind)]

    # ---- the server

    async def start(self, context: ssl.SSLContext | None = None) -> None:
        """Listen on the port of last time, or any free one."""
        app = web.Application()
        app.router.add_post(wire.ENROL_PATH, self._enrol)
        app.router.add_get(wire.CONNECT_PATH, self._connect)
        self.data.add_to(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, ssl_context=context, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Go away as a coordinator that is restarted does."""
        for ws in list(self.open):
            await ws.close(code=CloseCode.GOING_AWAY, message=b"restarting")
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def until(self, true: Callable[[], bool]) -> None:
        """Wait for something that the agent does. Fails after DEADLINE_S."""
        async with asyncio.timeout(DEADLINE_S):
            while not true():
                self._news.clear()
                await self._news.wait()

    async def send(self, *messages: wire.FromCoordinator) -> None:
        """To the newest connection: one message, or several in one array frame."""
        body = messages[0] if len(messages) == 1 else list(messages)
        await self.open[-1].send_str(msgspec.json.encode(body).decode())

    async def close(self, code: int, reason: str = "") -> None:
        await self.open[-1].close(code=code, message=reason.encode())

    # ---- handlers

    async def _enrol(self, request: web.Request) -> web.Response:
        asked = msgspec.json.decode(await request.read(), type=wire.EnrolRequest)
        self.bearers.append(request.headers["Authorization"])
        self.enrolled.append(asked)
        self._news.set()
        if self.enrol_status != 200:
            return web.json_response(
                self.enrol_problem, status=self.enrol_status, content_type="application/problem+json"
            )
        answer = wire.EnrolAnswer(
            provider_id=asked.provider_id, pool=asked.pool or "default", credential=self.credential
        )
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    async def _connect(self, request: web.Request) -> web.StreamResponse:
        self.bearers.append(request.headers["Authorization"])
        if request.headers["Authorization"] != f"Bearer {self.credential}":
            self._news.set()
            return web.json_response({"code": "unauthenticated"}, status=401)
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        self.open.append(ws)
        self._news.set()
        try:
            async for frame in ws:
                if frame.type is WSMsgType.TEXT:
                    received = self.now_ms()
                    for message in await self._decode(ws, frame.data):
                        await self._take(ws, message, received)
                    self._news.set()
                elif frame.type is WSMsgType.BINARY:
                    await self._store(ws, frame.data)
                    self._news.set()
                await self.reading.wait()
        finally:
            self.open.remove(ws)
            self.closed += 1
            self._news.set()
        return ws

    async def _decode(self, ws: web.WebSocketResponse, text: str) -> list[wire.FromAgent]:
        try:
            decoded = _FRAME.decode(text)
        except msgspec.ValidationError as error:
            refusal = wire.Error(code="bad_frame", message=str(error), hint="it was ignored")
            await ws.send_str(msgspec.json.encode(refusal).decode())
            return []
        return decoded if isinstance(decoded, list) else [decoded]

    def now_ms(self) -> float:
        return time.time() * 1000 + self.clock_ahead_ms

    async def _take(self, ws: web.WebSocketResponse, message: wire.FromAgent, received_ms: float) -> None:
        match message:
            case wire.Hello():
                self.hellos.append(message)
                refusal = self.on_hello(message)
                if refusal is not None:
                    await ws.close(code=refusal[0], message=refusal[1].encode())
                    return
                await ws.send_str(msgspec.json.encode(self._welcome(message)).decode())
            case wire.Heartbeat():
                self.beats.append(message)
                if self.acks:
                    ack = wire.Ack(
                        seq=message.seq, received_at_ms=received_ms, held_ms=max(0.0, self.now_ms() - received_ms)
                    )
                    await ws.send_str(msgspec.json.encode(ack).decode())
            case wire.Pong():
                self.pongs += 1
            case wire.Granted() | wire.Refused() | wire.Phase() | wire.Exited() | wire.Progress():
                self.said.append(message)
            case wire.Cached():
                self.cached.append(message)
            case wire.Bye():
                self.byes.append(message)
                await ws.close(code=CloseCode.GOING_AWAY, message=b"good bye")

    async def _store(self, ws: web.WebSocketResponse, frame: bytes) -> None:
        """Keep log bytes as a coordinator does: known ones and those beyond a gap add nothing, the length is told."""
        chunk = wire.log_chunk(frame)
        name = dotted(chunk.attempt_id)
        self.frames.append(chunk)
        if not self.keeps_logs:
            return
        log = self.logs.setdefault((name, chunk.rank, chunk.stream), bytearray())
        if chunk.offset <= len(log):
            log += chunk.data[len(log) - chunk.offset :]
        ack = wire.LogAck(attempt=name, rank=chunk.rank, stream=chunk.stream, offset=len(log))
        await ws.send_str(msgspec.json.encode(ack).decode())

    def _welcome(self, hello: wire.Hello) -> wire.Welcome:
        return wire.Welcome(
            version=self.version,
            provider_id=hello.provider_id,
            session_id=len(self.hellos),
            resumed=False,
            resume_key=f"key-{len(self.hellos)}",
            heartbeat_interval_s=self.interval_s,
            lost_after_s=self.lost_after_s,
            draining=self.draining,
            coordinator_id="test",
            coordinator_version="test",
            now_ms=int(self.now_ms()),
        )


@asynccontextmanager
async def coordinator_side(context: ssl.SSLContext | None = None) -> AsyncIterator[CoordinatorSide]:
    """A running one, gone at the end."""
    side = CoordinatorSide()
    await side.start(context)
    try:
        yield side
    finally:
        side.reading.set()
        side.data.hold.set()
        await side.stop()
