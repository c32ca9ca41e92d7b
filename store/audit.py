"""The audit in the truth: every transition, and what people did, in the order of its happening.

Rows that are written together lie together: a pack is up to 256 of them as one array in MessagePack (JSON, where an
older version wrote it), behind the number of its first. Those of first leases of one step on one provider, of those
that are launched together, and of those that succeed together, differ in their numbers alone: they are one entry of a
pack, and rows again where somebody reads it. Who looks for some rows finds the packs by four indexes and the rows by
reading these. Audit is most of what is written: a row of its own with its indexes costs several times as much.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from operator import attrgetter
from typing import NamedTuple

import msgspec

from coordinator.core.audit_rows import AuditRow, EndsAudit, LaunchesAudit, LeasesAudit
from coordinator.core.commands import Together
from coordinator.core.ids import JobId, TenantName
from store.sqlite import sqlite3
from store.table import Columns, Table, one_column, put_rows, upsert

COLUMNS = ("first", "last", "wall_ns", "body")
PACK_ROWS = 256
"""Rows of one pack: what is read at least to find one of them, a quarter of a millisecond."""
FREQUENT = ("task", "attempt")
"""Entities that need no index of their own: most rows are theirs."""
PLACE_SHIFT = 40
"""A task's place in its job, as one number: step << 40 | task."""
NOWHERE = 1 << 62
"""The place of what is no task: behind all of them."""
_TASK = re.compile(r"([0-9]{1,12})\.([0-9]{1,6})\.([0-9]{1,12})(?:\.[0-9]{1,12})?", re.ASCII)

FIRST_OF = "SELECT max(first) FROM audit WHERE first <= ?"
"""(seq): the pack that holds this row, if it is there."""
OLD = f"""
SELECT {", ".join(COLUMNS)} FROM audit
 WHERE first IN (SELECT first FROM audit ORDER BY first LIMIT ?) AND wall_ns < ? ORDER BY first
"""  # noqa: S608  names are ours
"""(limit, before_ns): of so many of the oldest packs those whose newest row is older than that. What follows is not
looked at, however much it is."""
INDEXES = {
    "audit_of_subject": ("subject", "first"),
    "audit_of_job": ("job_id", "first", "low", "high"),
    "audit_of_entity": ("entity", "first"),
    "audit_of_tenant": ("tenant", "first"),
}
_PUTS = {
    index: f"INSERT OR REPLACE INTO {index} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})"  # noqa: S608  names of ours
    for index, columns in INDEXES.items()
}
_DELETES = {
    index: f"DELETE FROM {index} WHERE {columns[0]} = ? AND first = ?"  # noqa: S608  names of ours
    for index, columns in INDEXES.items()
}
_COLUMNS_OF_AUDIT = ", ".join(f"audit.{name}" for name in COLUMNS)


class Wanted(NamedTuple):
    """Which rows are asked for. Empty and None: any."""

    tenant: TenantName | None = None
    job_id: JobId | None = None
    entity: str = ""
    subject: str = ""

    def has(self, row: AuditRow) -> bool:
        return (
            (self.tenant is None or row.tenant == self.tenant)
            and (self.job_id is None or row.job_id == self.job_id)
            and (not self.entity or row.entity == self.entity)
            and (not self.subject or row.subject == self.subject)
        )


def place_of(subject: str) -> tuple[int, int] | None:
    """(job, place) of a text that could be a task's or an attempt's; None for any other subject."""
    numbers = _TASK.fullmatch(subject)
    if numbers is None:
        return None
    job_id, step, task = numbers.group(1, 2, 3)
    return int(job_id), int(step) << PLACE_SHIFT | int(task)


def _own_place(row: AuditRow) -> tuple[int, int] | None:
    """The same of a task or an attempt as the core names them: four times as fast."""
    if row.job_id is None or row.entity not in FREQUENT:
        return None
    numbers = row.subject.split(".", 3)
    try:
        return row.job_id, int(numbers[1]) << PLACE_SHIFT | int(numbers[2])
    except (IndexError, ValueError):
        return None


