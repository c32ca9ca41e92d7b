"""The relay takes log bytes: stored before they are acknowledged, never doubled, bounded, and only from who may."""

from __future__ import annotations

import random

import pytest

from cli.conditions import saturation
from coordinator.core.commands import Put
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.core.rows import AttemptState, LeaseToken
from coordinator.ports.logs import LogKey
from coordinator.service.relay.settings import RelaySettings
from coordinator.wire import LOG_BYTES_MAX, LOG_UNWANTED, LogChunk
from tests.unit.service.relay_rig import (
    ATTEMPT,
    ERR,
    OUT,
    TOKEN,
    Connection,
    Rig,
    a_chunk,
    an_attempt,
    until,
    with_relay,
)

FULL = CoordError(Code.STORE_FULL, "the disk is full", "make room")


def test_bytes_are_acknowledged_when_they_are_stored_and_not_before() -> None:
    """While the write is under way nothing is said; then the whole length is."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        rig.logs.gate.clear()
        rig.relay.take(agent, a_chunk(0, b"hello "))
        await until(lambda: bool(rig.logs.batches))
        rig.relay.take(agent, a_chunk(6, b"world"))
        assert agent.acks == [] and rig.relay.waiting_bytes == 11
        rig.logs.gate.set()
        await until(lambda: agent.acked() == 11)
        assert await rig.stored() == b"hello world"
        assert rig.relay.waiting_bytes == 0

    with_relay(test)


def test_what_comes_twice_is_stored_once() -> None:
    """After a reconnect an agent sends again from what it knows to be acknowledged; the overlap is skipped."""

    async def test(rig: Rig) -> None:
        first, second = Connection(1), Connection(2)
        rig.relay.take(first, a_chunk(0, b"0123456789"))
        await until(lambda: first.acked() == 10)
        rig.relay.gone(first)
        rig.relay.take(second, a_chunk(4, b"456789abc"))
        await until(lambda: second.acked() == 13)
        assert await rig.stored() == b"0123456789abc"

    with_relay(test)


def test_an_agent_that_knew_less_goes_on_where_the_file_ends_and_nothing_is_dropped() -> None:
    """The coordinator died between the disk and the acknowledgement: the agent begins below, hears, and jumps ahead."""

    async def test(rig: Rig) -> None:
        first, second = Connection(1), Connection(2)
        rig.relay.take(first, a_chunk(0, b"0123456789"))
        await until(lambda: first.acked() == 10)
        rig.relay.gone(first)
        rig.relay.take(second, a_chunk(2, b"23"))
        await until(lambda: second.acked() == 10)
        rig.relay.take(second, a_chunk(10, b"abc"))
        await until(lambda: second.acked() == 13)
        assert second.acks == [(OUT, 10), (OUT, 13)] and rig.relay.counters.dropped_bytes == 0

    with_relay(test)


def test_a_frame_without_bytes_asks_where_to_go_on() -> None:
    """It is answered with the stored length, also of a stream of which nothing came on this connection."""

    async def test(rig: Rig) -> None:
        first, second = Connection(1), Connection(2)
        rig.relay.take(first, a_chunk(0, b"0123456789"))
        await until(lambda: first.acked() == 10)
        rig.relay.take(second, a_chunk(0, b""))
        await until(lambda: second.acked() == 10)

    with_relay(test)


def test_adjoining_pieces_become_one_write_and_keep_their_place_between_the_streams() -> None:
    """A hundred lines that came while the disk was busy are one write; a line of the other stream parts them."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        rig.logs.gate.clear()
        rig.relay.take(agent, a_chunk(0, b"x"))
        await until(lambda: len(rig.logs.batches) == 1)
        for offset in range(1, 101):
            rig.relay.take(agent, a_chunk(offset, b"y"))
        rig.relay.take(agent, a_chunk(0, b"oh\n", ERR))
        rig.relay.take(agent, a_chunk(101, b"z"))
        rig.logs.gate.set()
        await until(lambda: agent.acked() == 102)
        assert [(w.key, len(w.data)) for w in rig.logs.batches[1]] == [(OUT, 100), (ERR, 3), (OUT, 1)]

    with_relay(test)


@pytest.mark.parametrize(
    ("chunk", "provider"),
    [
        (a_chunk(0, b"x", token=LeaseToken(1, 4)), "a"),
        (a_chunk(0, b"x", token=LeaseToken(1, 6)), "a"),
        (a_chunk(0, b"x", token=LeaseToken(0, 5)), "a"),
        (a_chunk(0, b"x"), "another"),
        (a_chunk(0, b"x", LogKey(ATTEMPT, 1, 0)), "a"),
        (a_chunk(0, b"x", LogKey((JobId(9), 0, 0, 1), 0, 0)), "a"),
    ],
    ids=["older", "newer", "older generation", "another's", "no such rank", "no such attempt"],
)
def test_bytes_that_do_not_belong_are_refused_and_their_sender_told_to_stop(chunk: LogChunk, provider: str) -> None:
    """Nothing is stored; the agent hears a stop, and that nothing of that stream is wanted."""

    async def test(rig: Rig) -> None:
        agent = Connection(1, provider)
        rig.relay.take(agent, chunk)
        await until(lambda: bool(agent.stopped))
        assert agent.stopped == [(chunk.attempt_id, chunk.token)]
        assert agent.acked(LogKey(chunk.attempt_id, chunk.rank, chunk.stream)) == LOG_UNWANTED
        assert rig.logs.batches == [] and rig.relay.counters.refused == 1

    with_relay(test)


