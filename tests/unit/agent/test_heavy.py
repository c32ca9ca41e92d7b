"""Work on large files has threads of its own, goes by turns, and ends with whoever wanted it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator

import pytest

from coordinator.agent import heavy


def endless(ended: list[bool]) -> Generator[None, None, None]:
    try:
        while True:
            time.sleep(0.001)
            yield
    finally:
        ended.append(True)


def test_what_is_short_comes_in_between_and_what_is_cancelled_ends() -> None:
    """Twice as much endless work as there are threads holds up neither the daemon's other threads nor a short one."""

    def short() -> Generator[None, None, int]:
        yield
        return 3

    async def check() -> None:
        ended: list[bool] = []
        works = [asyncio.ensure_future(heavy.by_turns(endless(ended))) for _ in range(2 * heavy.THREADS)]
        await asyncio.sleep(0)  # they are in line now
        async with asyncio.timeout(60):
            assert 3 == await heavy.by_turns(short())
            await asyncio.to_thread(time.monotonic)
            for work in works:
                work.cancel()
            outcomes = await asyncio.gather(*works, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in outcomes)
        assert 2 * heavy.THREADS == len(ended)

    asyncio.run(check())


def test_what_it_raises_is_passed_on() -> None:
    """Like a call."""

    def fails() -> Generator[None, None, None]:
        yield
        raise ZeroDivisionError

    async def check() -> None:
        with pytest.raises(ZeroDivisionError):
            await heavy.by_turns(fails())

    asyncio.run(check())
