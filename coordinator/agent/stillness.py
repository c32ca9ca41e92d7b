"""Whether something still moves: work that waits for bytes goes on while some come, and is given up when none do."""

from __future__ import annotations

import asyncio
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
    motion.moved()
    try:
        async with asyncio.TaskGroup() as group:
            watch = group.create_task(_stand_watch(motion, still_s))
            try:
                return await work
            finally:
                watch.cancel()
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None


async def _stand_watch(motion: Motion, still_s: float) -> None:
    while (left_s := motion.at_s + still_s - time.monotonic()) > 0:  # noqa: ASYNC110  threads tell of it, too
        await asyncio.sleep(left_s)
    raise StoodStill(f"nothing of it came for {still_s:g} s")
