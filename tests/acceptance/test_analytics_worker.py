"""A real worker behind the link: it answers, dies, comes back, and costs nobody anything but freshness."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import psutil
import pytest
import uvloop

from analytics.link import LinkSettings, WorkerLink
from coordinator.api_types.operations import SqlAnswer
from coordinator.api_types.reliability import NetworkAvailability, ReliabilityAnswer
from coordinator.core.errors import Code, CoordError
from coordinator.core.events import FiguresPublished
from coordinator.core.rows import EndReason
from coordinator.ports.analytics import AskBacktest, AskNetwork, AskReliability, AskSql
from coordinator.ports.store import ImportedSession
from store.durable import DiskStore
from store.layout import DataDir

NOW = int(time.time() * 1000)
H = 3_600_000
PATIENCE_S = 60.0
SILENT_S = 8.0
"""A worker that begins must be heard within it too, which takes seconds where others are at work."""


def history(providers: int = 20, days: int = 20) -> list[ImportedSession]:
    """Providers that are there most of each day."""
    rows: list[ImportedSession] = []
    for i in range(providers):
        for day in range(days):
            start = NOW - (day + 1) * 24 * H + i * 60_000
            rows.append(ImportedSession(len(rows) + 2, f"node-{i:02d}", start, start + 22 * H, EndReason.CLEAN_CLOSE))
    return rows


async def until(true: Callable[[], bool]) -> None:
    """Wait for it, with a deadline: a process is watched from outside."""
    async with asyncio.timeout(PATIENCE_S):
        while not true():  # noqa: ASYNC110 another process, not a task of ours
            await asyncio.sleep(0.02)


def with_worker(
    path: Path,
    work: Callable[[WorkerLink, DiskStore, list[FiguresPublished]], Awaitable[None]],
    settings: LinkSettings = LinkSettings(memory="256MB", nice=0, backoff_first_s=0.1),  # noqa: B008 frozen
) -> None:
    """Run `work` with a store that has a history, and a link with its worker up, under uvloop."""

    async def main() -> None:
        store = await DiskStore.open(DataDir(path))
        await store.import_sessions(history())
        published: list[FiguresPublished] = []
        link = WorkerLink(path, published.append, settings)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(link.run())
            await until(lambda: link.health().up)
            await work(link, store, published)
            task.cancel()
        await store.close()

    uvloop.run(main())


def test_answers_publications_and_snapshots(tmp_path: Path) -> None:
    """Figures reach the parent, questions are answered, SQL sees the snapshots, an import is there after a refresh."""

    async def work(link: WorkerLink, store: DiskStore, published: list[FiguresPublished]) -> None:
        assert 20 == len(published[0].providers)
        found = msgspec.json.decode((await link.ask(AskReliability(limit=5))).json, type=ReliabilityAnswer)
        assert (5, 20) == (len(found.entries), found.matched)
        question = AskSql(statement="SELECT count(*) FROM features", timeout_s=20)
        rows = msgspec.json.decode((await link.ask(question)).json, type=SqlAnswer)
        assert [20] == list(rows.entries[0])
        fresh = ImportedSession(1, "node-new", NOW - 5 * H, None, None)
        await store.import_sessions([fresh])
        await link.refresh()
        assert "node-new" in {f.provider_id for f in published[-1].providers if f.stays}
        with pytest.raises(CoordError) as refusal:
            await link.ask(AskReliability(as_of_ms=NOW + 24 * H))
        assert Code.BAD_REQUEST == refusal.value.code

    with_worker(tmp_path, work)


def test_killed_worker_is_replaced_and_its_answers_are_remembered(tmp_path: Path) -> None:
    """kill -9: the remembered answer with its age meanwhile, a new worker soon, the same answers; then no file left."""

    async def work(link: WorkerLink, store: DiskStore, published: list[FiguresPublished]) -> None:
        question = AskNetwork(as_of_ms=NOW - H)
        before = await link.ask(question)
        first = link.pid
        assert first is not None
        os.kill(first, signal.SIGKILL)
        await until(lambda: not link.health().up)
        assert before == await link.ask(question)
        with pytest.raises(CoordError) as refusal:
            await link.ask(AskNetwork(as_of_ms=NOW - 2 * H))
        assert Code.ANALYTICS_UNAVAILABLE == refusal.value.code
        assert "-9" in link.health().last_error
        DataDir(tmp_path).warehouse.unlink()
        await until(lambda: link.health().up)
        assert link.pid != first and 1 == link.health().restarts
        again = await link.ask(question)
        decode = msgspec.json.Decoder(NetworkAvailability).decode
        assert decode(before.json) == decode(again.json)

    with_worker(tmp_path, work)


def test_stopped_worker_times_out_and_stops_nobody(tmp_path: Path) -> None:
    """A worker that hangs: TIMEOUT for what is not remembered, within the patience; it goes on when it is thawed."""

    async def work(link: WorkerLink, store: DiskStore, published: list[FiguresPublished]) -> None:
        link._settings = msgspec.structs.replace(link._settings, timeout_s=0.3)
        remembered = await link.ask(AskNetwork())
        assert link.pid is not None
        os.kill(link.pid, signal.SIGSTOP)
        assert remembered == await link.ask(AskNetwork())
        with pytest.raises(CoordError) as refusal:
            await link.ask(AskReliability(limit=3))
        assert Code.TIMEOUT == refusal.value.code
        os.kill(link.pid, signal.SIGCONT)
        link._settings = msgspec.structs.replace(link._settings, timeout_s=PATIENCE_S)
        assert msgspec.json.decode((await link.ask(AskReliability(limit=3))).json, type=ReliabilityAnswer).entries

    with_worker(tmp_path, work)


def test_worker_that_hangs_for_good_is_replaced(tmp_path: Path) -> None:
    """Stopped past the deadline: killed, counted as a restart with its reason, and another one answers."""
    settings = LinkSettings(memory="256MB", nice=0, backoff_first_s=0.1, ping_s=0.1, silent_s=SILENT_S)

    async def work(link: WorkerLink, store: DiskStore, published: list[FiguresPublished]) -> None:
        first = link.pid
        assert first is not None
        os.kill(first, signal.SIGSTOP)
        await until(lambda: link.health().restarts == 1 and link.health().up)
        assert link.pid != first and not psutil.pid_exists(first)
        assert f"was killed: nothing was heard of it for {SILENT_S:.0f} s" in link.health().last_error
        assert msgspec.json.decode((await link.ask(AskReliability(limit=3))).json, type=ReliabilityAnswer).entries

    with_worker(tmp_path, work, settings)


def test_refresh_waits_for_a_worker_that_is_being_started(tmp_path: Path) -> None:
    """Asked before the first worker is there: what was stored by then is in the views when it returns."""

    async def main() -> list[object]:
        store = await DiskStore.open(DataDir(tmp_path))
        await store.import_sessions(history())
        link = WorkerLink(tmp_path, settings=LinkSettings(memory="256MB", nice=0))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(link.run())
            await link.refresh()
            answer = await link.ask(AskSql(statement="SELECT count(*) FROM sessions", timeout_s=20))
            task.cancel()
        await store.close()
        return list(msgspec.json.decode(answer.json, type=SqlAnswer).entries[0])

    assert [400] == asyncio.run(main())


def test_worker_ends_with_its_parent(tmp_path: Path) -> None:
    """Cancelling the link ends the worker, in the middle of a backtest too."""
    pids: list[int] = []

    async def work(link: WorkerLink, store: DiskStore, published: list[FiguresPublished]) -> None:
        assert link.pid is not None
        pids.append(link.pid)
        asking = asyncio.ensure_future(link.ask(AskBacktest(every_ms=H)))
        await asyncio.sleep(0)
        asking.cancel()

    with_worker(tmp_path, work)
    assert not psutil.pid_exists(pids[0])


def test_worker_ends_when_its_input_does(tmp_path: Path) -> None:
    """A parent that was killed cannot say good bye: the end of the pipe is enough."""

    async def main() -> str:
        store = await DiskStore.open(DataDir(tmp_path))
        link = WorkerLink(tmp_path, settings=LinkSettings(memory="256MB", nice=0))
        async with asyncio.TaskGroup() as group:
            task = group.create_task(link.run())
            await until(lambda: link.health().up)
            child = link._child
            assert child is not None
            child.dismiss()
            await until(lambda: child.ended)
            task.cancel()
        await store.close()
        return child.end()

    # 255 is asyncio's word for a child whose end the link saw first, by closing its side of it
    assert asyncio.run(main()).startswith(("ended with 0:", "ended with 255:"))
