"""What one connection still has to tell the coordinator: packed into frames, in order, bounded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import msgspec

from coordinator import wire

PENDING_MAX = 16 * wire.ATTEMPTS_MAX
"""Messages. A peer that leaves so many unread is half dead, and a new connection's hello says it all again."""
_ENCODER = msgspec.json.Encoder()


class Overfull(Exception):
    """Nobody reads at the other end."""


class Outbox:
    """One connection's. Lost with it: a hello says everything again that still matters."""

    def __init__(self) -> None:
        self._pending: deque[bytes] = deque()
        self._news = asyncio.Event()

    def put(self, message: wire.FromAgent) -> None:
        """Have it said as soon as the connection takes it. What is put in one turn of the loop shares frames."""
        self._pending.append(_ENCODER.encode(message))
        self._news.set()

    async def run(self, send: Callable[[str], Awaitable[None]]) -> None:
        """Send what is put, for ever. Raises what `send` raises, and Overfull."""
        while True:
            await self._news.wait()
            self._news.clear()
            while self._pending:
                if len(self._pending) > PENDING_MAX:
                    raise Overfull
                await send(self._frame())

    def _frame(self) -> str:
        """The next messages: one alone, or as many as an array and a frame may hold."""
        parts = [self._pending.popleft()]
        room = wire.FRAME_BYTES_MAX - len(parts[0]) - 2
        while self._pending and len(parts) < wire.FRAME_MESSAGES_MAX and len(self._pending[0]) < room:
            parts.append(self._pending.popleft())
            room -= len(parts[-1]) + 1
        return (parts[0] if len(parts) == 1 else b"[" + b",".join(parts) + b"]").decode()
