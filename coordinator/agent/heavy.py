"""Threads for work on whole files of programs, which may be as large as a program likes: apart from those by which
attempts are launched and logs are shipped, so that nobody's terabyte of nothing holds up another's start.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

THREADS = 4
"""So many are hashed or copied at a time; the others wait for their turn."""
T = TypeVar("T")

POOL = ThreadPoolExecutor(THREADS, thread_name_prefix="files")
"""Starts no thread before it has to."""


async def in_thread(work: Callable[[Callable[[], bool]], T]) -> T:
    """`work(wanted)` in one of these threads. When we are cancelled `wanted` says no; what has begun is waited for, to
    the next time that it asks."""
    over = threading.Event()
    running = POOL.submit(work, lambda: not over.is_set())
    result = asyncio.wrap_future(running)
    try:
        return await asyncio.shield(result)
    except asyncio.CancelledError:
        over.set()
        if not running.cancel():
            await asyncio.wait((result,))
            if not result.cancelled():
                result.exception()
        raise
