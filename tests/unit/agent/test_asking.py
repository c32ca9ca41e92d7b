"""Questions for attempts: asked until they are answered, and true whenever they are."""

from __future__ import annotations

import asyncio

import pytest

from coordinator import wire_data
from coordinator.agent import asking
from coordinator.agent.asking import Whose
from coordinator.core.rows import LeaseToken
from tests.unit.agent.data_side import data_side

WHOSE = Whose("1.0.0.1", 0, LeaseToken(1, 7))


def test_a_checkpoint_is_as_old_as_it_is_when_it_is_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator was away for an hour: what was done in it is not saved."""

    async def test() -> None:
        clock = [1_000.0]
        monkeypatch.setattr(asking, "boot_s", lambda: clock[0])
        async with data_side() as (side, ask):
            side.refusals = [(503, "starting")]
            taken = wire_data.CheckpointRequest(
                rank=0, token=WHOSE.token, manifest="a" * 64, sent=1, age_ms=500, cost_ms=9
            )
            telling = asyncio.create_task(ask.checkpoint(WHOSE, taken))
            await side.until(lambda: not side.refusals)
            clock[0] += 3_600
            assert (await telling).number == 1
            assert [one.age_ms for one in side.saved] == [3_600_500]
            assert side.saved[0].cost_ms == 9

    asyncio.run(test())
