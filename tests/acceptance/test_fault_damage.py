"""A damaged data directory: it is refused at start, nothing is made in its place, and a backup brings it back."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.cli_runs import Coord, Server
from tests.acceptance.processes import Agent, sessions_of, when_online

PAGE_BYTES = 4096


class Saved(NamedTuple):
    """A data directory as a kill left it, and a backup made shortly before."""

    data: Path
    backup: Path
    tokens: int
    session_id: int
    agent: Agent


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Saved]:
    """Tokens, a provider and an open session; a backup; one more token; kill -9, so that a log is left to replay."""
    directory = tmp_path_factory.mktemp("saved")
    with Server(directory) as head:
        client = head.start()
        with Agent(directory, head, "w1") as agent:
            when_online(client, agent)
            for number in range(20):
                client.create_token(role="read-only", note=f"number {number}")
            backup = Path(client.backup().path)
            moved = directory / "elsewhere"
            client.create_token(role="read-only", note="after the backup")
            session_id = sessions_of(client, "w1")[-1].session_id
            head.kill()
            shutil.move(backup, moved)
        assert (head.data / "truth.sqlite-wal").stat().st_size > 10 * PAGE_BYTES
        yield Saved(head.data, moved, 20, session_id, agent)


def fold(path: Path) -> None:
    """Bring the log into the database, so that the damage is to a page that is read."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0


def overwrite(path: Path, offset: int, size: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(bytes(range(1, 256)) * (size // 255 + 1))


def a_table_page(data: Path) -> None:
    truth = data / "truth.sqlite"
    fold(truth)
    with closing(sqlite3.connect(truth)) as connection:
        page = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'token'").fetchone()[0]
    overwrite(truth, (page - 1) * PAGE_BYTES + 8, 2000)


def a_cut_file(data: Path) -> None:
    truth = data / "truth.sqlite"
    fold(truth)
    os.truncate(truth, truth.stat().st_size // 2 // PAGE_BYTES * PAGE_BYTES)


def an_emptied_file(data: Path) -> None:
    os.truncate(data / "truth.sqlite", 0)


def no_truth(data: Path) -> None:
    for path in data.glob("truth.sqlite*"):
        path.unlink()


def no_telemetry(data: Path) -> None:
    for path in data.glob("telemetry.sqlite*"):
        path.unlink()


def a_garbage_log(data: Path) -> None:
    log = data / "truth.sqlite-wal"
    overwrite(log, 0, log.stat().st_size)


def a_log_damaged_in_the_middle(data: Path) -> None:
    log = data / "truth.sqlite-wal"
    overwrite(log, log.stat().st_size // 2, PAGE_BYTES)


def primary_files(data: Path) -> dict[str, int]:
    """The databases and the truth's log: what a refused start may not make, cut or empty."""
    return {path.name: path.stat().st_size for path in data.glob("*.sqlite")} | {
        path.name: path.stat().st_size for path in data.glob("truth.sqlite-wal")
    }


def generation(data: Path) -> int:
    with closing(sqlite3.connect(f"file:{data / 'truth.sqlite'}?mode=ro", uri=True)) as connection:
        row = connection.execute("SELECT value FROM meta WHERE name = 'generation'").fetchone()
    return int(row[0]) if row is not None else 1


@pytest.mark.parametrize(
    "damage",
    [
        a_table_page,
        a_cut_file,
        an_emptied_file,
        no_truth,
        no_telemetry,
        a_garbage_log,
        a_log_damaged_in_the_middle,
    ],
)
def test_damage_is_refused_at_start(saved: Saved, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    """Status 70, the restore command is named, no database is made, cut or emptied."""
    data = tmp_path / "data"
    shutil.copytree(saved.data, data)
    damage(data)
    before = primary_files(data)
    refused = Coord(data)("serve", "--listen", "127.0.0.1:0")
    assert refused.code == 70, refused.err
    assert "coord db restore" in refused.err and "Traceback" not in refused.err
    after = primary_files(data)
    assert after.keys() == before.keys()
    # What telemetry's log held may have been folded into it: it is whole, and a backup wants it.
    assert all(
        size == before[name] or (name.startswith("telemetry") and size > before[name]) for name, size in after.items()
    )


def test_a_backup_brings_a_damaged_directory_back_and_its_agent_goes_on(saved: Saved, tmp_path: Path) -> None:
    """The generation rises; what the backup held is there; the agent comes back by itself with the credential it
    has, in a session with a number of its own, and the one of before ended at its last heartbeat."""
    data = tmp_path / "data"
    shutil.copytree(saved.data, data)
    a_table_page(data)
    restored = Coord(data)("db", "restore", str(saved.backup))
    assert restored.code == 0, restored.err
    assert generation(data) == generation(saved.backup) + 1
    with Server(tmp_path) as head:
        client = head.start()
        assert len(client.tokens(role="read-only", limit=500).entries) == saved.tokens
        assert client.check().problems == ()
        with Agent(tmp_path, head, "w1", "--state", str(saved.agent.state)) as agent:
            when_online(client, agent)
            first, second = sessions_of(client, "w1")
            assert (first.session_id, first.disconnect_reason) == (saved.session_id, "coordinator_restart")
            assert first.disconnected_at is not None and first.disconnected_at <= second.connected_at
            assert second.disconnected_at is None
