"""Logs over HTTP: what is stored, what is written, and going on from any event."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode

import pytest

from coordinator.core.errors import Code, CoordError
from coordinator.core.rows import AttemptState
from coordinator.service.api.log_following import Position, position_of
from coordinator.service.api.settings import ApiSettings
from tests.unit.api.rig import ADMIN, TENANT, Rig, served
from tests.unit.api.worked import Event, Work, eventually, listening, whole

LOGS = "/v1/jobs/1000/logs"
FOLLOW = f"{LOGS}?follow=true"


async def a_history(rig: Rig) -> Work:
    """Three tasks: one that failed and was tried again, one of two ranks, one that printed bytes that are no text."""
    work = Work(rig, tasks=3)
    await work.begin()
    first = await work.start(0)
    await work.prints(first, b"lost\n")
    await work.exit(first, AttemptState.FAILED)
    wide = await work.start(1, ranks=2)
    again = await work.start(0, number=2)
    for i in range(4):
        await work.prints(wide, b"rank0 %d\n" % i)
        await work.prints(wide, b"rank1 %d\n" % i, rank=1)
        await work.prints(again, b"out %d\n" % i)
        await work.prints(again, b"err %d\n" % i, stream=1)
    odd = await work.start(2)
    await work.prints(odd, b"\xff\xfe\n")
    for one in (wide, again, odd):
        await work.exit(one)
    return work


def by_log(events: list[Event]) -> dict[tuple[str, int, str], bytes]:
    """What each stream says, put together; each piece has to begin where the one before ended."""
    found: dict[tuple[str, int, str], bytes] = {}
    for event in events:
        log = event.log
        before = found.get((log.attempt, log.rank, log.stream), b"")
        assert len(before) == log.offset
        found[log.attempt, log.rank, log.stream] = before + event.bytes
    return found


ALL = {
    ("1000.0.0.2", 0, "stdout"): b"".join(b"out %d\n" % i for i in range(4)),
    ("1000.0.0.2", 0, "stderr"): b"".join(b"err %d\n" % i for i in range(4)),
    ("1000.0.1.1", 0, "stdout"): b"".join(b"rank0 %d\n" % i for i in range(4)),
    ("1000.0.1.1", 1, "stdout"): b"".join(b"rank1 %d\n" % i for i in range(4)),
    ("1000.0.2.1", 0, "stdout"): b"\xff\xfe\n",
}


def test_what_is_stored_comes_as_bytes_in_the_order_of_tasks_and_arrival() -> None:
    """The last attempt of each task, all ranks, both streams as they came; or only what was asked for."""

    async def test(rig: Rig) -> None:
        await (await a_history(rig)).end()
        got = await rig.get(LOGS)
        assert "text/plain; charset=utf-8" == got.headers["Content-Type"]
        mixed = b"".join(b"out %d\nerr %d\n" % (i, i) for i in range(4))
        wide = ALL["1000.0.1.1", 0, "stdout"], ALL["1000.0.1.1", 1, "stdout"]
        assert mixed + wide[0] + wide[1] + b"\xff\xfe\n" == got.body
        for query, body in (
            ("task=0.0", mixed),
            ("task=0.0&stream=stderr", ALL["1000.0.0.2", 0, "stderr"]),
            ("task=0.0&attempt=1", b"lost\n"),
            ("task=0.1&rank=1", wide[1]),
            ("task=0.1&rank=7", b""),
            ("task=0.9", b""),
            ("tail=1", b"err 3\nrank0 3\nrank1 3\n\xff\xfe\n"),
            ("tail=2&task=0.0", b"out 3\nerr 3\n"),
            ("tail=2&task=0.0&stream=stdout", b"out 2\nout 3\n"),
            ("tail=0", b""),
        ):
            assert body == (await rig.get(f"{LOGS}?{query}")).body, query

    served(test)


def test_a_replacement_that_was_taken_back_hides_no_output() -> None:
    """The provider came back with the result: what was granted elsewhere meanwhile never ran."""

    async def test(rig: Rig) -> None:
        work = Work(rig, tasks=1)
        await work.begin()
        first = await work.start(0)
        spare = await work.start(0, number=2)
        await work.prints(first, b"done\n")
        await work.exit(spare, AttemptState.TAKEN_BACK)
        await work.exit(first)
        await work.end()
        assert b"done\n" == (await rig.get(LOGS)).body == (await rig.get(f"{LOGS}?task=0.0")).body
        assert b"" == (await rig.get(f"{LOGS}?attempt=2")).body

    served(test)


def test_a_tail_may_be_a_time() -> None:
    """What arrived since then, stored or followed."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        first, now_ms = await work.start(0), rig.clock.now_ms()
        for minutes in (90, 30, 1):
            await work.prints(first, b"%d min ago\n" % minutes, at_ms=now_ms - minutes * 60_000)
        await work.exit(first)
        await work.end()
        for tail, body in (("2h", b"90 min ago\n30 min ago\n1 min ago\n"), ("10m", b"1 min ago\n"), ("5s", b"")):
            assert body == (await rig.get(f"{LOGS}?tail={tail}")).body
            assert body == b"".join(event.bytes for event in await whole(rig, f"{FOLLOW}&tail={tail}"))

    served(test)


