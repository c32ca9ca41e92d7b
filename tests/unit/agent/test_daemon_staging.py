"""Staging as the daemon does it: what the coordinator hears meanwhile, and what ends it."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator import wire
from coordinator.agent import channel, connection, laying
from coordinator.agent.places import Places
from coordinator.core.rows import EndCause
from coordinator.core.work.launch_plan import LaunchPlan
from tests.unit.agent.agents import RunningDaemon, a_config, a_daemon
from tests.unit.agent.coordinator_side import CoordinatorSide, coordinator_side
from tests.unit.agent.data_side import TENANT
from tests.unit.agent.keeper_side import A_SHARE, TOKEN

A = "1.0.0.1"
PLAN = LaunchPlan(argv=("true",), tenant=TENANT, inputs=True)


@asynccontextmanager
async def working(tmp_path: Path) -> AsyncIterator[tuple[CoordinatorSide, RunningDaemon]]:
    """A coordinator with one input for everybody, and a daemon whose keeper makes real directories."""
    async with coordinator_side() as side:
        side.version = 2
        side.data.needs("in", b"input" * 1_000)
        async with a_daemon(a_config(side, tmp_path / "state")) as agent:
            agent.keeper.places = Places(tmp_path / "state" / "attempts", tmp_path / "state" / "work", ())
            async with asyncio.timeout(60):
                await side.until(lambda: bool(side.beats))
                yield side, agent


async def held_up(side: CoordinatorSide, attempt: str = A) -> None:
    """Have an attempt launched whose input does not come."""
    side.data.hold.clear()
    await side.send(wire.Grant(attempt=attempt, rank=0, token=TOKEN, term_s=30.0, share=A_SHARE))
    await side.until(lambda: granted(attempt) in side.said)
    await side.send(wire.Launch(attempt=attempt, rank=0, token=TOKEN, plan=PLAN))
    await side.data.until(lambda: bool(side.data.gets))
    await side.until(lambda: phase("staging", attempt) in side.said)


def granted(attempt: str = A) -> wire.Granted:
    return wire.Granted(attempt=attempt, rank=0, token=TOKEN)


def phase(name: Any, attempt: str = A) -> wire.Phase:
    return wire.Phase(attempt=attempt, rank=0, token=TOKEN, phase=name)


def exits(side: CoordinatorSide) -> list[EndCause]:
    return [message.exit.cause for message in side.said if isinstance(message, wire.Exited)]


def test_the_coordinator_hears_of_it_and_the_lease_is_renewed(tmp_path: Path) -> None:
    """Staging is told, named in heartbeats and shown to people; the program runs only when everything is there."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await held_up(side)
            await side.until(lambda: side.beats[-1].attempts == (A,) and side.beats[-1].status == "busy")
            assert [held.phase for held in agent.daemon.status().attempts] == ["staging"]
            assert agent.keeper.of(channel.Run) == []
            side.data.hold.set()
            await side.until(lambda: phase("running") in side.said)
            (run,) = agent.keeper.of(channel.Run)
            work = tmp_path / "state" / "work" / Path(agent.keeper.nows[A].directory).name
            assert (work / "home" / "in").read_bytes() == b"input" * 1_000
            assert (run.plan.argv, run.plan.inputs) == (("true",), True)

    asyncio.run(go())


def test_it_goes_on_over_a_lost_connection(tmp_path: Path) -> None:
    """The next hello says that it is staged; an order that is repeated changes nothing."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await held_up(side)
            await side.open[-1].close()
            await side.until(lambda: len(side.hellos) == 2)
            assert [(held.attempt, held.phase) for held in side.hellos[-1].attempts] == [(A, "staging")]
            await side.until(lambda: bool(side.open))
            await side.send(wire.Launch(attempt=A, rank=0, token=TOKEN, plan=PLAN))
            side.data.hold.set()
            await side.until(lambda: phase("running") in side.said)
            assert len(agent.keeper.of(channel.Run)) == 1
            assert [what for _, what in side.data.asked] == ["staging"]

    asyncio.run(go())


def test_a_stop_ends_it(tmp_path: Path) -> None:
    """It exits as stopped, and nothing of it runs; the keeper may remove it when it is settled."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await held_up(side)
            await side.send(wire.Stop(attempt=A, token=TOKEN, why="cancelled"))
            await side.until(lambda: exits(side) == [EndCause.STOPPED])
            await side.send(wire.Settled(attempt=A, rank=0, token=TOKEN))
            await side.until(lambda: bool(agent.keeper.of(channel.Forget)))
            assert agent.keeper.of(channel.Run) == []
            work = tmp_path / "state" / "work"
            assert [path for path in work.rglob("*") if path.is_file()] == []
            side.data.hold.set()
            await side.until(lambda: len(side.beats) > 3 and side.beats[-1].attempts == ())
            assert agent.keeper.of(channel.Run) == []

    asyncio.run(go())


