"""`query sql` in its box: what a person may ask, and what nobody may."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path

import duckdb
import msgspec
import pytest

from analytics import sqlbox, sqlchild
from analytics.snapshots import SCHEMAS
from coordinator.api_types.operations import SqlAnswer
from coordinator.core.errors import Code, CoordError


class Box:
    """A directory of views and segments with a secret beside them."""

    def __init__(self, path: Path) -> None:
        self.views, self.segments = path / "views", path / "segments"
        self.views.mkdir()
        self.segments.mkdir()
        self.secret = path / "admin.token"
        self.secret.write_text("canary-7f3a")
        with duckdb.connect() as con:
            for name, schema in SCHEMAS.items():
                nothing = ", ".join(f"NULL::{kind} AS {column}" for column, kind in schema.items())
                con.execute(f"COPY (SELECT {nothing} WHERE false) TO '{self.views}/{name}.parquet'")
            con.execute(
                "COPY (SELECT 'p' || i AS provider_id, 'default' AS pool, i AS key,"
                f" TIMESTAMP '2026-01-01' AS enrolled_at, '{{}}' AS labels FROM range(5) t(i))"
                f" TO '{self.views}/providers.parquet'"
            )

    def ask(self, statement: str, timeout_s: float = 20.0, rows_max: int = 100) -> SqlAnswer:
        """The answer, or CoordError."""
        run = sqlbox.run(self.views, self.segments, statement, timeout_s=timeout_s, rows_max=rows_max, memory="256MB")
        return msgspec.json.decode(asyncio.run(run).json, type=SqlAnswer)

    def refusal(self, statement: str, timeout_s: float = 20.0) -> CoordError:
        """The refusal; it never holds the secret."""
        with pytest.raises(CoordError) as found:
            self.ask(statement, timeout_s)
        assert "canary" not in str(found.value)
        return found.value


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def test_views_answer_and_empty_ones_have_their_columns(box: Box) -> None:
    """What was published is read; where there are no segments yet there are no heartbeats."""
    assert (("p3", 3),) == tuple(map(tuple, box.ask("SELECT provider_id, key FROM providers WHERE key = 3").entries))
    shown = {row[0] for row in box.ask("SHOW TABLES").entries}
    assert {"sessions", "stays", "providers", "features", "outages", "hours", "heartbeats", "keys"} == shown
    assert 0 == len(box.ask("SELECT * FROM heartbeats").entries)


def test_views_that_are_not_published_are_not_empty_ones(box: Box) -> None:
    """Until the worker has published all of them, a query is refused with when to ask again, not answered by 0."""
    for name in SCHEMAS:
        (box.views / f"{name}.parquet").rename(box.views / "aside")
        found = box.refusal("SELECT count(*) FROM providers")
        assert (Code.ANALYTICS_UNAVAILABLE, "try again in a few seconds") == (found.code, found.hint), name
        (box.views / "aside").rename(box.views / f"{name}.parquet")
    assert [5] == list(box.ask("SELECT count(*) FROM providers").entries[0])


def test_rows_are_capped_and_values_are_json(box: Box) -> None:
    """More rows than asked are cut and said so; odd values come as JSON has them."""
    many = box.ask("SELECT i FROM range(1000) t(i)", rows_max=10)
    assert (10, True) == (len(many.entries), many.truncated)
    odd = box.ask(
        "SELECT 'nan'::DOUBLE, 'inf'::DOUBLE, 1.50::DECIMAL(9,2), TIMESTAMP '2026-01-02 03:04:05', [1, 2], {'a': NULL},"
        " '\\x01'::BLOB, 12345678901234567890::HUGEINT, INTERVAL 1 HOUR, DATE '2026-01-02', MAP {'k': 1}"
    )
    assert [
        None, None, 1.5, "2026-01-02T03:04:05.000Z", [1, 2], {"a": None}, "AQ==", 12345678901234567890, 3600.0,
        "2026-01-02", {"k": 1},
    ] == list(odd.entries[0])  # fmt: skip


ATTACKS = [
    "SELECT * FROM read_text('{secret}')",
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM read_blob('{views}/../admin.token')",
    "SELECT * FROM '{secret}'",
    "SELECT * FROM glob('{root}/*') WHERE file LIKE '%token%'",
    "SELECT * FROM read_csv('/proc/self/environ')",
    "SELECT * FROM read_parquet('http://127.0.0.1:9/x.parquet')",
    "SELECT * FROM query('COPY (SELECT 1) TO ''{root}/out''')",
    "SELECT * FROM sniff_csv('{secret}')",
    "COPY providers TO '{root}/out.csv'",
    "COPY providers TO '{views}/out.csv'",
    "ATTACH '{root}/x.duckdb'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "RESET lock_configuration",
    "PRAGMA version",
    "CALL pragma_version()",
    "EXPORT DATABASE '{root}/out'",
    "IMPORT DATABASE '{root}'",
    "CREATE TABLE x AS SELECT 1",
    "DROP VIEW providers",
    "INSERT INTO providers VALUES (1)",
    "EXPLAIN ANALYZE COPY providers TO '{views}/out.csv'",
    "EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1",
    "EXPLAIN /* */ ANALYZE COPY providers TO '{views}/out.csv'",
    "--a SELECT 1; --\nEXPLAIN ANALYZE COPY providers TO '{views}/out.csv'",
    "--a SELECT 1; --\nEXPLAIN ANALYZE COPY (SELECT 1 WHERE 1=0) TO '{views}/providers.parquet' (FORMAT csv, HEADER 0)",
    "/* SELECT 1; */ EXPLAIN ANALYZE COPY providers TO '{views}/out.csv'",
    "EXPLAIN (ANALYZE) COPY providers TO '{views}/out.csv'",
    "SELECT 1; SELECT 2",
    "SELECT 1; COPY providers TO '{views}/out.csv'",
    "",
    "SELEC 1",
    "SELECT * FROM nowhere",
    "PREPARE x AS SELECT 1",
    "BEGIN",
]


def test_attacks_are_refused(box: Box) -> None:
    """Files, network, settings, writing, several statements: refused by the box itself, and nothing was written."""
    places = {"secret": box.secret, "views": box.views, "root": box.secret.parent}
    before = sorted(path.name for path in box.secret.parent.rglob("*"))
    for statement in ATTACKS:
        request = sqlbox.SqlRequest(
            views=str(box.views),
            segments=str(box.segments),
            statement=statement.format(**places),
            rows_max=10,
            timeout_s=20,
            memory="256MB",
        )
        reply = sqlchild.answer(request)
        assert reply.error and reply.hint, statement
        assert b"" == reply.json and "canary" not in reply.error, statement
    assert before == sorted(path.name for path in box.secret.parent.rglob("*"))
    assert 5 == len(box.ask("SELECT * FROM providers").entries)


def test_a_select_is_explained(box: Box) -> None:
    """EXPLAIN and EXPLAIN ANALYZE of a SELECT are taken, in any letters and over lines."""
    for statement in ("EXPLAIN SELECT 1", "explain\nanalyze  from providers;", "EXPLAIN WITH a AS (SELECT 1) FROM a"):
        assert "explain_key" == box.ask(statement).columns[0]


def test_refusal_comes_back_from_the_process(box: Box) -> None:
    """What the box refuses reaches the caller as BAD_SQL with what to do."""
    found = box.refusal(f"SELECT * FROM read_text('{box.secret}')")
    assert Code.BAD_SQL == found.code
    assert "out of reach" in found.hint


def test_endless_query_is_killed(box: Box) -> None:
    """The time limit ends it, and its process with it."""
    began = time.monotonic()
    found = box.refusal("SELECT sum(a.range * b.range) FROM range(10000000000) a, range(100000) b", timeout_s=0.5)
    assert Code.TIMEOUT == found.code
    assert time.monotonic() - began < 8


def test_memory_is_capped(box: Box) -> None:
    """A query that wants more than its cap is refused, not swapped."""
    found = box.refusal(
        "SELECT count(*) FROM (SELECT DISTINCT hash(i), i::VARCHAR || 'xxxxxxxxxxxxxxxx' FROM range(50000000) t(i))"
    )
    assert Code.BAD_SQL == found.code


def test_memory_beyond_duckdbs_own_count_is_capped(box: Box) -> None:
    """Long strings, lists and what Python makes of them count too: they are outside of DuckDB's cap."""
    for statement in ("SELECT repeat('x', 3000000) FROM range(1000)", "SELECT range(100000000)"):
        found = box.refusal(statement)
        assert (Code.BAD_SQL, True) == (found.code, "memory cap" in found.message), found


