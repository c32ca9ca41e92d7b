"""Fetching blobs: verified, each once, resumed where it broke off, several at a time and no more."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator.agent import parts
from coordinator.agent.asking import READ_BYTES, Refused, Stale, Whose
from coordinator.agent.cache import PARTS, Cache, NoRoom
from coordinator.agent.fetching import BARREN_MAX, Barren, Blob, Damaged, Fetcher, Gone
from coordinator.agent.parts import DiskFailed
from coordinator.agent.stillness import Motion
from coordinator.core.rows import LeaseToken
from tests.unit.agent.data_side import TENANT, DataSide, data_side

WHOSE = Whose("1.0.0.1", 0, LeaseToken(1, 7))
MB = 1 << 20
AHEAD = 2 * READ_BYTES


@asynccontextmanager
async def fetching(
    tmp_path: Path, at_once: int = 4, bytes_max: int = 1 << 30
) -> AsyncIterator[tuple[DataSide, Fetcher]]:
    """A fetcher with a cache in `tmp_path`, and who answers it."""
    async with data_side() as (side, asking):
        book = Cache(tmp_path / "cache", bytes_max, "boot-1")
        await book.load()
        fetcher = Fetcher(asking, book, at_once, draw=lambda: 0.01)
        try:
            yield side, fetcher
        finally:
            fetcher.close()


def blob(side: DataSide, data: bytes) -> Blob:
    digest = side.put(data)
    return Blob(digest, len(data), side.url(digest))


async def fetched(fetcher: Fetcher, wanted: Blob) -> bytes:
    async with fetcher.having(TENANT, wanted, WHOSE, Motion()) as path:
        return path.read_bytes()


def go(steps: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await steps

    asyncio.run(bounded())


def test_a_blob_is_fetched_once(tmp_path: Path) -> None:
    """Whoever wants it next has it from the cache; so has the next daemon."""

    async def steps() -> None:
        data = os.urandom(3 * MB + 17)
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, data)
            assert [await fetched(fetcher, wanted) for _ in range(2)] == [data, data]
            assert len(side.gets) == 1
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, data)
            assert await fetched(fetcher, wanted) == data
            assert side.gets == []

    go(steps())


def test_two_who_want_it_at_once_share_one_fetch(tmp_path: Path) -> None:
    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(MB)
            wanted = blob(side, data)
            assert await asyncio.gather(*(fetched(fetcher, wanted) for _ in range(10))) == [data] * 10
            assert len(side.gets) == 1

    go(steps())


def test_a_transfer_that_breaks_off_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Of 16 MB that break off five times, less than one percent travels twice."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(16 * MB)
            wanted = blob(side, data)
            side.cuts[wanted.digest] = [3 * MB, 5 * MB + 1, 5 * MB + 100_000, 11 * MB, 15 * MB]
            assert await fetched(fetcher, wanted) == data
            assert len(side.gets) == 6
            assert sum(side.sent.values()) <= 1.01 * len(data)
            assert fetcher.fetched_bytes == len(data)

    go(steps())


def test_the_next_daemon_goes_on_with_what_there_is(tmp_path: Path) -> None:
    """A daemon that is ended in the middle leaves the beginning; that counts in the bound, and is used."""

    async def steps() -> None:
        data = os.urandom(8 * MB)
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, data)
            side.cuts[wanted.digest] = [6 * MB]
            task = asyncio.create_task(fetched(fetcher, wanted))
            await side.until(lambda: len(side.gets) == 2)
            side.hold.clear()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert not fetcher.cache.has((TENANT, wanted.digest))
            assert fetcher.cache.status().size >= 6 * MB - AHEAD
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, data)
            assert fetcher.cache.status().size >= 6 * MB - AHEAD
            assert await fetched(fetcher, wanted) == data
            assert fetcher.fetched_bytes <= 2 * MB + AHEAD
            assert fetcher.cache.status().size == 8 * MB
            assert list((tmp_path / "cache" / PARTS).iterdir()) == []

    go(steps())


def test_when_one_gives_up_the_other_goes_on(tmp_path: Path) -> None:
    """An attempt that is cancelled takes nothing from one that waited for the same blob."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(2 * MB)
            wanted = blob(side, data)
            side.hold.clear()
            first = asyncio.create_task(fetched(fetcher, wanted))
            await side.until(lambda: len(side.gets) == 1)
            second = asyncio.create_task(fetched(fetcher, wanted))
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            side.hold.set()
            assert await second == data

    go(steps())


