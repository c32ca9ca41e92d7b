"""Threads for work on whole files of programs, which may be as large as a program likes: apart from those by which
attempts are launched and logs are shipped, so that nobody's terabyte of nothing holds up another's start.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

THREADS = 4
"""So much is hashed or copied at a time."""
TURN_S = 0.25
"""After so long a piece of work waits for its next turn behind those that wait already."""
T = TypeVar("T")

POOL = ThreadPoolExecutor(THREADS, thread_name_prefix="files")
"""Starts no thread before it has to."""


async def by_turns(work: Generator[None, None, T]) -> T:
    """What `work` returns, done in these threads from one of its yields to the next. When we are cancelled it ends at
    its next yield, and is waited for."""
    turn = _Turn(work)
    try:
        while True:
            going = asyncio.get_running_loop().run_in_executor(POOL, turn.take)
            try:
                ended = await asyncio.shield(going)
            except asyncio.CancelledError:
                turn.over = True
                await asyncio.wait((going,))
                if not going.cancelled():
                    going.exception()
                raise
            if ended:
                return ended[0]
    finally:
        work.close()


class _Turn(Generic[T]):
    def __init__(self, work: Generator[None, None, T]) -> None:
        self._work = work
        self.over = False

    def take(self) -> tuple[T] | None:
        """Go on for a turn. -> what the work returned, if it has ended."""
        until_s = time.monotonic() + TURN_S
        while not self.over and time.monotonic() < until_s:
            try:
                next(self._work)
            except StopIteration as ended:
                return (ended.value,)
        return None
