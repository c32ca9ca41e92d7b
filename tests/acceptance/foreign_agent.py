"""An agent written from docs/reference/wire.md alone, with another WebSocket library and none of coord's code.

    python foreign_agent.py URL STATE_FILE [--beats N] [--bye]      join token in the environment: JOIN_TOKEN

Enrols if STATE_FILE is not there, connects, sends heartbeats and prints one JSON line for whatever happens. After N
acknowledged heartbeats it ends: with a bye, or without a word.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import hashlib
import json
import os
import random
import ssl
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

STOPS = {4401, 4403, 4404, 4426}
LATER = {1013, 4400, 4409, 4410, 4429}
CEILINGS_S = [2.5, 5.0] + [10.0] * 8 + [20.0, 30.0]


def tell(what: str, **details: Any) -> None:
    """One line of the report."""
    print(json.dumps({"what": what, **details}), flush=True)


def steady_ms() -> float:
    """A clock that counts suspend and nobody sets."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) * 1000


def machine_id() -> str:
    """Of this machine and no other: a keyed hash of the system's id."""
    try:
        text = Path("/etc/machine-id").read_text()
    except OSError:
        text = str(uuid.getnode())
    return hashlib.sha256(b"foreign-agent " + text.encode()).hexdigest()[:40]


def boot_id() -> str:
    """Changes with every boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def verified(url: str, pin: str) -> ssl.SSLContext | None:
    """A context that accepts exactly the certificate whose key has this pin; None for plain http."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return None
    pem = ssl.get_server_certificate((parts.hostname or "", parts.port or 443))
    certificate = x509.load_pem_x509_certificate(pem.encode())
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    seen = base64.urlsafe_b64encode(hashlib.sha256(key).digest()).rstrip(b"=").decode()
    if seen != pin:
        raise SystemExit("the server's key is not the pinned one")
    context = ssl.create_default_context(cadata=pem)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def enrol(url: str, token: str, provider_id: str) -> dict[str, str]:
    """Section 1 of the page."""
    pin = token.partition(".")[2]
    request = urllib.request.Request(
        f"{url}/v1/providers/enrol",
        data=json.dumps({"provider_id": provider_id, "machine_id": machine_id()}).encode(),
        headers={"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
        method="POST",
    )
    try:
        with urllib.request.urlopen(request, timeout=10, context=verified(url, pin)) as response:
            answer = json.load(response)
    except urllib.error.HTTPError as error:
        problem = json.load(error)
        tell("enrolment refused", status=error.code, code=problem.get("code"))
        raise SystemExit(77) from None
    tell("enrolled", provider_id=answer["provider_id"], pool=answer["pool"])
    return {"provider_id": answer["provider_id"], "credential": answer["credential"], "pin": pin}


class Agent:
    """One run: a process id, a number for every heartbeat, a resume key in memory."""

    def __init__(self, url: str, state: dict[str, str], beats: int, bye: bool) -> None:
        self.url = url
        self.state = state
        self.beats = beats
        self.bye = bye
        self.process_id = uuid.uuid4().hex
        self.resume_key = ""
        self.seq = 0
        self.acked = 0
        self.interval_s = 5.0
        self.lost_after_s = 30.0
        self.draining = False
        self.sent_ms: dict[int, float] = {}
        self.exchanges: list[tuple[float, float, float]] = []
        self.done = asyncio.Event()

    async def run(self) -> int:
        tries = 0
        while not self.done.is_set():
            began = steady_ms()
            code, reason = await self.session()
            tell("closed", code=code, reason=reason)
            if code in STOPS or code == 401:
                return 77
            if self.done.is_set():
                return 0
            if steady_ms() - began > 10_000:
                tries = 0
            wait_s = random.uniform(0, CEILINGS_S[min(tries, len(CEILINGS_S) - 1)]) + (30 if code in LATER else 0)
            tries += 1
            await asyncio.sleep(wait_s)
        return 0

    async def session(self) -> tuple[int, str]:
        """One connection, until it is closed."""
        uri = self.url.replace("http", "ws", 1) + "/v1/agents/connect"
        headers = {"Authorization": f"Bearer {self.state['credential']}"}
        context = verified(self.url, self.state["pin"])
        try:
            async with connect(uri, additional_headers=headers, ssl=context, compression=None, open_timeout=10) as ws:
                await self.greet(ws)
                async with asyncio.TaskGroup() as group:
                    beating = group.create_task(self.beat(ws))
                    await self.read(ws)
                    beating.cancel()
                return ws.close_code or 1006, ws.close_reason or ""
        except ConnectionClosed as closed:
            received = closed.rcvd
            return (received.code, received.reason) if received is not None else (1006, "")
        except InvalidStatus as refused:
            return refused.response.status_code, "upgrade refused"
        except (OSError, TimeoutError) as error:
            return 1006, str(error)

    async def read(self, ws: ClientConnection) -> None:
        """Until it is closed."""
        with contextlib.suppress(ConnectionClosed):
            async for frame in ws:
                message = json.loads(frame)
                for part in message if isinstance(message, list) else [message]:
                    await self.take(ws, part)

    async def say(self, ws: ClientConnection, *messages: dict[str, Any]) -> None:
        await ws.send(json.dumps(messages[0] if len(messages) == 1 else list(messages)))

    async def greet(self, ws: ClientConnection) -> None:
        self.sent_ms.clear()
        self.exchanges.clear()
        hello: dict[str, Any] = {
            "type": "hello",
            "versions": [1],
            "provider_id": self.state["provider_id"],
            "machine_id": machine_id(),
            "boot_id": boot_id(),
            "process_id": self.process_id,
            "agent_version": "foreign 0.1",
            "resources": {"cpus": os.cpu_count() or 1},
            "labels": {"written-from": "the page"},
            "a-field-of-mine": True,
        }
        if self.resume_key:
            hello["resume_key"] = self.resume_key
        await self.say(ws, hello)
        welcome = json.loads(await asyncio.wait_for(ws.recv(), 15))
        if welcome["type"] != "welcome":
            tell("not welcome", **welcome)
            await ws.wait_closed()
            return
        self.resume_key = welcome["resume_key"]
        self.interval_s, self.lost_after_s = welcome["heartbeat_interval_s"], welcome["lost_after_s"]
        self.draining = welcome["draining"]
        tell("welcome", session_id=welcome["session_id"], resumed=welcome["resumed"])

    def heartbeat(self) -> dict[str, Any]:
        self.seq += 1
        self.sent_ms[self.seq] = steady_ms()
        beat: dict[str, Any] = {
            "type": "heartbeat",
            "seq": self.seq,
            "sent_at_ms": int(time.time() * 1000),
            "status": "draining" if self.draining else "idle",
            "cpu_usage": min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)),
            "backend_state": "foreign",
        }
        if self.exchanges:
            now = steady_ms()
            offset, bound, at = min(self.exchanges, key=lambda e: e[1] + (now - e[2]) * 0.0001)
            beat["clock_offset_ms"] = offset - (time.time() * 1000 - now)
            beat["clock_bound_ms"] = bound + (now - at) * 0.0001
        return beat

    async def beat(self, ws: ClientConnection) -> None:
        """The first alone, then two in a frame; a stranger once, which must cost nothing."""
        with contextlib.suppress(ConnectionClosed):
            await self.say(ws, self.heartbeat())
            await self.say(ws, {"type": "from-elsewhere", "x": 1})
            while True:
                await asyncio.sleep(self.interval_s)
                oldest = min(self.sent_ms.values(), default=steady_ms())
                if steady_ms() - oldest > max(self.lost_after_s / 2, 3 * self.interval_s) * 1000:
                    await ws.close()
                    return
                await self.say(ws, self.heartbeat(), self.heartbeat())

    async def take(self, ws: ClientConnection, message: dict[str, Any]) -> None:
        match message["type"]:
            case "ack":
                await self.on_ack(ws, message)
            case "ping":
                await self.say(ws, {"type": "pong"})
            case "settings":
                self.interval_s = message["heartbeat_interval_s"]
                tell("settings", heartbeat_interval_s=self.interval_s)
            case "drain":
                self.draining = message["draining"]
                tell("drain", draining=self.draining, note=message.get("note", ""))
            case "error":
                tell("error", code=message["code"], message=message["message"])

    async def on_ack(self, ws: ClientConnection, ack: dict[str, Any]) -> None:
        now = steady_ms()
        sent = self.sent_ms.get(ack["seq"])
        self.sent_ms = {seq: at for seq, at in self.sent_ms.items() if seq > ack["seq"]}
        self.acked = ack["seq"]
        if sent is not None:
            delay = (now - sent) - ack["held_ms"]
            if delay >= -1:
                came, went = ack["received_at_ms"] - sent, ack["received_at_ms"] + ack["held_ms"] - now
                self.exchanges = [*self.exchanges[-31:], ((came + went) / 2, max(0.0, delay) / 2 + 1.5, now)]
        tell("ack", seq=self.acked)
        if self.acked >= self.beats and not self.done.is_set():
            self.done.set()
            if self.bye:
                await self.say(ws, {"type": "bye"})
            else:
                await ws.close()


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("url")
    arguments.add_argument("state", type=Path)
    arguments.add_argument("--provider-id", default="foreign")
    arguments.add_argument("--beats", type=int, default=3)
    arguments.add_argument("--bye", action="store_true")
    options = arguments.parse_args()
    if not options.state.exists():
        state = enrol(options.url, os.environ["JOIN_TOKEN"], options.provider_id)
        options.state.touch(mode=0o600)
        options.state.write_text(json.dumps(state))
    state = json.loads(options.state.read_text())
    raise SystemExit(asyncio.run(Agent(options.url, state, options.beats, options.bye).run()))


if __name__ == "__main__":
    main()