def test_bytes_that_are_something_else_are_never_given_out(tmp_path: Path) -> None:
    """Asked for once more, then told to the coordinator; nothing is kept. What comes behind its end is cut off."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(MB)
            wanted = blob(side, data)
            for wrong in (b"\0" * MB, b"\0" * MB + data, data[:-1] + b"?"):
                side.answers[wanted.digest], side.gets = wrong, []
                with pytest.raises(Damaged):
                    await fetched(fetcher, wanted)
                assert len(side.gets) == 2
                assert (0, (wanted.digest,)) == (side.damaged[-1].number, side.damaged[-1].digests)
                assert fetcher.cache.digests() == ()
                assert fetcher.cache.status().size == 0
            side.answers[wanted.digest] = data + b"more"
            assert await fetched(fetcher, wanted) == data

    go(steps())


def test_a_beginning_that_is_something_else_is_given_up(tmp_path: Path) -> None:
    """What an earlier daemon left may be rotten, or too long: it is fetched anew."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(MB)
            wanted = blob(side, data)
            for left in (b"\0" * 1_000, b"\0" * MB, b"\0" * (MB + 1)):
                fetcher.cache.part((TENANT, wanted.digest)).write_bytes(left)
                assert await fetched(fetcher, wanted) == data
                fetcher.cache.path((TENANT, wanted.digest)).unlink()
                fetcher.cache.forget((TENANT, wanted.digest))

    go(steps())


def test_a_damaged_file_of_the_cache_is_noticed_and_fetched_again(tmp_path: Path) -> None:
    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(MB)
            wanted = blob(side, data)
            await fetched(fetcher, wanted)
            path = fetcher.cache.path((TENANT, wanted.digest))
            path.chmod(0o600)
            path.write_bytes(b"\0" + data[1:])
            assert await fetched(fetcher, wanted) == data
            path.unlink()
            assert await fetched(fetcher, wanted) == data
            assert len(side.gets) == 3

    go(steps())


def test_an_answer_without_ranges_begins_anew(tmp_path: Path) -> None:
    """A store that does not know them costs time, not the blob."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(4 * MB)
            wanted = blob(side, data)
            side.ranges = False
            side.cuts[wanted.digest] = [2 * MB]
            assert await fetched(fetcher, wanted) == data

    go(steps())


def test_a_url_that_has_expired_is_asked_for_anew(tmp_path: Path) -> None:
    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(1_000)
            wanted = blob(side, data)
            side.url_refusals = [403, 429, 503]
            assert await fetched(fetcher, wanted) == data
            assert side.asked == [(WHOSE.attempt, "urls")]
            assert await fetched(fetcher, blob(side, b"x" * 10)._replace(url="")) == b"x" * 10

    go(steps())


def test_a_blob_that_is_gone_is_told_apart_from_one_that_cannot_be_reached(tmp_path: Path) -> None:
    """Gone: at once. Full disks, restarts and overload of the coordinator are waited for."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, b"here")
            lost = Blob("0" * 64, 10, side.url("0" * 64))
            with pytest.raises(Gone):
                await fetched(fetcher, lost)
            side.url_refusals = [500, 503, 507, 429, 408]
            assert await fetched(fetcher, wanted) == b"here"

    go(steps())


