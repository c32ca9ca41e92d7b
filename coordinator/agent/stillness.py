"""Whether something still moves: work that waits for bytes goes on while some come, and is given up when none do."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class StoodStill(Exception):
    """Nothing moved for too long."""


class Motion:
    """When something of one piece of work moved last. May be told from any thread; time in suspend does not count."""

    def __init__(self) -> None:
        self.at_s = time.monotonic()

    def moved(self) -> None:
        self.at_s = time.monotonic()


async def while_it_moves(work: Coroutine[Any, Any, T], motion: Motion, still_s: float) -> T:
    """The result of `work`, or what it raises. StoodStill when `motion` was told nothing for `still_s`: it is cancelled
    then, as it is when we are, and nothing of it goes on."""
    task = asyncio.create_task(work)
    motion.moved()
    try:
        while not task.done():
            left_s = motion.at_s + still_s - time.monotonic()
            if left_s <= 0:
                raise StoodStill(f"nothing of it came for {still_s:g} s")
            await asyncio.wait({task}, timeout=left_s)
        return task.result()
    finally:
        if not task.done():
            task.cancel()
            with contextlib.suppress(BaseException):
                await asyncio.shield(task)
