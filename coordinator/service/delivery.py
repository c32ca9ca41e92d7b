"""Delivery of alerts: to a webhook and to a command, when one begins and when it is over.

Each has a queue of its own that is bounded (the oldest goes, and is counted) and one delivery under way. A delivery
that fails is tried again with growing pauses, then given up: a metric and a line in the log, never more. Nothing
here can hold up or end the coordinator.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque

import msgspec
from msgspec import Struct

from coordinator.service.alert_receivers import Final, Receiver
from coordinator.service.alert_settings import SEVERITIES, AlertSettings
from coordinator.service.alerts import Change

log = logging.getLogger("coord.alerts")

RETRY_MAX_S = 600.0


class DeliveryCounters(Struct):
    """What became of the deliveries to one receiver."""

    delivered: int = 0
    retried: int = 0
    failed: int = 0
    """Given up, for lack of room too."""


class Message(Struct, frozen=True, kw_only=True):
    """What is delivered, as JSON."""

    version: int
    id: str
    """The same at every try of one delivery."""
    status: str
    """`firing` or `resolved`."""
    coordinator_id: str
    kind: str
    severity: str
    subject: str
    text: str
    hint: str
    since: str
    count: int
    resolved_at: str | None


class _Queue:
    """What waits for one receiver."""

    def __init__(self, receiver: Receiver, settings: AlertSettings) -> None:
        self.counters = DeliveryCounters()
        self.receiver = receiver
        self.waiting: deque[tuple[str, bytes]] = deque()
        self._settings = settings
        self._due = asyncio.Event()

    def put(self, message_id: str, body: bytes) -> None:
        if len(self.waiting) >= self._settings.queue_max:
            self.waiting.popleft()
            self.counters.failed += 1
            log.warning("an alert was not delivered by %s: too many wait", self.receiver.name)
        self.waiting.append((message_id, body))
        self._due.set()

    async def run(self) -> None:
        while True:
            await self._due.wait()
            self._due.clear()
            while self.waiting:
                await self._deliver(*self.waiting.popleft())

    async def _deliver(self, message_id: str, body: bytes) -> None:
        settings, name, why = self._settings, self.receiver.name, ""
        for number in range(settings.tries):
            if number:
                self.counters.retried += 1
                await asyncio.sleep(min(settings.retry_s * 3 ** (number - 1), RETRY_MAX_S))
            try:
                failure = await self.receiver.deliver(body, message_id)
            except Exception as error:  # whatever a name, a certificate or a library brings: nothing here ends us
                failure = f"{type(error).__name__}: {error}"[:300]
            if failure is None:
                self.counters.delivered += 1
                return
            why = failure
            if isinstance(failure, Final):
                break
        self.counters.failed += 1
        log.warning("alert %s was not delivered by %s: %s", message_id, name, why)


class Delivery:
    """Tells every receiver of every change that is bad enough. `run` is its task."""

    def __init__(self, receivers: tuple[Receiver, ...], settings: AlertSettings, coordinator_id: str) -> None:
        self._queues = tuple(_Queue(receiver, settings) for receiver in receivers)
        self._coordinator_id = coordinator_id
        self._least = SEVERITIES.index(settings.severity)
        self._number = 0

    def on_change(self, change: Change) -> None:
        """A listener for Alerts."""
        entry = change.entry
        if not self._queues or SEVERITIES.index(entry.severity) < self._least:
            return
        self._number += 1
        message = Message(
            version=1,
            id=f"{entry.kind}-{entry.since}-{self._number}",
            status=change.status,
            coordinator_id=self._coordinator_id,
            kind=entry.kind,
            severity=entry.severity,
            subject=entry.subject,
            text=entry.text,
            hint=entry.hint,
            since=entry.since,
            count=entry.count,
            resolved_at=entry.resolved_at,
        )
        body = msgspec.json.encode(message)
        for queue in self._queues:
            queue.put(message.id, body)

    def counters(self) -> dict[str, DeliveryCounters]:
        """By receiver."""
        return {queue.receiver.name: queue.counters for queue in self._queues}

    @property
    def waiting(self) -> int:
        return sum(len(queue.waiting) for queue in self._queues)

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with asyncio.TaskGroup() as group:
            for queue in self._queues:
                group.create_task(queue.run())
