"""Many light agents in one process: real sockets, hellos, heartbeats, acknowledgements, reconnects.

    credentials = await enrol_swarm("http://127.0.0.1:7070", join_token, "swarm", 1000)
    report = await run_swarm("http://127.0.0.1:7070", credentials, seconds=600, interval_s=5.0)

or `python -m bench.swarm URL JOIN_TOKEN_FILE --agents N --seconds S --interval S`, which prints the report as JSON
and exits with 1 when a heartbeat was dropped. Each agent keeps what it sent and was not acknowledged for, and sends it
again after a reconnect, as the wire asks; a heartbeat counts as dropped when no acknowledgement had come by the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import resource
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import aiohttp
import msgspec
from msgspec import Struct

from coordinator import wire
from coordinator.core.commands import CloseCode

MACHINE = "swarm"
GRACE_S = 5.0
"""For the last acknowledgements, after the time is up."""
UNACKED_MAX = 1_000
"""Heartbeats that an agent keeps while it is not acknowledged; older ones are dropped."""
ENROL_AT_ONCE = 32
FINAL = frozenset(
    {
        CloseCode.UNAUTHENTICATED,
        CloseCode.MACHINE_MISMATCH,
        CloseCode.FORGOTTEN,
        CloseCode.DUPLICATE,
        CloseCode.SUPERSEDED,
        CloseCode.VERSION,
    }
)
"""Close codes after which an agent does not come back."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(wire.FromCoordinator).decode


class SwarmReport(Struct, frozen=True, kw_only=True):
    """What a swarm lived through."""

    agents: int
    seconds: float
    sent: int
    """Heartbeats; one that was sent again counts once."""
    acked: int
    dropped: int
    """Sent, and not acknowledged by the end."""
    reconnects: int
    refused: int
    """Handshakes that failed or were answered otherwise."""
    resumed: int
    """Welcomes that took an old session up."""
    gave_up: int
    """Agents that were told not to come back."""
    closes: dict[int, int]
    """Close codes that came, with their number."""
    errors: dict[str, int]
    """Error messages that came, by code."""
    acks: int
    ack_p50_ms: float
    ack_p99_ms: float
    ack_max_ms: float
    """From sending a heartbeat to the acknowledgement that covers it."""
    all_welcome_s: float
    """Until every agent had been welcomed once; -1 when one never was."""


class _Swarm:
    """What all agents share."""

    def __init__(self, url: str, interval_s: float, end_s: float, agents: int) -> None:
        self.url = url.rstrip("/") + wire.CONNECT_PATH
        self.interval_s = interval_s
        self.end_s = end_s
        self.began_s = asyncio.get_running_loop().time()
        self.waiting = agents
        self.all_welcome_s = -1.0
        self.closes: dict[int, int] = {}
        self.errors: dict[str, int] = {}
        self.acks = 0
        self.latency_s: list[float] = []


class _Agent:
    """One provider. `seq` goes on across its connections, as it does in a process."""

    def __init__(self, swarm: _Swarm, provider_id: str, credential: str) -> None:
        self.sent = self.acked = self.dropped = self.reconnects = self.refused = self.resumed = 0
        self.gave_up = False
        self._swarm = swarm
        self._provider_id = provider_id
        self._credential = credential
        self._process_id = f"{os.getpid()}-{provider_id}"
        self._resume_key = ""
        self._interval_s = swarm.interval_s
        self._unacked: deque[tuple[int, float]] = deque()
        self._welcomed = False
        self._settled = asyncio.Event()

    async def live(self, session: aiohttp.ClientSession) -> None:
        """Connect, and again after every loss, until the swarm's time is up."""
        loop = asyncio.get_running_loop()
        swarm = self._swarm
        await asyncio.sleep(random.random() * min(swarm.interval_s, 2.0))
        tries = 0
        while not self.gave_up and loop.time() < swarm.end_s:
            try:
                headers = {"Authorization": f"Bearer {self._credential}"}
                async with session.ws_connect(swarm.url, headers=headers, max_msg_size=2**16) as socket:
                    tries = 0
                    await self._converse(socket)
                    code = socket.close_code or 1006
            except (aiohttp.ClientError, OSError, TimeoutError):
                self.refused += 1
                code = 1006
            if loop.time() >= swarm.end_s:
                break
            swarm.closes[code] = swarm.closes.get(code, 0) + 1
            self.gave_up = code in FINAL
            self.reconnects += 1
            tries += 1
            await asyncio.sleep(random.uniform(0.05, min(0.5 * 2**tries, 10.0)))
        self.dropped += len(self._unacked)

    async def _converse(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        hello = wire.Hello(
            versions=wire.VERSIONS,
            provider_id=self._provider_id,
            machine_id=MACHINE,
            boot_id="swarm",
            process_id=self._process_id,
            agent_version="swarm",
            resume_key=self._resume_key,
        )
        await self._say(socket, hello)
        async with asyncio.TaskGroup() as group:
            beating = None
            async for message in socket:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    continue
                told = _decode(message.data)
                match told:
                    case wire.Welcome():
                        self._on_welcome(told)
                        beating = group.create_task(self._beat(socket))
                    case wire.Ack():
                        self._on_ack(told)
                    case wire.Ping():
                        await self._say(socket, wire.Pong())
                    case wire.Settings():
                        self._interval_s = told.heartbeat_interval_s
                    case wire.Error():
                        self._swarm.errors[told.code] = self._swarm.errors.get(told.code, 0) + 1
                    case _:
                        pass
            if beating is not None:
                beating.cancel()

    def _on_welcome(self, welcome: wire.Welcome) -> None:
        swarm = self._swarm
        self._resume_key = welcome.resume_key
        self.resumed += welcome.resumed
        if not self._welcomed:
            self._welcomed = True
            swarm.waiting -= 1
            if not swarm.waiting:
                swarm.all_welcome_s = asyncio.get_running_loop().time() - swarm.began_s

    def _on_ack(self, ack: wire.Ack) -> None:
        now_s = asyncio.get_running_loop().time()
        self._swarm.acks += 1
        while self._unacked and self._unacked[0][0] <= ack.seq:
            _, sent_s = self._unacked.popleft()
            self._swarm.latency_s.append(now_s - sent_s)
            self.acked += 1
        if not self._unacked:
            self._settled.set()

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        """What was not acknowledged, then one heartbeat an interval; at the end wait for the rest, and leave."""
        loop = asyncio.get_running_loop()
        swarm = self._swarm
        again = [self._heartbeat(seq) for seq, _ in self._unacked]
        for at in range(0, len(again), wire.FRAME_MESSAGES_MAX):
            await self._say(socket, again[at : at + wire.FRAME_MESSAGES_MAX])
        next_s = loop.time()
        while next_s < swarm.end_s:
            self.sent += 1
            if len(self._unacked) >= UNACKED_MAX:
                self._unacked.popleft()
                self.dropped += 1
            self._unacked.append((self.sent, loop.time()))
            await self._say(socket, self._heartbeat(self.sent))
            next_s += self._interval_s
            await asyncio.sleep(max(0.0, min(next_s, swarm.end_s) - loop.time()))
        if self._unacked:
            self._settled.clear()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._settled.wait(), GRACE_S)
        await self._say(socket, wire.Bye())

    def _heartbeat(self, seq: int) -> wire.Heartbeat:
        return wire.Heartbeat(
            seq=seq,
            memory_pressure=0.4,
            cpu_usage=round(random.random(), 3),
            thermal_state="nominal",
            memory_available_gb=12.5,
            requests_served=seq,
        )

    async def _say(self, socket: aiohttp.ClientWebSocketResponse, message: object) -> None:
        try:
            await socket.send_str(_encode(message).decode())
        except ConnectionError:  # the loop that reads sees the end, with its code
            return