@pytest.mark.parametrize(
    "query",
    ["tail=x", "tail=-1", "tail=1000000", "task=7", "task=a.b", "attempt=1", "stream=stdin", "rank=-1", "rank=70000"],
)
def test_a_selection_that_means_nothing_is_refused_by_name(query: str) -> None:
    """400, and the parameter is named."""

    async def test(rig: Rig) -> None:
        await (await a_history(rig)).end()
        got = await rig.get(f"{LOGS}?{query}")
        assert 400 == got.status and query.partition("=")[0] in got.json["detail"]

    served(test)


def test_a_followed_job_of_the_past_comes_whole_and_goes_on_behind_any_event() -> None:
    """From every id the rest, exactly: nothing twice, nothing missing."""

    async def test(rig: Rig) -> None:
        await (await a_history(rig)).end()
        events = await whole(rig, FOLLOW)
        assert ALL == by_log(events)
        assert {name: said for name, said in ALL.items() if name[0] == "1000.0.0.2"} == by_log(
            await whole(rig, f"{FOLLOW}&task=0.0")
        )
        assert {"utf-8", "base64"} == {event.log.encoding for event in events}
        for i in range(len(events)):
            rest = await whole(rig, FOLLOW, last_id=events[i].id)
            pieces = [
                (e.log.attempt, e.log.rank, e.log.stream, e.log.offset, e.bytes) for e in (*events[: i + 1], *rest)
            ]
            assert len(pieces) == len(set(pieces)) == len(events)
            assert ALL == by_log([*events[: i + 1], *rest])

    served(test)


@pytest.mark.parametrize("tail", ["", "&tail=1"])
def test_what_is_written_arrives_at_once_and_later_attempts_follow(tail: str) -> None:
    """Pieces of attempts that live, then those of attempts that begin meanwhile, then the end of the job."""

    async def test(rig: Rig) -> None:
        work = Work(rig, tasks=2)
        await work.begin()
        first = await work.start(0)
        await work.prints(first, b"a\n")
        async with listening(rig, f"{FOLLOW}{tail}", TENANT) as events:
            assert b"a\n" == (await anext(events)).bytes
            await work.prints(first, b"b\n")
            assert b"b\n" == (await anext(events)).bytes
            other = await work.start(1)
            await work.prints(other, b"other\n", stream=1)
            event = await anext(events)
            assert ("1000.0.1.1", "stderr", "other\n") == (event.log.attempt, event.log.stream, event.log.data)
            await work.exit(first, AttemptState.LOST)
            second = await work.start(0, number=2)
            await work.prints(second, b"c\n")
            assert b"c\n" == (await anext(events)).bytes
            async with listening(rig, FOLLOW, last_id=event.id) as behind:
                assert b"c\n" == (await anext(behind)).bytes
            await work.exit(second)
            await work.exit(other)
            await work.end()
            assert "end" == (await anext(events)).name

    served(test)


def test_one_task_is_followed_over_its_attempts_and_ends_with_it() -> None:
    """Though the job goes on; with the attempt that was asked for where one was."""

    async def test(rig: Rig) -> None:
        work = Work(rig, tasks=2)
        await work.begin()
        first = await work.start(0)
        await work.prints(first, b"a\n")
        async with listening(rig, f"{FOLLOW}&task=0.0") as events:
            async with listening(rig, f"{FOLLOW}&task=0.0&attempt=1") as only:
                assert b"a\n" == (await anext(events)).bytes == (await anext(only)).bytes
                await work.exit(first, AttemptState.FAILED)
                assert "end" == (await anext(only)).name
            second = await work.start(0, number=2)
            await work.prints(second, b"b\n")
            event = await anext(events)
            assert b"b\n" == event.bytes
            await work.exit(second)
            assert "end" == (await anext(events)).name
        assert [] == await whole(rig, f"{FOLLOW}&task=0.0", last_id=event.id)

    served(test)


def test_many_logs_at_once_are_followed_a_bounded_number_at_a_time() -> None:
    """A hundred tasks that live: 32 followers; every log comes whole in the end, and from any event on."""

    async def test(rig: Rig) -> None:
        work = Work(rig, tasks=100)
        await work.begin()
        ids = [await work.start(task) for task in range(100)]
        for attempt_id in ids:
            await work.prints(attempt_id, b"x %d\n" % attempt_id[2])
        async with listening(rig, FOLLOW) as events:
            seen = [await anext(events) for _ in range(32)]
            assert 32 == rig.deps.relay.followers
            for attempt_id in ids:
                await work.exit(attempt_id)
            await work.end()
            seen += [event async for event in events][:-1]
        assert {b"x %d\n" % task for task in range(100)} == {event.bytes for event in seen} and 100 == len(seen)
        for i in (0, 31, 40, 98):
            rest = await whole(rig, FOLLOW, last_id=seen[i].id)
            assert sorted(event.bytes for event in seen[i + 1 :]) == sorted(event.bytes for event in rest)
        await eventually(lambda: rig.deps.relay.followers == 0, "the followers' end")

    served(test)


