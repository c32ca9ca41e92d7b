"""Segments: what they hold, what a crash leaves, what cannot be read."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from pathlib import Path

import duckdb
import pytest

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import ProviderKey
from store.children import run_child
from store.durable import DiskStore
from store.heartbeats import COLUMNS
from store.manifest import file_name
from store.segment_reader import batches
from tests.conformance.homes import HOUR_MS, NOON_MS, DiskHome, a_beat

ONE = ProviderKey(1)
AFTER_MS = NOON_MS + HOUR_MS + 300_000


def test_a_segment_is_sorted_in_small_groups_of_one_provider_after_the_other(tmp_path: Path) -> None:
    """Order (key, time, n), zstd, and statistics by which a provider is found without reading the rest."""
    home = DiskHome(tmp_path / "data")
    rows = [a_beat(NOON_MS + at * 1_000, key) for at in range(300) for key in range(1, 101)]

    async def story(store: DiskStore) -> None:
        await store.append_heartbeats(rows)
        await store.maintain(AFTER_MS)

    home.run(story)
    (path,) = home.data.segments.iterdir()
    assert file_name(NOON_MS, 0) == path.name
    with duckdb.connect() as connection:
        table = connection.execute("SELECT * FROM read_parquet(?)", [str(path)])
        assert set(COLUMNS) == {column[0] for column in table.description or ()}
        found = [row[:3] for row in table.fetchall()]
        assert sorted((row.key, row.observed_at_ms, row.n) for row in rows) == found
        groups = connection.execute(
            "SELECT stats_min_value::INT, stats_max_value::INT, compression FROM parquet_metadata(?)"
            " WHERE path_in_schema = 'key' ORDER BY row_group_id",
            [str(path)],
        ).fetchall()
    assert len(groups) == 4
    assert {"ZSTD"} == {group[2] for group in groups}
    assert all(one[1] <= other[0] for one, other in pairwise(groups))


def test_an_hour_is_sealed_only_when_it_is_long_over(tmp_path: Path) -> None:
    """Five minutes after its end, not before: late batches are still written where they belong."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        await store.append_heartbeats([a_beat(NOON_MS)])
        await store.maintain(AFTER_MS - 1)
        assert [] == list(home.data.segments.iterdir())
        await store.maintain(AFTER_MS)
        assert 1 == len(list(home.data.segments.iterdir()))

    home.run(story)


def test_a_start_sweeps_what_an_interrupted_sealing_left(tmp_path: Path) -> None:
    """Temporary files, and a segment whose rows are still in their table, go; one that may be the only copy stays."""
    home = DiskHome(tmp_path / "data")

    async def unsealed(store: DiskStore) -> None:
        await store.append_heartbeats([a_beat(NOON_MS)])

    home.run(unsealed)
    (home.data.segments / ".sealing-123-x.parquet").write_bytes(b"half")
    (home.data.segments / ".sealing-123-spill").mkdir()
    (home.data.segments / file_name(NOON_MS, 0)).write_bytes(b"renamed, never adopted")
    only_copy = home.data.segments / file_name(NOON_MS - HOUR_MS, 0)
    only_copy.write_bytes(b"nobody knows it")

    async def swept(store: DiskStore) -> None:
        assert [only_copy] == list(home.data.segments.iterdir())
        assert any(only_copy.name in problem for problem in (await store.check()).problems)
        assert [a_beat(NOON_MS)] == await store.heartbeats(ONE, 0, 9)

    home.run(swept)


def test_a_segment_that_cannot_be_read_is_left_out_and_reported(tmp_path: Path) -> None:
    """The other hours are shown; the check names the one that is missing from the answer."""
    home = DiskHome(tmp_path / "data")
    rows = [a_beat(NOON_MS + n * HOUR_MS) for n in range(3)]

    async def story(store: DiskStore) -> None:
        await store.append_heartbeats(rows)
        await store.maintain(NOON_MS + 4 * HOUR_MS)
        (home.data.segments / file_name(NOON_MS + HOUR_MS, 0)).write_bytes(b"PAR1 no parquet PAR1")
        (home.data.segments / file_name(NOON_MS, 0)).chmod(0o600)
        assert [rows[2], rows[0]] == await store.heartbeats(ONE, 0, 9)
        assert any(file_name(NOON_MS + HOUR_MS, 0) in line for line in store.set_aside)

    home.run(story)


