"""What steps made, found for the steps behind them: read once when nothing of it changes any more."""

from __future__ import annotations

import asyncio
from typing import Any

from coordinator.core.commands import Put
from coordinator.core.data.rows import FileEntry, OutputRow
from coordinator.core.ids import Digest, JobId, TenantName
from coordinator.service.data import made
from coordinator.service.data.made import MadeBySteps
from store.memory import MemoryStore


class Counting(MemoryStore):
    """Counts how often results are read."""

    reads = 0

    async def outputs(self, *args: Any, **more: Any) -> list[OutputRow]:
        self.reads += 1
        return await super().outputs(*args, **more)


def a_result(task: int, *paths: str, step: int = 0) -> Put:
    files = tuple(FileEntry(path=path, digest=Digest(f"{task:064x}"), size=1) for path in paths)
    row = OutputRow(
        job_id=JobId(1), step=step, task=task, attempt=1, tenant=TenantName("a"), at_ms=1, files=files, size=1
    )
    return Put(row)


def paths(found: list[made.File]) -> list[tuple[int, str]]:
    return [(task, entry.path) for task, entry in found]


def test_a_step_that_is_complete_is_read_once() -> None:
    """Each task of the next one finds its own file, by its name or by a pattern."""

    async def check() -> None:
        store = Counting()
        await store.commit([a_result(task, f"part-{task}", "log") for task in range(2_500)])
        steps = MadeBySteps(store)
        assert paths(await steps.matching(JobId(1), 0, 2_500, "part-7", 9_999)) == [(7, "part-7")]
        reads = store.reads
        assert paths(await steps.matching(JobId(1), 0, 2_500, "part-2499", 9_999)) == [(2_499, "part-2499")]
        assert len(await steps.matching(JobId(1), 0, 2_500, "log", 9_999)) == 2_500
        assert len(await steps.matching(JobId(1), 0, 2_500, "part-24*", 9_999)) == 111
        assert await steps.matching(JobId(1), 0, 2_500, "nothing", 9_999) == []
        assert store.reads == reads

    asyncio.run(check())


def test_a_step_that_may_make_more_is_looked_at_again() -> None:
    """A task that failed is run again by a retry: its result comes later."""

    async def check() -> None:
        store = Counting()
        await store.commit([a_result(0, "x")])
        steps = MadeBySteps(store)
        assert paths(await steps.matching(JobId(1), 0, 2, "*", 9)) == [(0, "x")]
        await store.commit([a_result(1, "y")])
        assert paths(await steps.matching(JobId(1), 0, 2, "*", 9)) == [(0, "x"), (1, "y")]

    asyncio.run(check())


def test_what_is_remembered_is_bounded(monkeypatch: Any) -> None:
    """The step that was asked for last stays; one that is larger than the bound is read each time."""

    async def check() -> None:
        monkeypatch.setattr(made, "REMEMBERED_MAX", 3)
        store = Counting()
        for step in (0, 1):
            await store.commit([a_result(0, "x", "y", step=step)])
        await store.commit([a_result(0, *"abcd", step=2)])
        steps = MadeBySteps(store)
        for step, expected in ((0, 2), (0, 0), (1, 2), (1, 0), (0, 2), (2, 2), (2, 2), (0, 0)):
            before = store.reads
            assert await steps.matching(JobId(1), step, 1, "*", 9)
            assert store.reads - before == expected, step

    asyncio.run(check())