def test_followed_bytes_may_be_plain_for_those_who_ask() -> None:
    """`Accept: text/plain` and follow: the bytes as they come, until the end."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        first = await work.start(0)
        headers = {"Authorization": f"Bearer {ADMIN}", "Accept": "text/plain"}
        async with rig.http.get(rig.url + FOLLOW, headers=headers) as response:
            await work.prints(first, b"a\xff")
            assert b"a\xff" == await response.content.readany()
            await work.prints(first, b"b\n")
            await work.exit(first)
            await work.end()
            assert b"b\n" == await response.read()

    served(test)


@pytest.mark.parametrize(
    "last_id", ["x", "12", "e30", Position(1, {"0.0": 1}).text(), Position(-1).text(), "A" * 7_000]
)
def test_an_id_that_was_never_one_is_refused(last_id: str) -> None:
    """400, and nothing is guessed."""

    async def test(rig: Rig) -> None:
        await (await a_history(rig)).end()
        got = await rig.get(FOLLOW, headers={"Last-Event-ID": last_id})
        assert 400 == got.status and "Last-Event-ID" in got.json["detail"]

    served(test)


def test_a_position_of_logs_that_are_gone_goes_on_with_those_that_are_there() -> None:
    """An id is no right and no proof: what it names and is not there is left out."""

    async def test(rig: Rig) -> None:
        await (await a_history(rig)).end()
        strange = Position(0, {"0.0.9.0": 3, "0.1.1.9": 1, "7.7.7.7": 0})
        assert strange.open == position_of(strange.text()).open
        assert ALL == by_log(await whole(rig, FOLLOW, last_id=strange.text()))

    served(test)


@pytest.mark.parametrize(
    "position",
    [Position(2**63, {}), Position(-1, {}), Position(0, {f"0.{2**63}.1.0": 0}), Position(0, {"0.0.1.0": 2**64})],
    ids=("seen", "negative", "task", "piece"),
)
def test_a_position_that_was_never_given_is_refused(position: Position) -> None:
    """Numbers that no store can be asked for end in no error of ours."""
    with pytest.raises(CoordError) as refused:
        position_of(position.text())
    assert refused.value.code is Code.BAD_REQUEST


@pytest.mark.parametrize("page", [{"before": 2**63}, {"before": -1}, {"step": 0, "task": 2**70}])
def test_a_page_that_was_never_given_is_refused(page: dict[str, int]) -> None:
    async def test(rig: Rig) -> None:
        await (await a_history(rig)).end()
        token = b64encode(json.dumps(page).encode(), altchars=b"-_").decode().rstrip("=")
        for path in ("/v1/jobs", f"{LOGS[:-5]}/tasks", "/v1/audit", "/v1/tokens"):
            answer = await rig.get(f"{path}?page={token}")
            assert answer.status == 400, path

    served(test)


def test_a_log_that_a_made_up_position_names_is_followed_once() -> None:
    """Though the search comes by it, too."""

    async def test(rig: Rig) -> None:
        work = Work(rig, tasks=2)
        await work.begin()
        first = await work.start(0)
        await work.prints(first, b"a\n")
        async with listening(rig, FOLLOW, last_id=Position(0, {"0.0.1.0": 1}).text()) as events:
            other = await work.start(1)
            await work.prints(other, b"other\n")
            assert b"other\n" == (await anext(events)).bytes
            await work.prints(first, b"b\n")
            assert b"b\n" == (await anext(events)).bytes
            assert 2 == rig.deps.relay.followers
            for one in (first, other):
                await work.exit(one)
            await work.end()
            assert "end" == (await anext(events)).name

    served(test)


def test_a_reader_who_takes_nothing_is_cut_and_costs_nobody_anything() -> None:
    """32 MB of log, a reader that reads nothing: bounded buffers, others read all of it, and the stalled one is cut."""

    async def test(rig: Rig) -> None:
        work = Work(rig)
        await work.begin()
        first = await work.start(0)
        for _ in range(128):
            await work.prints(first, b"z" * 262_143 + b"\n")
        host, port = rig.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port), limit=1_024)
        writer.write(f"GET {FOLLOW} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {ADMIN}\r\n\r\n".encode())
        await reader.readline()
        await work.exit(first)
        await work.end()
        assert 128 * 262_144 == sum(len(event.bytes) for event in await whole(rig, FOLLOW))
        await eventually(lambda: rig.deps.relay.followers == 0, "the stalled reader being cut")
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            while True:
                await reader.readexactly(65_536)
        writer.close()

    served(test, ApiSettings(streams_stall_s=0.3))
