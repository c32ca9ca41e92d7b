"""Sessions, heartbeats and rollups: newest first, in the window, page by page."""

from __future__ import annotations

from coordinator.core.commands import Put
from coordinator.core.ids import ProviderId, ProviderKey
from coordinator.ports.store import HeartbeatRow, HourRow, ImportedSession, Store
from tests.conformance.homes import DAY_MS, HOUR_MS, NOON_MS, Home, a_beat, a_provider, a_session, imported

A = ProviderId("a")
ONE = ProviderKey(1)


def test_sessions_that_touch_the_window_come_newest_first(home: Home) -> None:
    """One that ended before the window is left out; one that reaches into it, or is open, is in."""

    async def story(store: Store) -> list[int]:
        await store.commit(
            [
                Put(a_session(1, NOON_MS - 9_000, NOON_MS - 8_000)),
                Put(a_session(2, NOON_MS - 7_000, NOON_MS)),
                Put(a_session(3, NOON_MS + 1_000, NOON_MS + 2_000)),
                Put(a_session(4, NOON_MS + 3_000)),
                Put(a_session(5, NOON_MS + 4_000, provider="b")),
                Put(a_session(6, NOON_MS - 20_000, coordinator="other")),
            ]
        )
        return [row.session_id for row in await store.sessions(A, NOON_MS, 100)]

    assert [4, 3, 2, 6] == home.run(story)


