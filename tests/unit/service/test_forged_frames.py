"""Frames of many acknowledgements from an agent that is not to be trusted, through a real socket and the real core."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any

import pytest

from coordinator.core import events
from coordinator.core.ids import TenantName, attempt_of, dotted
from coordinator.core.rows import AttemptState
from coordinator.service.link_settings import LinkSettings
from tests.site import a_job
from tests.unit.service.links_rig import Agent, Rig, a_hello, a_rig

Word = dict[str, Any]
TASKS = 40
FORGED: dict[str, tuple[object, ...]] = {
    "token": ([0, 0], [1, 0], [9, 9], [0, 2**63 - 1]),
    "attempt": ("0.0.0.0", "1.0.99.1", "1.9.0.1", "999999999999999.0.0.1", "1.0.0.2"),
    "rank": (1, 65_535),
}
"""What a frame of acknowledgements may hold."""
BROKEN: dict[str, tuple[object, ...]] = {
    "token": ([2**32, 1], [1, 2**63], [-1, 5], [1.5, 2], [1], None, "x"),
    "attempt": ("1.0", "", "01.0.0.1", "1.0.0.1],[1.0.1.1", "\u0661.0.0.1"),
    "rank": (65_536, -1, 0.5, None),
}
"""What it may not."""


async def a_worker(rig: Rig, name: str) -> Agent:
    agent = await rig.dial(await rig.enrol(name))
    promises = {"work": True, "isolation": "uid", "kills_all": True, "freezes": True}
    agent.say(a_hello(name, versions=[1, 2], resources={"cpus": TASKS // 2, "memory_gb": 64}, promises=promises))
    await agent.hears("welcome")
    return agent


async def leases_of(agent: Agent) -> list[Word]:
    found = [await agent.hears("grant") for _ in range(TASKS // 2)]
    return [{"type": "granted", "attempt": one["attempt"], "rank": 0, "token": one["token"]} for one in found]


def a_frame(dice: Random, mine: list[Word], foreign: list[Word]) -> list[Word]:
    """Words that are right among those that are not, in any order, some of them twice. Of half of its leases nothing
    that is right is ever said."""
    breaks, half = dice.random() < 0.5, len(mine) // 2
    said = dice.sample(mine[:half], dice.randrange(half))
    for one in dice.choices(mine[half:], k=dice.randrange(12)):
        field = dice.choice(("token", "attempt", "rank"))
        said.append({**one, field: dice.choice(BROKEN[field] if breaks else FORGED[field])})
    said += dice.sample(foreign, dice.randrange(8))
    others: list[Word] = [{"type": "pong"}, {"type": "nonsense"}] if breaks else []
    said += dice.choices([*said, *others, mine[0]], k=dice.randrange(5))
    dice.shuffle(said)
    return said[:64] or mine[:1]


@pytest.mark.parametrize("seed", range(12))
def test_of_a_frame_what_is_right_counts_and_nothing_else(seed: int) -> None:
    """Attempts of another provider named with their true tokens, tokens, names and ranks that are none, words twice: of
    this agent's leases exactly those are launched that it said it holds, once each, and of the other's none."""
    dice = Random(seed)

    async def main() -> None:
        async with a_rig(LinkSettings(close_s=0.3, bad_frames_max=10_000)) as rig:
            liar, honest = await a_worker(rig, "a"), await a_worker(rig, "b")
            await rig.engine.call(
                lambda request_id: events.JobSubmit(
                    at_ms=rig.clock.now_ms(),
                    request_id=request_id,
                    tenant=TenantName("default"),
                    by="token:t",
                    spec=a_job(tasks=TASKS),
                )
            )
            mine, foreign = await leases_of(liar), await leases_of(honest)
            frames = [a_frame(dice, mine, foreign) for _ in range(3)]
            for frame in frames:
                liar.frame(json.dumps(frame, separators=(",", ":")).encode())
            liar.frame(json.dumps(mine[:1] * 65).encode())
            liar.say({"type": "last"})
            while "'last'" not in (await liar.hears("error"))["message"]:
                pass
            liar.say({**mine[0], "type": "phase", "phase": "running"}, mine[0], mine[0])
            while not rig.engine.state.work.attempts[attempt_of(mine[0]["attempt"])].row.ranks[0].running:
                assert rig.engine._running
                await asyncio.sleep(0)
            held = {one["attempt"] for frame in frames for one in frame if one in mine} | {mine[0]["attempt"]}
            work = rig.engine.state.work
            launched = {dotted(key) for key, one in work.attempts.items() if one.row.state is not AttemptState.LEASED}
            assert launched == held and len(work.attempts) == TASKS
            rig.engine.state.check_invariants()

    asyncio.run(main())
