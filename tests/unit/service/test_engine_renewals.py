"""Renewals leave before the disk is done, unless what they rest on waits for it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from coordinator.core import events
from coordinator.core.ids import ConnId
from tests.builders import an_enrolment
from tests.unit.service.test_engine import Rig, a_submission, a_worker, until, with_engine


async def _at_work(rig: Rig) -> events.AgentGranted:
    """One attempt is leased to `a`, durably; its acknowledgement would be the returned event."""
    await rig.engine.call(lambda r: msgspec.structs.replace(an_enrolment("a"), request_id=r))
    rig.engine.post(a_worker(1))
    await rig.engine.call(a_submission)
    await until(lambda: (1, "Grant") in rig.said)
    (attempt,) = rig.engine.state.work.attempts.values()
    return events.AgentGranted(
        at_ms=rig.clock.ms,
        conn_id=ConnId(1),
        attempt_id=attempt.row.attempt_id,
        rank=0,
        token=attempt.row.token,
    )


def _beat(rig: Rig, granted: events.AgentGranted, seq: int) -> None:
    beat = events.Beat(conn_id=ConnId(1), received_ms=rig.clock.ms, seq=seq, attempts=(granted.attempt_id,))
    rig.beats.append(beat)
    rig.engine.wake()


def test_a_disk_that_takes_its_time_holds_up_no_renewal(tmp_path: Path) -> None:
    """The leases of a fleet must not run out because one sync takes half a minute."""

    async def test(rig: Rig) -> None:
        granted = await _at_work(rig)
        rig.engine.post(granted)
        await until(lambda: (1, "Launch") in rig.said)
        rig.store.gate.clear()
        pool = rig.pool("lab")
        await until(lambda: rig.store.under_way == 1)
        for seq in (1, 2, 3):
            _beat(rig, granted, seq)
            await until(lambda seq=seq: rig.said.count((1, "Renew")) == seq)  # type: ignore[misc]
        assert not pool.done()
        rig.store.gate.set()
        await pool
        assert 3 == rig.said.count((1, "Renew")), "it was said twice"

    with_engine(test, tmp_path)


def test_a_renewal_waits_for_the_row_of_its_lease_and_passes_none_before_it(tmp_path: Path) -> None:
    """What it rests on might be rolled back."""

    async def test(rig: Rig) -> None:
        granted = await _at_work(rig)
        rig.store.gate.clear()
        rig.engine.post(granted)
        await until(lambda: rig.store.under_way == 1)
        _beat(rig, granted, 1)
        _beat(rig, granted, 2)
        decided = rig.engine.counters.decisions
        await until(lambda: rig.engine.counters.decisions > decided)
        for _ in range(20):
            await asyncio.sleep(0)
        assert (1, "Renew") not in rig.said and (1, "Launch") not in rig.said
        rig.store.gate.set()
        await until(lambda: (1, "Renew") in rig.said)
        assert rig.said.index((1, "Launch")) < rig.said.index((1, "Renew"))

    with_engine(test, tmp_path)
