"""No request walks a table: every reading statement of the store is explained."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing
from itertools import product
from pathlib import Path
from types import ModuleType

import pytest

from coordinator.core.ids import JobId, TenantName
from coordinator.core.rows import WorkState
from coordinator.ports.store import SUMMED_BY
from store import (
    accounts,
    artifacts,
    attempts,
    audit,
    blobs,
    bundles,
    checkpoints,
    columns,
    heartbeats,
    holds,
    hours,
    imports,
    jobs,
    ledger,
    manifest,
    meta,
    outages,
    outputs,
    pools,
    providers,
    sessions,
    steps,
    tasks,
    tenants,
    tokens,
    uploads,
)
from store.migrate import migrate
from store.sqlite import sqlite3
from tests.conformance.homes import NOON_MS

TRUTH = {"sessions", "providers", "outages", "tokens", "pools", "meta"}
WORK = (jobs, steps, tasks, attempts, bundles, audit, ledger, tenants, accounts)
DATA = (blobs, holds, artifacts, uploads, outputs, checkpoints)
MODULES = (
    sessions,
    providers,
    outages,
    tokens,
    pools,
    meta,
    hours,
    manifest,
    heartbeats,
    columns,
    imports,
    *WORK,
    *DATA,
)
WHOLE = {
    ("providers", "ALL"): "read once at a start",
    ("tokens", "ALL"): "read once at a start",
    ("pools", "ALL"): "read once at a start",
    ("meta", "ALL"): "read once at a start, a handful of rows",
    ("meta", "COUNTERS"): "read once at a start, seven rows",
    ("jobs", "ENDED_HOLDING"): "read once at a start; the index holds what is held alone",
    ("attempts", "ALL_HELD"): "read once at a start; the index holds those alone",
    ("audit", "OLD"): "the oldest packs, of which a limit ends the walk",
    ("ledger", "PRUNE"): "the oldest rows, of which a limit ends the walk",
    ("tenants", "ALL"): "read once at a start",
    ("accounts", "ALL"): "one a tenant, read at a start and for a report",
    ("uploads", "ALL"): "read once at a start",
    ("holds", "DANGLING"): "a check, in a process of its own",
    ("holds", "MISTAKEN"): "a check",
    ("holds", "UNPAIRED"): "a check",
    ("manifest", "ALL"): "backup, check and the sweep at a start, 672 rows",
    ("columns", "OUTAGES"): "the analytics worker takes them all, in its own process",
    ("columns", "PROVIDERS"): "the analytics worker takes them all",
    ("columns", "KEYS"): "the analytics worker takes them all",
    ("columns", "SEGMENTS"): "the analytics worker takes them all, 672 rows",
}
"""Statements that are meant to read a whole table, and when."""
NO_TABLES = {"wanted", "incoming", "merged", "i", "m", "p", "known", "neighbours", "own", "CONSTANT", "sqlite_schema"}
"""Names in plans that are no tables of ours: what a statement made itself, an import's temporary tables, the schema."""


def statements() -> Iterator[tuple[str, str, str]]:
    """(module, name, SQL) of every constant and generated statement that reads, or reads to remove."""
    for module in MODULES:
        for name, value in vars(module).items():
            if isinstance(value, str) and re.match(r"\s*(SELECT|WITH|DELETE|UPDATE|INSERT INTO \S+\s+SELECT)\b", value):
                yield _short(module), name, value
        table = getattr(module, "TABLE", None)
        if table is not None:
            yield _short(module), "TABLE.delete", table.delete
    for name, sql in listings():
        yield "work", name, sql
    yield "heartbeats", "newest", heartbeats.newest(NOON_MS)
    yield "heartbeats", "last_beats", heartbeats.last_beats(NOON_MS)


def listings() -> Iterator[tuple[str, str]]:
    """Every statement that a listing of work is made of."""
    for tenant, state, name in product((False, True), repeat=3):
        if state or not tenant:
            yield "listing_jobs", jobs.listing(tenant=tenant, state=state, name=name)
    for states, step in product(((), (WorkState.FAILED,), (WorkState.RUNNING,), tuple(WorkState)), (False, True)):
        yield "listing_tasks", tasks.listing(states, step=step)
    for step, task in ((False, False), (True, False), (True, True)):
        yield "listing_attempts", attempts.listing(step=step, task=task)
    for of_tasks, step in product((False, True), repeat=2):
        yield "listing_bundles", bundles.listing(of_tasks=of_tasks, step=step)
    yield "bundles_of_tasks", bundles.of_tasks(3)
    for subject, job, tenant, rising in product((False, True), repeat=4):
        for entity in ("", "task", "provider"):
            for text in ("12", "12.0.7", "12.0.7.1"):
                yield "listing_audit", audit_listing(text if subject else "", job, entity, tenant, rising)
    for tenant, month, job in product((False, True), repeat=3):
        yield "listing_ledger", ledger.listing(tenant=tenant, month=month, job=job)
    for whose in (False, True):
        yield "listing_blobs", blobs.listing(tenant=whose)
        yield "listing_artifacts", artifacts.listing(tenant=whose, name=False)
        yield "listing_artifacts", artifacts.listing(tenant=whose, name=True)
    for step in (False, True):
        yield "listing_outputs", outputs.listing(step=step)
    for step, task in ((False, False), (True, False), (True, True)):
        yield "listing_checkpoints", checkpoints.listing(step=step, task=task)


