"""Commits of the truth: writes coalesced per entity, one transaction, numbers that are given once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain
from operator import attrgetter
from pathlib import Path
from typing import Any

from coordinator.core.commands import Delete, Ended, FirstLeases, Launched, Together, Write
from coordinator.core.errors import Code, CoordError
from coordinator.core.rows import (
    ENDED,
    LIVE_ATTEMPT,
    AttemptRow,
    AuditRow,
    TaskRow,
    row_key,
)
from store import (
    accounts,
    artifacts,
    attempts,
    audit,
    blobs,
    bundles,
    checkpoints,
    holds,
    jobs,
    ledger,
    meta,
    outages,
    outputs,
    pools,
    providers,
    sessions,
    steps,
    suspicions,
    tasks,
    tenants,
    tokens,
    uploads,
    verdicts,
)
from store.ballast import Ballast
from store.failpoints import FailPoints
from store.open_bundles import OpenBundles
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
        bundles.TABLE,
        audit.TABLE,
        blobs.TABLE,
        holds.TABLE,
        artifacts.TABLE,
        uploads.TABLE,
        outputs.TABLE,
        checkpoints.TABLE,
        verdicts.TABLE,
        suspicions.TABLE,
    )
}


_STATE, _TOKEN = attrgetter("state"), attrgetter("token.number")


class Truth:
    """What the writer's thread of the truth does. Nothing here may be called from another thread."""

    def __init__(self, connection: sqlite3.Connection, ballast: Ballast, bound: WalBound, points: FailPoints) -> None:
        self._ballast = ballast
        self._bound = bound
        self._points = points
        self.counters: dict[str, int] = dict(connection.execute(meta.COUNTERS).fetchall())
        """The highest number given of each kind, as committed."""
        self._open = OpenBundles()

    def commit(self, connection: sqlite3.Connection, writes: Sequence[Write]) -> None:
        """All of `writes` in one durable transaction, or none.

        On a full disk the ballast pays for the ends of sessions and of work, and for outages; until the room is back,
        batches without any of those are refused, so that what is left of it is kept for them.
        """
        batch = Batch(writes)
        if not batch.urgent:
            self._bound.check(connection)
            if not self._ballast.restore():
                raise CoordError(
                    Code.STORE_FULL,
                    "the disk is full; only ends of sessions and of work are still written",
                    "free some space on the disk of the data directory; nothing was changed",
                )
        try:
            self._commit(connection, batch)
        except sqlite3.Error as error:
            failure = translated(error, _path_of(connection))
            spendable = batch.urgent and self._ballast.in_place
            if not (isinstance(failure, CoordError) and failure.code is Code.STORE_FULL and spendable):
                raise
            self._ballast.spend()
            self._commit(connection, batch)
        if not self._ballast.in_place:
            # While the disk is full the log is cut after every commit, or it would eat what the ballast gave.
            with suppress(sqlite3.Error):
                fold_back(connection)

    def _commit(self, connection: sqlite3.Connection, batch: Batch) -> None:
        def write(connection: sqlite3.Connection) -> dict[str, int]:
            counters = dict(self.counters)
            self._write(connection, batch, counters)
            return counters

        self.counters = self._bound.transact(connection, write)
        self._open.committed(batch.begun, batch.together, batch.puts["attempt"].values())
        self._points.reach("truth.after_commit")

    def _write(self, connection: sqlite3.Connection, batch: Batch, counters: dict[str, int]) -> None:
        # Removals first: what one of them held uniquely (a digest, a key) may be in a row that is put.
        for name, gone in batch.deletes.items():
            connection.executemany(TABLES[name].delete, [TABLES[name].key_columns(key) for key in gone])
        if batch.first:  # what became of them since is put by itself, and counts
            batch.begun = bundles.first_columns(batch.first)
            put_rows(connection, bundles.TABLE.put, batch.begun)
        if batch.launched or batch.single:
            batch.together, single = self._open.parted(batch.launched)
            launched = connection.executemany(bundles.LAUNCH, batch.together).rowcount if batch.together else 0
            assert launched == len(batch.together), "a bundle is not as it was left"
            single += batch.single
            if single:
                put_rows(connection, attempts.TABLE.put, attempts.live_columns(single))
        for name, rows in batch.puts.items():
            table = TABLES[name]
            if not rows:
                continue
            columns = [table.to_columns(row) for row in rows.values()]
            if name == "session":
                begun = counters["change_seq"] + 1
                columns = [(*session, seq) for seq, session in enumerate(columns, start=begun)]
                counters["change_seq"] += len(columns)
            put_rows(connection, table.put, columns)
        if batch.audit:
            audit.write(connection, batch.audit)
        for row in batch.puts.get("session", {}).values():
            if row.session_id > self.counters["session_id"]:
                next_seq = counters["change_seq"] + 1
                given = (row.connected_at_ms, next_seq, row.provider_id)
                ended = connection.execute(sessions.SUPERSEDE_IMPORTED, given)
                counters["change_seq"] += ended.rowcount  # one at most: imported sessions of a provider never overlap
        keys = [(row.key, row.provider_id) for row in batch.puts.get("provider", {}).values()]
        if keys:
            connection.executemany(providers.REMEMBER_KEY, keys)
        for name, number in batch.highest().items():
            counters[name] = max(counters[name], number)
        save_counters(connection, self.counters, counters)
        self._points.reach("truth.before_commit")


