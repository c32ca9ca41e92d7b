"""Work on large files has threads of its own, and ends with whoever wanted it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from coordinator.agent import heavy
from coordinator.agent.hashing import Unwanted


def test_what_is_cancelled_ends_and_nothing_else_waits_for_it() -> None:
    """As many as there are threads, and more: the daemon's other threads go on meanwhile; all end when cancelled."""
    began = threading.Semaphore(0)
    running = threading.Semaphore(heavy.THREADS)

    def endless(wanted: Callable[[], bool]) -> None:
        assert running.acquire(blocking=False), "more at a time than there are threads"
        began.release()
        try:
            while wanted():
                pass
        finally:
            running.release()
        raise Unwanted

    async def check() -> None:
        works = [asyncio.ensure_future(heavy.in_thread(endless)) for _ in range(3 * heavy.THREADS)]
        for _ in range(heavy.THREADS):
            assert await asyncio.to_thread(began.acquire, timeout=10)
        for work in works:
            work.cancel()
        async with asyncio.timeout(10):
            ended = await asyncio.gather(*works, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)

    asyncio.run(check())


def test_what_it_gives_and_raises_is_passed_on() -> None:
    """Like a call."""

    def fail(_wanted: Callable[[], bool]) -> None:
        raise Unwanted

    async def check() -> None:
        assert 3 == await heavy.in_thread(lambda wanted: 3 * wanted())
        with pytest.raises(Unwanted):
            await heavy.in_thread(fail)

    asyncio.run(check())
