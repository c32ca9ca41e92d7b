"""The agent that was written from the page alone, against the coordinator's side of wire.py."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from coordinator import wire
from coordinator.core.amounts import Ask, Share
from coordinator.core.rows import EndCause, LeaseToken
from coordinator.core.work.launch_plan import LaunchPlan
from tests.unit.agent.coordinator_side import DEADLINE_S, JOIN, CoordinatorSide, coordinator_side

SCRIPT = Path(__file__).parents[2] / "acceptance" / "foreign_agent.py"


async def foreign_agent(side: CoordinatorSide, state: Path, *options: str) -> tuple[int, list[dict[str, Any]]]:
    """Run it to its end; exit status and report."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        side.url,
        str(state),
        *options,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "JOIN_TOKEN": JOIN},
    )
    async with asyncio.timeout(DEADLINE_S):
        said, _ = await process.communicate()
    return await process.wait(), [json.loads(line) for line in said.decode().splitlines()]


def test_the_page_is_enough_to_write_an_agent(tmp_path: Path) -> None:
    """It enrols, is welcomed, has its heartbeats acknowledged, reports a clock offset, and says bye."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.clock_ahead_ms = 90_000.0
            status, report = await foreign_agent(side, tmp_path / "state", "--beats", "5", "--bye")
            assert status == 0
            assert side.hellos[0].labels == {"written-from": "the page"}
            assert [beat.seq for beat in side.beats][:5] == [1, 2, 3, 4, 5]
            assert side.byes == [wire.Bye()]
            offset, bound = side.beats[-1].clock_offset_ms, side.beats[-1].clock_bound_ms
            assert offset is not None
            assert bound is not None
            assert abs(offset - 90_000) <= bound
            assert [line["code"] for line in report if line["what"] == "error"] == ["bad_frame"]
            assert report[-1] == {"what": "closed", "code": 1001, "reason": "good bye"}

    asyncio.run(go())


def test_the_page_is_enough_to_write_an_agent_that_works(tmp_path: Path) -> None:
    """It holds a lease, runs the plan with its environment, and ends when its end and its log are stored."""

    async def go() -> None:
        async with coordinator_side() as side:
            side.version = 2
            running = asyncio.ensure_future(foreign_agent(side, tmp_path / "state", "--work", "1"))
            await side.until(lambda: bool(side.beats))
            name, token = "3.0.0.1", LeaseToken(1, 9)
            await side.send(wire.Grant(attempt=name, rank=0, token=token, term_s=30.0, share=Share(ask=Ask())))
            await side.until(lambda: wire.Granted(attempt=name, rank=0, token=token) in side.said)
            plan = LaunchPlan(argv=("sh", "-c", "echo $COORD_TASK_ID $GREETING; exit 4"), env=(("GREETING", "hi"),))
            await side.send(wire.Launch(attempt=name, rank=0, token=token, plan=plan))
            await side.until(lambda: isinstance(side.said[-1], wire.Exited))
            end = side.said[-1]
            assert isinstance(end, wire.Exited)
            assert (end.exit.cause, end.exit.code, end.exit.out_bytes) == (EndCause.EXITED, 4, 9)
            await side.until(lambda: (name, 0, 0) in side.logs)
            await side.send(wire.Settled(attempt=name, rank=0, token=token))
            status, report = await running
            assert (status, bytes(side.logs[name, 0, 0])) == (0, b"3.0.0 hi\n")
            assert [line["attempt"] for line in report if line["what"] == "finished"] == [name]

    asyncio.run(go())