def listing(wanted: Wanted, *, rising: bool) -> tuple[str, tuple[str | int, ...]]:
    """(SQL, what its parameters from the third on are): packs that may hold such rows. ?1 is a seq, ?2 a limit.

    Falling: those that begin before the seq; rising: those that begin with it or later. Of several conditions the most
    selective one chooses the index.
    """
    bound, order = ("first >= ?1", "ASC") if rising else ("first < ?1", "DESC")
    task = place_of(wanted.subject)
    conditions: tuple[str, str, tuple[str | int, ...]]
    if task is not None:
        conditions = ("audit_of_job", "job_id = ?3 AND low <= ?4 AND high >= ?4", task)
    elif wanted.subject:
        conditions = ("audit_of_subject", "subject = ?3", (wanted.subject,))
    elif wanted.job_id is not None:
        conditions = ("audit_of_job", "job_id = ?3", (wanted.job_id,))
    elif wanted.entity and wanted.entity not in FREQUENT:
        conditions = ("audit_of_entity", "entity = ?3", (wanted.entity,))
    elif wanted.tenant is not None:
        conditions = ("audit_of_tenant", "tenant = ?3", (wanted.tenant,))
    else:
        return f"SELECT {', '.join(COLUMNS)} FROM audit WHERE {bound} ORDER BY first {order} LIMIT ?2", ()  # noqa: S608  names of ours
    index, where, values = conditions
    sql = (
        f"SELECT {_COLUMNS_OF_AUDIT} FROM {index} AS found CROSS JOIN audit USING (first) "  # noqa: S608  names of ours
        f"WHERE {where} AND found.{bound} ORDER BY found.first {order} LIMIT ?2"
    )
    return sql, values


PackedAudit = LeasesAudit | LaunchesAudit | EndsAudit
"""Rows that are one entry."""
_encode = msgspec.msgpack.Encoder().encode
_decoder = msgspec.msgpack.Decoder(tuple[AuditRow | PackedAudit, ...])
_older = msgspec.json.Decoder(tuple[AuditRow, ...])


_seq = attrgetter("seq")


def to_columns(rows: Sequence[AuditRow]) -> Columns:
    """One pack, of rows in the order of their numbers."""
    return rows[0].seq, rows[-1].seq, rows[-1].wall_ns, _encode(rows)


def from_columns(c: Columns) -> tuple[AuditRow, ...]:
    """Raises ValueError (msgspec's errors are) for a body that is no pack."""
    if isinstance(c[3], str):
        return _older.decode(c[3])
    found: list[AuditRow] = []
    for entry in _decoder.decode(c[3]):
        if isinstance(entry, AuditRow):
            found.append(entry)
        else:
            found += entry.rows()
    return tuple(found)


TABLE = Table(
    name="audit",
    columns=COLUMNS,
    put=upsert("audit", COLUMNS, ("first",)),
    delete="DELETE FROM audit WHERE first = ?",
    to_columns=to_columns,
    from_columns=from_columns,
    key_columns=one_column,
)


def last_seq(entry: AuditRow | Together) -> int:
    """The number of the last row that this stands for."""
    return entry.seq if isinstance(entry, AuditRow) else entry.last_seq


def write(connection: sqlite3.Connection, entries: list[AuditRow | Together]) -> None:
    """Write these rows in packs, and where to find them. Within the caller's transaction; their numbers are new."""
    entries.sort(key=_seq)
    packs = _Packs()
    for entry in entries:
        if isinstance(entry, AuditRow):
            packs.add(entry)
        else:
            packs.add_together(entry.told())
    packs.close()
    put_rows(connection, TABLE.put, packs.columns)
    for index, columns in packs.found.items():
        if columns:
            put_rows(connection, _PUTS[index], columns)