async def enrol_swarm(url: str, join_token: str, prefix: str, count: int) -> dict[str, str]:
    """Enrol `count` providers named `prefix-00000` and on; their credentials by id. Raises on any refusal."""
    gate = asyncio.Semaphore(ENROL_AT_ONCE)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=ENROL_AT_ONCE)) as session:

        async def enrol(provider_id: str) -> tuple[str, str]:
            body = _encode(wire.EnrolRequest(provider_id=provider_id, machine_id=MACHINE))
            headers = {"Authorization": f"Bearer {join_token}", "Content-Type": "application/json"}
            async with gate, session.post(url.rstrip("/") + wire.ENROL_PATH, data=body, headers=headers) as answer:
                text = await answer.read()
                if answer.status not in (200, 201):
                    raise RuntimeError(f"enrolling {provider_id}: {answer.status} {text.decode()[:300]}")
                return provider_id, msgspec.json.decode(text, type=wire.EnrolAnswer).credential

        return dict(await asyncio.gather(*(enrol(f"{prefix}-{i:05d}") for i in range(count))))


async def run_swarm(url: str, credentials: Mapping[str, str], seconds: float, interval_s: float) -> SwarmReport:
    """Let every provider of `credentials` (id to credential) live for `seconds`, and tell what happened.

    The coordinator's interval applies once it says one that differs by a settings message; the welcome's is
    taken as advice, so that a test may beat faster. Never raises for what the coordinator does.
    """
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    swarm = _Swarm(url, interval_s, began_s + seconds, len(credentials))
    agents = [_Agent(swarm, *pair) for pair in credentials.items()]
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        for agent in agents:
            group.create_task(agent.live(session))
    latency = sorted(swarm.latency_s)
    return SwarmReport(
        agents=len(agents),
        seconds=round(loop.time() - began_s, 1),
        sent=sum(agent.sent for agent in agents),
        acked=sum(agent.acked for agent in agents),
        dropped=sum(agent.dropped for agent in agents),
        reconnects=sum(agent.reconnects for agent in agents),
        refused=sum(agent.refused for agent in agents),
        resumed=sum(agent.resumed for agent in agents),
        gave_up=sum(agent.gave_up for agent in agents),
        closes=swarm.closes,
        errors=swarm.errors,
        acks=swarm.acks,
        ack_p50_ms=_quantile_ms(latency, 0.5),
        ack_p99_ms=_quantile_ms(latency, 0.99),
        ack_max_ms=_quantile_ms(latency, 1.0),
        all_welcome_s=round(swarm.all_welcome_s, 2),
    )


def _quantile_ms(ordered: Sequence[float], q: float) -> float:
    return round(ordered[min(int(q * len(ordered)), len(ordered) - 1)] * 1_000, 1) if ordered else 0.0


def main() -> int:
    """Enrol, live, report."""
    parser = argparse.ArgumentParser(prog="python -m bench.swarm", description=__doc__)
    parser.add_argument("url")
    parser.add_argument("join_token_file", type=Path)
    parser.add_argument("--agents", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--prefix", default="swarm")
    asked = parser.parse_args()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, asked.agents * 2 + 200)), hard))
    token = asked.join_token_file.read_text().strip()

    async def run() -> SwarmReport:
        credentials = await enrol_swarm(asked.url, token, asked.prefix, asked.agents)
        return await run_swarm(asked.url, credentials, asked.seconds, asked.interval)

    report = asyncio.run(run())
    print(json.dumps(msgspec.to_builtins(report)))
    return 1 if report.dropped or report.gave_up else 0


if __name__ == "__main__":
    sys.exit(main())
