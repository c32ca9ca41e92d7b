"""Light agents that hold leases and run nothing: many in one process, over real WebSockets.

    python -m bench.lease_agents URL JOIN_TOKEN PREFIX AGENTS CPUS

All are connected when it prints `ready`. They answer every grant with `granted`. A line on stdin asks, JSON answers:

    count          {"granted", "launched", "granted_s", "launched_s", "cpu_s"}: so many so far, when the last one came,
                   and the processor time of this process since its start
    beat SECONDS   {"renewed", "heartbeats", "seconds", "cpu_s"}: each sends heartbeats that name all of its leases, the
                   next one when the renewal by the one before has come

Times are of CLOCK_MONOTONIC, which all processes of a machine share. What is measured is the coordinator: messages are
not decoded here but found by their bytes, which costs about a microsecond a lease, and frames are masked with zeros.
"""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import selectors
import socket
import sys
import time
from urllib.parse import urlsplit

import msgspec

from bench.swarm import MACHINE, enrol_swarm
from coordinator import wire
from coordinator.core.rows import Resources

IDLE_S = 3.0
"""Between heartbeats while nothing is measured."""
READ_BYTES = 256 * 1024
GRANT = re.compile(rb'"type":"grant","attempt":"([0-9.]+)","rank":0,"token":(\[[0-9,]+\])')
GRANTED = b'{"type":"granted","attempt":"%s","token":%s}'


