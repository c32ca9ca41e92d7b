"""Reading logs: as they grow, from any arrival on, from the end backwards; a slow reader costs nobody anything."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from coordinator.core.rows import AttemptState
from coordinator.ports.logs import LogKey
from coordinator.service.relay.reading import Piece
from coordinator.service.relay.settings import RelaySettings
from coordinator.wire import LOG_BYTES_MAX
from tests.unit.service.relay_rig import (
    ATTEMPT,
    ERR,
    OUT,
    Connection,
    Rig,
    a_chunk,
    an_attempt,
    until,
    with_relay,
)


async def all_of(pieces: AsyncIterator[Piece]) -> list[Piece]:
    return [piece async for piece in pieces]


async def write(rig: Rig, agent: Connection, key: LogKey, data: bytes) -> None:
    """Have these bytes stored behind what there is."""
    length = await rig.logs.length(key)
    rig.relay.take(agent, a_chunk(length, data, key))
    await until(lambda: agent.acked(key) == length + len(data))


def test_a_follower_gets_every_byte_as_it_comes_and_ends_with_the_log() -> None:
    """Both streams in the order in which they came; the end is when the exit's lengths are stored."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        await write(rig, agent, OUT, b"before\n")
        follower = rig.relay.follow(ATTEMPT, 0)
        assert (await anext(follower)).data == b"before\n"
        waiting = asyncio.ensure_future(anext(follower))
        await until(lambda: rig.relay.followers == 1)
        await write(rig, agent, ERR, b"oh\n")
        assert (await waiting).data == b"oh\n"
        rest = asyncio.ensure_future(all_of(follower))
        rig.changed(an_attempt(state=AttemptState.COMPLETED, out_bytes=12, err_bytes=3))
        await write(rig, agent, OUT, b"late\n")
        assert [(p.number, p.mark.stream, p.mark.offset, p.data) for p in await rest] == [(2, 0, 7, b"late\n")]
        assert rig.relay.followers == 0

    with_relay(test)


def test_reading_goes_on_where_it_stopped() -> None:
    """From any arrival on, what is read is the rest of the file, for every one of them."""

    async def test(rig: Rig) -> None:
        agent, dice = Connection(1), random.Random(7)
        for _ in range(40):
            await write(rig, agent, dice.choice((OUT, ERR)), dice.randbytes(dice.randint(1, 3_000)))
        rig.changed(an_attempt(state=AttemptState.FAILED, out_bytes=await rig.logs.length(OUT)))
        pieces = await all_of(rig.relay.stored(ATTEMPT, 0))
        for key in (OUT, ERR):
            assert b"".join(p.data for p in pieces if p.mark.stream == key.stream) == await rig.stored(key)
        for start in range(len(pieces) + 1):
            assert await all_of(rig.relay.follow(ATTEMPT, 0, start)) == pieces[start:]

    with_relay(test)


def test_an_attempt_that_is_lost_or_never_was_ends_its_followers() -> None:
    """Nothing more can come of it."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        await write(rig, agent, OUT, b"some")
        rest = asyncio.ensure_future(all_of(rig.relay.follow(ATTEMPT, 0)))
        await until(lambda: rig.relay.followers == 1)
        rig.changed(an_attempt(state=AttemptState.LOST), fenced=True)
        assert [p.data for p in await rest] == [b"some"]
        assert await all_of(rig.relay.follow((*ATTEMPT[:3], 99), 0)) == []
        assert await all_of(rig.relay.follow(ATTEMPT, 5)) == []

    with_relay(test)


def test_the_rest_of_a_log_whose_agent_stays_away_is_not_waited_for_without_end() -> None:
    """The exit promised more than is stored; the reader's patience has a bound."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        await write(rig, agent, OUT, b"some")
        rig.changed(an_attempt(state=AttemptState.COMPLETED, out_bytes=100))
        assert [p.data for p in await all_of(rig.relay.follow(ATTEMPT, 0))] == [b"some"]

    with_relay(test, RelaySettings(tail_patience_s=0.05, stop_s=0.2))


def test_a_reader_that_stops_reading_holds_up_nobody_and_catches_up() -> None:
    """Megabytes go by; nothing is queued for it, and what it gets then is the file."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        slow = rig.relay.follow(ATTEMPT, 0)
        await write(rig, agent, OUT, b"first\n")
        assert (await anext(slow)).data == b"first\n"
        for number in range(8):
            await write(rig, agent, OUT, bytes([number]) * LOG_BYTES_MAX)
        rig.changed(an_attempt(state=AttemptState.COMPLETED, out_bytes=await rig.logs.length(OUT)))
        rest = b"".join(piece.data for piece in await all_of(slow))
        assert b"first\n" + rest == await rig.stored()
        assert rig.relay.waiting_bytes == 0 and agent.held_ever == 0

    with_relay(test)


def test_many_readers_of_one_log_are_woken_and_leave_nothing_behind() -> None:
    """Each of them gets all of it; one that goes away in the middle disturbs no other."""

    async def test(rig: Rig) -> None:
        agent = Connection(1)
        readers = [asyncio.ensure_future(all_of(rig.relay.follow(ATTEMPT, 0))) for _ in range(20)]
        await until(lambda: rig.relay.followers == 20)
        await write(rig, agent, OUT, b"one\n")
        readers.pop().cancel()
        await until(lambda: rig.relay.followers == 19)
        await write(rig, agent, OUT, b"two\n")
        rig.changed(an_attempt(state=AttemptState.COMPLETED, out_bytes=8))
        for reader in readers:
            assert b"".join(p.data for p in await reader) == b"one\ntwo\n"
        assert rig.relay.followers == 0

    with_relay(test)


def test_a_stop_ends_every_follower() -> None:
    """Nobody waits for a relay that is gone."""

    async def test(rig: Rig) -> None:
        follower = asyncio.ensure_future(all_of(rig.relay.follow(ATTEMPT, 0)))
        await until(lambda: rig.relay.followers == 1)
        await rig.relay.close()
        assert await follower == []

    with_relay(test)


@pytest.mark.parametrize("lines", [1, 2, 5, 39, 40, 41, 1_000])
@pytest.mark.parametrize("ends", [True, False], ids=["newline at the end", "cut off"])
def test_the_last_lines_are_found_from_the_end(lines: int, ends: bool) -> None:
    """As `tail -n` has it, whatever the pieces are that the lines came in."""

    async def test(rig: Rig) -> None:
        agent, dice = Connection(1), random.Random(lines)
        whole = "".join(f"line {n} {'x' * dice.randint(0, 30)}\n" for n in range(40)).encode()
        whole = whole if ends else whole + b"cut"
        at = 0
        while at < len(whole):
            size = dice.randint(1, 60)
            await write(rig, agent, OUT, whole[at : at + size])
            await write(rig, agent, ERR, b"noise\n")
            at += size
        start = await rig.relay.tail_lines(ATTEMPT, 0, lines, stream=0)
        pieces = [p for p in await all_of(rig.relay.stored(ATTEMPT, 0, start.mark)) if p.mark.stream == 0]
        expected = b"".join(whole.splitlines(keepends=True)[-lines:])
        assert b"".join(p.data for p in pieces)[start.skip :] == expected

    with_relay(test)
