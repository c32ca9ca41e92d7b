"""A server for one side of the saturation bench, in a process of its own, pinned to one core.

    python -m bench.link_server aiohttp|picows|coord --core 0 [--providers N --credentials FILE --probe]

Prints its port on a line, serves until its standard input ends, then prints what it counted as JSON. `aiohttp` and
`picows` are plain echo servers; `coord` is the coordinator's own link stack, engine, heartbeat writer and disk store.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import picows
import uvloop
from aiohttp import WSMsgType, web
from aiohttp.web_protocol import RequestHandler

from coordinator import wire
from coordinator.core import events
from coordinator.core.ids import ProviderId, TokenId
from coordinator.core.policy import Policy
from coordinator.core.rows import Role
from coordinator.service.acks import AckWheel
from coordinator.service.agents import AgentLinks
from coordinator.service.engine import Engine, EngineSettings
from coordinator.service.heartbeats import HeartbeatSettings, HeartbeatWriter
from coordinator.service.link_settings import LinkSettings
from coordinator.service.metrics import FLUSH_S
from coordinator.service.recorder import Recorder
from coordinator.service.recovery import first_token, recover
from coordinator.service.relay.relay import Relay
from coordinator.service.tokens import digest_of, new_token_text
from coordinator.service.tuning import tune_process
from coordinator.service.views import LiveViews
from store.durable import DiskStore
from store.layout import DataDir


async def _until_told() -> None:
    """Return when standard input ends."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.read()


def _say(value: object) -> None:
    print(json.dumps(value), flush=True)


def _usage() -> dict[str, float]:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {"cpu_s": used.ru_utime + used.ru_stime, "user_s": used.ru_utime, "system_s": used.ru_stime}


async def aiohttp_echo() -> None:
    """What everybody would write first."""

    async def echo(request: web.Request) -> web.StreamResponse:
        ws = web.WebSocketResponse()
        await ws.prepare(request)
        async for message in ws:
            if message.type is WSMsgType.TEXT:
                await ws.send_str(message.data)
        return ws

    app = web.Application()
    app.router.add_get(wire.CONNECT_PATH, echo)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _say({"port": runner.addresses[0][1]})
    await _until_told()
    _say(_usage())
    os._exit(0)


async def picows_echo() -> None:
    """The fastest WebSocket library of this language, doing nothing but echo."""

    class Echo(picows.WSListener):
        def on_ws_frame(self, transport: Any, frame: Any) -> None:
            if frame.msg_type == picows.WSMsgType.CLOSE:
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    server = await picows.ws_create_server(lambda request: Echo(), "127.0.0.1", 0)
    _say({"port": server.sockets[0].getsockname()[1]})
    await _until_told()
    _say(_usage())
    os._exit(0)


class Probe:
    """CPU time of callbacks: of every read of a socket and every turn of the acknowledgements."""

    def __init__(self) -> None:
        self.took_s: list[float] = []

    def watch(self, owner: type, name: str) -> None:
        plain: Callable[..., Any] = getattr(owner, name)
        took_s, clock = self.took_s, time.thread_time

        def timed(*args: Any) -> Any:
            began = clock()
            try:
                return plain(*args)
            finally:
                took_s.append(clock() - began)

        setattr(owner, name, timed)

    def answer(self) -> dict[str, float]:
        ordered = sorted(self.took_s) or [0.0]
        quantile = {q: ordered[min(int(q * len(ordered)), len(ordered) - 1)] for q in (0.5, 0.99, 0.999)}
        return {
            "callbacks": len(self.took_s),
            "p50_ms": quantile[0.5] * 1e3,
            "p99_ms": quantile[0.99] * 1e3,
            "p999_ms": quantile[0.999] * 1e3,
            "max_ms": ordered[-1] * 1e3,
        }


