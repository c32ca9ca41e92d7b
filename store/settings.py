"""What can be set about the store; composition fills it in."""

from __future__ import annotations

from msgspec import Struct

from coordinator.core.ids import Ms

DAY_MS: Ms = 86_400_000


class StoreSettings(Struct, frozen=True, kw_only=True):
    """Retention, bounds and limits of the store."""

    heartbeats_keep_ms: Ms = 28 * DAY_MS
    """Raw heartbeats older than this are removed, a whole hour at a time."""
    history_keep_ms: Ms = 400 * DAY_MS
    """Sessions, outages and hourly rollups older than this are removed; imported history ages from its own end."""
    jobs_keep_ms: Ms = 90 * DAY_MS
    """Jobs that ended longer ago are removed, with their tasks, attempts, logs and traces."""
    logs_keep_ms: Ms = 14 * DAY_MS
    """Logs of jobs that ended longer ago are removed."""
    audit_keep_ms: Ms = 400 * DAY_MS
    """Older rows of the audit are removed."""
    ledger_keep_ms: Ms = 400 * DAY_MS
    """Older charges are removed."""
    logs_open: int = 256
    """Ranks whose log files are held open, three files each; the one not written for longest is closed."""
    logs_leave_bytes: int = 64 * 1024 * 1024
    """Logs leave so much of the disk free, at most a twentieth of it, for what must not be refused for their sake."""
    blobs_leave_bytes: int = 256 * 1024 * 1024
    """Blobs leave so much of the disk free, at most a twentieth of it, for what must not be refused for their sake."""
    seal_after_ms: Ms = 300_000
    """An hour is sealed so long after its end: the slowest batch has been flushed long before."""
    wal_bytes_max: int = 256 * 1024 * 1024
    """A reader that never ends keeps the write-ahead log from being folded back: beyond this, writes are refused."""
    ballast_bytes: int = 4 * 1024 * 1024
    """Given up on a full disk to pay for the ends of sessions and of work. 0: none."""
    readers: int = 2
    """Read connections to each database; a further read waits."""
    read_s_max: float = 10.0
    """A read that takes longer is interrupted, so that it cannot hold the write-ahead log."""
    segment_reads: int = 2
    """Child processes that may read segments at one time; a further read waits."""
    child_s_max: float = 600.0
    """A sealing or reading child that takes longer is killed."""
    duckdb_memory: str = "512MB"
    """Memory cap of a sealing or reading child's DuckDB; what does not fit spills to disk."""
    failpoint: str = ""
    """Tests only: where this process, or its sealing child, is to be killed."""
