"""Answers from a thread of ours to whoever waits in an event loop."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any


def answer(future: asyncio.Future[Any], result: Any, failure: BaseException | None = None) -> None:
    """From any thread: `failure`, or else `result`. Nothing happens where nobody waits any more."""
    with suppress(RuntimeError):  # its loop is closed: nobody is left to be told
        future.get_loop().call_soon_threadsafe(_settle, future, result, failure)


def _settle(future: asyncio.Future[Any], result: Any, failure: BaseException | None) -> None:
    if future.done():
        return
    if failure is not None:
        future.set_exception(failure)
    else:
        future.set_result(result)
