"""Orders that bring a large input along: they are made as they leave, and nothing that is said later overtakes them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from coordinator.core import commands
from coordinator.core.amounts import UNIT, Ask, Share
from coordinator.core.commands import CloseCode
from coordinator.core.ids import AttemptId, JobId, ProviderId, TenantName
from coordinator.core.rows import LeaseToken
from coordinator.core.work.jobspec import StepSpec
from coordinator.service.outbound import is_large
from coordinator.service.peer import AHEAD_BYTES
from tests.unit.service.links_rig import Agent, Rig, a_beat, a_hello, a_rig, conn_of

MIB = 1024 * 1024
COUNT = 16
LEASES: list[tuple[AttemptId, LeaseToken]] = [
    ((JobId(1), 0, task, 1), LeaseToken(1, 1 + task)) for task in range(COUNT)
]


def an_order(**more: Any) -> commands.Launch:
    return commands.Launch(
        attempt_id=LEASES[0][0],
        rank=0,
        token=LEASES[0][1],
        tenant=TenantName("default"),
        step=StepSpec(**{"name": "s", "command": ("true",), "tasks": COUNT, "stdin": "x" * MIB, **more}),
        share=Share(ask=Ask(cpus=UNIT)),
        nodes=(ProviderId("a"),),
    )


async def a_worker(rig: Rig) -> Agent:
    agent = await rig.dial(await rig.enrol())
    agent.say(a_hello(versions=[1, 2]))
    await agent.hears("welcome")
    rig.links.send(conn_of(rig), a_grant(COUNT))
    await agent.hears("grant")
    return agent


def a_grant(task: int) -> commands.Grant:
    share, token = Share(ask=Ask(cpus=UNIT)), LeaseToken(1, 1_000)
    return commands.Grant(attempt_id=(JobId(1), 0, task, 1), rank=0, token=token, term_ms=30_000, share=share)


def waiting(rig: Rig) -> int:
    """Bytes that the head holds for the agent's socket."""
    peer = next(iter(rig.links._links.values()))._peer
    assert peer._transport is not None
    return peer._transport.get_write_buffer_size() + sum(map(len, peer._gathered))


@pytest.mark.parametrize("command", [("true",), ("echo", "{index}")], ids=["all alike", "each its own"])
def test_what_waits_for_a_slow_agent_is_two_orders_not_all(command: tuple[str, ...]) -> None:
    """16 MiB of orders; then a stop, a grant and an acknowledgement come after them, in the order of their saying."""

    async def main() -> None:
        async with a_rig() as rig:
            agent, conn = await a_worker(rig), conn_of(rig)
            rig.links.send(conn, commands.Launches(like=an_order(command=command), leases=LEASES))
            stop = commands.StopAttempt(attempt_id=LEASES[-1][0], token=LEASES[-1][1], why="cancelled", grace_ms=0)
            rig.links.send(conn, stop)
            rig.links.send(conn, a_grant(COUNT + 1))
            agent.say(a_beat(1))
            most = 0
            launched: list[dict[str, Any]] = []
            while len(launched) < COUNT:
                launched.append(await agent.hears("launch"))
                most = max(most, waiting(rig))
            assert [one["attempt"] for one in launched] == [f"1.0.{task}.1" for task in range(COUNT)]
            assert all(one["plan"]["stdin"] == "x" * MIB for one in launched)
            assert most < AHEAD_BYTES + 2 * MIB
            assert not [one for one in agent.heard if one["type"] in ("stop", "ack")]
            await agent.hears("stop")
            await agent.hears("grant")
            await agent.hears("ack")
            rig.links.send(conn, a_grant(COUNT + 2))  # nothing waits any more: it leaves at once
            await agent.hears("grant")
            assert rig.links.counters.orders["launch"] == COUNT and rig.links.counters.cut_stalled == 0

    asyncio.run(main())


@pytest.mark.parametrize(
    "large",
    [
        {"stdin": "x" * 20_000},
        {"command": ("a", "x" * 20_000)},
        {"env": (("A", "x" * 20_000),)},
        {"outputs": ("x" * 4_000,) * 5},
        {"command": ("{item}" * 100,), "items": ("x" * 4_096, "y")},
        {"env": (("A", "{kind}" * 100),), "matrix": (("kind", ("x" * 4_096, "y")),)},
    ],
)
def test_an_order_is_large_by_anything_that_a_job_wrote(large: dict[str, Any]) -> None:
    assert is_large(an_order(**{"stdin": "", **large}))


def test_what_most_jobs_write_is_not_large() -> None:
    usual = {"command": ("python", "train.py", "--lr", "{lr}"), "matrix": (("lr", ("0.1", "0.2")),), "stdin": "y\n"}
    assert not is_large(an_order(**usual))


def test_who_is_closed_is_not_sent_the_rest() -> None:
    """The reason comes behind what had left, not behind 16 MiB."""

    async def main() -> None:
        async with a_rig() as rig:
            agent, conn = await a_worker(rig), conn_of(rig)
            rig.links.send(conn, commands.Launches(like=an_order(), leases=LEASES))
            rig.links.send(conn, commands.CloseLink(code=CloseCode.SUPERSEDED, reason="another one"))
            assert await agent.closed() == CloseCode.SUPERSEDED
            launched = [one for one in agent.heard if one["type"] == "launch"]
            assert 1 <= len(launched) <= 6 and agent.heard[-1]["type"] == "error"

    asyncio.run(main())


def test_who_reads_nothing_is_cut_by_what_is_said_behind_the_orders() -> None:
    """What was written later is held in full: it counts like all that waits in a socket."""

    async def main() -> None:
        async with a_rig() as rig:
            agent, conn = await a_worker(rig), conn_of(rig)
            link = next(iter(rig.links._links.values()))
            rig.links.send(conn, commands.Launches(like=an_order(), leases=LEASES))
            link._peer.out_max = 8 * MIB
            for _ in range(9):
                link._peer.write(b"\x82\x00" * (MIB // 2))
            assert rig.links.counters.cut_stalled == 1
            assert await agent.closed() == 1006

    asyncio.run(main())
