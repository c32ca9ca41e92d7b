"""Ways to deliver an alert: a webhook and a command, one try at a time. Who tries again is delivery.py."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import signal
import stat
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import aiohttp

from coordinator.core.errors import Code, CoordError
from coordinator.service.alert_settings import SEVERITIES, AlertSettings

SECRET_BYTES_MIN = 16
PASSED_ON = ("PATH", "HOME", "LANG", "TZ")
"""What a command gets of our environment: there are secrets in it."""


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
