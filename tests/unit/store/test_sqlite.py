"""The library, what its errors mean, migrations, and fail points."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from coordinator.core.errors import Code, CoordError
from store.failpoints import FailPoints
from store.migrate import migrate, scripts
from store.sqlite import Durability, open_reader, open_writer, sqlite3, translated, wal_reset_is_fixed


def an_error(code: int, text: str = "what SQLite says") -> sqlite3.Error:
    error = sqlite3.OperationalError(text)
    error.sqlite_errorcode = code
    return error


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 0), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 53, 4), True),
        ((4, 0, 0), True),
    ],
)
def test_only_libraries_with_the_fix_are_used(version: tuple[int, ...], fixed: bool) -> None:
    """The fix came with 3.51.3 and two backports; releases between those do not have it."""
    assert fixed is wal_reset_is_fixed(version)


def test_everybody_gets_one_library() -> None:
    """aiosqlite uses ours; where it was imported first, with another, we refuse to start."""
    ours = "import store.readers, aiosqlite.core, pysqlite3; assert aiosqlite.core.sqlite3 is pysqlite3"
    assert 0 == subprocess.run([sys.executable, "-c", ours], check=False).returncode
    late = "import aiosqlite, store.sqlite"
    refused = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, check=False)
    assert 0 != refused.returncode
    assert "aiosqlite was imported before" in refused.stderr


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (13, Code.STORE_FULL),
        (7, Code.STORE_FULL),
        (5, Code.STORE_FULL),
        (6, Code.STORE_FULL),
        (261, Code.STORE_FULL),
        (9, Code.TIMEOUT),
        (10, Code.STORE_BROKEN),
        (1034, Code.STORE_BROKEN),
        (11, Code.STORE_BROKEN),
        (26, Code.STORE_BROKEN),
        (14, Code.STORE_BROKEN),
        (8, Code.STORE_BROKEN),
    ],
)
def test_what_an_error_of_the_library_means(tmp_path: Path, code: int, meaning: Code) -> None:
    """FULL and BUSY may be tried again, a failed fsync (1034) and damage may not; the file is named."""
    error = translated(an_error(code), tmp_path / "truth.sqlite")
    assert isinstance(error, CoordError)
    assert meaning is error.code
    assert "truth.sqlite" in error.message
    assert ("coord db restore" in error.hint) is (meaning is Code.STORE_BROKEN)


def test_mistakes_of_ours_stay_what_they_are(tmp_path: Path) -> None:
    """A constraint that failed or wrong SQL is no fault of the disk."""
    for error in (an_error(19), an_error(1), ValueError("x")):
        assert error is translated(error, tmp_path)
    full = translated(OSError(28, "No space left on device"), tmp_path)
    assert isinstance(full, CoordError) and full.code is Code.STORE_FULL
    failed = translated(OSError(5, "Input/output error"), tmp_path)
    assert isinstance(failed, CoordError) and failed.code is Code.STORE_BROKEN


def test_readers_cannot_write_and_make_no_file(tmp_path: Path) -> None:
    """A read connection changes nothing, and does not invent a database that is missing."""
    with pytest.raises(CoordError) as refusal:
        open_reader(tmp_path / "none.sqlite")
    assert Code.STORE_BROKEN is refusal.value.code
    assert not list(tmp_path.iterdir())
    path = tmp_path / "a.sqlite"
    with closing(open_writer(path, Durability.FULL)) as writer:
        writer.execute("CREATE TABLE t (x)")
        with closing(open_reader(path)) as reader, pytest.raises(sqlite3.OperationalError):
            reader.execute("INSERT INTO t VALUES (1)")


def test_migrations_are_applied_once_and_in_order(tmp_path: Path) -> None:
    """A database of any older version gets what it lacks; one that is up to date is left alone."""
    steps = ["CREATE TABLE a (x);", "CREATE TABLE b (x); -- then\nINSERT INTO b VALUES ('a;b');", "DROP TABLE a;"]
    path = tmp_path / "a.sqlite"
    with closing(open_writer(path, Durability.FULL)) as connection:
        assert 1 == migrate(connection, "truth", steps[:1])
        assert 3 == migrate(connection, "truth", steps)
        assert 3 == migrate(connection, "truth", steps)
        assert [("b",)] == connection.execute("SELECT name FROM sqlite_schema").fetchall()
        assert [("a;b",)] == connection.execute("SELECT x FROM b").fetchall()


def test_a_migration_that_fails_leaves_the_version_before(tmp_path: Path) -> None:
    """Half a step is no step: what it did is rolled back, earlier steps stay."""
    with closing(open_writer(tmp_path / "a.sqlite", Durability.FULL)) as connection:
        with pytest.raises(sqlite3.OperationalError):
            migrate(connection, "truth", ["CREATE TABLE a (x);", "CREATE TABLE b (x); CREATE TABLE\nb (x);"])
        assert [("a",)] == connection.execute("SELECT name FROM sqlite_schema").fetchall()
        assert (1,) == connection.execute("PRAGMA user_version").fetchone()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    """A database from a newer program is not touched."""
    with closing(open_writer(tmp_path / "a.sqlite", Durability.FULL)) as connection:
        connection.execute(f"PRAGMA user_version = {len(scripts('truth')) + 1}")
        with pytest.raises(CoordError) as refusal:
            migrate(connection, "truth")
    assert Code.SCHEMA_NEWER is refusal.value.code


@pytest.mark.parametrize("spec", ["nowhere:1", "truth.before_commit", "truth.before_commit:0", "truth.before_commit:x"])
def test_a_fail_point_that_does_not_exist_is_refused(spec: str) -> None:
    """A kill test with a misspelt place would pass without a kill."""
    with pytest.raises(CoordError) as refusal:
        FailPoints(spec)
    assert Code.BAD_CONFIG is refusal.value.code
    assert "truth.after_commit" in refusal.value.hint
