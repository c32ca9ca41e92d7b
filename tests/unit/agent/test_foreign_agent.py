"""The agent that was written from the page alone, against the coordinator's side of wire.py."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from coordinator import wire
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
