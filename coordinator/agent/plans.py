"""Launch plans on their way to the keeper: completed, then ordered to run.

What the keeper finds in a file is written first, in a thread, for all that wait at once: a slow disk holds up launches,
never a heartbeat.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from coordinator import wire
from coordinator.agent import channel, duties
from coordinator.agent.log import logger
from coordinator.agent.secret import new_secret
from coordinator.core.ids import attempt_of, dotted

PLAN = "plan.json"
IN_MESSAGE_BYTES_MAX = 100_000
"""A larger plan is put into the attempt's directory: a file made, read and removed costs 0.3 ms on ext4."""
NODES = "COORD_NODES"
_ENCODER = msgspec.json.Encoder()
Traced = Callable[[wire.Launch, str, str], tuple[tuple[str, str], ...]]
"""(order, URL of the endpoint, secret of the attempt) -> what its program is told of its trace."""


class _Written(NamedTuple):
    """An order before which something is written into the attempt's directory."""

    directory: str
    order: channel.Run
    large: bool
    """Its plan is."""
    owed: duties.Duties | None


class Plans:
    """`run` is a task of the daemon."""

    def __init__(self, to_keeper: Callable[[channel.ToKeeper], None], url: str, traced: Traced) -> None:
        self._to_keeper = to_keeper
        self._url = url
        self._traced = traced
        self._waiting: list[_Written] = []
        self._news = asyncio.Event()

    def put(self, directory: str, launch: wire.Launch) -> None:
        """Have this attempt launched, whose directory is the keeper's. As a rule it is ordered at once."""
        secret = new_secret(dict(launch.plan.env).get(NODES, "1"))
        told = environment(self._url, launch) + self._traced(launch, self._url, secret)
        plan = msgspec.structs.replace(launch.plan, env=launch.plan.env + told)
        order = channel.Run(attempt=launch.attempt, rank=launch.rank, token=launch.token, secret=secret, plan=plan)
        large = len(_ENCODER.encode(plan)) > IN_MESSAGE_BYTES_MAX
        owed = duties.duties_of(launch)
        if large or owed is not None:
            self._waiting.append(_Written(directory, order, large, owed))
            self._news.set()
        else:
            self._to_keeper(order)

    async def run(self) -> None:
        """Write and order, for ever. Where something cannot be written, the keeper cannot start it, and says so."""
        while True:
            await self._news.wait()
            self._news.clear()
            waiting, self._waiting = self._waiting, []
            for order in await asyncio.to_thread(_write_all, waiting):
                self._to_keeper(order)


def _write_all(waiting: list[_Written]) -> list[channel.Run]:
    return [_write(one) for one in waiting]


def _write(one: _Written) -> channel.Run:
    by_file = msgspec.structs.replace(one.order, plan=None)
    try:
        if one.owed is not None:
            duties.write(one.directory, one.owed)
        if not one.large:
            return one.order
        _write_plan(f"{one.directory}/{PLAN}", _ENCODER.encode(one.order.plan))
    except OSError as error:
        logger.error("%s cannot be launched: %s: %s", one.order.attempt, error.filename, error.strerror)
    return by_file


def _write_plan(path: str, content: bytes) -> None:
    """Whatever lay there is gone. Not synced: after a crash of the machine nobody runs it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)


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
