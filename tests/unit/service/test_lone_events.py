"""What an idle engine does with a lone event beside what somebody waits for."""

from __future__ import annotations

from pathlib import Path

from coordinator.core import commands
from coordinator.service.recorder import read_dump
from tests.unit.service.test_engine import Rig, until, with_engine


def test_a_lone_event_is_recorded_when_what_it_led_to_has_left(tmp_path: Path) -> None:
    """Whoever waits for it does not wait for the recorder; whoever has it dumped before finds it."""

    async def test(rig: Rig) -> None:
        behind: list[bool] = []
        found: list[int] = []

        def hears(note: commands.Note) -> None:
            behind.append(rig.recorder.behind)
            if len(behind) == 4:  # the last word of the second one
                path = rig.recorder.dump("a test")
                found.append(len(read_dump(path)[2]) if path is not None else 0)

        rig.views.listen(hears)
        await rig.pool("lab")
        await until(lambda: not rig.recorder.behind)
        await rig.pool("attic")
        assert [True] * 4 == behind
        assert [rig.engine.counters.events] == found

    with_engine(test, tmp_path)