def test_heartbeats_that_come_while_an_hour_is_sealed_stay(tmp_path: Path) -> None:
    """The manifest is not taken when the table has grown since the child read it; the next round seals all."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        await store.append_heartbeats([a_beat(NOON_MS)])
        publish = store._sealing._publish

        def publish_late(temporary: str, name: str) -> None:
            publish(temporary, name)
            asyncio.run_coroutine_threadsafe(store.append_heartbeats([a_beat(NOON_MS + 5)]), loop).result(10)

        loop = asyncio.get_running_loop()
        store._sealing._publish = publish_late  # type: ignore[method-assign]
        await store.maintain(AFTER_MS)
        assert [] == list(home.data.segments.iterdir())
        store._sealing._publish = publish  # type: ignore[method-assign]
        await store.maintain(AFTER_MS)
        assert [NOON_MS + 5, NOON_MS] == [row.observed_at_ms for row in await store.heartbeats(ONE, 0, 9)]
        assert 1 == len(list(home.data.segments.iterdir()))

    home.run(story)


def test_a_question_opens_few_files_first() -> None:
    """One hour, then more at a time; every hour once."""
    assert [] == batches(0)
    assert [(0, 1), (1, 4), (4, 12), (12, 36), (36, 50)] == batches(50)


def test_a_child_that_fails_or_hangs_is_told_and_gone(tmp_path: Path) -> None:
    """Its last words are in the error; one that takes too long is killed."""

    async def story() -> None:
        with pytest.raises(CoordError) as refusal:
            await run_child("store.segment_reader", (), b"no request", 30)
        assert (Code.INTERNAL, True) == (refusal.value.code, "msgspec." in refusal.value.message)
        with pytest.raises(CoordError) as refusal:
            await run_child("http.server", ("0", "--bind", "127.0.0.1", "--directory", str(tmp_path)), b"", 0.3)
        assert Code.TIMEOUT is refusal.value.code

    asyncio.run(story())


def test_an_hour_without_rows_leaves_no_segment(tmp_path: Path) -> None:
    """A table that a rolled-back batch left empty is dropped without a file."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        await store.append_heartbeats([a_beat(NOON_MS)])
        await store._telemetry.transact(lambda c: c.execute("DELETE FROM heartbeat_490000") and None)
        await store.maintain(AFTER_MS)
        assert [] == list(home.data.segments.iterdir())
        assert [] == await store.heartbeats(ONE, 0, 9)

    home.run(story)


def test_an_hour_that_cannot_be_sealed_holds_up_no_other(tmp_path: Path) -> None:
    """Its failure is told once the hours after it are sealed and what is old enough is removed; its rows stay."""
    home = DiskHome(tmp_path / "data")

    async def story(store: DiskStore) -> None:
        await store.append_heartbeats([a_beat(NOON_MS - 100 * HOUR_MS)])
        await store.maintain(AFTER_MS - 100 * HOUR_MS)
        await store.append_heartbeats([a_beat(NOON_MS)])
        await store.maintain(AFTER_MS)
        (home.data.segments / file_name(NOON_MS, 0)).unlink()
        await store.append_heartbeats([a_beat(NOON_MS + 5), a_beat(NOON_MS + HOUR_MS)])
        with pytest.raises(CoordError) as refusal:
            await store.maintain(AFTER_MS + HOUR_MS)
        assert Code.INTERNAL is refusal.value.code
        assert [file_name(NOON_MS + HOUR_MS, 0)] == [path.name for path in home.data.segments.iterdir()]
        assert NOON_MS + 5 in [row.observed_at_ms for row in await store.heartbeats(ONE, NOON_MS, 9)]

    home.settings = type(home.settings)(heartbeats_keep_ms=50 * HOUR_MS)
    home.run(story)
