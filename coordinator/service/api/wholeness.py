"""Answers that are sent piece by piece arrive whole, or are seen to be broken."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from coordinator.core.errors import CoordError


@asynccontextmanager
async def whole(request: web.Request, response: web.StreamResponse) -> AsyncIterator[None]:
    """While `response` is sent. Once its head has left, whatever cuts it short breaks the connection: nobody takes a
    part for the whole. Before that a refusal is answered as any other is."""
    try:
        yield
    except (CoordError, TimeoutError, ConnectionError):
        if not response.prepared:
            raise
        _abort(request)
    except BaseException:
        _abort(request)
        raise


def _abort(request: web.Request) -> None:
    if request.transport is not None:
        request.transport.abort()
