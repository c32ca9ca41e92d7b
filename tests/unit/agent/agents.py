"""Agents for tests: a daemon in this process, or the whole of keeper and daemon as processes."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from coordinator.agent import channel
from coordinator.agent.config import AgentConfig, Patience
from coordinator.agent.control import AgentControl
from coordinator.agent.daemon import Daemon
from coordinator.agent.exits import Exit
from coordinator.agent.standing import AgentStatus
from coordinator.agent.state_dir import StateDir
from coordinator.core.errors import CoordError
from tests.unit.agent.coordinator_side import DEADLINE_S, JOIN, CoordinatorSide
from tests.unit.agent.keeper_side import KeeperSide

QUICK = Patience(
    connect_s=5.0,
    welcome_s=2.0,
    bye_s=1.0,
    close_s=0.2,
    retry_ceilings_s=(0.05, 0.1),
    later_s=0.1,
    steady_s=0.5,
    pulse_s=0.1,
    stuck_s=3.0,
    restart_ceilings_s=(0.05, 0.1),
    leave_s=2.0,
)


def a_config(side: CoordinatorSide, state: Path, **changes: object) -> AgentConfig:
    """Of an agent that enrols at `side` and keeps its state in `state`."""
    config = AgentConfig(state_dir=str(state), coordinator=side.url, provider_id="p1", join_token=JOIN)
    return msgspec.structs.replace(config, **changes)


class RunningDaemon:
    """A Daemon in this loop. `keys` are the resume keys that its keeper was given; `keeper` answers for attempts."""

    def __init__(self, config: AgentConfig, patience: Patience, resume_key: str = "") -> None:
        self.keys: list[str] = []
        start = channel.Start(config=config, patience=patience, process_id="process-1", daemon=1, resume_key=resume_key)
        self._state = StateDir(Path(config.state_dir))
        self._listener = channel.endpoint_socket()
        self.keeper = KeeperSide(Path(config.state_dir, "attempts"))
        self.daemon = Daemon(start, self._state, self._take, self._listener)
        self.keeper.tell = self.daemon.hear
        self.daemon.hear(channel.Told())
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self.task = asyncio.create_task(self.daemon.run())

    def _take(self, message: channel.ToKeeper) -> None:
        if isinstance(message, channel.Pulse):
            self.keys.append(message.resume_key)
        else:
            self.keeper.take(message)

    async def ended(self) -> Exit:
        """How it ended; AgentStop is raised."""
        async with asyncio.timeout(DEADLINE_S):
            return await self.task

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.wait({self.task})
        self._state.close()
        self._listener.close()


@asynccontextmanager
async def a_daemon(
    config: AgentConfig, patience: Patience = QUICK, resume_key: str = ""
) -> AsyncIterator[RunningDaemon]:
    running = RunningDaemon(config, patience, resume_key)
    try:
        yield running
    finally:
        await running.stop()


class RunningAgent:
    """Keeper and daemon as they run on a provider."""

    def __init__(self, process: asyncio.subprocess.Process, state: Path) -> None:
        self.process = process
        self._control = AgentControl(state, timeout_s=1.0)

    async def status(self) -> AgentStatus:
        """As soon as the daemon answers."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                try:
                    return await asyncio.to_thread(self._control.status)
                except CoordError:
                    await asyncio.sleep(0.05)

    async def ended(self) -> tuple[int, str]:
        """Exit status, and what it said on stderr."""
        async with asyncio.timeout(DEADLINE_S):
            _, said = await self.process.communicate()
        return await self.process.wait(), said.decode()


@asynccontextmanager
async def an_agent(config: AgentConfig, patience: Patience = QUICK) -> AsyncIterator[RunningAgent]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        str(Path(__file__).with_name("run_agent.py")),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(msgspec.json.encode((config, patience)))
    process.stdin.close()
    try:
        yield RunningAgent(process, Path(config.state_dir))
    finally:
        if process.returncode is None:
            process.kill()
        async with asyncio.timeout(DEADLINE_S):
            await process.communicate()


def state_of(pid: int) -> str:
    """One letter, as ps shows it; X when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and waits to be reaped does not."""
    return state_of(pid) not in "ZX"


async def eventually(true: Callable[[], bool], within_s: float = DEADLINE_S) -> bool:
    """Whether something outside of this process becomes true within that time."""
    for _ in range(int(within_s / 0.02)):
        if true():
            return True
        await asyncio.sleep(0.02)
    return true()