async def coord(providers: int, credentials: Path, probe: Probe | None) -> None:
    """The coordinator without its HTTP API and analytics: what a heartbeat passes through."""
    with tempfile.TemporaryDirectory(prefix="coord-bench-") as place:
        data = DataDir(Path(place) / "data")
        store = await DiskStore.open(data)
        recovered = await recover(store, "c-bench")
        engine = Engine(
            store,
            recovered.clock,
            LiveViews(),
            Policy(),
            EngineSettings(),
            Recorder(data.recorder),
            recovered.state,
        )
        writer = HeartbeatWriter(store, recovered.clock, HeartbeatSettings())
        generous = LinkSettings(messages_per_s=1e9, messages_burst=1e9)
        relay = Relay(store.logs, store, engine.views, recovered.clock)
        links = AgentLinks(engine, writer, relay, generous, "c-bench", "bench")

        async def connect(request: web.Request) -> web.StreamResponse:
            text = request.headers.get("Authorization", "").removeprefix("Bearer ")
            token = engine.views.authenticate(text, engine.clock.now_ms())
            if token is None:
                return web.Response(status=401)
            return await links.handle(request, token)

        app = web.Application()
        app.router.add_get(wire.CONNECT_PATH, connect)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        async with asyncio.TaskGroup() as group:
            group.create_task(engine.run())
            group.create_task(writer.run())
            engine.post(recovered.boot)
            admin = await first_token(engine, Role.ADMIN, "bench")
            texts = await asyncio.gather(*(_enrol(engine, admin, i) for i in range(providers)))
            await asyncio.to_thread(credentials.write_text, "\n".join(texts) + "\n")
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            tune_process()
            if probe is not None:
                probe.watch(RequestHandler, "data_received")
                probe.watch(AckWheel, "_turn")
            _say({"port": runner.addresses[0][1]})
            await _until_told()
            used = _usage()
            await writer.close()
            counted = writer.counters
            _say(
                {
                    **used,
                    "pushed": links.pushed,
                    "offered": counted.offered,
                    "stored": counted.stored,
                    "duplicates": counted.duplicates,
                    "dropped_full": counted.dropped_full,
                    "dropped_store": counted.dropped_store,
                    "flushes": counted.flushes,
                    "flush_failures": counted.flush_failures,
                    "holds": counted.holds,
                    "flush_p99_s": _p99(counted.flush_seconds),
                    "flush_max_s": counted.flush_seconds_max,
                    "acks": links.acks.sent,
                    "cut": links.counters.cut_stalled + links.counters.cut_fast + links.counters.cut_bad,
                    "probe": probe.answer() if probe is not None else None,
                }
            )
            os._exit(0)


async def _enrol(engine: Engine, admin: str, i: int) -> str:
    text = new_token_text(Role.AGENT)
    await engine.call(
        lambda request_id: events.ProviderEnrol(
            at_ms=engine.clock.now_ms(),
            request_id=request_id,
            provider_id=ProviderId(f"bench-{i:06d}"),
            machine_id="bench",
            token_digest=digest_of(admin),
            credential_digest=digest_of(text),
            credential_id=TokenId(f"t{i}"),
        )
    )
    return text


def _p99(buckets: list[int]) -> float:
    """The upper bound of the bucket that holds the 99th percentile."""
    left = sum(buckets) * 0.99
    for bound, count in zip((*FLUSH_S, float("inf")), buckets, strict=True):
        left -= count
        if left <= 0:
            return bound
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=("aiohttp", "picows", "coord"))
    parser.add_argument("--core", type=int, required=True)
    parser.add_argument("--providers", type=int, default=1)
    parser.add_argument("--credentials", type=Path)
    parser.add_argument("--probe", action="store_true")
    asked = parser.parse_args()
    os.sched_setaffinity(0, {asked.core})
    if asked.kind == "aiohttp":
        uvloop.run(aiohttp_echo())
    elif asked.kind == "picows":
        uvloop.run(picows_echo())
    else:
        uvloop.run(coord(asked.providers, asked.credentials, Probe() if asked.probe else None))


if __name__ == "__main__":
    main()
