"""A real server on loopback with the real engine, links and writer, and an agent that speaks in bytes.

Only the store is made up: it keeps rows in a list, and fails or waits when a test tells it to.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

from aiohttp import web

from coordinator import wire
from coordinator.core import events
from coordinator.core.commands import CloseCode, Write
from coordinator.core.errors import CoordError
from coordinator.core.ids import AttemptId, ConnId, ProviderId, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import AttemptRow, Role, TokenRow
from coordinator.core.state import ClusterState
from coordinator.ports.store import HeartbeatRow, Store
from coordinator.service.agents import AgentLinks
from coordinator.service.clock import ObservedClock
from coordinator.service.engine import Engine, EngineSettings
from coordinator.service.heartbeats import HeartbeatSettings, HeartbeatWriter
from coordinator.service.link_settings import LinkSettings
from coordinator.service.recorder import Recorder
from coordinator.service.relay.relay import Relay
from coordinator.service.relay.settings import RelaySettings
from coordinator.service.tokens import digest_of
from coordinator.service.views import LiveViews
from store.memory_logs import MemoryLogs

PATIENCE_S = 60.0
"""How long a test waits for something that must come."""


LIMIT_S = 120.0
"""No test takes longer, unless it says so."""


class ListStore:
    """Telemetry in a list. `fail` is raised by appends while it is set; `gate` holds them while it is closed."""

    def __init__(self) -> None:
        self.rows: list[HeartbeatRow] = []
        self.calls: list[int] = []
        self.fail: Exception | None = None
        self.refused: set[int] = set()
        """Keys of providers whose rows the store cannot hold."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.under_way = 0
        self.under_way_max = 0

    async def commit(self, writes: Sequence[Write]) -> None:
        await asyncio.sleep(0)

    async def attempt(self, attempt_id: AttemptId) -> AttemptRow | None:
        """There is no work of long ago."""
        return None

    async def append_heartbeats(self, rows: Sequence[HeartbeatRow]) -> None:
        self.under_way += 1
        self.under_way_max = max(self.under_way, self.under_way_max)
        self.calls.append(len(rows))
        try:
            await self.gate.wait()
            if self.fail is not None:
                raise self.fail
            if any(row.key in self.refused for row in rows):
                raise ValueError("a row that the store cannot hold")
            self.rows.extend(rows)
        finally:
            self.under_way -= 1


class Rig:
    """What runs, and shortcuts to it."""

    def __init__(self, links: LinkSettings, heartbeats: HeartbeatSettings, policy: Policy) -> None:
        self.store = ListStore()
        self.logs = MemoryLogs()
        store = cast(Store, self.store)
        self.clock = ObservedClock()
        self.views = LiveViews()
        state = ClusterState("c-test")
        self.engine = Engine(
            store, self.clock, self.views, policy, EngineSettings(), Recorder(Path(os.devnull), 0), state
        )
        self.writer = HeartbeatWriter(store, self.clock, heartbeats)
        self.relay = Relay(self.logs, store, self.views, self.clock, RelaySettings())
        self.links = AgentLinks(self.engine, self.writer, self.relay, links, "c-test", "0.0-test")
        self.port = 0
        self._agents: list[Agent] = []

    async def enrol(self, provider_id: str = "a", machine_id: str = "machine-1") -> str:
        """Enrol a provider as an admin would, and return its credential."""
        credential = f"credential of {provider_id}"
        await self.engine.call(
            lambda request_id: events.ProviderEnrol(
                at_ms=self.clock.now_ms(),
                request_id=request_id,
                provider_id=ProviderId(provider_id),
                machine_id=machine_id,
                token_digest=digest_of("admin"),
                credential_digest=digest_of(credential),
                credential_id=TokenId(f"id-{provider_id}"),
            )
        )
        return credential

    async def dial(self, credential: str) -> Agent:
        """A socket after its handshake, before any hello."""
        agent = await Agent.dial(self.port, credential)
        self._agents.append(agent)
        return agent

    async def connect(self, provider_id: str = "a", process_id: str = "p1") -> Agent:
        """An enrolled, connected, welcomed agent."""
        known = ProviderId(provider_id) in self.views.providers
        credential = f"credential of {provider_id}" if known else await self.enrol(provider_id)
        agent = await self.dial(credential)
        agent.say(a_hello(provider_id, process_id))
        agent.welcome = await agent.hears("welcome")
        return agent

    async def stored(self, count: int) -> None:
        """Wait until that many heartbeats are in the store."""
        await until(lambda: len(self.store.rows) >= count)

    async def hang_up(self) -> None:
        for agent in self._agents:
            await agent.hang_up()


