"""Stored logs: byte for byte, known by their lengths, with what arrived when."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from coordinator.core.ids import AttemptId, JobId
from coordinator.ports.logs import LogKey, LogMark, Logs, LogWrite
from store.logs import DiskLogs
from store.memory_logs import MemoryLogs
from tests.conformance.homes import Home

ATTEMPT: AttemptId = (JobId(12), 0, 7, 2)
OUT, ERR = LogKey(ATTEMPT, 0, 0), LogKey(ATTEMPT, 0, 1)


def logs_of(store: Any) -> Logs:
    """For the type checker: both kinds are what the service asks for."""
    logs: DiskLogs | MemoryLogs = store.logs
    return logs


async def all_of(logs: Logs, key: LogKey, piece: int = 1_000) -> bytes:
    found = b""
    while data := await logs.read(key, len(found), piece):
        found += data
    return found


def test_what_was_appended_is_read_byte_for_byte_also_after_a_restart(home: Home) -> None:
    """Both streams of several ranks and attempts, in pieces of any size, binary and empty."""
    dice = random.Random(5)
    keys = [
        LogKey((JobId(job), 0, task, 1), rank, s)
        for job in (1, 1_000)
        for task in (0, 1)
        for rank in (0, 1)
        for s in (0, 1)
    ]
    wrote = dict.fromkeys(keys, b"")

    async def write(store: Any) -> None:
        logs = logs_of(store)
        for round_number in range(20):
            writes = []
            for key in dice.sample(keys, 5):
                data = dice.randbytes(dice.choice((0, 1, 100, 70_000)))
                writes.append(LogWrite(key, len(wrote[key]), data, round_number))
                wrote[key] += data
            lengths = await logs.append(writes)
            assert {write.key: len(wrote[write.key]) for write in writes} == lengths

    async def check(store: Any) -> None:
        logs = logs_of(store)
        for key in keys:
            assert len(wrote[key]) == await logs.length(key)
            assert wrote[key] == await all_of(logs, key, 33_333)
        middle = max(keys, key=lambda key: len(wrote[key]))
        assert wrote[middle][5:12] == await logs.read(middle, 5, 7)
        assert b"" == await logs.read(middle, len(wrote[middle]) + 5, 7)

    home.run(write)
    home.run(check)


def test_a_log_that_nobody_wrote_is_empty(home: Home) -> None:
    """Asking for it makes nothing."""

    async def story(store: Any) -> None:
        logs = logs_of(store)
        assert (0, 0, 0) == (
            await logs.length(OUT),
            await logs.marks_count(ATTEMPT, 0),
            await logs.since(ATTEMPT, 0, 5),
        )
        assert (b"", []) == (await logs.read(OUT, 0, 10), await logs.marks(ATTEMPT, 0, 0, 10))
        await logs.remove(ATTEMPT[0])
        assert {} == await logs.append([])

    home.run(story)


def test_repeated_bytes_count_once_and_gaps_not_at_all(home: Home) -> None:
    """What lies below the length is known; what begins beyond it is ignored, and the answer says where to go on."""

    async def story(store: Any) -> None:
        logs = logs_of(store)
        assert {OUT: 5} == await logs.append([LogWrite(OUT, 0, b"hello", 1)])
        assert {OUT: 5} == await logs.append([LogWrite(OUT, 0, b"hello", 2)])
        assert {OUT: 5} == await logs.append([LogWrite(OUT, 1, b"ell", 3)])
        assert {OUT: 9} == await logs.append([LogWrite(OUT, 3, b"lo you", 4)])
        assert {OUT: 9, ERR: 0} == await logs.append([LogWrite(OUT, 10, b"far", 5), LogWrite(ERR, 1, b"far", 5)])
        assert b"hello you" == await all_of(logs, OUT)
        assert 2 == await logs.marks_count(ATTEMPT, 0)
        # In one call: a gap is filled by what stands before it.
        writes = [LogWrite(ERR, 0, b"ab", 6), LogWrite(ERR, 2, b"cd", 6), LogWrite(ERR, 1, b"bcde", 6)]
        assert {ERR: 5} == await logs.append(writes)
        assert b"abcde" == await all_of(logs, ERR)

    home.run(story)


def test_marks_tell_the_order_of_both_streams(home: Home) -> None:
    """In the order of arrival, numbered from 0, page by page; their bytes tile the streams; times never fall."""
    came = [(OUT, b"1", 10), (ERR, b"22", 10), (OUT, b"333", 20), (ERR, b"4", 15), (OUT, b"5", 30)]
    expected = [
        LogMark(10, 0, 0, 1),
        LogMark(10, 1, 0, 2),
        LogMark(20, 0, 1, 3),
        LogMark(20, 1, 2, 1),
        LogMark(30, 0, 4, 1),
    ]

    async def write(store: Any) -> None:
        offsets = {OUT: 0, ERR: 0}
        for key, data, at_ms in came:
            offsets[key] = (await logs_of(store).append([LogWrite(key, offsets[key], data, at_ms)]))[key]

    async def check(store: Any) -> None:
        logs = logs_of(store)
        assert 5 == await logs.marks_count(ATTEMPT, 0)
        assert expected == await logs.marks(ATTEMPT, 0, 0, 100)
        assert expected[1:3] == await logs.marks(ATTEMPT, 0, 1, 2)
        assert [] == await logs.marks(ATTEMPT, 0, 5, 2)
        assert [0, 0, 2, 2, 4, 5] == [await logs.since(ATTEMPT, 0, at_ms) for at_ms in (0, 10, 11, 20, 21, 31)]
        assert 0 == await logs.marks_count(ATTEMPT, 1)

    home.run(write)
    home.run(check)


def test_many_callers_at_once_lose_nothing(home: Home) -> None:
    """Fifty streams, each with a caller of its own and several calls on their way at once."""

    async def story(store: Any) -> None:
        logs = logs_of(store)

        async def one(task: int) -> None:
            key = LogKey((JobId(3), 0, task, 1), 0, task % 2)
            calls = [logs.append([LogWrite(key, n * 10, b"%010d" % (task * 100 + n), n)]) for n in range(20)]
            lengths = [answer[key] for answer in await asyncio.gather(*calls)]
            # What waited together is stored together, and each is told how far that came.
            assert all(length >= n * 10 + 10 for n, length in enumerate(lengths))
            assert 200 == lengths[-1]
            assert b"".join(b"%010d" % (task * 100 + n) for n in range(20)) == await all_of(logs, key)

        await asyncio.gather(*(one(task) for task in range(50)))

    home.run(story)


def test_a_job_that_is_removed_takes_its_logs_alone(home: Home) -> None:
    """All of its attempts and ranks; its neighbours keep theirs; what comes afterwards begins anew."""

    async def story(store: Any) -> None:
        logs = logs_of(store)
        gone = [LogKey((JobId(12), step, 0, n), rank, 0) for step in (0, 1) for n in (1, 2) for rank in (0, 1)]
        kept = LogKey((JobId(13), 0, 0, 1), 0, 0)
        for key in (*gone, kept):
            await logs.append([LogWrite(key, 0, b"said", 1)])
        await logs.remove(JobId(12))
        assert [0] * len(gone) == [await logs.length(key) for key in gone]
        assert (b"said", b"") == (await all_of(logs, kept), await all_of(logs, gone[0]))
        assert [] == await logs.marks(gone[0].attempt_id, 0, 0, 10)
        assert {gone[0]: 3} == await logs.append([LogWrite(gone[0], 0, b"new", 2)])

    home.run(story)
