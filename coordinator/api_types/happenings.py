"""The structs of what is told as it happens: entries of the audit, pieces of logs."""

from __future__ import annotations

from msgspec import Struct

from coordinator.api_types.units import Timestamp


class EventEntry(Struct, frozen=True, kw_only=True):
    """One transition, or one thing that a person did."""

    seq: int
    at: Timestamp
    wall_ns: int
    mono_ns: int
    """CLOCK_BOOTTIME of the head node."""
    entity: str
    """job, step, task, attempt, provider, token, pool or tenant."""
    subject: str
    before: str
    after: str
    why: str
    by: str
    unblocked_by: str
    tenant: str
    job_id: int | None
    provider_id: str | None


class Audit(Struct, frozen=True, kw_only=True):
    """Newest first."""

    entries: tuple[EventEntry, ...]
    next_page: str | None = None


class LogEvent(Struct, frozen=True, kw_only=True):
    """A piece of a log in an event stream; the event's id leads to what follows it."""

    attempt: str
    rank: int
    stream: str
    """stdout or stderr."""
    offset: int
    """Where it begins in its stream."""
    at: Timestamp
    """When it arrived here."""
    data: str
    encoding: str = "utf-8"
    """utf-8, or base64 for bytes that are not."""
