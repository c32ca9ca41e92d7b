"""The process that keeps traces, as it is: what it acknowledged is there whatever befalls it, and whoever waited for it
is told to come again."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path

import msgspec
import pytest

from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.link import TraceLink
from coordinator.api_types.trace import Profile
from coordinator.api_types.trace_comparison import Comparison, WhatIf
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.ports.traces import AskTrace, Taken, TraceBody
from store.check import check_files
from store.traces.files import JobTraces
from tests.unit.analytics.traces.keeping.rows import (
    OURS,
    START_NS,
    a_body,
    a_home,
    a_span,
    otlp_json,
    otlp_protobuf,
    trace_of,
)
from tests.unit.api.worked import eventually

JOB = JobId(1)
MANY = 20_000
"""Spans whose reading takes a good part of a second at least: long enough to be met in the middle of it."""


@asynccontextmanager
async def a_link(path: Path, **settings: float) -> AsyncIterator[TraceLink]:
    """With jobs 1 and 2 of physics, which have ended; its process ends with the block."""
    data = await asyncio.to_thread(a_home, path / "data", (1, "physics"), (2, "physics"), ended=frozenset({1, 2}))
    link = TraceLink(data.path, OURS, msgspec.convert({**settings}, TraceSettings))
    async with asyncio.TaskGroup() as group:
        running = group.create_task(link.run())
        try:
            yield link
        finally:
            running.cancel()


def told(story: Callable[[TraceLink], Awaitable[None]], path: Path, **settings: float) -> None:
    async def run() -> None:
        async with asyncio.timeout(120), a_link(path, **settings) as link:
            await story(link)

    asyncio.run(run())


def small(path: Path, first: int = 1, job: int = 1) -> TraceBody:
    return a_body(path / "small", ({"form": "otlp_json"}, otlp_json(a_span(first, trace_of(job)))))


@cache
def many() -> bytes:
    return otlp_protobuf(*(a_span(n, trace_of(1), data_id="1.0.0") for n in range(1, MANY + 1)))


def large(path: Path) -> TraceBody:
    return msgspec.structs.replace(a_body(path / "large", ({"form": "otlp_protobuf"}, many())), fingerprint=2)


async def spans_of(link: TraceLink, job: JobId = JOB) -> list[int]:
    """Ids of what was uploaded: what the coordinator recorded itself has others."""
    lines = b"".join([piece async for piece in link.rows(job, "spans")]).splitlines()
    ids = [int(msgspec.json.decode(line)["context"]["span_id"], 16) for line in lines]
    return sorted(one for one in ids if one <= MANY)


def pid_of(link: TraceLink) -> int:
    assert link.pid is not None
    return link.pid


def test_a_process_that_is_killed_costs_an_answer_and_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    """SIGKILL in the middle of an upload: 503; the next one is taken by a new process, which has what the first one
    acknowledged; the upload again, and all of it is there once."""

    async def story(link: TraceLink) -> None:
        body = await asyncio.to_thread(large, tmp_path)
        assert (Taken(accepted=1),) == await link.take_in(small(tmp_path, MANY))
        taking = asyncio.ensure_future(link.take_in(body))
        await eventually(lambda: bool(link._begun), "it is being read")
        os.kill(pid_of(link), signal.SIGKILL)
        with pytest.raises(CoordError) as away:
            await taking
        assert Code.ANALYTICS_UNAVAILABLE is away.value.code
        assert [MANY] == await spans_of(link)
        assert (Taken(accepted=MANY),) == await link.take_in(body)
        assert list(range(1, MANY + 1)) == await spans_of(link)
        assert 2 == link.health().starts

    told(story, tmp_path)


def test_a_body_that_ends_its_process_twice_is_not_read_a_third_time(tmp_path: Path) -> None:
    """Whoever sends it is told not to come again with it; others are served."""

    async def story(link: TraceLink) -> None:
        body = await asyncio.to_thread(large, tmp_path)
        for _ in range(2):
            taking = asyncio.ensure_future(link.take_in(body))
            await eventually(lambda: bool(link._begun), "it is being read")
            os.kill(pid_of(link), signal.SIGKILL)
            with pytest.raises(CoordError):
                await taking
        with pytest.raises(CoordError) as refused:
            await link.take_in(body)
        assert Code.BAD_REQUEST is refused.value.code
        assert (Taken(accepted=1),) == await link.take_in(small(tmp_path))

    told(story, tmp_path)


@pytest.mark.alone
def test_what_takes_too_long_is_ended_and_others_are_served(tmp_path: Path) -> None:
    """TIMEOUT for what was begun, "again" for what stood behind it, and the next process does what is asked. A body is
    under suspicion only when it was being read."""

    async def story(link: TraceLink) -> None:
        body = await asyncio.to_thread(large, tmp_path)
        for upload, suspected in ((small(tmp_path), 0), (body, 1)):
            await link.take_in(small(tmp_path, 2))
            first = pid_of(link)
            if not suspected:
                os.kill(first, signal.SIGSTOP)
            taking = asyncio.ensure_future(link.take_in(upload))
            if suspected:
                await eventually(lambda: bool(link._begun), "it is being read")
                os.kill(first, signal.SIGSTOP)
            with pytest.raises(CoordError) as late:
                await taking
            assert late.value.code is (Code.TIMEOUT if suspected else Code.ANALYTICS_UNAVAILABLE)
            await eventually(lambda first=first: link.pid != first, "the process that hung is ended")  # type: ignore[misc]
            assert suspected == len(link._deadly)

    told(story, tmp_path, take_s=4.0)


def test_it_ends_when_nobody_asks_and_comes_back(tmp_path: Path) -> None:
    """An idle coordinator has no process for traces; the next request starts one."""

    async def story(link: TraceLink) -> None:
        await link.take_in(small(tmp_path))
        first = pid_of(link)
        await eventually(lambda: link.pid is None, "the idle process ends")
        with pytest.raises(ProcessLookupError):
            os.kill(first, 0)
        assert [1] == await spans_of(link)
        assert ("", 2) == (link.health().last_error, link.health().starts)

    told(story, tmp_path, idle_s=0.5)


def test_answers_of_every_kind_and_the_same_ones_from_memory(tmp_path: Path) -> None:
    """A profile, a comparison, a what-if, a page; made anew only when something came."""

    async def story(link: TraceLink) -> None:
        for job in (1, 2):
            task = {"job_id": JobId(job), "task": f"{job}.0.0", "form": "otlp_json"}
            spans = [a_span(1, name="task", start_ns=START_NS, end_ns=START_NS + job * 10**9)]
            await link.take_in(a_body(tmp_path / "b", (task, otlp_json(*spans))))
        ask = AskTrace(job_id=JOB)
        first, second = await link.analyze(ask), await link.analyze(ask)
        assert (False, True, first.body) == (first.cached, second.cached, second.body)
        profile = msgspec.json.decode(first.body, type=Profile)
        assert "1" == profile.workflow_id and profile.event_count > 1
        compared = await link.analyze(AskTrace(job_id=JobId(2), other=JOB))
        assert "1" == msgspec.json.decode(compared.body, type=Comparison).a.workflow_id
        what = msgspec.json.decode((await link.analyze(AskTrace(job_id=JOB, slots=2))).body, type=WhatIf)
        assert 2 == what.slots
        page = await link.analyze(AskTrace(job_id=JOB, format="html"))
        assert b"<!doctype html>" == page.body[:15].lower() and page.policy
        for wrong in (AskTrace(job_id=JOB, without=("9.9.9",)), AskTrace(job_id=JobId(77))):
            with pytest.raises(CoordError) as refused:
                await link.analyze(wrong)
            assert refused.value.code in (Code.BAD_REQUEST, Code.NOT_FOUND)
        await link.take_in(small(tmp_path, 9))
        assert not (await link.analyze(ask)).cached

    told(story, tmp_path)


def test_nobody_tells_the_coordinators_own_spans_better(tmp_path: Path) -> None:
    """An uploaded row with the id of a recorded one is not shown, whatever it says."""

    async def story(link: TraceLink) -> None:
        def names(lines: list[bytes]) -> dict[str, str]:
            rows = [msgspec.json.decode(line) for line in b"".join(lines).splitlines()]
            return {row["context"]["span_id"]: row["name"] for row in rows}

        recorded = names([piece async for piece in link.rows(JOB, "spans")])
        assert recorded
        forged = [a_span(int(one, 16), trace_of(1), name="forged", end_ns=START_NS + 10**15) for one in recorded]
        await link.take_in(a_body(tmp_path / "b", ({"form": "otlp_json"}, otlp_json(*forged, a_span(5, trace_of(1))))))
        shown = names([piece async for piece in link.rows(JOB, "spans")])
        assert {**recorded, f"0x{5:016x}": "s5"} == shown

    told(story, tmp_path)


def test_damage_is_told_and_the_rest_is_given(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A flipped byte in what is kept costs only itself: whoever runs the place hears of it, and whoever looks at an
    analysis, each time, by the name that a check gives the file."""

    async def story(link: TraceLink) -> None:
        await link.take_in(small(tmp_path, 1))
        assert [1] == await spans_of(link)  # an ended job's are sealed when they are read
        sealed = JobTraces(tmp_path / "data" / "traces", JOB).path / "1.seg"
        content = bytearray(sealed.read_bytes())
        content[-200] ^= 255
        sealed.write_bytes(content)
        await link.take_in(small(tmp_path, 2))
        assert [2] == await spans_of(link)

        async def notes(ask: AskTrace) -> str:
            return " ".join(msgspec.json.decode((await link.analyze(ask)).body)["notes"])

        for ask in (AskTrace(job_id=JOB), AskTrace(job_id=JOB, slots=2), AskTrace(job_id=JOB, other=JobId(2))):
            assert "traces/0/1/1.seg is damaged" in await notes(ask)
        assert "is damaged" not in await notes(AskTrace(job_id=JobId(2)))

    told(story, tmp_path)
    assert any("is damaged" in record.message for record in caplog.records)
    assert ["traces/0/1/1.seg"] == [problem.split()[0] for problem in check_files(tmp_path / "data").problems]