class _Packs:
    """Packs, filled one after the other, and what the indexes say of them."""

    def __init__(self) -> None:
        self.columns: list[Columns] = []
        self.found: dict[str, list[Columns]] = {index: [] for index in INDEXES}
        self._body: list[AuditRow | PackedAudit] = []
        self._single: list[AuditRow] = []
        self._spans: list[Span] = []
        self._first = self._last = self._wall_ns = self._rows = 0

    def add(self, row: AuditRow) -> None:
        self._single.append(row)
        self._put(row, row.seq, 1)

    def add_together(self, told: PackedAudit) -> None:
        """What `add` of each of its rows would do, without making them."""
        begin, parts, each = 0, told.parts, told.rows_each
        while begin < parts:
            if self._rows > PACK_ROWS - each:
                self.close()
            end = min(parts, begin + (PACK_ROWS - self._rows) // each)
            part = told.part(begin, end) if end - begin < parts else told
            low, high = part.between()
            place = part.step << PLACE_SHIFT
            self._spans.append(Span(part.tenant, part.job_id, place | low, place | high))
            self._put(part, part.last_seq, each * part.parts)
            begin = end

    def _put(self, entry: AuditRow | PackedAudit, last: int, rows: int) -> None:
        if not self._body:
            self._first = entry.seq
        self._body.append(entry)
        self._last, self._wall_ns = last, entry.wall_ns
        self._rows += rows
        if self._rows >= PACK_ROWS:
            self.close()

    def close(self) -> None:
        """The next row begins another pack."""
        if self._body:
            self.columns.append((self._first, self._last, self._wall_ns, _encode(self._body)))
            _index(self._first, self._single, self._spans, self.found)
            self._body, self._single, self._spans, self._rows = [], [], [], 0


class Span(NamedTuple):
    """Rows in one pack that were put together: of which tasks."""

    tenant: TenantName
    job_id: JobId
    low: int
    high: int


def prune(connection: sqlite3.Connection, before_ns: int, rows_max: int) -> bool:
    """Remove the oldest packs whose newest row is older than that, some `rows_max` rows of them; whether that was all.

    Within the caller's transaction. What cannot be read goes without what its indexes say of it: that leads nowhere.
    """
    found: dict[str, list[Columns]] = {index: [] for index in INDEXES}
    gone: list[Columns] = []
    left = rows_max
    with closing(connection.execute(OLD, (rows_max, before_ns))) as old:  # read one by one: a body is some 40 kB
        for columns in old:
            with suppress(ValueError):
                _index(columns[0], from_columns(columns), (), found)
            gone.append((columns[0],))
            left -= columns[1] - columns[0] + 1
            if left <= 0:
                break
    connection.executemany(TABLE.delete, gone)
    for index, entries in found.items():
        connection.executemany(_DELETES[index], [entry[:2] for entry in entries])
    return left > 0


def _index(first: int, rows: Iterable[AuditRow], spans: Iterable[Span], found: dict[str, list[Columns]]) -> None:
    """Add what the indexes say of the pack that begins with this number: it has these rows and those of these spans."""
    task_before, tenant_before = " ", ""
    subjects, entities, tenants = set(), set(), set()
    jobs: dict[int | None, tuple[int, int]] = {}
    for row in rows:
        if row.tenant != tenant_before and row.tenant:
            tenants.add(row.tenant)
            tenant_before = row.tenant
        if row.entity == "attempt" and row.subject.startswith(task_before):
            continue  # of the task before it: found with that
        named = _own_place(row) or place_of(row.subject)
        if row.entity == "task" and named is not None:
            task_before = f"{row.subject}."
        if row.entity not in FREQUENT or named is None:
            entities.add(row.entity)
            subjects.add(row.subject)
        if named is None and row.job_id is None:
            continue
        # Whatever is called like a task is found as one.
        job_id, place = named if named is not None else (row.job_id, NOWHERE)
        span = jobs.get(job_id)
        if span is None:
            jobs[job_id] = place, -1 if place == NOWHERE else place
        elif place < span[0]:
            jobs[job_id] = place, max(span[1], place)
        elif span[1] < place < NOWHERE:
            jobs[job_id] = span[0], place
    for tenant, job_id, low, high in spans:
        tenants.add(tenant)
        span = jobs.get(job_id, (low, high))
        jobs[job_id] = min(low, span[0]), max(high, span[1])
    found["audit_of_subject"] += [(subject, first) for subject in sorted(subjects)]
    found["audit_of_job"] += [(job_id, first, *span) for job_id, span in jobs.items()]
    found["audit_of_entity"] += [(entity, first) for entity in sorted(entities)]
    found["audit_of_tenant"] += [(tenant, first) for tenant in sorted(tenants)]
