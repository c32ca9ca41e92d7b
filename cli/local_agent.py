"""The agent that `coord up` runs beside its coordinator: a process of its own that ends when we do."""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path

from store.layout import DataDir

log = logging.getLogger("coord.up")

STATE = "agent"
"""Its state directory, below the data directory."""
AGAIN_S = 5.0
"""An agent that ended by itself is started again after so long; its keeper has its own, faster ways before."""
LEAVE_S = 20.0
"""For its good-bye: what runs on it is ended first, with its grace, and its end is reported."""


class LocalAgent:
    """One `coord agent` on this machine, its state below the data directory."""

    def __init__(self, provider_id: str | None) -> None:
        self._provider_id = provider_id
        self._process: asyncio.subprocess.Process | None = None

    def state(self, data: DataDir) -> Path:
        """Where it keeps its identity."""
        return data.path / STATE

    async def run(self, url: str, data: DataDir) -> None:
        """Keep it running until cancelled. It is told to go by `leave`, or by the kernel when we die."""
        while True:
            # A session of its own: Ctrl-C reaches us alone, and the agent gets one signal, its good-bye.
            self._process = await asyncio.create_subprocess_exec(
                *self._argv(url, data), stdin=asyncio.subprocess.DEVNULL, start_new_session=True
            )
            log.warning("the agent ended with %d, starting it again", await self._process.wait())
            await asyncio.sleep(AGAIN_S)

    async def leave(self) -> None:
        """Have it say good-bye; by force when it takes too long."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        process.terminate()
        try:
            async with asyncio.timeout(LEAVE_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

    def _argv(self, url: str, data: DataDir) -> list[str]:
        argv = [sys.executable, "-P", "-m", "cli", "agent", "--ends-with-parent", "--url", url]
        argv += ["--data", str(data.path), "--state", str(self.state(data))]
        argv += ["--join-token-file", str(data.join_token), "--hide", str(data.path)]
        return argv + (["--provider-id", self._provider_id] if self._provider_id else [])
