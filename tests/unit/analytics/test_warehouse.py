"""The warehouse is derived: it follows the truth, and comes back the same after anything that befalls it."""

from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from analytics import warehouse as module
from analytics.reliability.columns import REASONS as OURS
from analytics.reliability.columns import Fleet, as_of
from analytics.warehouse import Warehouse, boot_codes
from store.columns import REASONS as THEIRS
from tests.unit.analytics.histories import T0, D, H, Row, every, fleet
from tests.unit.analytics.truths import MemoryTruth

NOW = T0 + 5 * D
HISTORY = [
    *every(0, H, H, T0, NOW),
    *[row._replace(ours=True, boot=1, beat=row.end) for row in every(1, 5 * H, 10_000, T0, NOW)],
    Row(2, T0 + D, ours=True, boot=3),
]


def opened(path: Path, truth: MemoryTruth) -> Warehouse:
    return Warehouse(path / "analytics" / "warehouse.duckdb", path / "analytics" / "views", truth, "256MB", 1)


def read(warehouse: Warehouse) -> Fleet:
    return as_of(warehouse.fleet(NOW, T0, warehouse.outages(NOW)), NOW)


def same(left: Fleet, right: Fleet) -> bool:
    """Equal in every column; boots may be called by other numbers."""
    one, other = left.sessions, right.sessions
    columns = zip((*one[:5], one.boot != 0, one.ours), (*other[:5], other.boot != 0, other.ours), strict=True)
    return all(bool(np.array_equal(a, b)) for a, b in columns) and left.first_seen.tolist() == right.first_seen.tolist()


def test_reasons_are_the_stores() -> None:
    """Both number the reasons alike: columns are taken over as they are."""
    assert THEIRS == OURS


def test_columns_are_those_of_the_truth(tmp_path: Path) -> None:
    """What is read back equals what the truth holds, in chunks of any size."""
    truth = MemoryTruth(HISTORY)
    house = opened(tmp_path, truth)
    assert len(HISTORY) == house.sync().rows
    assert ["p0", "p1", "p2"] == house.ids
    assert same(as_of(fleet(HISTORY), NOW), read(house))
    assert 0 == house.sync().rows


def test_chunks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A truth that is read seven rows at a time is the same truth, put in order on the way."""
    monkeypatch.setattr(module, "CHUNK_ROWS", 7)
    monkeypatch.setattr(module, "SETTLE_ROWS", 20)
    house = opened(tmp_path, MemoryTruth(HISTORY[::-1]))
    house.sync()
    found, expected = read(house), as_of(fleet(HISTORY), NOW)
    order = [house.ids.index(f"p{i}") for i in range(3)]
    assert sorted(np.array(order)[expected.sessions.provider].tolist()) == found.sessions.provider.tolist()
    assert sorted(expected.sessions.start.tolist()) == sorted(found.sessions.start.tolist())


def test_changed_session_replaces_its_row(tmp_path: Path) -> None:
    """A session that ended is one row, with its end."""
    truth = MemoryTruth([Row(0, T0, ours=True)])
    house = opened(tmp_path, truth)
    house.sync()
    truth.put(1, Row(0, T0, T0 + H, "clean_close", T0 + H, ours=True))
    assert 1 == house.sync().rows
    assert [T0 + H] == read(house).sessions.end.tolist()


def test_warehouse_goes_on_where_it_was(tmp_path: Path) -> None:
    """Opened again it reads only what is new."""
    truth = MemoryTruth(HISTORY)
    house = opened(tmp_path, truth)
    house.sync()
    house.close()
    truth.put(900, Row(3, T0 + D, T0 + 2 * D, ours=True))
    again = opened(tmp_path, truth)
    assert "" == again.rebuilt
    assert 1 == again.sync().rows
    assert same(as_of(fleet([*HISTORY, Row(3, T0 + D, T0 + 2 * D, ours=True)]), NOW), read(again))


@pytest.mark.parametrize("harm", ["gone", "garbage", "truncated", "schema", "epoch"])
def test_anything_wrong_with_the_file_and_it_is_filled_anew(tmp_path: Path, harm: str) -> None:
    """Missing, damaged, of another program or another epoch: the answers afterwards are the same."""
    truth = MemoryTruth(HISTORY)
    house = opened(tmp_path, truth)
    house.sync()
    before = read(house)
    house.close()
    file = tmp_path / "analytics" / "warehouse.duckdb"
    match harm:
        case "gone":
            file.unlink()
        case "garbage":
            file.write_bytes(b"\0" * 100_000)
        case "truncated":
            file.write_bytes(file.read_bytes()[:5000])
        case "schema":
            with duckdb.connect(str(file)) as con:
                con.execute("UPDATE meta SET value = '0' WHERE name = 'schema'")
        case "epoch":
            truth.restore("second")
    again = opened(tmp_path, truth)
    assert again.rebuilt
    assert len(HISTORY) == again.sync().rows
    assert same(before, read(again))


def test_only_our_own_old_sessions_are_dropped(tmp_path: Path) -> None:
    """History from elsewhere may be as old as it likes; ours goes after 400 days."""
    old = T0 - 500 * D
    truth = MemoryTruth([Row(0, old, old + H, ours=True), Row(1, old, old + H), Row(0, T0, T0 + H, ours=True)])
    house = opened(tmp_path, truth)
    house.sync()
    house.prune(NOW)
    assert [T0, old] == house.fleet(NOW, 0, house.outages(NOW)).sessions.start.tolist()


def test_silence_of_the_coordinator_is_unobserved(tmp_path: Path) -> None:
    """When it last said that it serves long ago, the time since is nobody's to judge."""
    truth = MemoryTruth([Row(0, T0, ours=True)])
    truth.alive = NOW - 2 * H
    house = opened(tmp_path, truth)
    house.sync()
    assert [(NOW - 2 * H, NOW)] == list(zip(*(column.tolist() for column in house.outages(NOW)), strict=True))


def test_boot_codes_tell_boots_apart() -> None:
    """Unknown is 0, equal is equal, different is different."""
    codes = boot_codes(["", "a", "b", "a", ""]).tolist()
    assert (0, 0) == (codes[0], codes[4])
    assert codes[1] == codes[3] != codes[2]


def test_nothing_outside_its_directory_can_be_reached(tmp_path: Path) -> None:
    """External access is shut and stays shut, but for the snapshots' directory."""
    house = opened(tmp_path, MemoryTruth())
    (tmp_path / "secret").write_text("x")
    con = house.cursor()
    for statement in (
        f"COPY (SELECT 1) TO '{tmp_path}/out.csv'",
        f"FROM read_text('{tmp_path}/secret')",
        "SET enable_external_access = true",
        f"ATTACH '{tmp_path}/other.duckdb'",
    ):
        with pytest.raises(duckdb.Error):
            con.execute(statement)
