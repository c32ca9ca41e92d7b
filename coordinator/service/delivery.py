"""Delivery of alerts: to a webhook and to a command, when one begins and when it is over.

Each has a queue of its own that is bounded (the oldest goes, and is counted) and one delivery under way. A delivery
that fails is tried again with growing pauses, then given up: a metric and a line in the log, never more. Nothing
here can hold up or end the coordinator.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import os
import signal
import stat
import subprocess
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp
import msgspec
from msgspec import Struct

from coordinator.core.errors import Code, CoordError
from coordinator.service.alerts import Change

log = logging.getLogger("coord.alerts")

SEVERITIES = ("warning", "critical")
"""Ordered: each is worse than the one before."""
SECRET_BYTES_MIN = 16
PASSED_ON = ("PATH", "HOME", "LANG", "TZ")
"""What a command gets of our environment: there are secrets in it."""


class AlertSettings(Struct, frozen=True, kw_only=True):
    """Where alerts are delivered to, besides `coord alerts`, the API, the metric and the log."""

    webhook: str = ""
    """URL (http or https) that each beginning and end of an alert is posted to as JSON. Empty: none."""
    webhook_secret: Path | None = None
    """File (0600) with the secret that the posts are signed with: HMAC-SHA256, in X-Coord-Signature."""
    command: tuple[str, ...] = ()
    """Argument list of a program that is run for each, with the same JSON on its standard input. Empty: none."""
    severity: str = "warning"
    """The least that is delivered: warning or critical."""
    timeout_s: float = 10.0
    """Of one try; a command is killed then, with all that it started."""
    tries: int = 6
    """How often one delivery is tried."""
    retry_s: float = 1.0
    """Pause before the second try; each further one is three times as long, ten minutes at most."""
    queue_max: int = 256
    """Deliveries that wait, of each kind; beyond, the oldest is given up."""


RETRY_MAX_S = 600.0


class DeliveryCounters(Struct):
    """What became of the deliveries to one receiver."""

    delivered: int = 0
    retried: int = 0
    failed: int = 0
    """Given up, for lack of room too."""


class Message(Struct, frozen=True, kw_only=True):
    """What is delivered, as JSON."""

    version: int
    id: str
    """The same at every try of one delivery."""
    status: str
    """`firing` or `resolved`."""
    coordinator_id: str
    kind: str
    severity: str
    subject: str
    text: str
    hint: str
    since: str
    count: int
    resolved_at: str | None


class Receiver(Protocol):
    """One way to deliver."""

    name: str

    async def deliver(self, body: bytes, message_id: str) -> str | None:
        """None when it arrived, else why not. `Final` when trying again is no use."""
        ...


class Final(str):
    """Why a delivery is given up at once."""


class Webhook:
    """POSTs JSON. No redirects are followed: what was configured is what is called."""

    name = "webhook"

    def __init__(self, url: str, secret: bytes, timeout_s: float) -> None:
        self._url = url
        self._secret = secret
        self._timeout_s = timeout_s

    async def deliver(self, body: bytes, message_id: str) -> str | None:
        headers = {"Content-Type": "application/json", "X-Coord-Delivery": message_id, "User-Agent": "coord"}
        if self._secret:
            headers["X-Coord-Signature"] = "sha256=" + hmac.new(self._secret, body, hashlib.sha256).hexdigest()
        timeout = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout, auto_decompress=False) as session,
                session.post(self._url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                status = answer.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return f"{type(error).__name__}: {error}"[:300]
        if 200 <= status < 300:
            return None
        text = f"it answered {status}"
        return text if status in (408, 425, 429) or status >= 500 else Final(text)


class Program:
    """Runs an argument list, never a shell, with the JSON on its standard input and little else of ours."""

    name = "command"

    def __init__(self, argv: tuple[str, ...], env: Mapping[str, str], timeout_s: float) -> None:
        self._argv = argv
        self._env = env
        self._timeout_s = timeout_s

    async def deliver(self, body: bytes, message_id: str) -> str | None:
        run = _Run(self._argv, {**self._env, "COORD_DELIVERY": message_id})
        try:
            status = await asyncio.to_thread(run.through, body, self._timeout_s)
        except asyncio.CancelledError:
            run.stop()  # the thread that waits for it then ends at once
            raise
        except OSError as error:
            return f"it cannot be started: {error}"
        if status == 0:
            return None
        return f"it ran longer than {self._timeout_s:g} s" if status is None else f"it ended with status {status}"


class _Run:
    """One run of a command, from its start to its end in one thread: at no moment is there a process that `stop`, from
    another thread, does not reach, or that nobody waits for."""

    def __init__(self, argv: tuple[str, ...], env: dict[str, str]) -> None:
        self._argv, self._env = argv, env
        self._lock = threading.Lock()
        self._stopped = False
        self._process: subprocess.Popen[bytes] | None = None

    def through(self, body: bytes, timeout_s: float) -> int | None:
        """Its status; None if it ran too long and was killed, with all its children. OSError: it cannot be started."""
        with self._lock:
            if self._stopped:
                return None
            self._process = process = self._start()
        try:
            process.communicate(body, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            _kill_all(process)
            process.communicate()
            return None
        return process.returncode

    def stop(self) -> None:
        with self._lock:
            self._stopped = True
            if self._process is not None and self._process.returncode is None:
                _kill_all(self._process)

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(  # noqa: S603  what the operator configured
            self._argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=self._env,
            cwd="/",
            start_new_session=True,
        )


def _kill_all(process: subprocess.Popen[bytes]) -> None:
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class _Queue:
    """What waits for one receiver."""

    def __init__(self, receiver: Receiver, settings: AlertSettings) -> None:
        self.counters = DeliveryCounters()
        self.receiver = receiver
        self.waiting: deque[tuple[str, bytes]] = deque()
        self._settings = settings
        self._due = asyncio.Event()

    def put(self, message_id: str, body: bytes) -> None:
        if len(self.waiting) >= self._settings.queue_max:
            self.waiting.popleft()
            self.counters.failed += 1
            log.warning("an alert was not delivered by %s: too many wait", self.receiver.name)
        self.waiting.append((message_id, body))
        self._due.set()

    async def run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self.waiting:
                await self._deliver(*self.waiting.popleft())

    async def _deliver(self, message_id: str, body: bytes) -> None:
        settings, name, why = self._settings, self.receiver.name, ""
        for number in range(settings.tries):
            if number:
                self.counters.retried += 1
                await asyncio.sleep(min(settings.retry_s * 3 ** (number - 1), RETRY_MAX_S))
            try:
                failure = await self.receiver.deliver(body, message_id)
            except Exception as error:  # whatever a name, a certificate or a library brings: nothing here ends us
                failure = f"{type(error).__name__}: {error}"[:300]
            if failure is None:
                self.counters.delivered += 1
                return
            why = failure
            if isinstance(failure, Final):
                break
        self.counters.failed += 1
        log.warning("alert %s was not delivered by %s: %s", message_id, name, why)


class Delivery:
    """Tells every receiver of every change that is bad enough. `run` is its task."""

    def __init__(self, receivers: tuple[Receiver, ...], settings: AlertSettings, coordinator_id: str) -> None:
        self._queues = tuple(_Queue(receiver, settings) for receiver in receivers)
        self._coordinator_id = coordinator_id
        self._least = SEVERITIES.index(settings.severity)
        self._number = 0

    def on_change(self, change: Change) -> None:
        """A listener for Alerts."""
        entry = change.entry
        if not self._queues or SEVERITIES.index(entry.severity) < self._least:
            return
        self._number += 1
        message = Message(
            version=1,
            id=f"{entry.kind}-{entry.since}-{self._number}",
            status=change.status,
            coordinator_id=self._coordinator_id,
            kind=entry.kind,
            severity=entry.severity,
            subject=entry.subject,
            text=entry.text,
            hint=entry.hint,
            since=entry.since,
            count=entry.count,
            resolved_at=entry.resolved_at,
        )
        body = msgspec.json.encode(message)
        for queue in self._queues:
            queue.put(message.id, body)

    def counters(self) -> dict[str, DeliveryCounters]:
        """By receiver."""
        return {queue.receiver.name: queue.counters for queue in self._queues}

    @property
    def waiting(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues)

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(queue.run())


def receivers_of(settings: AlertSettings, environ: Mapping[str, str]) -> tuple[Receiver, ...]:
    """Those that were configured; a command gets PASSED_ON of `environ`. CoordError(BAD_CONFIG) for what cannot be
    meant."""
    if settings.severity not in SEVERITIES:
        raise CoordError(Code.BAD_CONFIG, f"alerts.severity = {settings.severity!a}", f"say {' or '.join(SEVERITIES)}")
    found: list[Receiver] = []
    if settings.webhook:
        try:
            parts = urlsplit(settings.webhook)
        except ValueError:
            parts = urlsplit("")
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise CoordError(
                Code.BAD_CONFIG,
                "alerts.webhook is no plain http or https URL",
                "write https://HOST/PATH; a secret belongs into the file that alerts.webhook_secret names",
            )
        secret = _secret(settings.webhook_secret) if settings.webhook_secret is not None else b""
        found.append(Webhook(settings.webhook, secret, settings.timeout_s))
    elif settings.webhook_secret is not None:
        raise CoordError(Code.BAD_CONFIG, "alerts.webhook_secret without alerts.webhook", "name the webhook too")
    if settings.command:
        env = {name: environ[name] for name in PASSED_ON if name in environ}
        found.append(Program(settings.command, env, settings.timeout_s))
    return tuple(found)


def _secret(path: Path) -> bytes:
    try:
        mode = path.stat().st_mode
        secret = path.read_bytes().strip()
    except OSError as error:
        raise CoordError(
            Code.BAD_CONFIG, f"alerts.webhook_secret: {path}: {error.strerror}", "name a file with the secret"
        ) from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise CoordError(Code.BAD_CONFIG, f"others may read the secret in {path}", f"chmod 600 {path}")
    if len(secret) < SECRET_BYTES_MIN:
        raise CoordError(Code.BAD_CONFIG, f"the secret in {path} has {len(secret)} bytes", "write 16 or more into it")
    return secret
