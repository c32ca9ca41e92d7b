"""Commits that nobody waits for gather; whoever waits for an answer is not held up by that."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import msgspec

from coordinator.core import commands, events
from coordinator.core.ids import RequestId
from coordinator.core.rows import PoolRow, SessionRow
from coordinator.service.engine import EngineSettings
from tests.builders import a_hello, an_enrolment
from tests.unit.service.test_engine import Rig, until, with_engine


def _asked(enrolment: events.ProviderEnrol, request_id: RequestId) -> events.ProviderEnrol:
    return msgspec.structs.replace(enrolment, request_id=request_id)


def test_commits_that_nobody_waits_for_gather(tmp_path: Path) -> None:
    """Beyond `commits_per_s` a decision waits for those that come after it: until somebody asks for an answer, whose
    commit takes it along at once, or until the time is over."""

    async def test(rig: Rig) -> None:
        await rig.enrol_and_connect("a", 1)
        for enrolment in (an_enrolment("b"), an_enrolment("c")):
            await rig.engine.call(partial(_asked, enrolment))
        while not rig.store.begun.empty():
            rig.store.begun.get_nowait()
        decided = rig.engine.counters.decisions
        rig.engine.post(a_hello(2, "b"))
        await rig.decided(decided + 1)
        assert rig.store.begun.empty() and (2, "Welcome") not in rig.said
        await rig.pool("lab")
        together = {type(write.row) for write in await rig.store.next_commit() if isinstance(write, commands.Put)}
        assert {SessionRow, PoolRow} <= together
        assert (2, "Welcome") in rig.said
        rig.engine.post(a_hello(3, "c"))
        await rig.decided(decided + 3)
        assert rig.store.begun.empty() and (3, "Welcome") not in rig.said
        await until(lambda: (3, "Welcome") in rig.said)

    with_engine(test, tmp_path, EngineSettings(retry_s=0.0, commits_per_s=2.0, commits_burst=2.0))
