"""What a program made for later steps stays in the cache: verified, within bounds, and in nobody's way."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from coordinator.agent import fetching as fetching_module
from coordinator.agent.cache import PARTS
from coordinator.agent.collecting import Collected
from coordinator.agent.fetching import Blob
from coordinator.agent.grounds import Ground
from coordinator.agent.keeping import Keeping
from coordinator.agent.stillness import Motion
from tests.unit.agent.data_side import TENANT, digest_of
from tests.unit.agent.test_fetching import MB, WHOSE, blob, fetched, fetching, go


def made(tmp_path: Path, name: str, data: bytes) -> Collected:
    """An output of a program, as it is found."""
    file = tmp_path / "made" / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return Collected(name, digest_of(data), len(data), False, Ground(str(tmp_path), "made"), 0)


def beginnings(tmp_path: Path) -> list[str]:
    return [path.name for path in (tmp_path / "cache" / PARTS).iterdir()]


def test_what_later_steps_take_is_not_fetched(tmp_path: Path) -> None:
    """It lies in the tenant's part of the cache, is told, and does not change with its program's file. What they do not
    take is not kept."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(3 * MB + 17)
            files = [made(tmp_path, "big.bin", data), made(tmp_path, "other.bin", b"other")]
            fetcher.cache.changed.clear()
            kept = await Keeping(fetcher, TENANT, ("b*.bin",)).keep(files)
            assert [digest_of(data)] == kept == list(fetcher.cache.digests())
            assert fetcher.cache.changed.is_set() and fetcher.cache.status().size == len(data)
            (tmp_path / "made" / "big.bin").write_bytes(b"changed")
            wanted = Blob(digest_of(data), len(data), side.url(side.put(data)))
            assert await fetched(fetcher, wanted) == data
            assert (side.gets, fetcher.fetched_bytes, beginnings(tmp_path)) == ([], 0, [])
            async with fetcher.having("chemistry", wanted, WHOSE, Motion()):
                assert len(side.gets) == 1  # another tenant's has to be brought

    go(steps())


def test_a_copy_that_was_damaged_is_noticed_by_its_digest(tmp_path: Path) -> None:
    """Like every other file of the cache."""

    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(MB)
            wanted = blob(side, data)
            assert [wanted.digest] == await Keeping(fetcher, TENANT, ("*",)).keep([made(tmp_path, "x", data)])
            path = fetcher.cache.path((TENANT, wanted.digest))
            path.chmod(0o600)
            with path.open("r+b") as file:
                file.write(b"rotten")
            assert await fetched(fetcher, wanted) == data
            assert len(side.gets) == 1

    go(steps())


@pytest.mark.parametrize("now", [b"other bytes", b"longer than it was when it was hashed", b"short", None])
def test_what_is_not_what_was_hashed_is_not_kept(tmp_path: Path, now: bytes | None) -> None:
    """A process that was left behind may write to it, or remove it: nothing of the copy stays."""

    async def steps() -> None:
        async with fetching(tmp_path) as (_, fetcher):
            file = made(tmp_path, "x", b"these bytes")
            path = tmp_path / "made" / "x"
            path.write_bytes(now) if now is not None else path.unlink()
            assert await Keeping(fetcher, TENANT, ("x",)).keep([file]) == []
            assert (fetcher.cache.status().size, beginnings(tmp_path)) == (0, [])
            await fetcher.cache.promise(1 << 30)  # what was promised for it was given back

    go(steps())


def test_one_attempt_has_the_half_of_the_cache_and_waits_for_nobody(tmp_path: Path) -> None:
    """The largest first; what nobody uses goes for them, what is being used stays, and nothing goes for nothing."""

    async def steps() -> None:
        async with fetching(tmp_path, bytes_max=10 * MB) as (side, fetcher):
            keeping = Keeping(fetcher, TENANT, ("**",))
            used, idle = blob(side, os.urandom(6 * MB)), blob(side, os.urandom(2 * MB))
            await fetched(fetcher, idle)
            files = [made(tmp_path, str(size), os.urandom(size * MB)) for size in (1, 3, 4, 6)]
            async with fetcher.having(TENANT, used, WHOSE, Motion()):
                kept = await keeping.keep(files)
                assert kept == [files[2].digest]
                assert fetcher.cache.has((TENANT, used.digest)) and not fetcher.cache.has((TENANT, idle.digest))
                assert await keeping.keep(files[1:2]) == [files[1].digest]
                assert await keeping.keep([made(tmp_path, "5", os.urandom(5 * MB))]) == []
                assert fetcher.cache.has((TENANT, files[1].digest))
            assert await keeping.keep(files) == [files[2].digest, files[0].digest]
            assert fetcher.cache.status().size <= 10 * MB

    go(steps())


def test_what_somebody_is_fetching_is_left_to_him(tmp_path: Path) -> None:
    async def steps() -> None:
        async with fetching(tmp_path) as (side, fetcher):
            data = os.urandom(MB)
            side.hold.clear()
            async with asyncio.TaskGroup() as group:
                coming = group.create_task(fetched(fetcher, blob(side, data)))
                await side.until(lambda: bool(side.gets))
                assert await Keeping(fetcher, TENANT, ("x",)).keep([made(tmp_path, "x", data)]) == []
                side.hold.set()
            assert coming.result() == data

    go(steps())


def test_a_full_disk_keeps_nothing_and_fails_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Found out at once, or while it is copied."""

    async def steps() -> None:
        async with fetching(tmp_path) as (_, fetcher):
            keeping, file = Keeping(fetcher, TENANT, ("x",)), made(tmp_path, "x", b"these bytes")
            with monkeypatch.context() as patched:
                patched.setattr("coordinator.agent.cache.free_bytes", lambda _: 5)
                assert await keeping.keep([file]) == []
            with monkeypatch.context() as patched:
                patched.setattr("coordinator.agent.laying.free_bytes", lambda _: 5)
                patched.setattr("coordinator.agent.laying._FICLONE", 0)
                assert await keeping.keep([file]) == []
            assert (fetcher.cache.status().size, beginnings(tmp_path)) == (0, [])
            assert await keeping.keep([file]) == [file.digest]

    go(steps())


def test_whoever_is_cancelled_leaves_no_half_of_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing promised."""

    async def steps() -> None:
        async with fetching(tmp_path) as (_, fetcher):
            file = made(tmp_path, "x", os.urandom(4 * MB))
            begun = asyncio.Event()
            loop = asyncio.get_running_loop()
            copied = fetching_module._copied

            def told(*of: object) -> object:
                loop.call_soon_threadsafe(begun.set)
                return copied(*of)  # type: ignore[arg-type]

            monkeypatch.setattr(fetching_module, "_copied", told)
            task = asyncio.create_task(Keeping(fetcher, TENANT, ("x",)).keep([file]))
            await begun.wait()
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled() and beginnings(tmp_path) == []
            assert not fetcher.cache.has((TENANT, file.digest))
            await fetcher.cache.promise(1 << 30)

    go(steps())


@pytest.mark.parametrize(("tenant", "patterns"), [("../evil", ("x",)), (TENANT, ("../x", "x"))])
def test_what_means_nothing_here_is_not_kept(tmp_path: Path, tenant: str, patterns: tuple[str, ...]) -> None:
    """Of a coordinator that says something else: the result counts all the same."""

    async def steps() -> None:
        async with fetching(tmp_path) as (_, fetcher):
            assert await Keeping(fetcher, tenant, patterns).keep([made(tmp_path, "x", b"x")]) == []

    go(steps())
