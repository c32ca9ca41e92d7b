"""Sessions in the truth. Every write of one gets the next change sequence, by which analytics follows."""

from __future__ import annotations

from coordinator.core.ids import ProviderId, SessionId
from coordinator.core.rows import EndReason, SessionRow
from store.table import Columns, Table, one_column, upsert

COLUMNS = (
    "session_id",
    "provider_id",
    "connected_at_ms",
    "disconnected_at_ms",
    "disconnect_reason",
    "last_heartbeat_at_ms",
    "coordinator_id",
    "boot_id",
    "process_id",
    "requests_served",
    "tokens_generated",
)
_NAMES = ", ".join(COLUMNS)

OPEN = f"SELECT {_NAMES} FROM session WHERE coordinator_id = ? AND disconnected_at_ms IS NULL"  # noqa: S608  names of ours
BEGUN_SINCE = f"""
SELECT {_NAMES} FROM session
 WHERE provider_id = ? AND connected_at_ms >= ? AND (connected_at_ms, session_id) < (?, ?)
 ORDER BY connected_at_ms DESC, session_id DESC LIMIT ?
"""  # noqa: S608  names of ours
"""(provider, since, before_ms, before_id, limit): sessions that began in the window, newest first."""
REACHING_IN = f"""
SELECT {_NAMES} FROM session
 WHERE session_id IN (
       SELECT session_id FROM session
        WHERE provider_id = ?1 AND disconnected_at_ms >= ?2 AND connected_at_ms < ?2
       UNION ALL
       SELECT session_id FROM session
        WHERE provider_id = ?1 AND disconnected_at_ms IS NULL AND connected_at_ms < ?2)
   AND (connected_at_ms, session_id) < (?3, ?4)
 ORDER BY connected_at_ms DESC, session_id DESC LIMIT ?5
"""  # noqa: S608  names of ours
"""(provider, since, before_ms, before_id, limit): sessions that began before the window and reach into it.

Few: a provider has one session at a time, and one more where history was imported beside it."""
SUPERSEDE_IMPORTED = """
UPDATE session SET disconnected_at_ms = max(connected_at_ms, ?), disconnect_reason = 'superseded', change_seq = ?
 WHERE session_id IN (SELECT session_id FROM session
                       WHERE provider_id = ? AND disconnected_at_ms IS NULL AND session_id < 0)
"""
"""(begin, change_seq, provider): what is open from an import ends where our own session of the provider begins."""
HAS_HISTORY = "SELECT 1 FROM session WHERE provider_id = ? LIMIT 1"
ENDED_BEFORE = "SELECT session_id FROM session WHERE coordinator_id <> 'import' AND disconnected_at_ms < ? LIMIT ?"
IMPORT_ENDED_BEFORE = """
SELECT session_id FROM session WHERE coordinator_id = 'import' AND disconnected_at_ms < ? LIMIT ?
"""
IMPORT_END = """
SELECT max(disconnected_at_ms) FROM session WHERE coordinator_id = 'import' AND disconnected_at_ms IS NOT NULL
"""
PRUNE = "DELETE FROM session WHERE session_id = ?"


def to_columns(row: SessionRow) -> Columns:
    """Without the change sequence, which the writer appends."""
    return (
        row.session_id,
        row.provider_id,
        row.connected_at_ms,
        row.disconnected_at_ms,
        row.disconnect_reason.value if row.disconnect_reason is not None else None,
        row.last_heartbeat_at_ms,
        row.coordinator_id,
        row.boot_id,
        row.process_id,
        row.requests_served,
        row.tokens_generated,
    )


def from_columns(c: Columns) -> SessionRow:
    """Raises ValueError for columns that cannot be a session."""
    return SessionRow(
        session_id=SessionId(c[0]),
        provider_id=ProviderId(c[1]),
        connected_at_ms=c[2],
        disconnected_at_ms=c[3],
        disconnect_reason=EndReason(c[4]) if c[4] is not None else None,
        last_heartbeat_at_ms=c[5],
        coordinator_id=c[6],
        boot_id=c[7],
        process_id=c[8],
        requests_served=c[9],
        tokens_generated=c[10],
    )


TABLE = Table(
    name="session",
    columns=COLUMNS,
    put=upsert("session", (*COLUMNS, "change_seq"), ("session_id",)),
    delete="DELETE FROM session WHERE session_id = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)