@asynccontextmanager
async def a_rig(
    links: LinkSettings | None = None,
    heartbeats: HeartbeatSettings | None = None,
    policy: Policy | None = None,
    limit_s: float = LIMIT_S,
) -> AsyncIterator[Rig]:
    """Everything running on a free port; ended in order afterwards."""
    rig = Rig(
        links or LinkSettings(close_s=0.3),
        heartbeats or HeartbeatSettings(batch_age_s=0.01, backoff_s=0.02, drain_s=0.5),
        policy or Policy(),
    )

    async def connect(request: web.Request) -> web.StreamResponse:
        scheme, _, text = request.headers.get("Authorization", "").partition(" ")
        token = rig.views.authenticate(text, rig.clock.now_ms()) if scheme == "Bearer" else None
        if token is None:
            return web.Response(status=401)
        try:
            return await rig.links.handle(request, token)
        except CoordError as error:
            return web.json_response({"code": error.code}, status=400)

    app = web.Application()
    app.router.add_get(wire.CONNECT_PATH, connect)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    rig.port = runner.addresses[0][1]
    async with asyncio.timeout(limit_s), asyncio.TaskGroup() as group:
        group.create_task(rig.engine.run())
        group.create_task(rig.writer.run())
        group.create_task(rig.relay.run())
        rig.engine.post(events.Boot(at_ms=rig.clock.now_ms()))
        admin = TokenRow(token_id=TokenId("admin"), role=Role.ADMIN, digest=digest_of("admin"), created_at_ms=0)
        rig.engine.state.put_token(admin)
        try:
            yield rig
        finally:
            await rig.hang_up()
            await rig.links.close_all(CloseCode.GOING_AWAY, "the test is over")
            await rig.engine.stop()
            await rig.writer.close()
            await rig.relay.close()
            await runner.cleanup()


def a_hello(provider_id: str = "a", process_id: str = "p1", **more: Any) -> dict[str, object]:
    hello = {
        "type": "hello",
        "versions": [1],
        "provider_id": provider_id,
        "machine_id": "machine-1",
        "boot_id": "boot-1",
        "process_id": process_id,
    }
    return {**hello, **more}


def a_beat(seq: int, **more: object) -> dict[str, object]:
    return {"type": "heartbeat", "seq": seq, "cpu_usage": 0.5, **more}


class Agent:
    """A WebSocket client in bytes: what it sends is exactly what the test says."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.welcome: dict[str, Any] = {}
        self.heard: list[dict[str, Any]] = []
        self.ahead: list[dict[str, Any]] = []
        """What shared a frame with what was heard last."""
        """Every message that came."""

    @classmethod
    async def dial(cls, port: int, credential: str) -> Agent:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**20)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET {wire.CONNECT_PATH} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n"
            f"Authorization: Bearer {credential}\r\n\r\n".encode()
        )
        status = await reader.readuntil(b"\r\n\r\n")
        if not status.startswith(b"HTTP/1.1 101"):
            length = re.search(rb"Content-Length: (\d+)", status)
            body = await reader.readexactly(int(length[1])) if length else b""
            writer.close()
            await writer.wait_closed()
            raise ConnectionRefusedError((status + body).decode())
        return cls(reader, writer)

    def say(self, *messages: object) -> None:
        """Each in a frame of its own."""
        for message in messages:
            self.frame(json.dumps(message).encode())

    def frame(self, payload: bytes, opcode: int = 1, fin: bool = True) -> None:
        """One masked frame."""
        head = bytes((0x80 * fin | opcode,))
        size = len(payload)
        if size < 126:
            head += bytes((0x80 | size,))
        elif size < 2**16:
            head += struct.pack(">BH", 0xFE, size)
        else:
            head += struct.pack(">BQ", 0xFF, size)
        mask = b"\x11\x22\x33\x44"
        spread = (mask * (size // 4 + 1))[:size]
        masked = (int.from_bytes(payload, "big") ^ int.from_bytes(spread, "big")).to_bytes(size, "big")
        self.writer.write(head + mask + masked)

    async def next_frame(self) -> tuple[int, bytes]:
        """(opcode, payload) of the next frame; (-1, b"") when the socket ended."""
        try:
            async with asyncio.timeout(PATIENCE_S):
                first, size = await self.reader.readexactly(2)
                if size == 126:
                    (size,) = struct.unpack(">H", await self.reader.readexactly(2))
                elif size == 127:
                    (size,) = struct.unpack(">Q", await self.reader.readexactly(8))
                return first & 0xF, await self.reader.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return -1, b""

    async def hears(self, kind: str) -> dict[str, Any]:
        """The next message of this type; those before it are kept in `heard`."""
        while True:
            while self.ahead:
                message = self.ahead.pop(0)
                self.heard.append(message)
                if message["type"] == kind:
                    return message
            opcode, payload = await self.next_frame()
            assert opcode == 1, f"waiting for {kind}: opcode {opcode}, {payload!r}"
            self.ahead.extend(messages_of(payload))

    async def closed(self) -> int:
        """Read until the close frame, and return its code; 1006 when the socket ended without one."""
        while True:
            opcode, payload = await self.next_frame()
            if opcode == 8:
                return int.from_bytes(payload[:2], "big")
            if opcode == -1:
                return 1006
            if opcode == 1:
                self.heard.extend([*self.ahead, *messages_of(payload)])
                self.ahead.clear()

    async def hang_up(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except ConnectionError:
            return


def messages_of(payload: bytes) -> list[dict[str, Any]]:
    """Of a text frame: one, or an array of them."""
    said = json.loads(payload)
    return said if isinstance(said, list) else [said]


async def until(true: Callable[[], bool]) -> None:
    """Wait for something that happens in another task and has no event of its own."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - what is watched are plain numbers of the code under test
            await asyncio.sleep(0.002)


def conn_of(rig: Rig, provider_id: str = "a") -> ConnId:
    """The connection that the core has bound to the provider."""
    return next(conn for conn, provider in rig.engine.state.conns.items() if provider == provider_id)