def test_an_answer_that_never_brings_a_byte_is_given_up_in_the_end(tmp_path: Path) -> None:
    """Not as damaged: it may be the way here. One that gets on, however slowly, is not given up."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, os.urandom(2 * MB))
            side.cuts[wanted.digest] = [100_000 * number for number in range(1, 2 * BARREN_MAX)]
            assert await fetched(fetcher, wanted) == side.blobs[wanted.digest]
            stuck = blob(side, os.urandom(MB))
            side.cuts[stuck.digest] = [500_000] * 100
            with pytest.raises(Barren, match="byte 500000"):
                await fetched(fetcher, stuck)

    go(steps())


@pytest.mark.parametrize("digest", ["../../../escape", "", "A" * 64, "0" * 63, "0" * 64 + "\n"])
def test_what_is_no_digest_reaches_no_file(tmp_path: Path, digest: str) -> None:
    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            with pytest.raises(Damaged):
                await fetched(fetcher, Blob(digest, 5, side.url(side.put(b"bytes"))))
            assert side.gets == []
            assert not (tmp_path.parent / "escape").exists()

    go(steps())


def test_a_url_that_is_none_is_refused_and_not_repeated_to_anybody(tmp_path: Path) -> None:
    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, b"x")._replace(url="http://?s=secret")
            with pytest.raises(Refused) as refused:
                await fetched(fetcher, wanted)
            assert "secret" not in str(refused.value)

    go(steps())


def test_a_stale_token_ends_it(tmp_path: Path) -> None:
    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            side.refusals = [(409, "stale_token")]
            with pytest.raises(Stale):
                await fetched(fetcher, Blob(side.put(b"x"), 1))

    go(steps())


def test_transfers_at_a_time_are_bounded(tmp_path: Path) -> None:
    """Over all that is wanted; and they do happen at a time."""

    async def steps() -> None:
        async with fetching(tmp_path, at_once=3) as (side, fetcher):
            blobs = [blob(side, os.urandom(200_000)) for _ in range(12)]
            side.hold.clear()
            tasks = [asyncio.create_task(fetched(fetcher, wanted)) for wanted in blobs]
            await side.until(lambda: len(side.gets) == 3)
            side.hold.set()
            await asyncio.gather(*tasks)
            assert side.most_at_once == 3

    go(steps())


def test_an_empty_blob_is_there_without_asking(tmp_path: Path) -> None:
    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            assert await fetched(fetcher, blob(side, b"")) == b""
            assert side.gets == []

    go(steps())


def test_a_small_cache_is_passed_through(tmp_path: Path) -> None:
    """Ten blobs, each larger than the whole bound, one after the other: all arrive, one at most is kept."""

    async def steps() -> None:
        async with fetching(tmp_path, bytes_max=1_000) as (side, fetcher):
            blobs = [blob(side, os.urandom(5_000)) for _ in range(10)]
            found = await asyncio.gather(*(fetched(fetcher, wanted) for wanted in blobs))
            assert found == [side.blobs[wanted.digest] for wanted in blobs]
            assert fetcher.cache.status().size <= 5_000

    go(steps())


@pytest.mark.parametrize("failing", ["write", "begin", "place"])
def test_a_disk_that_fails_is_no_network_that_fails(
    tmp_path: Path, failing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Full: with figures. Else with the reason. Neither is asked again for ever, and the next try works."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, os.urandom(MB))
            for number, expected in ((28, NoRoom), (5, DiskFailed)):
                with monkeypatch.context() as patch:
                    patch.setattr(parts.Part, failing, failing_with(number))
                    with pytest.raises(expected):
                        await fetched(fetcher, wanted)
            assert await fetched(fetcher, wanted) == side.blobs[wanted.digest]

    go(steps())


def failing_with(number: int) -> Callable[..., None]:
    def fail(part: parts.Part, *_: object) -> None:
        with parts.disk(Path("part")):
            raise OSError(number, os.strerror(number))

    return fail


def test_a_small_one_is_read_past_the_cache(tmp_path: Path) -> None:
    """Verified all the same, and no longer than it may be."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            wanted = blob(side, b"a manifest")
            assert await fetcher.read(wanted._replace(size=1_000), WHOSE) == b"a manifest"
            with pytest.raises(Damaged):
                await fetcher.read(wanted._replace(size=9), WHOSE)
            side.answers[wanted.digest] = b"another"
            with pytest.raises(Damaged):
                await fetcher.read(wanted, WHOSE)
            assert fetcher.cache.digests() == ()

    go(steps())
