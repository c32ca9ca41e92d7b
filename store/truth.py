"""Commits of the truth: writes coalesced per entity, one transaction, numbers that are given once."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from coordinator.core.commands import Delete, Put, Write
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, ProviderId
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AttemptRow,
    AuditRow,
    JobRow,
    LedgerRow,
    OutageRow,
    ProviderRow,
    SessionRow,
    StepRow,
    TaskRow,
    row_key,
)
from store import (
    accounts,
    attempts,
    audit,
    jobs,
    ledger,
    meta,
    outages,
    pools,
    providers,
    sessions,
    steps,
    tasks,
    tenants,
    tokens,
)
from store.ballast import Ballast
from store.failpoints import FailPoints
from store.sqlite import sqlite3, translated
from store.table import Columns, Table, put_rows
from store.wal_bound import WalBound, fold_back

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        providers.TABLE,
        sessions.TABLE,
        outages.TABLE,
        tokens.TABLE,
        pools.TABLE,
        tenants.TABLE,
        accounts.TABLE,
        ledger.TABLE,
        meta.TABLE,
        jobs.TABLE,
        jobs.SPEC_TABLE,
        steps.TABLE,
        tasks.TABLE,
        attempts.TABLE,
        audit.TABLE,
    )
}


class Truth:
    """What the writer's thread of the truth does. Nothing here may be called from another thread."""

    def __init__(self, connection: sqlite3.Connection, ballast: Ballast, bound: WalBound, points: FailPoints) -> None:
        self._ballast = ballast
        self._bound = bound
        self._points = points
        self.counters: dict[str, int] = dict(connection.execute(meta.COUNTERS).fetchall())
        """The highest number given of each kind, as committed."""

    def commit(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> None:
        """All of `writes` in one durable transaction, or none.

        On a full disk the ballast pays for the ends of sessions and of work, and for outages; until the room is back,
        batches without any of those are refused, so that what is left of it is kept for them.
        """
        urgent = any(_must_be_written(write) for write in writes)
        if not urgent:
            self._bound.check(connection)
            if not self._ballast.restore():
                raise CoordError(
                    Code.STORE_FULL,
                    "the disk is full; only ends of sessions and of work are still written",
                    "free some space on the disk of the data directory; nothing was changed",
                )
        try:
            self._commit(connection, writes)
        except sqlite3.Error as error:
            failure = translated(error, _path_of(connection))
            spendable = urgent and self._ballast.in_place
            if not (isinstance(failure, CoordError) and failure.code is Code.STORE_FULL and spendable):
                raise
            self._ballast.spend()
            self._commit(connection, writes)
        if not self._ballast.in_place:
            # While the disk is full the log is cut after every commit, or it would eat what the ballast gave.
            with suppress(sqlite3.Error):
                fold_back(connection)

    def _commit(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> None:
        def write(connection: sqlite3.Connection) -> dict[str, int]:
            counters = dict(self.counters)
            self._write(connection, writes, counters)
            return counters

        self.counters = self._bound.transact(connection, write)
        self._points.reach("truth.after_commit")

    def _write(self, connection: sqlite3.Connection, writes: Sequence[Write], counters: dict[str, int]) -> None:
        deletes: dict[str, list[Columns]] = {}
        puts: dict[str, list[Columns]] = {}
        keys: list[Columns] = []
        begun: list[tuple[Ms, ProviderId]] = []
        for (name, key), write in _coalesce(writes).items():
            table = TABLES[name]
            if isinstance(write, Delete):
                deletes.setdefault(name, []).append(table.key_columns(key))
                continue
            columns = table.to_columns(write.row)
            match write.row:
                case SessionRow(session_id=session_id):
                    if session_id > self.counters["session_id"]:
                        begun.append((write.row.connected_at_ms, write.row.provider_id))
                    counters["change_seq"] += 1
                    counters["session_id"] = max(counters["session_id"], session_id)
                    columns = (*columns, counters["change_seq"])
                case ProviderRow(key=number, provider_id=provider_id):
                    counters["key"] = max(counters["key"], number)
                    keys.append((number, provider_id))
                case JobRow(job_id=job_id):
                    counters["job_id"] = max(counters["job_id"], job_id)
                case AttemptRow(token=token):
                    counters["token"] = max(counters["token"], token.number)
                case AuditRow(seq=seq):
                    counters["audit"] = max(counters["audit"], seq)
                case LedgerRow(seq=seq):
                    counters["ledger"] = max(counters["ledger"], seq)
            puts.setdefault(name, []).append(columns)
        # Removals first: what one of them held uniquely (a digest, a key) may be in a row that is put.
        for name, some in deletes.items():
            connection.executemany(TABLES[name].delete, some)
        for name, some in puts.items():
            put_rows(connection, TABLES[name].put, some)
        for began_ms, provider_id in begun:
            next_seq = counters["change_seq"] + 1
            ended = connection.execute(sessions.SUPERSEDE_IMPORTED, (began_ms, next_seq, provider_id))
            counters["change_seq"] += ended.rowcount  # one at most: imported sessions of a provider never overlap
        if keys:
            connection.executemany(providers.REMEMBER_KEY, keys)
        save_counters(connection, self.counters, counters)
        self._points.reach("truth.before_commit")


def save_counters(connection: sqlite3.Connection, before: dict[str, int], after: dict[str, int]) -> None:
    """Write the counters that moved, within the caller's transaction."""
    moved = [(value, name) for name, value in after.items() if value != before[name]]
    if moved:
        connection.executemany(meta.SET_COUNTER, moved)


def _coalesce(writes: Sequence[Write]) -> dict[tuple[str, object], Write]:
    """The last write of each entity: those before it would be overwritten in the same transaction."""
    last: dict[tuple[str, object], Write] = {}
    for write in writes:
        last[row_key(write.row) if isinstance(write, Put) else (write.table, write.key)] = write
    return last


def _must_be_written(write: Write) -> bool:
    """What happened cannot be refused: the end of a session or of work, a time that nobody watched."""
    if not isinstance(write, Put):
        return False
    match write.row:
        case SessionRow(disconnected_at_ms=int()) | OutageRow():
            return True
        case AttemptRow(state=state):
            return state not in LIVE_ATTEMPT
        case JobRow(state=ended) | StepRow(state=ended) | TaskRow(state=ended):
            return ended in ENDED
        case _:
            return False


def _path_of(connection: sqlite3.Connection) -> Path:
    (row,) = connection.execute("PRAGMA database_list").fetchall()
    return Path(row[2])
