"""Whichever comes first."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import TypeVar

T = TypeVar("T")


async def first_of(*contenders: Coroutine[object, object, T]) -> T:
    """Run all of them, return the result of the one that ends first, and end the others before that.

    An exception of any of them is raised here (as the only one of an ExceptionGroup).
    """
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(contender) for contender in contenders]
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            task.cancel()
    return next(task.result() for task in tasks if task in done)
