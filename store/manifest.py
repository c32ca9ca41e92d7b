"""The manifest of sealed segments, in telemetry: what a segment file holds and how it must look."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from coordinator.core.ids import Ms

PUT = "INSERT INTO segment VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)"
IN_WINDOW = "SELECT * FROM segment WHERE hour_ms >= ? AND hour_ms < ? ORDER BY hour_ms DESC, part DESC"
OF_HOUR = "SELECT * FROM segment WHERE hour_ms = ? ORDER BY part"
ALL = "SELECT * FROM segment ORDER BY hour_ms, part"
BEFORE = "SELECT * FROM segment WHERE hour_ms < ? ORDER BY hour_ms, part LIMIT ?"
REMOVE = "DELETE FROM segment WHERE hour_ms = ? AND part = ?"
TEMPORARY = ".sealing-"
"""A segment is written under a name that begins so, and renamed when it is whole and durable."""


class Segment(NamedTuple):
    """One sealed segment, in the order of the table's columns."""

    hour_ms: Ms
    part: int
    file: str
    digest: str
    bytes: int
    rows: int
    first_ms: Ms
    last_ms: Ms
    sealed_at_ms: Ms


def file_name(hour_ms: Ms, part: int) -> str:
    """`2026-11-22T04.parquet`; later parts of an hour are numbered."""
    hour = datetime.fromtimestamp(hour_ms / 1_000, UTC).strftime("%Y-%m-%dT%H")
    return f"{hour}.parquet" if part == 0 else f"{hour}-{part}.parquet"


def digest_of(path: Path) -> str:
    """SHA-256 of a file, in hex. Reads it in pieces; hashing leaves other threads alone."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