def audit_listing(subject: str, job: bool, entity: str, tenant: bool, rising: bool) -> str:
    wanted = audit.Wanted(TenantName("a") if tenant else None, JobId(1) if job else None, entity, subject)
    return audit.listing(wanted, rising=rising)[0]


def _short(module: ModuleType) -> str:
    return module.__name__.rpartition(".")[2]


def _connection(tmp_path: Path) -> sqlite3.Connection:
    """One database with the tables of both, so that every statement can be explained."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    migrate(connection, "truth")
    connection.execute("PRAGMA user_version = 0")
    migrate(connection, "telemetry")
    for statement in (heartbeats.create(NOON_MS), imports.INCOMING, imports.MERGED, imports.INDEX_MERGED):
        connection.execute(statement)
    return connection


def _plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    numbered = max((int(n) for n in re.findall(r"\?(\d)", sql)), default=0)
    values = [1] * (numbered or sql.count("?"))
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", values)]


@pytest.mark.parametrize(
    ("module", "name", "sql"), list(statements()), ids=lambda value: value if len(str(value)) < 30 else ""
)
def test_no_statement_walks_a_table(tmp_path: Path, module: str, name: str, sql: str) -> None:
    """A plan searches by an index; whole tables are read only where that is the purpose, which is written here."""
    with closing(_connection(tmp_path)) as connection:
        plan = _plan(connection, sql)
    scanned = [line for line in plan if line.startswith("SCAN") and not line.startswith("SCAN (subquery")]
    walks = [line for line in scanned if NO_TABLES.isdisjoint(line.split()[1:3])]
    if name.startswith("listing"):
        sorts = [line for line in plan if "TEMP B-TREE" in line]
        assert [] == [*walks, *sorts], sql
        return
    if (module, name) in WHOLE:
        assert walks, f"{module}.{name} walks nothing: take it off the list"
    else:
        assert [] == walks, f"{module}.{name}"
    # The last term alone is sorted within equal times: a handful of rows, and the limit still ends the walk.
    sorts = [line for line in plan if "TEMP B-TREE" in line and "LAST TERM" not in line]
    if name in ("BEGUN_SINCE", "newest", "NEWEST", "IN_WINDOW", "SESSIONS_SINCE", "HOURS"):
        assert [] == sorts, f"{module}.{name} sorts what an index has in order"


@pytest.mark.parametrize("rising", [False, True])
def test_the_most_selective_filter_of_the_audit_chooses_the_index(tmp_path: Path, rising: bool) -> None:
    """A subject before a job, a job before a rare entity, that before a tenant; frequent entities are walked for."""
    index: dict[str, list[tuple[str, int, str, int]]] = {
        "audit_of_subject": [
            ("12", job, entity, tenant) for job in (0, 1) for entity in ("", "task") for tenant in (0, 1)
        ],
        "audit_of_job": [
            (subject, 1, entity, tenant)
            for subject in ("", "12.0.7", "12.0.7.1")
            for entity in ("", "task", "pool")
            for tenant in (0, 1)
        ],
        "audit_of_entity": [("", 0, "pool", tenant) for tenant in (0, 1)],
        "audit_of_tenant": [("", 0, entity, 1) for entity in ("", "task")],
    }
    with closing(_connection(tmp_path)) as connection:
        for name, asked in index.items():
            for subject, job, entity, tenant in asked:
                sql = audit_listing(subject, bool(job), entity, bool(tenant), rising)
                assert f"FROM {name} AS found" in sql
                found, pack = _plan(connection, sql)
                assert found.startswith("SEARCH found USING PRIMARY KEY")
                assert pack.startswith("SEARCH audit USING INTEGER PRIMARY KEY")
        for entity in ("", "task"):
            (walk,) = _plan(connection, audit_listing("", False, entity, False, rising))
            assert walk.startswith("SEARCH audit USING INTEGER PRIMARY KEY")


@pytest.mark.parametrize("by", SUMMED_BY)
def test_sums_of_charges_walk_those_that_match(tmp_path: Path, by: str) -> None:
    """Of a job, a tenant or a month an index leads to them; only the sum of all reads all."""
    with closing(_connection(tmp_path)) as connection:
        for tenant, month, job in product((False, True), repeat=3):
            plan = _plan(connection, ledger.sums(by, tenant=tenant, month=month, job=job))
            walks = [line for line in plan if line.startswith("SCAN ledger")]
            assert bool(walks) == (not tenant and not month and not job)


@pytest.mark.parametrize(
    ("states", "index"),
    [
        ((), "PRIMARY KEY"),
        ((WorkState.COMPLETED,), "PRIMARY KEY"),
        ((WorkState.FAILED,), "task_failed"),
        ((WorkState.CANCELLED, WorkState.FAILED), "task_failed"),
        ((WorkState.PENDING,), "task_live"),
        ((WorkState.FAILED, WorkState.PENDING), "PRIMARY KEY"),
    ],
)
def test_tasks_that_failed_or_wait_are_found_among_a_million(
    tmp_path: Path, states: tuple[WorkState, ...], index: str
) -> None:
    """They have an index of their own; those that completed are most of a job, and are met by walking it."""
    with closing(_connection(tmp_path)) as connection:
        for step in (False, True):
            (line,) = _plan(connection, tasks.listing(states, step=step))
            assert index in line


def test_a_statement_that_walks_is_noticed(tmp_path: Path) -> None:
    """The test above can fail: a condition without an index shows as a walk."""
    with closing(_connection(tmp_path)) as connection:
        assert ["SCAN session"] == _plan(connection, "SELECT boot_id FROM session WHERE boot_id = ?")
