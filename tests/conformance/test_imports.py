"""History from elsewhere: all of it or nothing, and twice is once."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.core.commands import Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import ProviderId
from coordinator.core.rows import EndReason
from coordinator.ports.store import ImportedSession, ImportReport, Store
from store.durable import DiskStore
from store.layout import DataDir
from store.memory import MemoryStore
from tests.conformance.homes import HOUR_MS, NOON_MS, Home, a_session, imported

A = ProviderId("a")


def test_an_import_twice_is_an_import_once(home: Home) -> None:
    """The second time everything is unchanged, and the report says what the file holds."""
    rows = [imported(1, "a", 1_000, 2_000), imported(2, "a", 2_000, 3_000), imported(3, "b", 500)]

    async def story(store: Store) -> None:
        report = ImportReport(rows=3, added=3, closed=0, unchanged=0, providers=2, first_ms=500, last_ms=3_000)
        assert report == await store.import_sessions(rows)
        before = await store.sessions(A, 0, 10)
        again = await store.import_sessions(list(reversed(rows)))
        assert (0, 0, 3) == (again.added, again.closed, again.unchanged)
        assert before == await store.sessions(A, 0, 10)
        assert [("import", 2_000), ("import", 1_000)] == [(r.coordinator_id, r.connected_at_ms) for r in before]

    home.run(story)


def test_imported_sessions_are_none_of_the_coordinators_own(home: Home) -> None:
    """Their ids are negative, no start loads them, and they may lie beside sessions that we saw ourselves."""

    async def story(store: Store) -> None:
        await store.commit([Put(a_session(5, 1_500, 2_500, coordinator=store.coordinator_id))])  # type: ignore[attr-defined]
        await store.import_sessions([imported(1, "a", 1_000, 2_000), imported(2, "b", 1)])
        loaded = await store.load()
        assert ([], 6) == (loaded.rows, loaded.next_session_id)
        assert [True, False] == [row.session_id < 0 for row in reversed(await store.sessions(A, 0, 10))]

    home.run(story)


def test_an_open_session_gets_its_end_from_a_later_import(home: Home) -> None:
    """The row that was open is closed in place; an older file that still has it open changes nothing."""

    async def story(store: Store) -> None:
        await store.import_sessions([imported(1, "a", 1_000)])
        report = await store.import_sessions([imported(1, "a", 1_000, 4_000), imported(2, "a", 4_000)])
        assert (1, 1, 0) == (report.added, report.closed, report.unchanged)
        older = await store.import_sessions([imported(1, "a", 1_000)])
        assert (0, 0, 1) == (older.added, older.closed, older.unchanged)
        (second, first) = await store.sessions(A, 0, 10)
        assert (4_000, EndReason.READ_ERROR, None) == (
            first.disconnected_at_ms,
            first.disconnect_reason,
            second.disconnected_at_ms,
        )

    home.run(story)


@pytest.mark.parametrize(
    ("rows", "lines"),
    [
        ([imported(4, "a", 2_000, 1_000)], [4]),
        ([ImportedSession(2, "a", 2_000, None, EndReason.DRAINING)], [2]),
        ([imported(1, "z", 1, 2), imported(9, "a", 1_000, 9_000)], [9]),
        ([imported(1, "a", 1_000, 2_000, EndReason.DRAINING)], [1]),
        ([imported(1, "a", 1_500, 1_600)], [1]),
        ([imported(1, "a", 500, 1_001)], [1]),
        ([imported(1, "a", 500)], [1]),
        ([imported(1, "n", 10, 30), imported(2, "n", 29, 40)], [2]),
        ([imported(1, "n", 10), imported(2, "n", 29, 40)], [2]),
        ([imported(1, "n", 10, 30), imported(2, "n", 10, 31)], [2]),
        ([imported(n, "n", 10 * n, 10 * n + 15) for n in range(1, 40)], list(range(2, 22))),
    ],
    ids=[
        "ends before it begins",
        "a reason without an end",
        "another end than stored",
        "another reason than stored",
        "within a stored one",
        "into a stored one",
        "open before a stored one",
        "overlap in the file",
        "open and yet followed",
        "two ends in the file",
        "first twenty",
    ],
)
def test_contradictions_name_their_lines_and_change_nothing(
    home: Home, rows: list[ImportedSession], lines: list[int]
) -> None:
    """BAD_IMPORT names the lines that contradict, at most 20 of them; not one row of the file is kept."""

    async def story(store: Store) -> None:
        await store.import_sessions([imported(1, "a", 1_000, 2_000)])
        before = await store.sessions(A, 0, 100)
        with pytest.raises(CoordError) as refusal:
            await store.import_sessions([*rows, imported(1_000, "innocent", 1, 2)])
        assert Code.BAD_IMPORT is refusal.value.code
        named = [int(part.split(":")[0]) for part in refusal.value.message.split("line ")[1:] if ":" in part]
        assert lines == named
        assert before == await store.sessions(A, 0, 100)
        assert not await store.has_history(ProviderId("innocent"))

    home.run(story)


def test_a_session_named_twice_in_a_file_is_one(home: Home) -> None:
    """Equal lines, and an open line beside one with the end, are the same session."""

    async def story(store: Store) -> None:
        report = await store.import_sessions(
            [imported(1, "a", 10, 20), imported(2, "a", 10, 20), imported(3, "a", 30), imported(4, "a", 30, 40)]
        )
        assert (4, 2, 2) == (report.rows, report.added, report.unchanged)
        assert [40, 20] == [row.disconnected_at_ms for row in await store.sessions(A, 0, 10)]

    home.run(story)


def test_an_empty_import_is_a_report_of_nothing(home: Home) -> None:
    """No rows, no change, no first and last."""

    async def story(store: Store) -> ImportReport:
        return await store.import_sessions([])

    assert ImportReport(rows=0, added=0, closed=0, unchanged=0, providers=0, first_ms=None, last_ms=None) == home.run(
        story
    )


LINES = st.lists(
    st.tuples(
        st.sampled_from("ab"),
        st.integers(0, 8),
        st.one_of(st.none(), st.integers(0, 9)),
        st.sampled_from([EndReason.READ_ERROR, EndReason.DRAINING]),
    ),
    max_size=6,
)


def test_disk_and_twin_agree_on_any_sequence_of_imports(tmp_path: Path) -> None:
    """For any files one after the other both give the same reports, name the same lines, and keep the same rows."""

    async def told(store: Store, files: list[list[ImportedSession]]) -> list[object]:
        said: list[object] = []
        for rows in files:
            try:
                said.append(await store.import_sessions(rows))
            except CoordError as error:
                said.append((error.code, error.message))
        names = sorted({row.provider_id for rows in files for row in rows})
        for name in names:
            found = await store.sessions(ProviderId(name), 0, 100)
            said += [(r.connected_at_ms, r.disconnected_at_ms, r.disconnect_reason) for r in found]
        return said

    count = 0
    with asyncio.Runner() as runner:
        disk = runner.run(DiskStore.open(DataDir(tmp_path / "data")))
        twin = MemoryStore()

        @settings(max_examples=100, database=None, deadline=None)
        @given(st.lists(LINES, min_size=1, max_size=3))
        def agree(drawn: list[list[tuple[str, int, int | None, EndReason]]]) -> None:
            nonlocal count
            count += 1
            files = [
                [
                    imported(line, f"{name}{count}", began, ended, reason if ended is not None else None)
                    for line, (name, began, ended, reason) in enumerate(rows, start=1)
                ]
                for rows in drawn
            ]
            assert runner.run(told(twin, files)) == runner.run(told(disk, files))

        try:
            agree()
        finally:
            runner.run(disk.close())


def test_a_session_that_is_open_elsewhere_ends_where_our_own_begins(home: Home) -> None:
    """Whichever comes first, the import or the provider's own connection; another provider's stays open."""

    async def story(store: Store) -> None:
        await store.import_sessions([imported(2, "a", NOON_MS), imported(3, "other", NOON_MS)])
        await store.commit([Put(a_session(1, NOON_MS + HOUR_MS, provider="a"))])
        await store.commit([Put(a_session(2, NOON_MS + 2 * HOUR_MS, provider="b"))])
        await store.import_sessions([imported(2, "b", NOON_MS)])
        for who, begins in (("a", NOON_MS + HOUR_MS), ("b", NOON_MS + 2 * HOUR_MS)):
            own, other = await store.sessions(ProviderId(who), 0, 10)
            assert own.disconnected_at_ms is None
            assert (begins, EndReason.SUPERSEDED) == (other.disconnected_at_ms, other.disconnect_reason)
        (still,) = await store.sessions(ProviderId("other"), 0, 10)
        assert still.disconnected_at_ms is None
        report = await store.import_sessions([imported(2, "a", NOON_MS), imported(3, "b", NOON_MS)])
        assert 2 == report.unchanged

    home.run(story)
