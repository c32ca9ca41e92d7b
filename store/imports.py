"""Importing sessions from elsewhere: checked as a whole, written in one transaction, twice is once.

All of it is SQL over a temporary table, so that a row costs no turn of Python: 17,181 rows take half a
second. While many are written, nobody else writes the truth. Imported rows have the coordinator id `import` and
negative session ids, which the core never meets.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from coordinator.core.errors import Code, CoordError
from coordinator.ports.store import ImportedSession, ImportReport
from store.failpoints import FailPoints
from store.sqlite import sqlite3
from store.truth import Truth, save_counters
from store.writer import in_transaction

IMPORT_ID = "import"
"""The coordinator id of imported sessions."""
LINES_NAMED = 20

INCOMING = """
CREATE TEMP TABLE incoming (
    line INTEGER NOT NULL, provider_id TEXT NOT NULL, connected_at_ms INTEGER NOT NULL,
    disconnected_at_ms INTEGER, disconnect_reason TEXT)
"""
TAKE = "INSERT INTO incoming VALUES (?, ?, ?, ?, ?)"
MERGED = """
CREATE TEMP TABLE merged (
    number INTEGER PRIMARY KEY, line INTEGER NOT NULL, provider_id TEXT NOT NULL, connected_at_ms INTEGER NOT NULL,
    disconnected_at_ms INTEGER, disconnect_reason TEXT,
    session_id INTEGER, stored_end_ms INTEGER, stored_reason TEXT)
"""
MERGE = """
INSERT INTO merged
SELECT NULL, i.first_line, i.provider_id, i.connected_at_ms, i.disconnected_at_ms, i.disconnect_reason,
       s.session_id, s.disconnected_at_ms, s.disconnect_reason
  FROM (SELECT *, row_number() OVER (same ORDER BY disconnected_at_ms IS NULL, line) AS place,
               min(line) OVER same AS first_line
          FROM incoming WINDOW same AS (PARTITION BY provider_id, connected_at_ms)) AS i
  LEFT JOIN session AS s ON s.provider_id = i.provider_id AND s.connected_at_ms = i.connected_at_ms
        AND s.session_id < 0
 WHERE i.place = 1
 ORDER BY i.provider_id, i.connected_at_ms
"""
"""One row for each session: its first line that has an end, else its first; `line` is the first of all."""

BACKWARDS = f"""
SELECT line, 'its end lies before its beginning' FROM incoming
 WHERE disconnected_at_ms < connected_at_ms ORDER BY line LIMIT {LINES_NAMED + 1}
"""  # noqa: S608  names of ours
REASON_ALONE = f"""
SELECT line, 'it has a reason for an end and no end' FROM incoming
 WHERE disconnected_at_ms IS NULL AND disconnect_reason IS NOT NULL ORDER BY line LIMIT {LINES_NAMED + 1}
"""  # noqa: S608  names of ours
TWO_ENDS = f"""
SELECT i.line, 'line ' || m.line || ' gives the same session another end'
  FROM merged AS m JOIN incoming AS i ON i.provider_id = m.provider_id AND i.connected_at_ms = m.connected_at_ms
 WHERE i.disconnected_at_ms IS NOT NULL
   AND (i.disconnected_at_ms, i.disconnect_reason) IS NOT (m.disconnected_at_ms, m.disconnect_reason)
 ORDER BY i.line LIMIT {LINES_NAMED + 1}
"""  # noqa: S608  names of ours
OTHER_END = f"""
SELECT line, 'the session is stored with another end or reason' FROM merged
 WHERE disconnected_at_ms IS NOT NULL AND stored_end_ms IS NOT NULL
   AND (disconnected_at_ms, disconnect_reason) IS NOT (stored_end_ms, stored_reason)
 ORDER BY line LIMIT {LINES_NAMED + 1}
"""  # noqa: S608  names of ours
OVERLAPS = f"""
WITH known AS (
    SELECT provider_id, connected_at_ms, coalesce(disconnected_at_ms, stored_end_ms) AS end_ms, line FROM merged
    UNION ALL
    SELECT s.provider_id, s.connected_at_ms, s.disconnected_at_ms, NULL
      FROM (SELECT DISTINCT provider_id FROM merged) AS p
      CROSS JOIN session AS s INDEXED BY session_by_end ON s.provider_id = p.provider_id AND s.session_id < 0
     WHERE NOT EXISTS (SELECT 1 FROM merged AS m WHERE m.session_id = s.session_id)),
neighbours AS (
    SELECT line, connected_at_ms, row_number() OVER w AS place, lag(end_ms) OVER w AS end_before_ms,
           lag(line) OVER w AS line_before
      FROM known WINDOW w AS (PARTITION BY provider_id ORDER BY connected_at_ms))
