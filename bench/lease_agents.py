"""Light agents that hold leases and run nothing: many in one process, over real WebSockets.

    python -m bench.lease_agents URL JOIN_TOKEN PREFIX AGENTS CPUS

All are connected when it prints `ready`. They answer every grant with `granted`. A line on stdin asks, JSON answers:

    count          {"granted", "launched", "granted_s", "launched_s"}: so many so far, and when the last one came
    beat SECONDS   {"renewed", "heartbeats", "seconds"}: each sends heartbeats that name all of its leases, the next one
                   when the renewal by the one before has come

Times are of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import time

import aiohttp
import msgspec
from msgspec import Struct

from bench.swarm import MACHINE, enrol_swarm
from coordinator import wire
from coordinator.core.rows import LeaseToken, Resources

IDLE_S = 3.0
"""Between heartbeats while nothing is measured."""


class Said(Struct):
    """Of any message what is needed here."""

    type: str
    attempt: str = ""
    token: LeaseToken = LeaseToken(0, 0)
    leases: list[msgspec.Raw] = []


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Said | list[Said]).decode


class Counts:
    """Of all agents of this process."""

    def __init__(self) -> None:
        self.granted = self.launched = self.renewed = self.heartbeats = 0
        self.granted_s = self.launched_s = 0.0
        self.begin = asyncio.Event()
        self.until_s = 0.0
        """They beat as fast as they are answered until then."""


class LightAgent:
    """One connection that holds whatever it is granted."""

    def __init__(self, counts: Counts, provider_id: str, cpus: float) -> None:
        self.welcome = asyncio.Event()
        self.renewed = asyncio.Event()
        self._counts, self._provider_id, self._cpus = counts, provider_id, cpus
        self._names: list[str] = []
        self._seq = 0

    async def live(self, session: aiohttp.ClientSession, url: str, credential: str) -> None:
        """Until it is cancelled."""
        headers = {"Authorization": f"Bearer {credential}"}
        address = url.rstrip("/") + wire.CONNECT_PATH
        async with session.ws_connect(address, headers=headers, max_msg_size=2**24) as socket:
            hello = wire.Hello(
                versions=(2,),
                provider_id=self._provider_id,
                machine_id=MACHINE,
                process_id=f"{os.getpid()}-{self._provider_id}",
                resources=Resources(cpus=self._cpus, memory_gb=1_000.0),
            )
            await socket.send_str(_encode(hello).decode())
            async with asyncio.TaskGroup() as group:
                group.create_task(self._beat(socket))
                async for frame in socket:
                    if frame.type is aiohttp.WSMsgType.TEXT:
                        await self._take(socket, frame.data)
                raise ConnectionError(f"{self._provider_id} was cut: {socket.close_code}")

    async def _take(self, socket: aiohttp.ClientWebSocketResponse, data: str) -> None:
        counts, said = self._counts, _decode(data)
        answers: list[wire.Granted] = []
        for message in said if isinstance(said, list) else (said,):
            if message.type == "grant":
                self._names.append(message.attempt)
                answers.append(wire.Granted(attempt=message.attempt, token=message.token))
            elif message.type == "launch":
                counts.launched += 1
                counts.launched_s = time.monotonic()
            elif message.type == "renew":
                counts.renewed += len(message.leases)
                self.renewed.set()
            elif message.type == "welcome":
                self.welcome.set()
        if answers:
            counts.granted += len(answers)
            counts.granted_s = time.monotonic()
            await socket.send_str(_encode(answers).decode())

    async def _beat(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        await self.welcome.wait()
        while True:
            self._seq += 1
            self.renewed.clear()
            heartbeat = wire.Heartbeat(seq=self._seq, status="busy", attempts=tuple(self._names))
            await socket.send_str(_encode(heartbeat).decode())
            if time.monotonic() < self._counts.until_s and self._names:
                self._counts.heartbeats += 1
                await self.renewed.wait()
            else:
                self._counts.begin.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(IDLE_S):
                        await self._counts.begin.wait()


async def answer(counts: Counts, words: list[str]) -> dict[str, float]:
    if words[0] == "beat":
        counts.until_s = time.monotonic() + float(words[1])
        counts.begin.set()
        before, began_s = (counts.renewed, counts.heartbeats), time.monotonic()
        await asyncio.sleep(counts.until_s - began_s)
        took_s = time.monotonic() - began_s
        return {"renewed": counts.renewed - before[0], "heartbeats": counts.heartbeats - before[1], "seconds": took_s}
    return {
        "granted": counts.granted,
        "launched": counts.launched,
        "granted_s": counts.granted_s,
        "launched_s": counts.launched_s,
    }


async def main(url: str, join_token: str, prefix: str, agents: int, cpus: float) -> None:
    credentials = await enrol_swarm(url, join_token, prefix, agents)
    counts = Counts()
    lines = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session, asyncio.TaskGroup() as group:
        living = []
        for provider_id, credential in credentials.items():
            agent = LightAgent(counts, provider_id, cpus)
            living.append(group.create_task(agent.live(session, url, credential)))
            await agent.welcome.wait()
        print("ready", flush=True)
        while line := (await lines.readline()).decode().split():
            print(json.dumps(await answer(counts, line)), flush=True)
        for task in living:
            task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5])))