def test_pages_of_sessions_join_without_a_gap_or_a_double(home: Home) -> None:
    """Reading page by page gives what one large page gives, with equal times and a window that cuts sessions."""

    async def story(store: Store) -> None:
        rows = [a_session(n, NOON_MS + n // 3 * 1_000, NOON_MS + n // 3 * 1_000 + 500) for n in range(1, 30)]
        rows.append(a_session(30, NOON_MS - 5_000, NOON_MS + 90_000, coordinator="other"))
        await store.commit([Put(row) for row in rows])
        since_ms = NOON_MS + 2_000
        whole = await store.sessions(A, since_ms, 100)
        assert 25 == len(whole)
        paged = page = await store.sessions(A, since_ms, 4)
        while page:
            last = page[-1]
            page = await store.sessions(A, since_ms, 4, (last.connected_at_ms, last.session_id))
            paged = paged + page
        assert whole == paged

    home.run(story)


def test_history_is_known_of_enrolled_and_imported_providers(home: Home) -> None:
    """`has_history` says whether any session of this provider is known."""

    async def story(store: Store) -> list[bool]:
        await store.commit([Put(a_provider("fresh", 2)), Put(a_session(1, provider="seen"))])
        await store.import_sessions([imported(1, "brought", 1, 2)])
        return [await store.has_history(ProviderId(name)) for name in ("seen", "brought", "fresh", "unknown")]

    assert [True, True, False, False] == home.run(story)


def test_heartbeats_are_the_same_before_and_after_sealing(home: Home) -> None:
    """Rows, order, nulls and text come out the same from three hours in tables, and from their segments."""
    rows = [
        a_beat(
            NOON_MS + at * 600_000,
            key,
            n,
            memory_pressure=None if at % 2 else at / 17,
            cpu_usage=0.1 * key,
            thermal_state=None if at % 3 else at % 4,
            memory_available_gb=31.25,
            gpu_memory_active_gb=None,
            gpu_memory_cache_gb=0.0,
            backend_state="ready" if at % 2 else None,
            active_model="mödel '\"" if key == 1 else None,
            capacity=1e9,
        )
        for at in range(18)
        for key in (1, 2, 3)
        for n in (0, 1)
    ]
    expected = sorted((row for row in rows if row.key == 1), key=lambda row: row[:3], reverse=True)

    async def story(store: Store) -> None:
        await store.append_heartbeats(rows)
        assert expected == await store.heartbeats(ONE, 0, 1_000)
        await store.maintain(NOON_MS + 2 * HOUR_MS + HOUR_MS // 2)
        assert expected == await store.heartbeats(ONE, 0, 1_000)

    async def again(store: Store) -> None:
        assert expected == await store.heartbeats(ONE, 0, 1_000)
        assert expected[:20] == await store.heartbeats(ONE, NOON_MS, 20)
        middle_ms = NOON_MS + HOUR_MS + 600_000
        window = [row for row in expected if NOON_MS + 600_000 <= row.observed_at_ms < middle_ms]
        assert window == await store.heartbeats(ONE, NOON_MS + 600_000, 1_000, middle_ms)
        assert [] == await store.heartbeats(ProviderKey(99), 0, 10)

    home.run(story)
    home.run(again)


def test_a_heartbeat_with_an_existing_key_replaces_it(home: Home) -> None:
    """Written again, within a batch or later, a heartbeat is there once, as it was last."""

    async def story(store: Store) -> list[HeartbeatRow]:
        await store.append_heartbeats([a_beat(NOON_MS, cpu_usage=0.1), a_beat(NOON_MS, cpu_usage=0.2)])
        await store.append_heartbeats([a_beat(NOON_MS, cpu_usage=0.3)])
        return await store.heartbeats(ONE, 0, 10)

    assert [a_beat(NOON_MS, cpu_usage=0.3)] == home.run(story)


def test_a_batch_of_any_size_and_order_is_stored_whole(home: Home) -> None:
    """Batches that fill no chunk, or lie across hours in any order, lose nothing."""
    rows = [a_beat(NOON_MS + (i * 37 % 131) * 60_000, i % 2 + 1, i) for i in range(131)]

    async def story(store: Store) -> int:
        await store.append_heartbeats(rows)
        return sum([len(await store.heartbeats(ProviderKey(key), 0, 1_000)) for key in (1, 2)])

    assert 131 == home.run(story)


def test_heartbeats_that_come_after_their_hour_was_sealed_are_not_lost(home: Home) -> None:
    """Late ones are shown in their place and counted in the rollup, before and after they are sealed too."""
    early = [a_beat(NOON_MS + at * 1_000, cpu_usage=0.5) for at in (1, 5, 9)]
    late = [a_beat(NOON_MS + at * 1_000, cpu_usage=1.0) for at in (3, 7)]
    expected = sorted(early + late, reverse=True)

    async def story(store: Store) -> list[HourRow]:
        await store.append_heartbeats(early)
        await store.maintain(NOON_MS + 2 * HOUR_MS)
        await store.append_heartbeats(late)
        assert expected == await store.heartbeats(ONE, 0, 10)
        assert expected[:2] == await store.heartbeats(ONE, 0, 2)
        await store.maintain(NOON_MS + 2 * HOUR_MS)
        assert expected == await store.heartbeats(ONE, 0, 10)
        assert expected[1:3] == await store.heartbeats(ONE, 0, 2, NOON_MS + 9_000)
        return await store.hours(ONE, 0, 10)

    (hour,) = home.run(story)
    assert (5, 0.7) == (hour.heartbeats, round(hour.mean_cpu_usage or 0, 9))


def test_rollup_means_are_over_the_rows_that_have_a_value(home: Home) -> None:
    """Count, means without nulls, the worst thermal state; computed again it is the same, grown it is renewed."""

    async def story(store: Store) -> None:
        await store.append_heartbeats(
            [
                a_beat(NOON_MS + 1, cpu_usage=0.25, memory_pressure=0.5, thermal_state=0, memory_available_gb=8.0),
                a_beat(NOON_MS + 2, cpu_usage=0.75, thermal_state=2, memory_available_gb=16.0),
                a_beat(NOON_MS + 3),
                a_beat(NOON_MS + 4, key=2),
                a_beat(NOON_MS + HOUR_MS, cpu_usage=1.0),
            ]
        )
        now_ms = NOON_MS + HOUR_MS + 60_000
        first = HourRow(ONE, NOON_MS, 3, 0.5, 0.5, 2, 12.0)
        second = HourRow(ONE, NOON_MS + HOUR_MS, 1, None, 1.0, None, None)
        for _ in range(2):
            await store.maintain(now_ms)
            assert [second, first] == await store.hours(ONE, 0, 10)
        assert [HourRow(ProviderKey(2), NOON_MS, 1, None, None, None, None)] == await store.hours(ProviderKey(2), 0, 9)
        await store.append_heartbeats([a_beat(NOON_MS + HOUR_MS + 1, cpu_usage=0.0)])
        await store.maintain(NOON_MS + 3 * HOUR_MS)
        newer = second._replace(heartbeats=2, mean_cpu_usage=0.5)
        assert [newer, first] == await store.hours(ONE, 0, 10)
        assert [newer] == await store.hours(ONE, 0, 1)
        assert [first] == await store.hours(ONE, 0, 10, NOON_MS + HOUR_MS)
        assert [newer] == await store.hours(ONE, NOON_MS + HOUR_MS, 10)

    home.run(story)


def test_what_is_old_enough_is_removed_and_nothing_else(home: Home) -> None:
    """Heartbeats after 28 days by the hour, rollups and ended sessions after 400; an open session stays."""

    async def story(store: Store) -> None:
        await store.commit(
            [
                Put(a_session(1, NOON_MS, NOON_MS + 1)),
                Put(a_session(2, NOON_MS, provider="open")),
                Put(a_session(3, NOON_MS, NOON_MS + 2 * DAY_MS, provider="later")),
            ]
        )
        await store.append_heartbeats([a_beat(NOON_MS + HOUR_MS - 1), a_beat(NOON_MS + HOUR_MS)])
        await store.maintain(NOON_MS + 28 * DAY_MS)
        assert 2 == len(await store.heartbeats(ONE, 0, 10))
        await store.maintain(NOON_MS + 28 * DAY_MS + HOUR_MS)
        assert [a_beat(NOON_MS + HOUR_MS)] == await store.heartbeats(ONE, 0, 10)
        await store.maintain(NOON_MS + 29 * DAY_MS)
        assert [] == await store.heartbeats(ONE, 0, 10)
        assert 2 == len(await store.hours(ONE, 0, 10))
        await store.maintain(NOON_MS + 401 * DAY_MS)
        assert [] == await store.hours(ONE, 0, 10)
        names = [ProviderId(name) for name in ("a", "open", "later")]
        assert [False, True, True] == [await store.has_history(name) for name in names]

    home.run(story)


def test_imported_history_ages_from_its_own_end(home: Home) -> None:
    """A history of years ago is not removed for being old; what ended 400 days before its last end is."""

    async def story(store: Store) -> None:
        begins = [("old", NOON_MS), ("newer", NOON_MS + 10 * DAY_MS), ("newest", NOON_MS + 405 * DAY_MS)]
        rows = [ImportedSession(i, who, at, at + HOUR_MS, None) for i, (who, at) in enumerate(begins, 2)]
        await store.import_sessions(rows[:2])
        await store.maintain(NOON_MS + 2_000 * DAY_MS)
        assert [True, True] == [await store.has_history(ProviderId(who)) for who in ("old", "newer")]
        await store.import_sessions(rows[2:])
        await store.maintain(NOON_MS + 2_000 * DAY_MS)
        assert [False, True, True] == [await store.has_history(ProviderId(who)) for who, _ in begins]

    home.run(story)