def test_rows_that_nobody_reads_on_make_room(tmp_path: Path) -> None:
    """Readers that go away leave nothing; one that was pushed out is told so, and not given a part for the whole."""

    async def story(link: TraceLink) -> None:
        await link.take_in(await asyncio.to_thread(large, tmp_path))
        held = link.rows(JOB, "spans")
        await anext(held)
        for _ in range(3):
            passing = link.rows(JOB, "spans")
            await anext(passing)
            await passing.aclose()
        others = [link.rows(JOB, "spans") for _ in range(2)]
        for one in others:
            await anext(one)
        with pytest.raises(CoordError) as pushed:
            async for _ in held:
                pass
        assert Code.TOO_MANY is pushed.value.code
        assert MANY < sum([piece.count(b"\n") async for piece in others[1]]) + 1_024
        await others[0].aclose()

    told(story, tmp_path, rows_open_max=2)


def test_what_needs_more_memory_than_there_is_ends_no_more_than_itself(tmp_path: Path) -> None:
    """Within a narrow bound a large upload fails, whichever way, and a small one behind it is taken."""

    async def story(link: TraceLink) -> None:
        spans = [a_span(n, trace_of(1)) for n in range(1, MANY + 1)]
        data = await asyncio.to_thread(otlp_json, *spans, attributes={"much": "x" * 2_000})
        body = msgspec.structs.replace(a_body(tmp_path / "much", ({"form": "otlp_json"}, data)), fingerprint=3)
        with pytest.raises(CoordError) as full:
            await link.take_in(body)
        assert full.value.code in (Code.TOO_LARGE, Code.ANALYTICS_UNAVAILABLE)
        assert (Taken(accepted=1),) == await link.take_in(small(tmp_path))

    told(story, tmp_path, memory_bytes=150 * 1024 * 1024)
