"""A real coordinator under a swarm of light agents, and under frames that nobody should send."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import aiohttp

from bench.swarm import MACHINE, enrol_swarm, run_swarm
from coordinator import wire
from tests.acceptance.processes import GUARD_S, Head

AGENTS = 40


def test_a_swarm_is_served_and_garbage_beside_it_hurts_nobody(tmp_path: Path) -> None:
    """Every heartbeat is acknowledged while other sockets send garbage; the process goes on and stops cleanly."""
    with Head(tmp_path) as head:
        head.start().close()
        url, join = head.url, head.token("join")

        async def main() -> None:
            credentials = await enrol_swarm(url, join, "swarm", AGENTS)
            (bad,) = (await enrol_swarm(url, join, "garbage", 1)).items()
            swarm = asyncio.ensure_future(run_swarm(url, credentials, seconds=5.0, interval_s=0.5))
            await send_garbage(url, *bad)
            report = await swarm
            assert report.dropped == 0, report
            assert report.acked == report.sent >= AGENTS * 5
            assert report.closes == {}
            assert report.reconnects == 0

        asyncio.run(main())
        head.signal(signal.SIGTERM)
        assert head.wait() == 0
        assert "Traceback" not in head.text(), head.text()


async def send_garbage(url: str, provider_id: str, credential: str) -> None:
    """Sockets that break every rule, one after another; each is closed or goes on, as the wire page says."""
    hello = {"type": "hello", "versions": [99], "provider_id": provider_id, "machine_id": MACHINE}
    headers = {"Authorization": f"Bearer {credential}"}
    garbage = ("", "nonsense", "[" * 20_000, '{"type":"heartbeat","seq":"x"}', '{"type":"of tomorrow"}', "x" * 60_000)
    async with aiohttp.ClientSession() as session:
        for text in garbage * 2:
            async with session.ws_connect(url + wire.CONNECT_PATH, headers=headers) as socket:
                await socket.send_str(text)
                assert (await socket.receive_json(timeout=GUARD_S))["type"] == "error"
                await socket.send_bytes(bytes(10))
                assert (await socket.receive_json(timeout=GUARD_S))["type"] == "error"
                await socket.send_json(hello)
                assert (await socket.receive_json(timeout=GUARD_S))["code"] == "version_unsupported"
        async with session.ws_connect(url + wire.CONNECT_PATH, headers=headers) as socket:
            await socket.send_str("x" * (wire.FRAME_BYTES_MAX + 1))
            assert (await socket.receive_json(timeout=GUARD_S))["code"] == "too_large"
            await socket.receive(timeout=GUARD_S)
            assert socket.close_code == 1009