class Batch:
    """Writes by table, the last one of each entity: those before it would be overwritten in the same transaction."""

    def __init__(self, writes: Sequence[Write]) -> None:
        self.first: list[FirstLeases] = []
        self.launched: list[list[AttemptRow]] = []
        """Of those that were launched together. What became of one since is among the puts; its token was counted with
        its lease."""
        self.single: list[AttemptRow] = []
        """Launched together, and of one of them something else was put before."""
        self.begun: list[Columns] = []
        """Bundles that it begins, and"""
        self.together: list[Columns] = []
        """what it launches of bundles: known when it is written."""
        self.audit: list[AuditRow | Together] = []
        tasks: dict[object, Any] = {}
        attempts: dict[object, Any] = {}
        self.puts: dict[str, dict[object, Any]] = {"task": tasks, "attempt": attempts}
        self.deletes: dict[str, dict[object, None]] = {}
        for write in writes:
            if type(write) is FirstLeases:
                self.first.append(write)
                self.audit.append(write)
                continue
            if type(write) is Launched:
                self.audit.append(write)
                before = attempts and [row for row in write.attempts if attempts.pop(row.attempt_id, None) is not None]
                if before:  # a bundle knows nothing of what was put by itself
                    self.single += write.attempts
                else:
                    self.launched.append(write.attempts)
                continue
            if type(write) is Ended:
                self.audit.append(write)
                attempts.update(zip(write.ids, write.attempts, strict=True))
                for over in write.tasks:
                    tasks[over.job_id, over.step, over.task] = over
                continue
            if type(write) is Delete:
                self.puts.get(write.table, {}).pop(write.key, None)
                self.deletes.setdefault(write.table, {})[write.key] = None
                continue
            row: Any = write.row  # type: ignore[union-attr]
            kind = type(row)
            # Three of four rows are of these kinds; the rest takes the general way.
            if kind is AuditRow:
                self.audit.append(row)
            elif kind is AttemptRow:
                attempts[row.job_id, row.step, row.task, row.attempt] = row
            elif kind is TaskRow:
                tasks[row.job_id, row.step, row.task] = row
            else:
                name, key = row_key(row)
                self.puts.setdefault(name, {})[key] = row
        for name, gone in self.deletes.items():
            for key in self.puts.get(name, {}):
                gone.pop(key, None)
        self.urgent = self._is_urgent()
        """What happened cannot be refused: the end of a session or of work, a time that nobody watched."""

    def _is_urgent(self) -> bool:
        return (
            "outage" in self.puts
            or any(row.disconnected_at_ms is not None for row in self._rows("session"))
            or not LIVE_ATTEMPT.issuperset(map(_STATE, self._rows("attempt")))
            or not ENDED.isdisjoint(map(_STATE, self._rows("job", "step", "task")))
        )

    def highest(self) -> dict[str, int]:
        """The highest number of each kind that these rows give."""
        return {
            "session_id": max((row.session_id for row in self._rows("session")), default=0),
            "key": max((row.key for row in self._rows("provider")), default=0),
            "job_id": max((row.job_id for row in self._rows("job")), default=0),
            "token": max(
                map(_TOKEN, chain(self._rows("attempt"), (leases.attempts[-1] for leases in self.first))), default=0
            ),
            "ledger": max((row.seq for row in self._rows("ledger")), default=0),
            "audit": max(map(audit.last_seq, self.audit), default=0),
        }

    def _rows(self, *names: str) -> Iterator[Any]:
        return chain.from_iterable(self.puts[name].values() for name in names if name in self.puts)


def save_counters(connection: sqlite3.Connection, before: dict[str, int], after: dict[str, int]) -> None:
    """Write the counters that moved, within the caller's transaction."""
    moved = [(value, name) for name, value in after.items() if value != before[name]]
    if moved:
        connection.executemany(meta.SET_COUNTER, moved)


def _path_of(connection: sqlite3.Connection) -> Path:
    (row,) = connection.execute("PRAGMA database_list").fetchall()
    return Path(row[2])
