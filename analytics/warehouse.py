"""Owns the DuckDB warehouse: the sessions of the truth as columns, kept up by change sequence.

Derived, never the truth: a file that is missing, damaged, of another schema or another epoch is removed and
filled anew. It never writes to the store and never touches a file outside its own directory.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import duckdb
import numpy as np
import numpy.typing as npt

from analytics.reliability.columns import DAY_MS, LOST_AFTER_MS, REASONS, Codes, Fleet, Ints, fleet_of, sessions_of
from coordinator.core.ids import Ms

SCHEMA = "1"
IMPORT_ID = "import"
"""The coordinator_id of rows that came from elsewhere."""
CHUNK_ROWS = 100_000
KEEP_MS: Ms = 400 * DAY_MS
"""Our own sessions that ended longer ago are dropped, as the store does. History from elsewhere may be as old as
it likes: it was brought here to be looked at."""
SETTLE_ROWS = 100_000
"""Appended rows after which the table is put in order again, if they are a quarter of it too."""
STALE_ALIVE_MS: Ms = 60_000
"""When the coordinator has not said for so long that it serves, what follows is unobserved."""


class TruthColumns(Protocol):
    """Session columns as `store.columns` gives them."""

    @property
    def change_seq(self) -> Ints: ...
    @property
    def session_id(self) -> Ints: ...
    @property
    def provider_id(self) -> list[str]: ...
    @property
    def connected_at_ms(self) -> Ints: ...
    @property
    def disconnected_at_ms(self) -> Ints: ...
    @property
    def last_heartbeat_at_ms(self) -> Ints: ...
    @property
    def reason(self) -> npt.NDArray[np.int8]: ...
    @property
    def boot_id(self) -> list[str]: ...
    @property
    def coordinator_id(self) -> list[str]: ...


class Truth(Protocol):
    """What the warehouse reads of the store: `store.columns.TruthReader`."""

    def epoch(self) -> str: ...
    def sessions_since(self, change_seq: int, limit: int) -> TruthColumns: ...
    def outages(self) -> tuple[Ints, Ints]: ...
    def alive_at_ms(self) -> int | None: ...


class Synced(NamedTuple):
    """What one reading of the truth brought."""

    rows: int
    imported: int
    """Of them, rows that came from elsewhere."""


class Extent(NamedTuple):
    """What the history spans; `ours` when this coordinator saw any of it."""

    first_ms: Ms | None
    last_ms: Ms | None
    ours: bool


@cache
def query(name: str) -> str:
    """The text of analytics/queries/<name>.sql."""
    return (Path(__file__).parent / "queries" / f"{name}.sql").read_text()


class Warehouse:
    """One open warehouse. Use `cursor()` for a second thread; everything else is for the thread that opened it."""

    def __init__(
        self,
        path: Path,
        views: Path,
        truth: Truth,
        memory: str = "512MB",
        threads: int = 2,
        lost_after_ms: Ms = LOST_AFTER_MS,
    ) -> None:
        """Open or make the warehouse at `path`; snapshots may be written into `views`. Neither directory need exist."""
        self._path, self._views, self._truth = path, views, truth
        self._memory, self._threads, self._lost_after_ms = memory, threads, lost_after_ms
        self.rebuilt = ""
        """Why the file was made anew; empty when it was as expected."""
        self.ids: list[str] = []
        """By code."""
        self._codes: dict[str, int] = {}
        self._coordinators: dict[str, int] = {}
        self._seq = 0
        self._appended = 0
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        views.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._open()

    def _open(self) -> None:
        known = self._path.exists()
        try:
            self._con = self._connect()
            self.rebuilt = self._differs() if known else "there was none"
        except (duckdb.Error, ValueError) as error:
            self.rebuilt = f"it could not be read: {str(error).splitlines()[0]}"
        if self.rebuilt:
            self._make()
        self._load_names()

    def _connect(self) -> duckdb.DuckDBPyConnection:
        config: dict[str, Any] = {
            "memory_limit": self._memory,
            "threads": self._threads,
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "preserve_insertion_order": "true",
        }
        con = duckdb.connect(str(self._path), config=config)
        try:
            con.execute(f"SET temp_directory = {literal(str(self._path) + '.tmp')}")
            con.execute(f"SET allowed_directories = [{literal(str(self._views) + '/')}]")
            con.execute("SET enable_external_access = false")
            con.execute("SET lock_configuration = true")
        except BaseException:
            con.close()
            raise
        return con

    def _differs(self) -> str:
        """Why this file cannot be gone on with; empty when it can."""
        facts = dict(self._con.execute("SELECT name, value FROM meta").fetchall())
        if facts.get("schema") != SCHEMA:
            return f"its schema is {facts.get('schema')}, this program's is {SCHEMA}"
        if facts.get("epoch") != self._truth.epoch():
            return "the store is of another epoch: a backup was restored"
        self._seq = int(facts["change_seq"])
        return ""

    def _make(self) -> None:
        if hasattr(self, "_con"):
            self._con.close()
        for stale in (self._path, self._path.with_name(self._path.name + ".wal")):
            stale.unlink(missing_ok=True)
        self._con = self._connect()
        self._con.execute("BEGIN")
        self._con.execute(query("schema"))
        facts = [("schema", SCHEMA), ("epoch", self._truth.epoch()), ("change_seq", "0")]
        for fact in facts:
            self._con.execute("INSERT INTO meta VALUES (?, ?)", fact)
        self._con.execute("COMMIT")
        self._seq = 0

    def _load_names(self) -> None:
        self.ids = [row[0] for row in self._con.execute("SELECT provider_id FROM provider ORDER BY code").fetchall()]
        self._codes = {name: code for code, name in enumerate(self.ids)}
        rows = self._con.execute("SELECT coordinator_id FROM coordinator ORDER BY code").fetchall()
        self._coordinators = {row[0]: code for code, row in enumerate(rows)}

    # ---- reading the truth

    def sync(self) -> Synced:
        """Take over every session that changed since the last time. A reading is one transaction per chunk."""
        rows = imported = 0
        while True:
            chunk = self._truth.sessions_since(self._seq, CHUNK_ROWS)
            n = len(chunk.change_seq)
            if n == 0:
                break
            self._take_over(chunk)
            rows += n
            imported += int((chunk.session_id < 0).sum())
            if n < CHUNK_ROWS:
                break
        if rows:
            self._settle(rows)
        return Synced(rows, imported)

    def _take_over(self, chunk: TruthColumns) -> None:
        providers, coordinators = len(self.ids), len(self._coordinators)
        codes = np.fromiter((self._code(name) for name in chunk.provider_id), np.int32, len(chunk.provider_id))
        theirs = np.fromiter(
            (self._coordinators.setdefault(name, len(self._coordinators)) for name in chunk.coordinator_id),
            np.int16,
            len(chunk.coordinator_id),
        )
        ours = np.fromiter((name != IMPORT_ID for name in chunk.coordinator_id), np.bool_, len(chunk.coordinator_id))
        batch = {
            "session_id": chunk.session_id,
            "provider": codes,
            "start_ms": chunk.connected_at_ms,
            "end_ms": chunk.disconnected_at_ms,
            "beat_ms": chunk.last_heartbeat_at_ms,
            "reason": chunk.reason,
            "boot": boot_codes(chunk.boot_id),
            "ours": ours,
            "coordinator": theirs,
        }
        last = int(chunk.change_seq[-1])
        self._con.execute("BEGIN")
        try:
            self._insert_names("provider", self.ids, providers)
            self._insert_names("coordinator", list(self._coordinators), coordinators)
            self._con.register("batch", batch)
            try:
                self._con.execute("DELETE FROM session WHERE session_id IN (SELECT session_id FROM batch)")
                self._con.execute("INSERT INTO session SELECT * FROM batch")
            finally:
                self._con.unregister("batch")
            self._con.execute("UPDATE meta SET value = ? WHERE name = 'change_seq'", [str(last)])
            self._con.execute("COMMIT")
        except BaseException:
            self._con.execute("ROLLBACK")
            self._load_names()
            raise
        self._seq = last

    def _code(self, name: str) -> int:
        code = self._codes.get(name)
        if code is None:
            code = self._codes[name] = len(self.ids)
            self.ids.append(name)
        return code

    def _insert_names(self, table: str, names: Sequence[str], known: int) -> None:
        if len(names) == known:
            return
        fresh = {"code": np.arange(known, len(names), dtype=np.int32), "name": np.array(names[known:], object)}
        self._con.register("names", fresh)
        try:
            self._con.execute(f"INSERT INTO {table} SELECT code, name FROM names")  # noqa: S608 a table of ours
        finally:
            self._con.unregister("names")

    def _settle(self, rows: int) -> None:
        """Put the table in order of (provider, start) when much was appended: later sorts are then nearly free."""
        self._appended += rows
        total = self._con.execute("SELECT count(*) FROM session").fetchall()[0][0]
        if self._appended >= SETTLE_ROWS and self._appended * 4 >= total:
            self._con.execute("CREATE OR REPLACE TABLE session AS FROM session ORDER BY provider, start_ms")
            self._con.execute("CHECKPOINT")
            self._appended = 0

    def prune(self, now_ms: Ms) -> None:
        """Drop our own sessions that ended longer ago than history is kept."""
        self._con.execute("DELETE FROM session WHERE ours AND end_ms >= 0 AND end_ms < ?", [now_ms - KEEP_MS])

    # ---- answering

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A second connection to the same data, for another thread."""
        return self._con.cursor()

    def fleet(
        self,
        at_ms: Ms,
        since_ms: Ms,
        outages: tuple[Ints, Ints],
        cursor: duckdb.DuckDBPyConnection | None = None,
    ) -> Fleet:
        """Sessions that begin by `at_ms` and did not end before `since_ms`; `outages` as the method gives them."""
        con = cursor if cursor is not None else self._con
        n = len(self.ids)
        rows = con.execute(query("window"), {"until_ms": at_ms, "since_ms": since_ms, "codes": n}).fetchnumpy()
        names = ("provider", "start_ms", "end_ms", "beat_ms", "reason", "boot", "ours")
        sessions = sessions_of(*(np.asarray(rows[name]) for name in names))
        seen = con.execute(query("first_seen"), {"codes": n}).fetchnumpy()
        first = np.full(n, -1, np.int64)
        first[np.asarray(seen["provider"])] = np.asarray(seen["first_ms"])
        return fleet_of(sessions, n, outages, first, self._lost_after_ms)

    def outages(self, at_ms: Ms) -> tuple[Ints, Ints]:
        """What our coordinator did not observe up to `at_ms`: the store's outages, and silence until now."""
        began, ended = self._truth.outages()
        alive = self._truth.alive_at_ms()
        if alive is not None and at_ms - alive > STALE_ALIVE_MS and time.time() * 1000 - alive > STALE_ALIVE_MS:
            began, ended = np.append(began, alive), np.append(ended, at_ms)
        return began, ended

    def extent(self, cursor: duckdb.DuckDBPyConnection | None = None) -> Extent:
        """What the history spans."""
        con = cursor if cursor is not None else self._con
        first, last, ours = con.execute(query("extent")).fetchall()[0]
        return Extent(first, last, bool(ours))

    def code_of(self, provider_id: str) -> int | None:
        """The provider's position in `ids`; None when no session of it is known."""
        return self._codes.get(provider_id)

    # ---- snapshots

    def publish(self, name: str, columns: Mapping[str, npt.NDArray[Any]], rows: str, parameters: object = None) -> None:
        """Replace views/<name>.parquet by the rows of a query, by rename. It sees `columns` as columns_of_view."""
        target = self._views / f"{name}.parquet"
        temporary = self._views / f".{name}.parquet.tmp"
        if columns:
            self._con.register("columns_of_view", dict(columns))
        try:
            copy = (
                f"COPY ({rows.rstrip().rstrip(';')}\n) TO {literal(str(temporary))} (FORMAT parquet, COMPRESSION zstd)"
            )
            if parameters is None:
                self._con.execute(copy)
            else:
                self._con.execute(copy, parameters)
            temporary.chmod(0o600)
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
            if columns:
                self._con.unregister("columns_of_view")

    def publish_sessions(self) -> None:
        """Replace the view `sessions`."""
        self.publish("sessions", {}, query("snapshot_sessions"), {"reasons": list(REASONS)})

    def close(self) -> None:
        self._con.close()


def literal(text: str) -> str:
    """A string literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def boot_codes(boots: Sequence[str]) -> Codes:
    """CRC-32 of each boot id as a signed number, 0 for an unknown one.

    Only neighbouring sessions of one provider are compared, so a collision costs one missed reboot in 4e9.
    """
    known: dict[str, int] = {"": 0}
    raw = np.fromiter(
        (known[b] if b in known else known.setdefault(b, zlib.crc32(b.encode()) or 1) for b in boots),
        np.uint32,
        len(boots),
    )
    return raw.view(np.int32)
