"""Placing: it follows whatever changed, keeps to the pace of the disk, and the disk to its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec

from coordinator.core import commands, events
from coordinator.core.ids import ConnId
from coordinator.core.rows import JobRow, Resources, WorkState
from coordinator.service.engine import EngineSettings
from tests.builders import an_enrolment
from tests.unit.service.test_engine import Rig, a_submission, a_worker, until, with_engine


def test_what_can_be_placed_is_placed_without_being_asked(tmp_path: Path) -> None:
    """A submission, and then capacity, each lead to a round of placing; with nothing to place there is none."""

    async def test(rig: Rig) -> None:
        job = await rig.engine.call(a_submission)
        assert isinstance(job, JobRow) and job.state is WorkState.PENDING
        await rig.engine.call(lambda r: msgspec.structs.replace(an_enrolment("a"), request_id=r))
        rig.engine.post(a_worker(1))
        await until(lambda: (1, "Grant") in rig.said)
        rounds = sum(rig.engine.counters.place_seconds)
        assert rounds >= 1
        before = rig.engine.counters.decisions
        rig.engine.post(events.AgentPong(at_ms=rig.clock.ms, conn_id=ConnId(1)))
        await rig.decided(before + 1)
        assert rounds == sum(rig.engine.counters.place_seconds)

    with_engine(test, tmp_path)


def test_placing_waits_for_the_disk(tmp_path: Path) -> None:
    """While many rows wait to be written nothing more is placed; when they are, the rest is."""

    async def test(rig: Rig) -> None:
        await rig.engine.call(lambda r: msgspec.structs.replace(an_enrolment("a"), request_id=r))
        rig.engine.post(a_worker(1))
        await until(lambda: (1, "Welcome") in rig.said)
        rig.store.gate.clear()
        pool = rig.pool("lab")
        await until(lambda: rig.store.under_way == 1)
        jobs = [asyncio.ensure_future(rig.engine.call(a_submission)) for _ in range(4)]
        await until(lambda: len(rig.engine.state.work.jobs) == 4)
        for _ in range(50):
            await asyncio.sleep(0)
        assert rig.engine.state.work.place_due and not rig.engine.state.work.attempts
        rig.store.gate.set()
        await asyncio.gather(pool, *jobs)
        await until(lambda: rig.said.count((1, "Grant")) == 4)

    with_engine(test, tmp_path, EngineSettings(retry_s=0.0, place_writes_max=1))


def test_the_disk_has_its_next_group_before_the_last_one_is_carried_out(tmp_path: Path) -> None:
    """While many leases are granted it never waits for what is said and shown of those before them."""

    async def test(rig: Rig) -> None:
        said: list[int] = []
        commit = rig.store.commit

        async def watched(writes: Sequence[commands.Write]) -> None:
            said.append(rig.said.count((1, "Grant")))
            await commit(writes)

        await rig.engine.call(lambda r: msgspec.structs.replace(an_enrolment("a"), request_id=r))
        await rig.engine.call(lambda r: a_submission(r, 900))
        rig.store.commit = watched  # type: ignore[method-assign]
        rig.store.gate.clear()
        resources = Resources(cpus=900.0, memory_gb=8.0)
        rig.engine.post(msgspec.structs.replace(a_worker(1), resources=resources))
        await until(lambda: len(rig.engine.state.work.attempts) == 900)
        assert said == [0]
        rig.store.gate.set()
        await until(lambda: rig.said.count((1, "Grant")) == 900)
        assert said == [0, 0]

    with_engine(test, tmp_path)
