"""Launch plans on their way to the keeper: completed, written into the attempt's directory, then ordered to run.

Files are written in a thread, all that wait at once: a slow disk holds up launches, never a heartbeat.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Callable
from pathlib import Path

import msgspec

from coordinator import wire
from coordinator.agent import channel
from coordinator.agent.log import logger
from coordinator.core.ids import attempt_of, dotted
from coordinator.core.launch_plan import LaunchPlan

PLAN, TOKEN = "plan.json", "token"
_ENCODER = msgspec.json.Encoder()
_PLAN = msgspec.json.Decoder(LaunchPlan)


class Plans:
    """`run` is a task of the daemon."""

    def __init__(self, to_keeper: Callable[[channel.ToKeeper], None], url: str) -> None:
        self._to_keeper = to_keeper
        self._url = url
        self._waiting: list[tuple[channel.Now, wire.Launch]] = []
        self._news = asyncio.Event()

    def put(self, now: channel.Now, launch: wire.Launch) -> None:
        """Have this attempt launched."""
        self._waiting.append((now, launch))
        self._news.set()

    async def run(self) -> None:
        """Write and order, for ever. Where a plan cannot be written, the keeper finds none, and says so."""
        while True:
            await self._news.wait()
            self._news.clear()
            waiting, self._waiting = self._waiting, []
            await asyncio.to_thread(self._write_all, waiting)
            for _, launch in waiting:
                self._to_keeper(channel.Run(attempt=launch.attempt, rank=launch.rank, token=launch.token))

    def _write_all(self, waiting: list[tuple[channel.Now, wire.Launch]]) -> None:
        for now, launch in waiting:
            directory = Path(now.directory)
            try:
                if not (directory / TOKEN).exists():
                    _write(directory / TOKEN, secrets.token_urlsafe(32).encode())
                plan = msgspec.structs.replace(launch.plan, env=launch.plan.env + self._env(launch))
                _write(directory / PLAN, _ENCODER.encode(plan))
            except OSError as error:
                logger.error("the plan of %s cannot be written: %s", launch.attempt, error.strerror or error)

    def _env(self, launch: wire.Launch) -> tuple[tuple[str, str], ...]:
        """What an attempt is told of itself. Later names win, so a job cannot pretend to be another."""
        attempt_id = attempt_of(launch.attempt)
        return (
            ("COORD_JOB_ID", str(attempt_id[0])),
            ("COORD_TASK_ID", dotted(attempt_id[:3])),
            ("COORD_ATTEMPT", launch.attempt),
            ("COORD_RANK", str(launch.rank)),
            ("COORD_ATTEMPT_URL", self._url),
        )


def _write(path: Path, content: bytes) -> None:
    """As a whole, or not at all. Not synced: after a crash of the machine nobody runs it."""
    fresh = path.with_name(f".{path.name}.new")
    fd = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
    fresh.replace(path)


def read_plan(directory: str) -> LaunchPlan | None:
    """The plan that this attempt was launched by; None when it was not, or it cannot be read."""
    try:
        return _PLAN.decode(Path(directory, PLAN).read_bytes())
    except (OSError, msgspec.DecodeError):
        return None


def read_token(directory: str) -> str:
    """The secret of the attempt's endpoint; empty when it has none."""
    try:
        return Path(directory, TOKEN).read_text()
    except OSError:
        return ""