SELECT coalesce(line, line_before),
       CASE WHEN line IS NULL OR line_before IS NULL THEN 'it overlaps an imported session of this provider'
            ELSE 'it overlaps the session of line ' || line_before END
  FROM neighbours
 WHERE place > 1 AND coalesce(end_before_ms > connected_at_ms, 1) AND coalesce(line, line_before) IS NOT NULL
 ORDER BY 1 LIMIT {LINES_NAMED + 1}
"""  # noqa: S608  names of ours
INDEX_MERGED = "CREATE INDEX merged_stored ON merged (session_id)"
CLOSE = """
UPDATE session SET disconnected_at_ms = m.disconnected_at_ms, disconnect_reason = m.disconnect_reason,
                   change_seq = ? + m.number
  FROM merged AS m
 WHERE session.session_id = m.session_id AND m.stored_end_ms IS NULL AND m.disconnected_at_ms IS NOT NULL
"""
ADD = f"""
INSERT INTO session
SELECT -(? + number), provider_id, connected_at_ms, disconnected_at_ms, disconnect_reason, NULL, '{IMPORT_ID}', '', '',
       0, 0, ? + number
  FROM merged WHERE session_id IS NULL ORDER BY number
"""  # noqa: S608  names of ours
GIVE_WAY = """
UPDATE session SET disconnected_at_ms = own.begins_ms, disconnect_reason = 'superseded'
  FROM (SELECT i.session_id, min(s.connected_at_ms) AS begins_ms
          FROM merged AS m
         CROSS JOIN session AS i ON i.provider_id = m.provider_id AND i.connected_at_ms = m.connected_at_ms
               AND i.session_id < 0 AND i.disconnected_at_ms IS NULL
         CROSS JOIN session AS s ON s.provider_id = m.provider_id AND s.session_id > 0
               AND s.connected_at_ms >= m.connected_at_ms
         WHERE m.session_id IS NULL AND m.disconnected_at_ms IS NULL
         GROUP BY i.session_id) AS own
 WHERE session.session_id = own.session_id
"""
"""A session that is open elsewhere ends where our own of this provider begins: it was seen here then."""
SUMMARY = """
SELECT count(*), count(DISTINCT provider_id), min(connected_at_ms),
       max(coalesce(disconnected_at_ms, connected_at_ms)) FROM incoming
"""


def import_rows(
    connection: sqlite3.Connection, rows: Sequence[ImportedSession], truth: Truth, points: FailPoints
) -> ImportReport:
    """See ports.store.Store.import_sessions. Called from the writer's thread."""
    counters = dict(truth.counters)

    def work(connection: sqlite3.Connection) -> ImportReport:
        report = _import(connection, rows, counters)
        save_counters(connection, truth.counters, counters)
        # The temporary tables go with the transaction that fails, and here with the one that succeeds.
        connection.execute("DROP TABLE incoming")
        connection.execute("DROP TABLE merged")
        points.reach("import.before_commit")
        return report

    report = in_transaction(connection, work)
    truth.counters = counters
    return report


def _import(connection: sqlite3.Connection, rows: Sequence[ImportedSession], counters: dict[str, int]) -> ImportReport:
    connection.execute(INCOMING)
    connection.executemany(TAKE, rows)
    _refuse(connection, (BACKWARDS, REASON_ALONE))
    connection.execute(MERGED)
    connection.execute(MERGE)
    connection.execute(INDEX_MERGED)
    _refuse(connection, (TWO_ENDS, OTHER_END, OVERLAPS))
    closed = connection.execute(CLOSE, (counters["change_seq"],)).rowcount
    added = connection.execute(ADD, (counters["import_id"], counters["change_seq"])).rowcount
    connection.execute(GIVE_WAY)
    (last,) = connection.execute("SELECT coalesce(max(number), 0) FROM merged").fetchone()
    if closed or added:
        counters["change_seq"] += last
        counters["import_id"] += last
    count, providers, first_ms, last_ms = connection.execute(SUMMARY).fetchone()
    return ImportReport(
        rows=count,
        added=added,
        closed=closed,
        unchanged=count - added - closed,
        providers=providers,
        first_ms=first_ms,
        last_ms=last_ms,
    )


def _refuse(connection: sqlite3.Connection, questions: Iterable[str]) -> None:
    problems: list[tuple[Any, ...]] = []
    for question in questions:
        problems += connection.execute(question).fetchall()
    if problems:
        raise bad_import(sorted(set(problems)))


def bad_import(problems: Sequence[tuple[int, str]]) -> CoordError:
    """The refusal that names the first lines of `problems` (line, what is wrong), sorted by line."""
    named = "; ".join(f"line {line}: {what}" for line, what in problems[:LINES_NAMED])
    more = "; and more" if len(problems) > LINES_NAMED else ""
    return CoordError(
        Code.BAD_IMPORT,
        f"these sessions contradict each other or what is stored: {named}{more}",
        "nothing was imported; correct these lines and import the file again",
    )
