"""The heartbeat writer: bounded, never blocking, and honest about what it lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator import wire
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import ProviderId, ProviderKey
from coordinator.ports.store import HeartbeatRow, Store
from coordinator.service.clock import ObservedClock
from coordinator.service.heartbeats import HeartbeatSettings, HeartbeatWriter, Track
from tests.unit.service.links_rig import PATIENCE_S, ListStore, until

QUICK = HeartbeatSettings(
    rows_max=100, batch_rows=10, batch_age_s=0.01, flush_s=0.05, backoff_s=0.01, backoff_max_s=0.02, drain_s=0.2
)
FULL = CoordError(Code.STORE_FULL, "no space left")


def beats(*seqs: int) -> list[wire.Heartbeat]:
    return [wire.Heartbeat(seq=seq) for seq in seqs]


def a_track(writer: HeartbeatWriter, key: int = 1, process: str = "p") -> Track:
    return writer.track(ProviderId(f"node-{key}"), ProviderKey(key), process)


Body = Callable[[HeartbeatWriter, ListStore], Coroutine[Any, Any, None]]


def with_writer(body: Body, setting: HeartbeatSettings = QUICK) -> HeartbeatWriter:
    """Run `body` beside a running writer, then close it; nothing may be unaccounted for afterwards."""

    async def main() -> HeartbeatWriter:
        store = ListStore()
        writer = HeartbeatWriter(cast(Store, store), ObservedClock(), setting)
        async with asyncio.timeout(2 * PATIENCE_S), asyncio.TaskGroup() as group:
            group.create_task(writer.run())
            await body(writer, store)
            await writer.close()
        counted = writer.counters
        assert writer.waiting == 0
        assert counted.offered == (
            counted.stored + counted.duplicates + counted.dropped_full + counted.dropped_store
        ), counted
        return writer

    return asyncio.run(main())


def test_rows_wait_for_company_but_not_for_long() -> None:
    """A lone heartbeat is stored after the batch's age; a full batch at once and in batches of the set size."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        track = a_track(writer)
        writer.offer(track, beats(1), 5_000)
        await until(lambda: len(store.rows) == 1)
        writer.offer(track, beats(*range(2, 27)), 5_001)
        await until(lambda: len(store.rows) == 26)
        assert store.calls[0] == 1
        assert max(store.calls) == 10

    with_writer(body)


def test_rows_carry_the_contracts_fields() -> None:
    """Every field lands in its column, enumerations as their index."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        beat = wire.Heartbeat(
            seq=1,
            status="error",
            memory_pressure=0.25,
            cpu_usage=0.5,
            thermal_state="critical",
            memory_available_gb=1.5,
            gpu_memory_active_gb=2.5,
            gpu_memory_cache_gb=3.5,
            backend_state="ready",
            active_model="m",
            capacity=7.0,
        )
        writer.offer(a_track(writer, 9), [beat], 5_000)
        await until(lambda: len(store.rows) == 1)
        expected = HeartbeatRow(5_000, ProviderKey(9), 0, 4, 0.25, 0.5, 3, 1.5, 2.5, 3.5, "ready", "m", 7.0)
        assert store.rows == [expected]
        assert type(store.rows[0]) is HeartbeatRow

    with_writer(body)


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 5), st.lists(st.integers(1, 40), max_size=5)), max_size=40))
@settings(max_examples=60, deadline=None)
def test_no_two_rows_share_a_key_and_time_never_goes_back(said: list[tuple[int, int, list[int]]]) -> None:
    """For any sequence of providers, clock readings and seqs: keys are unique, and rise per provider."""

    async def main() -> None:
        store = ListStore()
        writer = HeartbeatWriter(cast(Store, store), ObservedClock(), QUICK)
        highest: dict[int, int] = {}
        fresh = 0
        for key, at_ms, seqs in said:
            writer.offer(a_track(writer, key), beats(*seqs), 1_000 + at_ms)
            for seq in seqs:
                if seq > highest.get(key, -1):
                    highest[key] = seq
                    fresh += 1
        async with asyncio.TaskGroup() as group:
            group.create_task(writer.run())
            await writer.close()
        keys = [(row.observed_at_ms, row.key, row.n) for row in store.rows]
        assert len(keys) == len(set(keys)) == min(fresh, QUICK.rows_max)
        for key in highest:
            own = [(at_ms, n) for at_ms, owner, n in keys if owner == key]
            assert own == sorted(own)

    asyncio.run(main())


def test_full_means_drop_and_count() -> None:
    """While the store is stuck the buffer stops at its bound; what came after is counted, then it goes on."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        store.gate.clear()
        track = a_track(writer)
        writer.offer(track, beats(*range(1, 301)), 5_000)
        assert writer.waiting == 100
        await until(lambda: writer.counters.flush_failures >= 2)
        writer.offer(track, beats(*range(301, 401)), 5_001)
        assert writer.waiting == 100
        assert writer.counters.dropped_full == 300
        latest = writer.latest(ProviderId("node-1"))
        assert latest is not None and latest[1].seq == 400
        store.gate.set()
        await until(lambda: len(store.rows) == 100)
        writer.offer(track, beats(401), 5_002)
        await until(lambda: len(store.rows) == 101)

    with_writer(body)


