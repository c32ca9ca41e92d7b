"""What traces may take: of memory, of the disk, of time. Beyond it rows are dropped and counted, never waited for."""

from __future__ import annotations

from msgspec import Struct

MIB = 1024 * 1024


class TraceSettings(Struct, frozen=True, kw_only=True):
    """Bounds of stored traces and of the process that keeps them."""

    job_spans_max: int = 2_000_000
    """Rows that are kept of one job; further ones are dropped and counted."""
    job_bytes_max: int = 512 * MIB
    """Bytes that are kept of one job; further rows are dropped and counted."""
    tenant_bytes_max: int = 4 * 1024 * MIB
    """Bytes of traces that are kept of all jobs of a tenant, beside its storage quota."""
    leave_bytes: int = 256 * MIB
    """Traces leave so much of the disk free, at most a twentieth of it, for what must not be refused for their sake."""
    body_bytes_max: int = 64 * MIB
    """Of an upload, as it is sent and unpacked."""
    memory_bytes: int = 3 * 1024 * MIB
    """Of the process that keeps traces."""
    nice: int = 10
    """Added to its niceness."""
    take_s: float = 180.0
    """An upload is to be taken in by then; it is asked for again later."""
    analyze_s: float = 120.0
    """An analysis is ended by then, with the process that it is made in."""
    idle_s: float = 300.0
    """The process ends when nothing was asked of it for so long."""
    answers_bytes_max: int = 64 * MIB
    """Of analyses that are kept for who asks again; the least recently used go first."""
    waiting_max: int = 64
    """Uploads, and likewise analyses, that wait for the process; a further one is refused."""
    rows_open_max: int = 8
    """Answers with rows that are open at a time; a further one is refused."""
