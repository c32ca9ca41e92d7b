"""An agent written from docs/reference/wire.md alone, with another WebSocket library and none of coord's code.

    python foreign_agent.py URL STATE_FILE [--beats N] [--bye] [--work N]      join token in the environment: JOIN_TOKEN

Enrols if STATE_FILE is not there, connects, sends heartbeats and prints one JSON line for whatever happens. After N
acknowledged heartbeats it ends: with a bye, or without a word. With --work it speaks version 2, runs what it is
given below STATE_FILE.work, and ends when N attempts are settled with their logs stored.
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
import signal
import ssl
import struct
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


class Attempt:
    """One lease and what runs under it: sections 9 and 10."""

    def __init__(self, name: str, rank: int, token: list[int], directory: Path) -> None:
        self.name, self.rank, self.token = name, rank, token
        self.directory = directory
        self.phase = "leased"
        self.exit: dict[str, Any] | None = None
        self.freeze_at_ms = 0.0
        self.process: asyncio.subprocess.Process | None = None
        self.sent = [0, 0]
        self.stored = [0, 0]
        self.settled = False

    def record(self) -> dict[str, Any]:
        """What is said of it everywhere."""
        return {"attempt": self.name, "rank": self.rank, "token": self.token}

    def sizes(self) -> list[int]:
        return [path.stat().st_size for path in (self.directory / "stdout", self.directory / "stderr") if path.exists()]

    def done(self) -> bool:
        """Settled, and every byte of its log stored."""
        return self.settled and self.exit is not None and self.stored >= self.sizes()

    def frame(self, stream: int, data: bytes) -> bytes:
        """Section 10's header, and the bytes."""
        numbers = [int(part) for part in self.name.split(".")]
        return struct.pack("!BBHIQIIIIQQ", 1, stream, self.rank, 0, *numbers, *self.token, self.sent[stream]) + data


