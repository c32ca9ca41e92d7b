"""Launch plans on their way to the keeper: completed, the attempt's secret written, then ordered to run.

Files are written in a thread, all that wait at once: a slow disk holds up launches, never a heartbeat.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from coordinator import wire
from coordinator.agent import channel, duties
from coordinator.agent.log import logger
from coordinator.core.ids import attempt_of, dotted

PLAN, TOKEN = "plan.json", "token"
IN_MESSAGE_BYTES_MAX = 100_000
"""A larger plan is put into the attempt's directory: a file made, read and removed costs 0.3 ms on ext4."""
TOKEN_BYTES_MAX = 128
NODES = "COORD_NODES"
_ENCODER = msgspec.json.Encoder()
Traced = Callable[[wire.Launch, str, str], tuple[tuple[str, str], ...]]
"""(order, URL of the endpoint, secret of the attempt) -> what its program is told of its trace. Called in a thread."""


class Secret(NamedTuple):
    """What opens an attempt's endpoint. The number of nodes is a part of its text: so the next daemon knows it too."""

    text: str
    nodes: int


class Plans:
    """`run` is a task of the daemon."""

    def __init__(self, to_keeper: Callable[[channel.ToKeeper], None], url: str, traced: Traced) -> None:
        self._to_keeper = to_keeper
        self._url = url
        self._traced = traced
        self._waiting: list[tuple[str, wire.Launch]] = []
        self._news = asyncio.Event()

    def put(self, directory: str, launch: wire.Launch) -> None:
        """Have this attempt launched, whose directory is the keeper's."""
        self._waiting.append((directory, launch))
        self._news.set()

    async def run(self) -> None:
        """Write and order, for ever. Where something cannot be written, the keeper cannot start it, and says so."""
        while True:
            await self._news.wait()
            self._news.clear()
            waiting, self._waiting = self._waiting, []
            for order in await asyncio.to_thread(self._write_all, waiting):
                self._to_keeper(order)

    def _write_all(self, waiting: list[tuple[str, wire.Launch]]) -> list[channel.Run]:
        return [self._write(directory, launch) for directory, launch in waiting]

    def _write(self, directory: str, launch: wire.Launch) -> channel.Run:
        secret = _secret(dict(launch.plan.env).get(NODES, "1"))
        told = environment(self._url, launch) + self._traced(launch, self._url, secret)
        plan = msgspec.structs.replace(launch.plan, env=launch.plan.env + told)
        order = channel.Run(attempt=launch.attempt, rank=launch.rank, token=launch.token, plan=plan)
        encoded = _ENCODER.encode(plan)
        try:
            _write(f"{directory}/{TOKEN}", secret.encode())
            owed = duties.duties_of(launch)
            if owed is not None:
                duties.write(directory, owed)
            if len(encoded) > IN_MESSAGE_BYTES_MAX:
                order = msgspec.structs.replace(order, plan=None)
                _write(f"{directory}/{PLAN}", encoded)
        except OSError as error:
            logger.error("%s cannot be launched: %s: %s", launch.attempt, error.filename, error.strerror)
            return msgspec.structs.replace(order, plan=None)
        return order


def environment(url: str, launch: wire.Launch) -> tuple[tuple[str, str], ...]:
    """What an attempt is told of itself. Later names win, so a job cannot pretend to be another."""
    attempt_id = attempt_of(launch.attempt)
    return (
        ("COORD_JOB_ID", str(attempt_id[0])),
        ("COORD_TASK_ID", dotted(attempt_id[:3])),
        ("COORD_ATTEMPT", launch.attempt),
        ("COORD_RANK", str(launch.rank)),
        ("COORD_ATTEMPT_URL", url),
    )


def _secret(nodes: str) -> str:
    return f"{secrets.token_urlsafe(32)}.{nodes if nodes.isdecimal() and len(nodes) < 6 else '1'}"


def _write(path: str, content: bytes) -> None:
    """Whatever lay there is gone. Not synced: after a crash of the machine nobody runs it.

    Written over and then cut: a file that is emptied first is flushed by the kernel when it is closed, for those who
    forget to sync; of an attempt's start that was the dearest part. Four calls, and no file object of Python's: that
    one asks five things about the file, each of which gives the interpreter away to the loop and waits for it again.
    """
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        left = memoryview(content)
        while left:
            left = left[os.write(fd, left) :]
        os.ftruncate(fd, len(content))
    except OSError as error:
        error.filename = path  # not every call knows it
        raise
    finally:
        os.close(fd)


def read_secret(directory: str) -> Secret | None:
    """What opens the endpoint of the attempt with this directory; None when it has none."""
    try:
        with Path(directory, TOKEN).open("rb") as file:
            text = file.read(TOKEN_BYTES_MAX).decode()
    except (OSError, UnicodeDecodeError):
        return None
    nodes = text.rpartition(".")[2]
    return Secret(text, int(nodes)) if nodes.isdecimal() else None
