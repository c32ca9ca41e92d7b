"""A data directory of an older schema is brought to this one, with all that it held."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from coordinator.core.commands import Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.rows import Promises, ProviderRow, SessionRow, TokenRow
from coordinator.ports import Store
from store import migrate
from store.durable import DiskStore
from store.sqlite import Durability, open_writer
from tests.conformance.homes import NOON_MS, DiskHome, a_job, a_spec, a_step

PROVIDER_V1 = """
INSERT INTO provider VALUES ('node-1', 7, 'machine', 'default', 'cred', 5, '{"zone":"a"}', '{"cpus":4.0}', 'boot',
    '1.0', 'digest', '', NULL, '', NULL, 99, 'read_error', 50)
"""
SESSION_V1 = """
INSERT INTO session VALUES (3, 'node-1', 10, NULL, NULL, 20, ?, 'boot', 'process', 1, 2, 4)
"""


def make_version_1(home: DiskHome) -> None:
    """A data directory as version 1 of the schema made it, with a row in the tables that version 2 touches."""
    home.data.make()
    home.data.logs.rmdir()  # version 1 knew none
    (first, *_) = migrate.scripts("truth")
    coordinator_id = home.data.make_coordinator_id()
    with closing(open_writer(home.data.truth, Durability.FULL)) as connection:
        migrate.migrate(connection, "truth", [first])
        connection.execute("INSERT INTO identity VALUES ('epoch', 'old')")
        connection.execute(PROVIDER_V1)
        connection.execute(SESSION_V1, (coordinator_id,))
        connection.execute("UPDATE counter SET value = 7 WHERE name = 'key'")
        connection.execute("UPDATE counter SET value = 3 WHERE name = 'session_id'")
        connection.execute("INSERT INTO token VALUES ('t', 'admin', 'd', 1, '', NULL, NULL, NULL, NULL, NULL)")
    with closing(open_writer(home.data.telemetry, Durability.NORMAL)) as connection:
        migrate.migrate(connection, "telemetry")


def test_a_directory_of_version_1_goes_on(tmp_path: Path) -> None:
    """Its providers promise nothing yet, its sessions go on, its numbers stay used; work begins with job 1."""
    home = DiskHome(tmp_path / "data")
    make_version_1(home)

    async def story(store: DiskStore) -> None:
        loaded = await store.load()
        (provider,) = (row for row in loaded.rows if isinstance(row, ProviderRow))
        assert ({"zone": "a"}, 4.0, 50) == (provider.labels, provider.resources.cpus, provider.stay_began_ms)
        assert (Promises(), None, "", 0) == (
            provider.promises,
            provider.quarantined_until_ms,
            provider.quarantine_why,
            provider.quarantines,
        )
        assert [3] == [row.session_id for row in loaded.rows if isinstance(row, SessionRow)]
        assert ["t"] == [row.token_id for row in loaded.rows if isinstance(row, TokenRow)]
        assert (8, 4) == (loaded.next_key, loaded.next_session_id)
        assert (1, 1, 1) == (loaded.next_job_id, loaded.next_token, loaded.next_audit)
        await store.commit([Put(a_job(1)), Put(a_spec(1)), Put(a_step(1))])
        await store.maintain(NOON_MS)
        assert () == (await store.check()).problems

    home.run(story)
    assert home.data.logs.is_dir()

    async def again(store: Store) -> int:
        return (await store.load()).next_job_id

    assert 2 == home.run(again)


def test_a_migration_that_is_interrupted_is_begun_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that fails leaves the version before it; the next start makes it whole."""
    home = DiskHome(tmp_path / "data")
    make_version_1(home)
    real = migrate.scripts

    def cut_short(database: str) -> list[str]:
        return (
            [*real(database)[:1], real(database)[1] + "INSERT INTO nowhere VALUES (1);"]
            if database == "truth"
            else real(database)
        )

    async def nothing(store: Store) -> int:
        return len((await store.load()).rows)

    with monkeypatch.context() as patched:
        patched.setattr(migrate, "scripts", cut_short)
        with pytest.raises(Exception, match="nowhere"):
            home.run(nothing)
    assert 3 == home.run(nothing)


def test_an_older_program_refuses_the_newer_schema(tmp_path: Path) -> None:
    """It says which version it would need, and changes nothing."""
    home = DiskHome(tmp_path / "data")

    async def nothing(store: Store) -> None:
        await store.commit([])

    home.run(nothing)
    with closing(open_writer(home.data.truth, Durability.FULL)) as connection:
        (first, *_) = migrate.scripts("truth")
        with pytest.raises(CoordError) as refusal:
            migrate.migrate(connection, "truth", [first])
    assert Code.SCHEMA_NEWER is refusal.value.code
