"""Acknowledgements: cumulative, soon after the heartbeat, and never closer together than `spacing_s` a link.

One timer for all links: a wheel of slots of 20 ms. A callback of ours sends at most `AT_ONCE` of them, so
that a large fleet's acknowledgements never hold the loop for long.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

SLOT_S = 0.02
AT_ONCE = 200


class Acknowledged(Protocol):
    """A link, as far as the wheel knows it."""

    acked_s: float
    """Loop time of its last acknowledgement; the wheel keeps it."""
    ack_waits: bool
    """It has an appointment; the wheel keeps it."""

    def send_ack(self) -> None: ...


class AckWheel:
    """Bound: one appointment a link. A link that is gone by then ignores its `send_ack`."""

    def __init__(self, spacing_s: float = 0.25) -> None:
        self.sent = 0
        self._spacing_s = spacing_s
        self._slots: dict[int, list[Acknowledged]] = {}
        self._ready: deque[Acknowledged] = deque()
        self._timer: asyncio.Handle | None = None

    def book(self, link: Acknowledged) -> None:
        """Have `link` acknowledge in its turn. To be called when `ack_waits` is not set. O(1)."""
        loop = asyncio.get_running_loop()
        link.ack_waits = True
        slot = int(max(loop.time(), link.acked_s + self._spacing_s) / SLOT_S) + 1
        slots = self._slots.get(slot)
        if slots is None:
            self._slots[slot] = [link]
        else:
            slots.append(link)
        if self._timer is None:
            self._timer = loop.call_at(slot * SLOT_S, self._turn)

    def stop(self) -> None:
        """Forget all appointments."""
        self._slots.clear()
        self._ready.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        current = int(now_s / SLOT_S)
        for slot in sorted(slot for slot in self._slots if slot <= current):
            self._ready.extend(self._slots.pop(slot))
        ready = self._ready
        for _ in range(min(len(ready), AT_ONCE)):
            link = ready.popleft()
            link.ack_waits = False
            link.acked_s = now_s
            self.sent += 1
            link.send_ack()
        if ready:
            self._timer = loop.call_soon(self._turn)
        elif self._slots:
            self._timer = loop.call_at(min(self._slots) * SLOT_S, self._turn)
        else:
            self._timer = None
