"""What all connections of agents stand on, and what they hand their bytes to."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from coordinator import wire
from coordinator.core import events
from coordinator.core.rows import TokenRow
from coordinator.ports.clock import Clock
from coordinator.service.acks import AckWheel
from coordinator.service.heartbeats import HeartbeatWriter
from coordinator.service.link_settings import LinkCounters, LinkSettings

if TYPE_CHECKING:
    from coordinator.service.link import Link


class LogSink(Protocol):
    """Who takes the bytes of logs."""

    def take(self, source: Link, chunk: wire.LogChunk) -> None:
        """Bytes of an attempt, as they came. Never blocks, never raises; may hold the source up for a while."""
        ...

    def gone(self, source: Link) -> None:
        """Its socket is closed: nothing more comes of it, and nothing can be told to it."""
        ...


class Surroundings(Struct, kw_only=True):
    """What all connections of the process stand on."""

    post: Callable[[events.AnyEvent], None]
    greeted: Callable[[Link], None]
    """The link said a hello that was passed on."""
    beaten: Callable[[Link], None]
    """The link sent heartbeats since they were taken last."""
    admitted: Callable[[TokenRow], bool]
    """Whether this credential still opens anything."""
    clock: Clock
    heartbeats: HeartbeatWriter
    acks: AckWheel
    logs: LogSink
    settings: LinkSettings
    counters: LinkCounters
    coordinator_id: str
    version: str
