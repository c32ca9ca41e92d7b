"""What the HTTP side needs to know: its bounds, its directories and the names it answers to."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct


class ApiSettings(Struct, frozen=True, kw_only=True):
    """Bounds of the HTTP side. Everything that a peer can make grow has one here."""

    hosts: tuple[str, ...] = ()
    """Names besides `localhost` and plain addresses under which browsers and clients may call us."""
    backups: Path | None = None
    """Where POST /v1/db/backup puts a copy; None refuses it."""
    join_suffix: str = ""
    """Appended to the text of a new join token: `.` and the fingerprint of the TLS key, or nothing."""
    body_bytes_max: int = 1024 * 1024
    """Of a JSON body, before and after decompression."""
    body_s: float = 10.0
    """A JSON body has to be here by then."""
    import_sent_bytes_max: int = 64 * 1024 * 1024
    """Of an import as it is sent."""
    import_bytes_max: int = 512 * 1024 * 1024
    """Of an import when it is decompressed."""
    import_rows_max: int = 5_000_000
    import_stall_s: float = 30.0
    """An import that sends nothing for so long is cut."""
    import_seen_s: float = 10.0
    """An import waits so long for analytics to know of it."""
    failures_burst: int = 30
    """Failed authentications that a peer may have at once ..."""
    failures_per_s: float = 0.5
    """... and then this many a second; valid tokens are never held back."""
    peers_max: int = 4_096
    """Peers whose failures are remembered; the one that was quiet longest is forgotten first."""
    remembered_max: int = 2_048
    """Answers kept for Idempotency-Key; the oldest go first."""
    remembered_per_token_max: int = 256
    remembered_bytes_max: int = 64 * 1024
    """A larger answer is not kept: the request is carried out again."""
    remembered_s: float = 3_600.0
    sql_at_once: int = 2
    """SQL questions and backtests that run at the same time; further ones are refused."""
    ask_s: float = 60.0
    """How long an answer of analytics may take."""
    job_bytes_max: int = 4 * 1024 * 1024
    """Of a job as it is submitted, before and after decompression."""
    streams_max: int = 2_000
    """Answers that stay open at a time: event streams, followed logs, long polls ..."""
    streams_per_token_max: int = 500
    """... and of one token."""
    streams_idle_s: float = 15.0
    """An event stream says at least this often that it is still there."""
    streams_stall_s: float = 60.0
    """A reader that takes nothing for so long is cut."""
    wait_s_max: float = 300.0
    """How long one request may wait for a job."""
    retry_tasks_max: int = 200_000
    """Tasks that one manual retry runs again: decided at once, which takes 10 us for each."""
    examined_max: int = 20_000
    """Providers looked at for one page of the filtered list; the page then ends early, with a token."""
