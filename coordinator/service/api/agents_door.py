"""The one route that is no request and answer: an agent's WebSocket, handed to the links."""

from __future__ import annotations

from aiohttp import web

from coordinator.service.api.query import NoQuery
from coordinator.service.api.route import Call, NoBody


async def connect_agent(call: Call[NoQuery, NoBody]) -> web.StreamResponse:
    """Serve the connection until it ends."""
    assert call.token is not None
    return await call.deps.links.handle(call.request, call.token)
