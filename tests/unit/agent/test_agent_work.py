"""Keeper and daemon as processes, with real programs: what survives the death or the standstill of the daemon."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from coordinator import wire
from coordinator.agent.config import Patience
from coordinator.core.rows import EndCause
from coordinator.core.work.launch_plan import LaunchPlan
from tests.unit.agent.agents import QUICK, RunningAgent, a_config, alive, an_agent, eventually
from tests.unit.agent.coordinator_side import CoordinatorSide, coordinator_side
from tests.unit.agent.keeper_side import A_SHARE, TOKEN

A = "1.0.0.1"


@asynccontextmanager
async def working(
    tmp_path: Path, patience: Patience = QUICK, **config: object
) -> AsyncIterator[tuple[CoordinatorSide, RunningAgent]]:
    """A coordinator that speaks version 2, and an agent that is connected to it."""
    async with coordinator_side() as side:
        side.version = 2
        async with an_agent(a_config(side, tmp_path / "state", isolation="none", **config), patience) as agent:
            await side.until(lambda: bool(side.beats))
            yield side, agent


async def start(side: CoordinatorSide, *script: str, term_s: float = 60.0, **plan: Any) -> None:
    """Grant and launch `script` for a shell, and wait until it is said to run, or to have ended already."""
    await side.send(wire.Grant(attempt=A, rank=0, token=TOKEN, term_s=term_s, share=A_SHARE))
    await side.until(lambda: any(isinstance(message, wire.Granted) for message in side.said))
    argv = ("/bin/sh", "-c", "\n".join(script))
    await side.send(wire.Launch(attempt=A, rank=0, token=TOKEN, plan=LaunchPlan(argv=argv, **plan)))
    await side.until(lambda: phases(side)[:1] == ["running"] or bool(ends(side)))


def phases(side: CoordinatorSide) -> list[str]:
    return [message.phase for message in side.said if isinstance(message, wire.Phase)]


def ends(side: CoordinatorSide) -> list[wire.Exit]:
    return [message.exit for message in side.said if isinstance(message, wire.Exited)]


def log(side: CoordinatorSide, stream: int = 0) -> bytes:
    return bytes(side.logs.get((A, 0, stream), b""))


def spooled(tmp_path: Path) -> list[Path]:
    """The streams that lie in the agent's directory."""
    return [*(tmp_path / "state" / "attempts").rglob("stdout")]


def moves(path: Path) -> bool:
    """Whether a file that is written to fifty times a second grows within a fifth of one."""
    before = path.stat().st_size
    time.sleep(0.2)
    return path.stat().st_size > before


async def renewing(side: CoordinatorSide, term_s: float) -> None:
    """Renew by every heartbeat, for ever."""
    seen = 0
    while True:
        await side.until(lambda seen=seen: len(side.beats) > seen)  # type: ignore[misc]
        seen = len(side.beats)
        if side.open:
            lease = wire.Renewal(attempt=A, token=TOKEN, term_s=term_s)
            await side.send(wire.Renew(seq=side.beats[-1].seq, leases=(lease,)))


def test_a_program_runs_and_its_streams_and_end_arrive(tmp_path: Path) -> None:
    """What it wrote, how it ended, and what it was told of itself; then nothing of it is left on the disk."""

    async def go() -> None:
        async with working(tmp_path) as (side, _agent):
            await start(
                side,
                "echo to out; echo to err >&2",
                'test -r "$COORD_ATTEMPT_TOKEN_FILE" && test -d "$COORD_OUTPUT_DIR" || exit 1',
                'echo "$COORD_JOB_ID $COORD_TASK_ID $COORD_ATTEMPT $COORD_RANK"; exit 7',
            )
            await side.until(lambda: bool(ends(side)) and log(side).endswith(b"0\n") and bool(log(side, 1)))
            assert (ends(side)[0].cause, ends(side)[0].code) == (EndCause.EXITED, 7)
            assert (log(side), log(side, 1)) == (b"to out\n1 1.0.0 1.0.0.1 0\n", b"to err\n")
            assert (ends(side)[0].out_bytes, ends(side)[0].err_bytes) == (len(log(side)), len(log(side, 1)))
            await side.send(wire.Settled(attempt=A, rank=0, token=TOKEN))
            assert await eventually(lambda: spooled(tmp_path) == [])

    asyncio.run(go())


