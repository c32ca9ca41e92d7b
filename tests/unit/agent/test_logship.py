"""What is sent of a log, from where, and how far ahead: the relay's side of it is played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from coordinator import wire
from coordinator.agent import logship
from coordinator.agent.logship import LogShip
from tests.unit.agent.keeper_side import a_now

A = "1.0.0.1"


class Relay:
    """Takes frames; nothing is acknowledged by itself."""

    def __init__(self, ship: LogShip) -> None:
        self.ship = ship
        self.chunks: list[wire.LogChunk] = []
        self._news = asyncio.Event()

    async def send(self, frame: bytes) -> None:
        self.chunks.append(wire.log_chunk(frame))
        self._news.set()

    async def frames(self, n: int) -> list[wire.LogChunk]:
        """The first `n`, and no more of them after a few turns of the loop."""
        async with asyncio.timeout(60):
            while len(self.chunks) < n:
                self._news.clear()
                await self._news.wait()
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(self.chunks) == n
        return self.chunks

    def ack(self, offset: int, stream: int = 0) -> bool:
        return self.ship.acked(wire.LogAck(attempt=A, rank=0, stream=stream, offset=offset))


@asynccontextmanager
async def shipping(ship: LogShip) -> AsyncIterator[Relay]:
    """One connection of this ship."""
    relay = Relay(ship)
    ship.restart()
    task = asyncio.create_task(ship.run(relay.send))
    try:
        yield relay
    finally:
        task.cancel()
        await asyncio.wait({task})


def wrote(ship: LogShip, root: Path, data: bytes, stored: int = 0) -> None:
    """The attempt's stdout is this now."""
    now = a_now(root, out_bytes=len(data), out_stored=stored)
    Path(now.directory, "stdout").write_bytes(data)
    ship.update(now)


def test_after_a_lost_connection_it_asks_and_goes_on_from_the_answer(tmp_path: Path) -> None:
    """More had arrived than was acknowledged: only what the coordinator lacks is sent, and nothing twice."""

    async def go() -> None:
        ship = LogShip()
        async with shipping(ship) as relay:
            wrote(ship, tmp_path, b"abcdef")
            assert [(c.offset, c.data) for c in await relay.frames(1)] == [(0, b"abcdef")]
        wrote(ship, tmp_path, b"abcdefghi")
        async with shipping(ship) as relay:
            assert [(c.offset, c.data) for c in await relay.frames(1)] == [(0, b"")]
            assert relay.ack(6)
            assert [(c.offset, c.data) for c in (await relay.frames(2))[1:]] == [(6, b"ghi")]
            assert relay.ack(9)
            assert (ship.complete((A, 0)), ship.stored((A, 0))) == (True, (9, 0))

    asyncio.run(go())


def test_the_next_daemon_goes_on_from_what_the_keeper_knows_to_be_stored(tmp_path: Path) -> None:
    """It asks too: the daemon before it may have been acknowledged more than it could pass on."""

    async def go() -> None:
        ship = LogShip()
        wrote(ship, tmp_path, b"abcdef", stored=2)
        async with shipping(ship) as relay:
            assert [(c.offset, c.data) for c in await relay.frames(1)] == [(2, b"")]
            assert relay.ack(4)
            assert [(c.offset, c.data) for c in (await relay.frames(2))[1:]] == [(4, b"ef")]

    asyncio.run(go())


def test_an_acknowledgement_that_comes_again_sends_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator dropped what was behind: at once the first time, with pauses then, until it gets through."""
    monkeypatch.setattr(logship, "PAUSES_S", (0.0, 0.05))

    async def go() -> None:
        ship = LogShip()
        async with shipping(ship) as relay:
            wrote(ship, tmp_path, b"abc")
            await relay.frames(1)
            assert relay.ack(1)
            for n in range(2, 6):
                assert not relay.ack(1)
                assert [(c.offset, c.data) for c in (await relay.frames(n))[-1:]] == [(1, b"bc")]
            assert relay.ack(3)
            assert ship.complete((A, 0))

    asyncio.run(go())


def test_a_coordinator_that_has_less_than_it_said_is_sent_that_again(tmp_path: Path) -> None:
    """It was restored from a backup: what it says now counts."""

    async def go() -> None:
        ship = LogShip()
        async with shipping(ship) as relay:
            wrote(ship, tmp_path, b"abcdef")
            await relay.frames(1)
            assert relay.ack(6)
            assert not relay.ack(2)
            assert [(c.offset, c.data) for c in (await relay.frames(2))[1:]] == [(2, b"cdef")]

    asyncio.run(go())


def test_a_stream_never_runs_further_ahead_than_its_window(tmp_path: Path) -> None:
    """Sixteen frames of four megabytes, then one for each that is acknowledged."""

    async def go() -> None:
        ship = LogShip()
        async with shipping(ship) as relay:
            wrote(ship, tmp_path, bytes(6 << 20))
            full = wire.LOG_WINDOW_BYTES // wire.LOG_BYTES_MAX
            await relay.frames(full)
            assert relay.ack(wire.LOG_BYTES_MAX)
            assert (await relay.frames(full + 1))[-1].offset == wire.LOG_WINDOW_BYTES

    asyncio.run(go())


def test_a_slow_link_gets_smaller_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a heartbeat has less to wait behind; never below the least."""
    monkeypatch.setattr(logship, "SLOW_S", -1.0)
    monkeypatch.setattr(logship, "QUICK_S", -1.0)

    async def go() -> None:
        ship = LogShip()
        async with shipping(ship) as relay:
            wrote(ship, tmp_path, bytes(1 << 19))
            sizes = [len(c.data) >> 10 for c in await relay.frames(6)]
            assert sizes == [256, 128, 64, 32, 16, 16]

    asyncio.run(go())


def test_a_file_that_is_gone_is_waited_for_by_nobody(tmp_path: Path) -> None:
    """Somebody removed it: the attempt can be forgotten all the same, and others are sent."""

    async def go() -> None:
        ship = LogShip()
        async with shipping(ship) as relay:
            gone = a_now(tmp_path, attempt="1.0.1.1", out_bytes=5)
            ship.update(gone)
            wrote(ship, tmp_path, b"abc")
            await relay.frames(1)
            assert ship.complete(("1.0.1.1", 0))
            assert not ship.complete((A, 0))

    asyncio.run(go())


def test_what_is_unwanted_or_dropped_is_not_sent_any_more(tmp_path: Path) -> None:
    """A fenced attempt's log ends where it is; its bytes leave the window to others."""

    async def go() -> None:
        ship = LogShip()
        async with shipping(ship) as relay:
            wrote(ship, tmp_path, bytes(6 << 20))
            full = wire.LOG_WINDOW_BYTES // wire.LOG_BYTES_MAX
            await relay.frames(full)
            assert relay.ack(wire.LOG_UNWANTED)
            assert ship.complete((A, 0))
            wrote(ship, tmp_path, bytes(7 << 20))
            await relay.frames(full)
            ship.drop((A, 0))
            assert ship.stored((A, 0)) == (0, 0)

    asyncio.run(go())