def test_a_fenced_attempt_writes_no_more() -> None:
    """From the moment at which its fence is durable."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        rig.relay.take(agent, a_chunk(0, b"before"))
        await until(lambda: agent.acked() == 6)
        rig.changed(an_attempt(state=AttemptState.LOST), fenced=True)
        rig.relay.take(agent, a_chunk(6, b"after"))
        assert agent.stopped == [(ATTEMPT, TOKEN)]
        assert await rig.stored() == b"before"

    with_relay(test)


def test_the_rest_of_a_log_is_taken_after_the_end_and_after_a_restart() -> None:
    """An attempt that ended before this start is known by its row in the store; a lost one is not let in."""

    async def test(rig: Rig) -> None:
        ended, lost = (JobId(7), 0, 0, 1), (JobId(7), 0, 1, 1)
        rows = (an_attempt(ended, AttemptState.COMPLETED, out_bytes=3), an_attempt(lost, AttemptState.LOST))
        await rig.store.commit([Put(row) for row in rows])
        agent = Connection(1)
        rig.relay.take(agent, a_chunk(0, b"abc", LogKey(ended, 0, 0)))
        rig.relay.take(agent, a_chunk(0, b"abc", LogKey(lost, 0, 0)))
        await until(lambda: agent.acked(LogKey(ended, 0, 0)) == 3 and bool(agent.stopped))
        assert agent.stopped == [(lost, TOKEN)]

    with_relay(test)


def test_a_gap_is_not_stored_and_its_sender_goes_back_once() -> None:
    """Bytes behind a hole are dropped; an acknowledgement that repeats an offset sends the agent back to it."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        rig.relay.take(agent, a_chunk(0, b"0123"))
        await until(lambda: agent.acked() == 4)
        for offset in (6, 8, 10):
            rig.relay.take(agent, a_chunk(offset, b"xx"))
        await until(lambda: len(agent.acks) >= 2)
        assert agent.acks == [(OUT, 4), (OUT, 4)]
        rig.relay.take(agent, a_chunk(4, b"4567"))
        await until(lambda: agent.acked() == 8)
        assert await rig.stored() == b"01234567"

    with_relay(test)


