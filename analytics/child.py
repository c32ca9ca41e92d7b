"""A process of ours that the coordinator starts, talks to in frames over pipes, and ends: the one way both links do it.

It ends with its standard input. What it complains of is read all the time, and the end of it kept.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any

from analytics.framing import HEADER_BYTES

Running = Coroutine[Any, Any, None]
ERROR_LINES = 20
ERROR_CHARS = 1_000
"""Of a line of these."""


class Child:
    """One process, from its start to its end."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        self._process = process
        self._in, self._out, self._err = process.stdin, process.stdout, process.stderr
        self._said: deque[str] = deque(maxlen=ERROR_LINES)

    @classmethod
    async def start(cls, module: str, *arguments: str) -> Child:
        """`python -m MODULE`; OSError when there is no room for it."""
        # -P: the working directory is nobody's import path. One BLAS thread: it shares the machine.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, *arguments),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
        )
        return cls(process)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    def say(self, frame: bytes) -> bool:
        """Whether it may still hear it."""
        if self._in.is_closing():
            return False
        self._in.write(frame)
        return True

    async def frame(self, bytes_max: int) -> bytes | None:
        """The next one's body; None when it has ended, or says that more comes than may."""
        try:
            size = int.from_bytes(await self._out.readexactly(HEADER_BYTES), "little")
            if size > bytes_max:
                return None
            return await self._out.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    def dismiss(self) -> None:
        """It hears nothing more, and ends."""
        self._in.close()

    def kill(self) -> None:
        """Whatever it is doing."""
        if not self.ended:
            self._process.kill()

    async def live(self, listen: Callable[[], Running], watch: Callable[[], Running]) -> None:
        """Returns once it has ended: `listen` returns when it says nothing more, or nothing that can be trusted, and
        `watch` goes on beside it."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._hear_complaints())
                watching = group.create_task(watch())
                try:
                    await listen()
                finally:
                    watching.cancel()
                    self.kill()  # also ends what it writes to standard error, and with it the group
        finally:
            await self._process.wait()

    def end(self) -> str:
        """How it ended, and its last words."""
        return f"ended with {self._process.returncode}: {self._said[-1] if self._said else 'it said nothing'}"

    async def _hear_complaints(self) -> None:
        rest = b""
        while chunk := await self._err.read(4096):
            *lines, rest = (rest + chunk).split(b"\n")
            rest = rest[-ERROR_CHARS:]
            self._said.extend(line.decode(errors="replace")[:ERROR_CHARS] for line in lines if line.strip())
        if rest.strip():
            self._said.append(rest.decode(errors="replace"))
