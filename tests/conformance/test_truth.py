"""What was committed is what a coordinator starts from."""

from __future__ import annotations

from coordinator.core.commands import Delete, Put
from coordinator.core.ids import PoolName, ProviderId, TokenId
from coordinator.core.rows import MetaRow, OutageRow, PoolRow, Role, Row, TokenRow, row_key
from coordinator.ports.store import Loaded, Store
from tests.conformance.homes import (
    NOON_MS,
    DiskHome,
    Home,
    MemoryHome,
    a_beat,
    a_full_provider,
    a_provider,
    a_session,
    a_token,
    is_a_store,
)


def by_key(rows: list[Row]) -> dict[tuple[str, object], Row]:
    return {row_key(row): row for row in rows}


async def the_load(store: Store) -> Loaded:
    return await store.load()


def test_every_noun_comes_back_as_it_was_written(home: Home) -> None:
    """All fields of every row survive a restart, text of any kind included."""
    token = TokenRow(
        token_id=TokenId("t"),
        role=Role.JOIN,
        digest="abc",
        created_at_ms=5,
        note="für ''",
        expires_at_ms=6,
        revoked_at_ms=7,
        provider_id=ProviderId("p"),
        pool=PoolName("q"),
        tenant="u",
    )
    rows: list[Row] = [
        a_full_provider(),
        a_provider("plain", 8),
        token,
        a_token(),
        PoolRow(name=PoolName("gpu"), created_at_ms=3, note="x"),
        MetaRow(name="alive_at_ms", value=str(NOON_MS)),
        MetaRow(name="generation", value="4"),
    ]

    async def write(store: Store) -> None:
        await store.commit([Put(row) for row in rows])

    home.run(write)
    assert by_key(rows) == by_key(home.run(the_load).rows)


def test_only_our_own_open_sessions_are_loaded(home: Home) -> None:
    """A closed session, and one of another coordinator, is history."""

    async def story(store: DiskHome) -> tuple[set[int], int]:
        ours = store.coordinator_id  # type: ignore[attr-defined]
        session = a_session(3, coordinator=ours, boot_id="b", process_id="p", last_heartbeat_at_ms=NOON_MS)
        await store.commit(  # type: ignore[attr-defined]
            [
                Put(session),
                Put(a_session(4, ended_ms=NOON_MS + 1, provider="b", coordinator=ours)),
                Put(a_session(5, provider="c", coordinator="somebody else")),
            ]
        )
        loaded = await store.load()  # type: ignore[attr-defined]
        assert session in loaded.rows
        return {row.session_id for row in loaded.rows if row_key(row)[0] == "session"}, loaded.next_session_id

    assert ({3}, 6) == home.run(story)


def test_the_last_write_of_an_entity_in_a_batch_counts(home: Home) -> None:
    """Put, Put and Delete of one key in one batch leave what the last one says, in any mixture."""

    async def story(store: Store) -> set[tuple[str, object]]:
        await store.commit([Put(a_token("gone")), Put(a_provider("a", 1))])
        await store.commit(
            [
                Put(a_token("new")),
                Put(a_token("kept", note="old")),
                Delete("token", "gone"),
                Put(a_token("kept", note="newer")),
                Delete("token", "new"),
                Delete("provider", "a"),
                Put(a_provider("a", 2)),
                Delete("pool", "was never there"),
            ]
        )
        return set(by_key((await store.load()).rows))

    assert {("token", "kept"), ("provider", "a")} == home.run(story)
    kept = by_key(home.run(the_load).rows)
    assert a_token("kept", note="newer") == kept["token", "kept"]
    assert a_provider("a", 2) == kept["provider", "a"]


def test_an_empty_batch_is_fine(home: Home) -> None:
    """Nothing to write is no error."""

    async def story(store: Store) -> int:
        await store.commit([])
        await store.append_heartbeats([])
        return (await store.load()).next_session_id

    assert 1 == home.run(story)


def test_numbers_are_never_given_twice(home: Home) -> None:
    """After a provider was forgotten and a session removed, their numbers stay used, over restarts too."""

    async def story(store: Store) -> None:
        await store.commit([Put(a_provider("a", 9)), Put(a_session(12))])
        await store.commit([Delete("provider", "a"), Delete("session", 12)])

    home.run(story)
    loaded = home.run(the_load)
    assert (10, 13) == (loaded.next_key, loaded.next_session_id)


def test_outages_are_accepted_and_are_no_part_of_the_state(home: Home) -> None:
    """Outages are for analytics: a start does not read them."""

    async def story(store: Store) -> list[Row]:
        await store.commit([Put(OutageRow(coordinator_id="c", began_at_ms=1, ended_at_ms=2, cause="stall"))])
        await store.commit([Put(OutageRow(coordinator_id="c", began_at_ms=1, ended_at_ms=3, cause="stall"))])
        return (await store.load()).rows

    assert [] == home.run(story)


def test_telemetry_tells_of_later_heartbeats_than_the_truth(home: Home) -> None:
    """A provider with an open session and a heartbeat newer than its row is named with it; others are not."""

    async def story(store: Store) -> None:
        ours = store.coordinator_id  # type: ignore[attr-defined]
        await store.commit(
            [
                Put(a_provider("a", 1)),
                Put(a_provider("b", 2)),
                Put(a_provider("closed", 3)),
                Put(a_session(1, provider="a", coordinator=ours, last_heartbeat_at_ms=NOON_MS + 1_000)),
                Put(a_session(2, provider="b", coordinator=ours, last_heartbeat_at_ms=NOON_MS + 9_000)),
                Put(MetaRow(name="alive_at_ms", value=str(NOON_MS + 9_000))),
            ]
        )
        await store.append_heartbeats(
            [a_beat(NOON_MS + 2_000, 1), a_beat(NOON_MS + 8_000, 1), a_beat(NOON_MS + 8_000, 2), a_beat(NOON_MS, 3)]
        )

    home.run(story)
    assert [("a", NOON_MS + 8_000)] == [(b.provider_id, b.at_ms) for b in home.run(the_load).last_beats]


def test_both_kinds_are_what_the_service_asks_for() -> None:
    """The type checker sees that both are a ports.store.Store; their names are the same at run time."""
    names = {name for name in vars(Store) if not name.startswith("_")}
    assert names <= set(dir(is_a_store(MemoryHome()._store)))