class Work:
    """Everything that is held. `say` takes a message of the current connection."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.held: dict[str, Attempt] = {}
        self.seen: dict[str, list[int]] = {}
        self.ws: ClientConnection | None = None
        self.finished = 0
        root.mkdir(mode=0o700, exist_ok=True)
        if (root / "leases").exists():
            kept = json.loads((root / "leases").read_text())
            self.seen = kept["seen"]
            for old in kept["held"]:
                attempt = Attempt(old["attempt"], old["rank"], old["token"], root / old["attempt"])
                attempt.phase, attempt.exit = "exited", old["exit"] or {"cause": "agent"}
                self.held[attempt.name] = attempt

    async def say(self, message: dict[str, Any]) -> None:
        if self.ws is not None:
            with contextlib.suppress(ConnectionClosed):
                await self.ws.send(json.dumps(message))

    def keep(self) -> None:
        """Leases and the highest tokens, durably."""
        text = json.dumps({"seen": self.seen, "held": [a.record() | {"exit": a.exit} for a in self.held.values()]})
        fresh = self.root / "leases.new"
        with fresh.open("w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self.root / "leases")

    async def take(self, message: dict[str, Any], sent_ms: dict[int, float], heard_ms: float) -> None:
        """An order of the coordinator."""
        if message["type"] == "renew":
            for lease in message["leases"]:
                attempt = self.held.get(lease["attempt"])
                if attempt is not None and attempt.token == lease["token"] and message["seq"] in sent_ms:
                    await self.renew(attempt, sent_ms[message["seq"]] + lease["term_s"] * 1000 * 5 / 6)
            return
        name, attempt = message["attempt"], self.held.get(message["attempt"])
        if message["type"] == "grant":
            task, token = name.rpartition(".")[0], message["token"]
            if token < max(self.seen.get(task, token), [max((t[0] for t in self.seen.values()), default=0)]):
                await self.say({"type": "refused", "attempt": name, "token": token, "why": "an old token"})
                return
            self.seen[task] = token
            attempt = self.held[name] = Attempt(name, message["rank"], token, self.root / name)
            attempt.freeze_at_ms = heard_ms + message["term_s"] * 1000 * 5 / 6
            attempt.directory.mkdir(mode=0o700)
            self.keep()
            await self.say({"type": "granted", **attempt.record()})
        elif attempt is None or (message["type"] == "launch" and attempt.token != message["token"]):
            if message["type"] in ("launch", "stop"):
                gone = {"cause": "agent", "text": "not here"}
                told = {"attempt": name, "rank": message.get("rank", 0), "token": message["token"]}
                await self.say({"type": "exited", **told, "exit": gone})
        elif message["type"] == "launch" and attempt.phase == "leased":
            await self.launch(attempt, message["plan"])
        elif message["type"] == "stop" and attempt.token <= message["token"]:
            self.signal(attempt, signal.SIGKILL)
            if attempt.process is None:
                await self.ended(attempt, {"cause": "stopped"})
        elif message["type"] == "settled":
            attempt.settled = True
            self.forget(attempt)
        elif message["type"] == "log_ack":
            self.on_log_ack(attempt, message["stream"], message["offset"])

    async def launch(self, attempt: Attempt, plan: dict[str, Any]) -> None:
        job, step, task, _ = attempt.name.split(".")
        env = {"PATH": os.environ["PATH"], "HOME": str(attempt.directory)} | dict(plan.get("env", []))
        env |= {"COORD_JOB_ID": job, "COORD_TASK_ID": f"{job}.{step}.{task}", "COORD_ATTEMPT": attempt.name}
        env["COORD_RANK"] = str(attempt.rank)
        with (attempt.directory / "stdout").open("wb") as out, (attempt.directory / "stderr").open("wb") as err:
            try:
                attempt.process = await asyncio.create_subprocess_exec(
                    *plan["argv"],
                    env=env,
                    cwd=plan.get("directory") or attempt.directory,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    start_new_session=True,
                )
            except OSError as error:
                await self.ended(attempt, {"cause": "start", "code": 127, "text": str(error)})
                return
        attempt.phase = "running"
        await self.say({"type": "phase", **attempt.record(), "phase": "running"})

    async def attend(self) -> None:
        """What happens by itself: programs end, terms run out, logs grow."""
        while True:
            await asyncio.sleep(0.02)
            for attempt in list(self.held.values()):
                process = attempt.process
                if process is not None and process.returncode is not None and attempt.exit is None:
                    self.signal(attempt, signal.SIGKILL)  # what it left behind
                    killed = process.returncode < 0
                    how = {"signal": -process.returncode} if killed else {"code": process.returncode}
                    await self.ended(attempt, {"cause": "signalled" if killed else "exited", **how})
                if attempt.phase == "running" and steady_ms() >= attempt.freeze_at_ms:
                    self.signal(attempt, signal.SIGSTOP)
                    attempt.phase = "frozen"
                    tell("frozen", attempt=attempt.name)
                    await self.say({"type": "phase", **attempt.record(), "phase": "frozen"})
                await self.send_logs(attempt)

    async def send_logs(self, attempt: Attempt) -> None:
        for stream, size in enumerate(attempt.sizes()):
            while self.ws is not None and attempt.sent[stream] < min(size, attempt.stored[stream] + (4 << 20)):
                with (attempt.directory / ("stdout", "stderr")[stream]).open("rb") as file:
                    file.seek(attempt.sent[stream])
                    data = file.read(256 << 10)
                with contextlib.suppress(ConnectionClosed):
                    await self.ws.send(attempt.frame(stream, data))
                attempt.sent[stream] += len(data)

    def on_log_ack(self, attempt: Attempt, stream: int, offset: int) -> None:
        if offset <= attempt.stored[stream]:
            attempt.sent[stream] = offset  # dropped there: once more
        attempt.stored[stream] = offset
        self.forget(attempt)

    async def renew(self, attempt: Attempt, freeze_at_ms: float) -> None:
        attempt.freeze_at_ms = freeze_at_ms
        if attempt.phase == "frozen" and steady_ms() < freeze_at_ms:
            self.signal(attempt, signal.SIGCONT)
            attempt.phase = "running"
            await self.say({"type": "phase", **attempt.record(), "phase": "running"})

    async def ended(self, attempt: Attempt, how: dict[str, Any]) -> None:
        out, err = [*attempt.sizes(), 0, 0][:2]
        attempt.phase, attempt.exit = "exited", {**how, "out_bytes": out, "err_bytes": err}
        self.keep()
        await self.say({"type": "exited", **attempt.record(), "exit": attempt.exit})

    def signal(self, attempt: Attempt, number: signal.Signals) -> None:
        if attempt.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(attempt.process.pid, number)

    def forget(self, attempt: Attempt) -> None:
        if attempt.done() and self.held.pop(attempt.name, None) is not None:
            self.keep()
            self.finished += 1
            tell("finished", attempt=attempt.name, exit=attempt.exit)

    def connected(self, ws: ClientConnection) -> None:
        """What was on its way may be lost."""
        self.ws = ws
        for attempt in self.held.values():
            attempt.sent = [*attempt.stored]


class Agent:
    """One run: a process id, a number for every heartbeat, a resume key in memory."""

    def __init__(self, url: str, state: dict[str, str], beats: int, bye: bool, work: Work | None, wanted: int) -> None:
        self.work = work
        self.wanted = wanted
        self.heard_ms = 0.0
        self.all_sent_ms: dict[int, float] = {}
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
                    tasks = [group.create_task(self.beat(ws))]
                    if self.work is not None:
                        self.work.connected(ws)
                        tasks.append(group.create_task(self.work.attend()))
                    await self.read(ws)
                    for task in tasks:
                        task.cancel()
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
            "versions": [1] if self.work is None else [1, 2],
            "provider_id": self.state["provider_id"],
            "machine_id": machine_id(),
            "boot_id": boot_id(),
            "process_id": self.process_id,
            "agent_version": "foreign 0.1",
            "resources": {"cpus": os.cpu_count() or 1},
            "labels": {"written-from": "the page"},
            "a-field-of-mine": True,
        }
        if self.work is not None:
            hello["promises"] = {"isolation": "none"}
            hello["attempts"] = [
                a.record() | {"phase": a.phase} | ({"exit": a.exit} if a.exit else {}) for a in self.work.held.values()
            ]
        self.heard_ms = steady_ms()
        self.all_sent_ms = {0: self.heard_ms}
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
        self.sent_ms[self.seq] = self.all_sent_ms[self.seq] = steady_ms()
        beat: dict[str, Any] = {
            "type": "heartbeat",
            "seq": self.seq,
            "sent_at_ms": int(time.time() * 1000),
            "status": "draining" if self.draining else "idle",
            "cpu_usage": min(1.0, os.getloadavg()[0] / (os.cpu_count() or 1)),
            "backend_state": "foreign",
        }
        if self.work is not None:
            beat["attempts"] = [name for name, held in self.work.held.items() if held.phase != "exited"]
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
            case _ if self.work is not None:
                await self.work.take(message, self.all_sent_ms, self.heard_ms)
                if self.work.finished >= self.wanted and not self.done.is_set():
                    self.done.set()
                    await self.say(ws, {"type": "bye"})

    async def on_ack(self, ws: ClientConnection, ack: dict[str, Any]) -> None:
        now = steady_ms()
        sent = self.sent_ms.get(ack["seq"])
        self.sent_ms = {seq: at for seq, at in self.sent_ms.items() if seq > ack["seq"]}
        self.acked = ack["seq"]
        if sent is not None:
            self.heard_ms = sent
            delay = (now - sent) - ack["held_ms"]
            if delay >= -1:
                came, went = ack["received_at_ms"] - sent, ack["received_at_ms"] + ack["held_ms"] - now
                self.exchanges = [*self.exchanges[-31:], ((came + went) / 2, max(0.0, delay) / 2 + 1.5, now)]
        tell("ack", seq=self.acked)
        if self.work is None and self.acked >= self.beats and not self.done.is_set():
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
    arguments.add_argument("--work", type=int, default=0)
    options = arguments.parse_args()
    if not options.state.exists():
        state = enrol(options.url, os.environ["JOIN_TOKEN"], options.provider_id)
        options.state.touch(mode=0o600)
        options.state.write_text(json.dumps(state))
    state = json.loads(options.state.read_text())
    work = Work(options.state.with_suffix(".work")) if options.work else None
    agent = Agent(options.url, state, options.beats, options.bye, work, options.work)
    raise SystemExit(asyncio.run(agent.run()))


if __name__ == "__main__":
    main()