def frame(payload: bytes) -> bytes:
    """One text frame of a client, whose mask changes nothing."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, 0x80 | size, 0, 0, 0, 0)) + payload
    if size < 2**16:
        return b"\x81\xfe" + size.to_bytes(2, "big") + b"\0\0\0\0" + payload
    return b"\x81\xff" + size.to_bytes(8, "big") + b"\0\0\0\0" + payload


class Counts:
    """Of all agents of this process."""

    def __init__(self) -> None:
        self.granted = self.launched = self.renewed = self.heartbeats = 0
        self.granted_s = self.launched_s = 0.0
        self.until_s = 0.0
        """They beat as fast as they are answered until then."""


class LightAgent:
    """One connection that holds whatever it is granted."""

    def __init__(self, counts: Counts, url: str, provider_id: str, credential: str, cpus: float) -> None:
        """Connected, and welcome."""
        self._counts = counts
        self._names: list[bytes] = []
        self._body, self._named = b"", 0
        """The names in the heartbeat, and how many they are."""
        self._seq = 0
        self._welcome = False
        address = urlsplit(url)
        assert address.hostname is not None and address.port is not None
        self.socket = socket.create_connection((address.hostname, address.port), timeout=30.0)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        key = base64.b64encode(os.urandom(16)).decode()
        ask = (
            f"GET {wire.CONNECT_PATH} HTTP/1.1\r\nHost: {address.netloc}\r\nAuthorization: Bearer {credential}\r\n"
            f"Upgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.socket.sendall(ask.encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += self._read()
        head, self._rest = answer.split(b"\r\n\r\n", 1)
        if not head.startswith(b"HTTP/1.1 101"):
            raise ConnectionError(f"{provider_id} was refused: {head[:200]!r}")
        hello = wire.Hello(
            versions=(2,),
            provider_id=provider_id,
            machine_id=MACHINE,
            process_id=f"{os.getpid()}-{provider_id}",
            resources=Resources(cpus=cpus, memory_gb=1_000.0),
        )
        self.socket.sendall(frame(msgspec.json.encode(hello)))
        while not self._welcome:
            self.take()
        self.beat()

    def _read(self) -> bytes:
        data = self.socket.recv(READ_BYTES)
        if not data:
            raise ConnectionError("an agent was cut")
        return data

    def take(self) -> None:
        """What one read brings, and the answer to it."""
        data, at, answers = self._rest + self._read(), 0, []
        renewed = self._counts.renewed
        while len(data) - at >= 2:
            begin, size = at + 2, data[at + 1]
            if size > 125:
                wide = 2 if size == 126 else 8
                size, begin = int.from_bytes(data[begin : begin + wide], "big"), begin + wide
            if begin + size > len(data):
                break
            at = begin + size
            answer = self._hear(data[begin:at])
            if answer:
                answers.append(answer)
        self._rest = data[at:]
        if answers:
            self.socket.sendall(b"".join(answers))
        if self._counts.renewed > renewed and time.monotonic() < self._counts.until_s:
            self.beat()

    def _hear(self, said: bytes) -> bytes:
        """One frame; what there is to answer."""
        counts, grants = self._counts, GRANT.findall(said)
        launched = said.count(b'"type":"launch"')
        counts.renewed += said.count(b'"term_s":') - len(grants)
        if launched:
            counts.launched += launched
            counts.launched_s = time.monotonic()
        if not grants:
            self._welcome = self._welcome or b'"type":"welcome"' in said
            return b""
        counts.granted += len(grants)
        counts.granted_s = time.monotonic()
        self._names += [attempt for attempt, _ in grants]
        return frame(b"[" + b",".join([GRANTED % grant for grant in grants]) + b"]")

    def beat(self) -> None:
        """One heartbeat that names all it holds."""
        self._seq += 1
        if self._named != len(self._names):
            self._named = len(self._names)
            self._body = b',"attempts":["' + b'","'.join(self._names) + b'"]'
        self._counts.heartbeats += 1
        self.socket.sendall(frame(b'{"type":"heartbeat","seq":%d,"status":"busy"%s}' % (self._seq, self._body)))


class Fleet:
    """All agents of this process, and one loop."""

    def __init__(self, url: str, credentials: dict[str, str], cpus: float) -> None:
        self._counts = Counts()
        self._agents = [LightAgent(self._counts, url, *one, cpus) for one in credentials.items()]
        self._ready = selectors.DefaultSelector()
        for agent in self._agents:
            self._ready.register(agent.socket, selectors.EVENT_READ, agent)
        self._asked = False
        self._beat_s = time.monotonic() + IDLE_S

    def serve(self) -> None:
        """Until nobody asks any more."""
        self._ready.register(sys.stdin.buffer, selectors.EVENT_READ, None)
        print("ready", flush=True)
        while True:
            self._turn(self._beat_s)
            if self._asked:
                self._asked = False
                words = sys.stdin.buffer.readline().decode().split()
                if not words:
                    return
                print(json.dumps(self._beaten(float(words[1])) if words[0] == "beat" else self._counted()), flush=True)

    def _turn(self, until_s: float) -> None:
        """Wait for something to take, and take it."""
        for key, _ in self._ready.select(max(0.0, until_s - time.monotonic())):
            if key.data is None:
                self._asked = True
            else:
                key.data.take()
        if time.monotonic() >= self._beat_s:
            self._beat_s = time.monotonic() + IDLE_S
            if self._counts.until_s < time.monotonic():
                for agent in self._agents:
                    agent.beat()

    def _counted(self) -> dict[str, float]:
        counts = self._counts
        return {
            "granted": counts.granted,
            "launched": counts.launched,
            "granted_s": counts.granted_s,
            "launched_s": counts.launched_s,
            "cpu_s": time.process_time(),
        }

    def _beaten(self, seconds: float) -> dict[str, float]:
        counts, began_s, cpu_s = self._counts, time.monotonic(), time.process_time()
        renewed, heartbeats = counts.renewed, counts.heartbeats
        counts.until_s = began_s + seconds
        for agent in self._agents:
            agent.beat()
        while time.monotonic() < counts.until_s:
            self._turn(counts.until_s)
        return {
            "renewed": counts.renewed - renewed,
            "heartbeats": counts.heartbeats - heartbeats,
            "seconds": time.monotonic() - began_s,
            "cpu_s": time.process_time() - cpu_s,
        }


def main(url: str, join_token: str, prefix: str, agents: int, cpus: float) -> None:
    Fleet(url, asyncio.run(enrol_swarm(url, join_token, prefix, agents)), cpus).serve()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