def test_a_stuck_store_holds_one_batch_and_no_row_is_written_twice() -> None:
    """A flush that outlives its time is waited for, not repeated: one call is under way, ever."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        store.gate.clear()
        writer.offer(a_track(writer), beats(*range(1, 31)), 5_000)
        await until(lambda: writer.counters.flush_failures >= 3)
        assert len(store.calls) == 1
        store.gate.set()
        await until(lambda: len(store.rows) == 30)
        assert store.under_way_max == 1
        assert len({(row.observed_at_ms, row.n) for row in store.rows}) == 30

    with_writer(body)


def test_a_full_disk_is_retried_with_a_pause_and_loses_nothing_within_the_bound() -> None:
    """The same rows go in once the store takes them again; the pauses grow to their cap."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        store.fail = FULL
        writer.offer(a_track(writer), beats(*range(1, 51)), 5_000)
        await until(lambda: writer.counters.flush_failures >= 4)
        assert writer.waiting == 50
        assert set(store.calls) == {10}
        store.fail = None
        await until(lambda: len(store.rows) == 50)

    writer = with_writer(body)
    assert writer.counters.dropped_full == writer.counters.dropped_store == 0


def test_a_failing_store_is_not_asked_without_pause() -> None:
    """Offers during the back-off do not shorten it."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        store.fail = FULL
        track = a_track(writer)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        seq = 0
        while loop.time() - began_s < 0.3:
            seq += 1
            writer.offer(track, beats(seq), 5_000 + seq)
            await asyncio.sleep(0)
        assert len(store.calls) <= 2 + (loop.time() - began_s) / QUICK.backoff_s

    with_writer(body)


def test_shutdown_writes_what_waits_without_the_back_off() -> None:
    """Also when the store had failed until then."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        store.fail = FULL
        writer.offer(a_track(writer), beats(*range(1, 36)), 5_000)
        await until(lambda: writer.counters.flush_failures >= 2)
        store.fail = None
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await writer.close()
        assert len(store.rows) == 35
        assert loop.time() - began_s < 5.0

    slow = HeartbeatSettings(rows_max=100, batch_rows=10, batch_age_s=0.01, backoff_s=0.01, backoff_max_s=60.0)
    with_writer(body, slow)


@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "full"])
def test_shutdown_ends_although_the_store_does_not_take_the_rows(stuck: bool) -> None:
    """Within its time; the rows are counted as lost to the store."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        if stuck:
            store.gate.clear()
        else:
            store.fail = FULL
        writer.offer(a_track(writer), beats(*range(1, 31)), 5_000)
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await writer.close()
        assert loop.time() - began_s < 5.0

    writer = with_writer(body)
    assert writer.counters.dropped_store == 30


def test_a_row_that_the_store_cannot_hold_is_set_aside_alone() -> None:
    """Its batch is halved until it is alone; the rest is stored."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        store.refused = {7}
        for key in range(1, 31):
            writer.offer(a_track(writer, key), beats(1), 5_000)
        await until(lambda: len(store.rows) == 29)

    writer = with_writer(body)
    assert writer.counters.dropped_store == 1
    assert writer.counters.stored == 29


def test_a_broken_store_ends_the_writer() -> None:
    """STORE_BROKEN is not retried: it surfaces in the task, which takes its owner along."""

    async def main() -> None:
        store = ListStore()
        store.fail = CoordError(Code.STORE_BROKEN, "I/O error")
        writer = HeartbeatWriter(cast(Store, store), ObservedClock(), QUICK)
        task = asyncio.ensure_future(writer.run())
        writer.offer(a_track(writer), beats(1, 2), 5_000)
        with pytest.raises(CoordError, match="I/O error"):
            await asyncio.wait_for(task, PATIENCE_S)
        assert writer.counters.dropped_store == 2

    asyncio.run(main())


def test_links_are_held_while_the_store_is_slower_and_let_go_when_there_is_room() -> None:
    """Crowded from the mark on; the callback comes once a quarter of it is left."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        store.gate.clear()
        writer.offer(a_track(writer), beats(*range(1, 61)), 5_000)
        assert writer.crowded
        resumed = asyncio.Event()
        writer.when_roomy(resumed.set)
        store.gate.set()
        await asyncio.wait_for(resumed.wait(), PATIENCE_S)
        assert len(store.rows) >= 50
        assert not writer.crowded

    patient = HeartbeatSettings(rows_max=100, batch_rows=10, batch_age_s=0.01, crowded_rows=40, hold_s=5.0)
    with_writer(body, patient)


@pytest.mark.parametrize("stuck", [True, False], ids=["stuck", "full"])
def test_links_are_not_held_by_a_store_that_fails(stuck: bool) -> None:
    """A stuck or full disk lets them go soon, and nobody is held again until it works: agents stay alive."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        if stuck:
            store.gate.clear()
        else:
            store.fail = FULL
        writer.offer(a_track(writer), beats(*range(1, 61)), 5_000)
        resumed = asyncio.Event()
        writer.when_roomy(resumed.set)
        await asyncio.wait_for(resumed.wait(), PATIENCE_S)
        assert not writer.crowded
        store.fail = None
        store.gate.set()
        await until(lambda: len(store.rows) == 60)

    with_writer(body, HeartbeatSettings(rows_max=100, batch_rows=10, batch_age_s=0.01, crowded_rows=40, hold_s=0.05))


def test_a_forgotten_provider_leaves_nothing_behind() -> None:
    """Its newest heartbeat is gone; the same name enrolled again starts anew."""

    async def body(writer: HeartbeatWriter, store: ListStore) -> None:
        writer.offer(a_track(writer), beats(5), 5_000)
        writer.forget(ProviderId("node-1"))
        assert writer.latest(ProviderId("node-1")) is None
        again = writer.track(ProviderId("node-1"), ProviderKey(2), "p")
        writer.offer(again, beats(1), 5_001)
        await until(lambda: len(store.rows) == 2)

    with_writer(body)