def test_environment_is_not_inherited(box: Box, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child starts with an environment of its own: a secret in ours is not there to be read."""
    monkeypatch.setenv("COORD_TOKEN", "canary-7f3a")
    assert "canary-7f3a" == os.environ["COORD_TOKEN"]
    assert Code.BAD_SQL == box.refusal("SELECT getenv('COORD_TOKEN')").code


def test_limits_are_checked(box: Box) -> None:
    """Statement size, time and rows have bounds that are told."""
    assert Code.BAD_SQL == box.refusal("SELECT '" + "x" * 200_000 + "'").code
    assert Code.BAD_REQUEST == box.refusal("SELECT 1", timeout_s=0).code


def test_heartbeats_are_read_from_sealed_segments(box: Box) -> None:
    """A segment's numbers come as names and times; a file that is still being written is not looked at."""
    row = (
        "SELECT 3::INTEGER AS key, 1767225600500 AS observed_at_ms, 0::SMALLINT AS n, 2::TINYINT AS status,"
        " 0.5 AS memory_pressure, NULL::DOUBLE AS cpu_usage, 1::TINYINT AS thermal_state, 4.0 AS memory_available_gb,"
        " NULL::DOUBLE AS gpu_memory_active_gb, NULL::DOUBLE AS gpu_memory_cache_gb, NULL::VARCHAR AS backend_state,"
        " NULL::VARCHAR AS active_model, NULL::DOUBLE AS capacity"
    )
    with duckdb.connect() as con:
        con.execute(f"COPY ({row}) TO '{box.segments}/hour.parquet'")
        con.execute(f"COPY (SELECT 3::INTEGER AS key, 'node-3' AS provider_id) TO '{box.views}/keys.parquet'")
    (box.segments / ".half-written.parquet").write_bytes(b"PAR1")
    found = box.ask("SELECT provider_id, observed_at, status, thermal_state, memory_pressure FROM heartbeats")
    assert ["node-3", "2026-01-01T00:00:00.500Z", "busy", "fair", 0.5] == list(found.entries[0])
    assert 1 == len(found.entries)