def test_its_directories_are_kept_until_nothing_writes_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk may hold a copy up for long; what is removed beneath it would come back."""
    begun, goes_on = threading.Event(), threading.Event()

    def slow(source: int, target: int, wanted: object) -> int:
        begun.set()
        goes_on.wait()
        return 0

    monkeypatch.setattr(laying, "copy_into", slow)

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            try:
                await side.send(wire.Grant(attempt=A, rank=0, token=TOKEN, term_s=30.0, share=A_SHARE))
                await side.until(lambda: granted() in side.said)
                await side.send(wire.Launch(attempt=A, rank=0, token=TOKEN, plan=PLAN))
                await asyncio.to_thread(begun.wait, 10)
                await side.send(wire.Stop(attempt=A, token=TOKEN, why="cancelled"))
                await side.until(lambda: exits(side) == [EndCause.STOPPED])
                await side.send(wire.Settled(attempt=A, rank=0, token=TOKEN))
                beats = len(side.beats)
                await side.until(lambda: len(side.beats) > beats + 5)
                assert agent.keeper.of(channel.Forget) == []
            finally:
                goes_on.set()
            await side.until(lambda: bool(agent.keeper.of(channel.Forget)))

    asyncio.run(go())


def test_a_failure_is_reported_as_that_of_staging(tmp_path: Path) -> None:
    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            side.data.blobs.clear()
            await side.send(wire.Grant(attempt=A, rank=0, token=TOKEN, term_s=30.0, share=A_SHARE))
            await side.until(lambda: granted() in side.said)
            await side.send(wire.Launch(attempt=A, rank=0, token=TOKEN, plan=PLAN))
            await side.until(lambda: exits(side) == [EndCause.STAGE])
            (end,) = agent.keeper.of(channel.End)
            assert (end.cause, end.code) == (EndCause.STAGE, 2)

    asyncio.run(go())


def test_leaving_ends_it(tmp_path: Path) -> None:
    """A daemon that is told to go does not wait for a transfer."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await held_up(side)
            agent.daemon.leave()
            await side.until(lambda: exits(side) == [EndCause.AGENT])
            await side.send(wire.Settled(attempt=A, rank=0, token=TOKEN))
            await agent.ended()
            assert agent.keeper.of(channel.Run) == []

    asyncio.run(go())


def test_an_attempt_without_inputs_is_launched_at_once(tmp_path: Path) -> None:
    """Nothing is asked for it, and no other phase is told."""

    async def go() -> None:
        async with working(tmp_path) as (side, _agent):
            await side.send(wire.Grant(attempt=A, rank=0, token=TOKEN, term_s=30.0, share=A_SHARE))
            await side.until(lambda: granted() in side.said)
            plan = msgspec.structs.replace(PLAN, inputs=False)
            await side.send(wire.Launch(attempt=A, rank=0, token=TOKEN, plan=plan))
            await side.until(lambda: phase("running") in side.said)
            assert side.data.asked == []
            assert phase("staging") not in side.said

    asyncio.run(go())


def test_what_is_cached_is_told_after_a_welcome_and_as_it_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not of an empty cache. Ahead of a grant it is filled on the coordinator's word."""
    monkeypatch.setattr(connection, "CACHED_AGAIN_S", 0.01)

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            assert side.hellos[0].promises.data
            assert side.cached == []
            (first,) = side.data.blobs
            await side.send(wire.Warm(attempt="5.0.0.1", rank=0))
            await side.until(lambda: bool(side.cached))
            assert side.cached[-1].digests == (first,)
            second = side.data.needs("more", os.urandom(100))
            await side.send(wire.Warm(attempt="6.0.0.1", rank=0))
            await side.until(lambda: set(side.cached[-1].digests) == {first, second})
            told = len(side.cached)
            await side.open[-1].close()
            await side.until(lambda: len(side.cached) > told)
            assert set(side.cached[-1].digests) == {first, second}
            assert agent.keeper.of(channel.Hold) == []
            side.version = 1
            await side.open[-1].close()
            await side.until(lambda: len(side.hellos) == 3)
            told, beats = len(side.cached), len(side.beats)
            await side.until(lambda: len(side.beats) > beats + 5)
            assert len(side.cached) == told, "an older coordinator knows no such message"

    asyncio.run(go())
