"""Bounds of the relay, and what it has done."""

from __future__ import annotations

from msgspec import Struct

from coordinator.wire import LOG_CONNECTION_BYTES


class RelaySettings(Struct, frozen=True, kw_only=True):
    """The relay of logs: what it holds in memory at most, and its patience with the disk."""

    bytes_max: int = 64 * 1024 * 1024
    """Log bytes that wait for the disk, of all connections. From half of it on sockets that bring much are read more
    slowly; what is beyond is dropped unacknowledged and sent again."""
    connection_bytes_max: int = LOG_CONNECTION_BYTES
    """Of one connection, which is what an honest agent keeps to; beyond, its socket is not read until half is left."""
    hold_s: float = 1.0
    """No socket is held up by a write that takes longer: heartbeats come by the same socket."""
    batch_bytes: int = 4 * 1024 * 1024
    """Stored, and synced, at a time."""
    batch_streams: int = 256
    """Attempts in one batch: each is a file or two to be synced."""
    retry_s: float = 0.25
    """Pause after the first write that a full disk refused; doubles ..."""
    retry_max_s: float = 2.0
    """... up to this."""
    tail_patience_s: float = 30.0
    """A reader of an attempt that ended waits so long for the rest of a log whose agent is away."""
    stop_s: float = 2.0
    """For the write that is under way, at a stop. What was not acknowledged is sent again after it."""


class RelayCounters(Struct):
    """What became of the bytes. taken = stored + known + those that wait; dropped and refused ones were not taken."""

    taken_bytes: int = 0
    stored_bytes: int = 0
    appends: int = 0
    append_failures: int = 0
    append_seconds: float = 0.0
    append_seconds_max: float = 0.0
    dropped_bytes: int = 0
    """No room, or a gap before them: asked for again."""
    no_room: int = 0
    """Frames among them that found no room."""
    refused: int = 0
    """Frames with an old token, of an unknown attempt or from another provider."""
    holds: int = 0
    """How often a socket was not read for a while."""
    lag_seconds: float = 0.0
    """From the receipt to the disk, of the oldest bytes in the last batch."""
    lag_seconds_max: float = 0.0