def test_a_daemon_that_is_killed_costs_a_running_program_nothing(tmp_path: Path) -> None:
    """The next one says what is held, goes on with the log where the other stopped, and the endpoint answers again."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            gate = tmp_path / "gate"
            await start(
                side,
                "echo before $$; while ! [ -e " + str(gate) + " ]; do sleep 0.02; done; echo after $$",
            )
            await side.until(lambda: log(side).startswith(b"before"))
            first = (await agent.status()).daemon_pid
            os.kill(first, signal.SIGKILL)
            await side.until(lambda: len(side.hellos) == 2)
            (held,) = side.hellos[1].attempts
            assert (held.attempt, held.phase, held.token) == (A, "running", TOKEN)
            gate.touch()
            await side.until(lambda: bool(ends(side)) and b"after" in log(side))
            pid = log(side).split()[1]
            assert log(side) == b"before " + pid + b"\nafter " + pid + b"\n"
            assert ends(side)[0].code == 0

    asyncio.run(go())


def test_a_daemon_that_stands_still_lets_the_keeper_freeze_and_thaws_when_it_is_back(tmp_path: Path) -> None:
    """No renewal reaches the keeper: at 5/6 of the term the program stands. It goes on with the first renewal."""

    async def go() -> None:
        patience = msgspec.structs.replace(QUICK, stuck_s=60.0)
        async with working(tmp_path, patience) as (side, agent), asyncio.TaskGroup() as group:
            ticks = tmp_path / "ticks"
            await start(side, f"while :; do echo >> {ticks}; sleep 0.02; done", term_s=1.2)
            renewal = group.create_task(renewing(side, 1.2))
            await side.until(lambda: side.beats[-1].renewed_seq > 0)
            daemon = (await agent.status()).daemon_pid
            os.kill(daemon, signal.SIGSTOP)
            try:
                assert await eventually(lambda: not moves(ticks))
            finally:
                os.kill(daemon, signal.SIGCONT)
            await side.until(lambda: phases(side)[-1] == "running" and "frozen" in phases(side))
            assert await eventually(lambda: moves(ticks))
            await side.send(wire.Stop(attempt=A, token=TOKEN, why="enough", grace_s=0.5))
            await side.until(lambda: bool(ends(side)))
            renewal.cancel()

    asyncio.run(go())


def test_when_the_keeper_is_killed_nothing_of_an_attempt_is_left(tmp_path: Path) -> None:
    """The daemon kills what the keeper cannot any more, ends, and the next agent reports the end."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.version = 2
            config = a_config(side, tmp_path / "state", isolation="none")
            async with an_agent(config) as agent:
                await side.until(lambda: bool(side.beats))
                await start(side, "echo $$; (setsid sleep 600 & echo $!); sleep 600")
                await side.until(lambda: log(side).count(b"\n") == 2)
                pids = [int(text) for text in log(side).split()]
                agent.process.kill()
                assert await eventually(lambda: not any(alive(pid) for pid in pids))
            async with an_agent(config):
                await side.until(lambda: len(side.hellos) == 2)
                (held,) = side.hellos[1].attempts
                assert held.exit is not None
                assert (held.phase, held.exit.cause) == ("exited", EndCause.AGENT)
                await side.send(wire.Settled(attempt=A, rank=0, token=TOKEN))
                assert await eventually(lambda: spooled(tmp_path) == [])

    asyncio.run(go())


def test_an_agent_that_is_told_to_stop_ends_its_attempts_first(tmp_path: Path) -> None:
    """SIGTERM: the program is ended with its grace, its end is settled, then comes the good-bye."""

    async def go() -> None:
        async with working(tmp_path) as (side, agent):
            await start(side, "trap 'echo asked; exit 0' TERM; echo up; while :; do sleep 0.02; done")
            await side.until(lambda: log(side) == b"up\n")
            agent.process.terminate()
            await side.until(lambda: bool(ends(side)) and log(side) == b"up\nasked\n")
            assert ends(side)[0].cause is EndCause.AGENT
            assert side.byes == []
            await side.send(wire.Settled(attempt=A, rank=0, token=TOKEN))
            await side.until(lambda: len(side.byes) == 1)
            assert (await agent.ended())[0] == 0

    asyncio.run(go())
