"""Nothing that the daemon says to its keeper is lost while the keeper is busy."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator

import pytest

from coordinator.agent import channel
from coordinator.agent.keeper_line import KeeperLine
from tests.unit.agent.keeper_side import TOKEN


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, socket.socket]]:
    keeper, daemon = channel.socket_pair()
    with keeper, daemon:
        yield keeper, daemon


def heard(keeper: socket.socket) -> list[channel.ToKeeper]:
    """Everything that lies in the channel."""
    found: list[channel.ToKeeper] = []
    try:
        while (messages := channel.hear_daemon(keeper)) is not None:
            found += messages
    except BlockingIOError:
        pass
    return found


def test_orders_wait_in_their_order_and_the_newest_truth_replaces_older_ones(
    ends: tuple[socket.socket, socket.socket],
) -> None:
    """Ten thousand orders to a keeper that stands still arrive, once each; of a deadline the last alone."""

    async def go() -> None:
        keeper, daemon = ends
        line = KeeperLine(daemon, lambda message: None, lambda: None)
        line.open()
        wanted = 10_000
        for n in range(wanted):
            line.send(channel.End(attempt=f"1.0.{n}.1", token=TOKEN, why="", grace_s=0.0))
            line.send(channel.Deadline(attempt="1.0.0.1", token=TOKEN, freeze_at_s=float(n)))
            line.send(channel.Pulse(resume_key=f"key-{n}"))
        found: list[channel.ToKeeper] = []
        async with asyncio.timeout(60):
            while sum(isinstance(message, channel.End) for message in found) < wanted:
                found += heard(keeper)
                await asyncio.sleep(0)
        line.close()
        assert [m.attempt for m in found if isinstance(m, channel.End)] == [f"1.0.{n}.1" for n in range(wanted)]
        deadlines = [m.freeze_at_s for m in found if isinstance(m, channel.Deadline)]
        keys = [m.resume_key for m in found if isinstance(m, channel.Pulse)]
        assert (deadlines[-1], keys[-1]) == (wanted - 1, f"key-{wanted - 1}")
        assert len(deadlines) < wanted // 2
        assert deadlines == sorted(deadlines)

    asyncio.run(go())


def test_the_end_of_the_keeper_is_told(ends: tuple[socket.socket, socket.socket]) -> None:
    """After what it said last was heard."""

    async def go() -> None:
        keeper, daemon = ends
        said: list[object] = []
        gone = asyncio.Event()
        line = KeeperLine(daemon, said.append, gone.set)
        channel.say(keeper, channel.Told())
        keeper.close()
        line.open()
        async with asyncio.timeout(60):
            await gone.wait()
        line.close()
        assert said == [channel.Told()]

    asyncio.run(go())


def test_many_messages_travel_together_as_far_as_there_is_room(ends: tuple[socket.socket, socket.socket]) -> None:
    """What did not fit is a tail of what was to be said; large ones share no message that would be too large."""
    keeper, daemon = ends
    orders = [channel.End(attempt=f"1.0.{n}.1", token=TOKEN, why="x" * 5_000, grace_s=0.0) for n in range(1_000)]
    found: list[channel.ToKeeper] = []
    said = channel.say_many(daemon, orders)
    assert 0 < said < len(orders)
    while len(found) < len(orders):
        found += heard(keeper)
        assert len(found) == said
        said += channel.say_many(daemon, orders[said:])
    assert orders == found