def test_a_full_disk_costs_no_byte_and_no_socket_stands_still_for_it() -> None:
    """Nothing is acknowledged meanwhile; when it takes writes again everything is there, in order."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        rig.logs.fault = FULL
        size = 64 * 1024
        whole = random.Random(5).randbytes(64 * size)
        for offset in range(0, len(whole), size):
            rig.relay.take(agent, a_chunk(offset, whole[offset : offset + size]))
        await until(lambda: rig.relay.counters.append_failures >= 2)
        assert agent.acks == [] and agent.holds == 0 and rig.relay.failing
        assert rig.relay.waiting_bytes <= 1024 * 1024
        rig.logs.fault = None
        while (at := agent.acked()) < len(whole):
            before = len(agent.acks)
            await until(lambda before=before, at=at: len(agent.acks) > before or agent.acked() != at)  # type: ignore[misc]
            at = agent.acked()
            if agent.acks[-2:] == 2 * [(OUT, at)]:  # told to go back
                for offset in range(at, len(whole), size):
                    rig.relay.take(agent, a_chunk(offset, whole[offset : offset + size]))
        assert await rig.stored() == whole
        assert rig.relay.counters.dropped_bytes > 0 and not rig.relay.failing

    with_relay(test, RelaySettings(retry_s=0.01, bytes_max=1024 * 1024, stop_s=0.2))


def test_saturation_is_told_while_it_lasts_and_some_time_after() -> None:
    """A full disk, then what found no room meanwhile; quiet again when nothing was dropped for a while."""

    async def test(rig: Rig) -> None:
        probe, agent = saturation(rig.relay), Connection(1)
        assert probe() is None
        rig.logs.fault = FULL
        rig.relay.take(agent, a_chunk(0, b"x" * 1_000))
        await until(lambda: rig.relay.failing)
        told = probe()
        assert told is not None and "takes no logs" in told
        rig.relay.take(agent, a_chunk(1_000, b"y" * 1_000))
        rig.logs.fault = None
        await until(lambda: not rig.relay.failing)
        told = probe()
        assert told is not None and "1 pieces of logs found no room" in told
        for _ in range(31):
            told = probe()
        assert told is None

    with_relay(test, RelaySettings(retry_s=0.01, bytes_max=1_500, stop_s=0.2))


def test_a_slow_disk_holds_up_the_socket_that_brings_much_and_no_other() -> None:
    """It is read again when half is stored, or when the disk takes so long that heartbeats would suffer."""

    async def test(rig: Rig) -> None:
        loud, quiet = Connection(1), Connection(2, "b")
        other = (JobId(2), 0, 0, 1)
        rig.changed(an_attempt(other, providers=("b",)))
        rig.logs.gate.clear()
        for offset in range(0, 8 * LOG_BYTES_MAX, LOG_BYTES_MAX):
            rig.relay.take(loud, a_chunk(offset, b"x" * LOG_BYTES_MAX))
        rig.relay.take(quiet, a_chunk(0, b"a line\n", LogKey(other, 0, 0)))
        assert (loud.holds, quiet.holds) == (1, 0)
        rig.logs.gate.set()
        await until(lambda: loud.holds == 0)
        await until(lambda: loud.acked() == 8 * LOG_BYTES_MAX)
        rig.logs.gate.clear()
        for offset in range(8 * LOG_BYTES_MAX, 16 * LOG_BYTES_MAX, LOG_BYTES_MAX):
            rig.relay.take(loud, a_chunk(offset, b"x" * LOG_BYTES_MAX))
        assert loud.holds == 1
        await until(lambda: loud.holds == 0)
        assert loud.held_ever == 2 and quiet.held_ever == 0

    with_relay(test, RelaySettings(connection_bytes_max=4 * LOG_BYTES_MAX, hold_s=0.1, stop_s=0.2))


def test_a_flood_of_one_attempt_does_not_hold_up_a_line_of_another() -> None:
    """Each has its turn in every batch."""

    async def test(rig: Rig) -> None:
        loud, quiet = Connection(1), Connection(2, "b")
        other = (JobId(2), 0, 0, 1)
        rig.changed(an_attempt(other, providers=("b",)))
        rig.logs.gate.clear()
        rig.relay.take(loud, a_chunk(0, b"x"))
        await until(lambda: len(rig.logs.batches) == 1)
        for offset in range(0, 8 * LOG_BYTES_MAX, LOG_BYTES_MAX):
            rig.relay.take(loud, a_chunk(1 + offset, b"x" * LOG_BYTES_MAX))
        rig.relay.take(quiet, a_chunk(0, b"a line\n", LogKey(other, 0, 0)))
        rig.logs.gate.set()
        await until(lambda: quiet.acked(LogKey(other, 0, 0)) == 7)
        assert [w.key for w in rig.logs.batches[1]][:2] == [OUT, LogKey(other, 0, 0)]
        assert sum(len(w.data) for w in rig.logs.batches[1]) <= 2 * LOG_BYTES_MAX + 7

    with_relay(test, RelaySettings(batch_bytes=2 * LOG_BYTES_MAX, stop_s=0.2))


def test_a_broken_disk_ends_the_relay() -> None:
    """Anything but a full disk is not survived: the process ends, and nothing was acknowledged."""
    agent = Connection(1)

    async def test(rig: Rig) -> None:
        rig.logs.fault = CoordError(Code.STORE_BROKEN, "a sync failed", "look at the disk")
        rig.relay.take(agent, a_chunk(0, b"x"))
        await until(lambda: agent.acks != [])

    with pytest.raises(BaseExceptionGroup) as caught:
        with_relay(test)
    assert agent.acks == []
    assert caught.group_contains(CoordError, match="a sync failed")


def test_a_connection_that_lasts_costs_nothing_for_the_attempts_that_are_over() -> None:
    """A machine that runs a million short tasks on one connection: nothing is kept of those whose logs are whole; a
    tail that comes after the end is taken and acknowledged all the same."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        for number in range(1, 41):
            attempt_id = (JobId(1), 0, 0, number)
            out = LogKey(attempt_id, 0, 0)
            rig.changed(an_attempt(attempt_id))
            rig.relay.take(agent, a_chunk(0, b"hello", out))
            if number % 2:
                await until(lambda out=out: agent.acked(out) == 5)  # type: ignore[misc]
            rig.changed(an_attempt(attempt_id, AttemptState.COMPLETED, out_bytes=11))
            rig.relay.take(agent, a_chunk(5, b" world", out))
            await until(lambda out=out: agent.acked(out) == 11)  # type: ignore[misc]
            assert b"hello world" == await rig.stored(out)
        assert not rig.relay._streams and not rig.relay._senders[agent.conn_id].streams
        assert rig.relay._senders[agent.conn_id].bytes == 0 and rig.relay.waiting_bytes == 0

    with_relay(test)
