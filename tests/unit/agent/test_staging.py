"""Staging: what an attempt needs is in its place before it is launched, or it ends with a reason that blames nobody
else."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from coordinator import wire
from coordinator.agent import channel, laying
from coordinator.agent.beneath import Unsafe
from coordinator.agent.cache import Cache
from coordinator.agent.fetching import Fetcher
from coordinator.agent.places import Places
from coordinator.agent.staging import Stager
from coordinator.agent.stillness import Motion, StoodStill, while_it_moves
from coordinator.core.rows import EndCause
from coordinator.core.work.jobspec import Isolation
from coordinator.core.work.launch_plan import CheckpointPlan, LaunchPlan
from tests.unit.agent.data_side import TENANT, DataSide, data_side
from tests.unit.agent.keeper_side import TOKEN

A = "1.0.0.1"
USER = 54_321 if os.geteuid() == 0 else 0


class Rig:
    """A stager between a coordinator, and a keeper that writes down what it is told."""

    def __init__(self, side: DataSide, fetcher: Fetcher, stager: Stager, tmp_path: Path) -> None:
        self.side = side
        self.fetcher = fetcher
        self.stager = stager
        self.ended: list[channel.End] = []
        self.launched: list[wire.Launch] = []
        self.over: list[tuple[str, int]] = []
        stager.over = self._on_over
        self._places = Places(tmp_path / "attempts", tmp_path / "work", ())
        self._news = asyncio.Event()

    def say(self, message: channel.ToKeeper) -> None:
        assert isinstance(message, channel.End)
        self.ended.append(message)

    def launch(self, directory: str, launch: wire.Launch) -> None:
        self.launched.append(launch)

    def _on_over(self, key: tuple[str, int]) -> None:
        self.over.append(key)
        self._news.set()

    def put(self, attempt: str = A, user: int = 0, **changes: Any) -> Path:
        """Have an attempt staged; its work directory."""
        place = self._places.take()
        now = channel.Now(
            attempt=attempt, rank=0, token=TOKEN, phase="leased", directory=place.kept, freeze_at_s=0.0, user=user
        )
        plan = msgspec.structs.replace(LaunchPlan(argv=("true",), tenant=TENANT, inputs=True), **changes)
        self.stager.put(now, wire.Launch(attempt=attempt, rank=0, token=TOKEN, plan=plan))
        return Path(place.work)

    async def done(self, count: int = 1) -> None:
        while len(self.over) < count:
            self._news.clear()
            await self._news.wait()

    async def staged(self, **changes: Any) -> Path:
        """One that is launched; its work directory."""
        work = self.put(**changes)
        await self.done(len(self.over) + 1)
        assert self.ended == []
        return work

    async def staged_again(self) -> Path:
        """Another one of the same inputs, behind one that ended."""
        work = self.put(attempt="1.0.0.2")
        await self.done(len(self.over) + 1)
        assert [launch.attempt for launch in self.launched] == ["1.0.0.2"]
        return work

    async def refused(self, **changes: Any) -> channel.End:
        """One that ends before it began."""
        self.put(**changes)
        await self.done(len(self.over) + 1)
        assert self.launched == []
        return self.ended[-1]


@asynccontextmanager
async def staging(
    tmp_path: Path, level: Isolation = Isolation.NONE, bytes_max: int = 1 << 30, still_s: float = 30.0
) -> AsyncIterator[Rig]:
    async with data_side() as (side, asking):
        fetcher = Fetcher(asking, Cache(tmp_path / "cache", bytes_max, "boot-1"), 4, draw=lambda: 0.01)

        def say(message: channel.ToKeeper) -> None:
            rig.say(message)

        def launch(directory: str, ordered: wire.Launch) -> None:
            rig.launch(directory, ordered)

        stager = Stager(asking, fetcher, tmp_path / "work", level, say, launch, still_s)
        rig = Rig(side, fetcher, stager, tmp_path)
        task = asyncio.create_task(stager.run())
        try:
            yield rig
        finally:
            side.hold.set()
            task.cancel()
            await asyncio.wait({task})


def go(steps: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(60):
            await steps

    asyncio.run(bounded())


def tree(directory: Path) -> dict[str, bytes]:
    """The files beneath it."""
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


RESTORE = CheckpointPlan(restore=True)


def test_inputs_are_in_place_before_the_program_is_launched(tmp_path: Path) -> None:
    """Where they were said to go, of any size, executable where they are; with the agent's credential."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            files = {
                "config.yaml": b"lr: 1",
                "data/deep/a.bin": os.urandom(3_000_000),
                "data/empty": b"",
                "run.sh": b"#!",
            }
            for path, data in files.items():
                rig.side.needs(path, data, executable=path == "run.sh")
            work = await rig.staged()
            assert tree(work / "home") == files
            assert os.access(work / "home" / "run.sh", os.X_OK)
            assert not os.access(work / "home" / "config.yaml", os.X_OK)
            assert [launch.attempt for launch in rig.launched] == [A]
            assert set(rig.side.bearers) == {"Bearer the-credential"}

    go(steps())


def test_the_next_task_has_them_from_the_cache_and_a_copy_of_its_own(tmp_path: Path) -> None:
    """Nothing travels twice; what one does to its copy, the other does not see, nor does the cache."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            digest = rig.side.needs("in", b"original")
            first = await rig.staged()
            with (first / "home" / "in").open("r+b") as file:
                file.write(b"CHANGED!")
            second = await rig.staged(attempt="1.0.1.1")
            assert (second / "home" / "in").read_bytes() == b"original"
            assert [asked for asked, _ in rig.side.gets] == [digest]

    go(steps())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_the_programs_user_owns_its_copies_and_cannot_reach_the_cache(tmp_path: Path) -> None:
    async def steps() -> None:
        async with staging(tmp_path, Isolation.UID) as rig:
            rig.side.needs("data/in", b"input")
            rig.side.saves(1, {"weights": b"1"})
            work = await rig.staged(user=USER, directory="deep/work", checkpoint=RESTORE)
            made = [path for part in ("home", "checkpoints") for path in (work / part).rglob("*")]
            assert sorted(path.name for path in made) == ["data", "deep", "in", "weights", "work"]
            assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(USER, USER)}
            assert (tmp_path / "cache" / ".parts").stat().st_mode & 0o077 == 0
            files = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
            assert all(path.stat().st_mode & 0o077 == 0 for path in files if path.name != ".boot")

    go(steps())


def test_they_go_beneath_the_working_directory_that_the_job_names(tmp_path: Path) -> None:
    """A relative one is made; one that leads out of the attempt's own is refused for good."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            rig.side.needs("in", b"x")
            work = await rig.staged(directory="./a/b/")
            assert tree(work / "home") == {"a/b/in": b"x"}
            rig.launched.clear()
            end = await rig.refused(attempt="1.0.1.1", directory="../../escaped")
            assert (end.cause, end.code) == (EndCause.STAGE, errno.ENOENT)
            assert not (tmp_path / "escaped").exists()

    go(steps())


def test_another_directory_of_the_machine_is_written_to_only_where_the_program_has_our_rights(tmp_path: Path) -> None:
    """At `none` it could write there itself; else we would lend it what it does not have."""

    async def steps(level: Isolation) -> None:
        (tmp_path / level / "shared").mkdir(parents=True)
        async with staging(tmp_path / level, level) as rig:
            rig.side.needs("in", b"x")
            shared = tmp_path / level / "shared"
            if level is Isolation.NONE:
                await rig.staged(directory=str(shared))
                assert tree(shared) == {"in": b"x"}
                rig.launched.clear()
                end = await rig.refused(attempt="1.0.1.1", directory=str(tmp_path / "missing"))
            else:
                end = await rig.refused(directory=str(shared))
                assert tree(shared) == {}
            assert (end.cause, end.code) == (EndCause.STAGE, errno.ENOENT)

    for level in Isolation:
        go(steps(level))


@pytest.mark.parametrize("path", ["../out", "/etc/coord-test", "a/../../out", "in/below", "a\0b", "link/out"])
def test_an_input_that_would_go_elsewhere_is_refused(tmp_path: Path, path: str) -> None:
    """Whatever the coordinator says; a link that lies there is not followed; nothing is launched."""

    async def steps() -> None:
        shared = tmp_path / "shared"
        shared.mkdir()
        (shared / "link").symlink_to(tmp_path)
        (shared / "in").write_text("a file")
        async with staging(tmp_path) as rig:
            rig.side.needs(path, b"x")
            end = await rig.refused(directory=str(shared))
            assert (end.cause, end.code) == (EndCause.STAGE, errno.ENOENT)
            assert not (tmp_path / "out").exists()

    go(steps())


def test_what_ends_it_is_blamed_on_whom_it_concerns(tmp_path: Path) -> None:
    """An input that is gone: for good. A damaged one: elsewhere. A lease that is over, a quota: nobody."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            digest = rig.side.needs("in", b"0123456789")
            del rig.side.blobs[digest]
            end = await rig.refused()
            assert (end.cause, end.code) == (EndCause.STAGE, errno.ENOENT)
            assert digest in end.why
            rig.side.blobs[digest], rig.side.answers[digest] = b"0123456789", b"damaged!!!"
            end = await rig.refused()
            assert (end.cause, end.code) == (EndCause.STAGE, None)
            rig.side.refusals = [(409, "stale_token")]
            assert (await rig.refused()).cause is EndCause.STOPPED
            rig.side.refusals = [(404, "not_found")]
            assert (await rig.refused()).code == errno.ENOENT
            rig.side.refusals = [(403, "forbidden")]
            assert (await rig.refused()).code is None
            rig.side.refusals = [(403, "quota")]
            assert (await rig.refused()).code == errno.EDQUOT
            end = await rig.refused(tenant="../../etc")
            assert (end.cause, end.code) == (EndCause.STAGE, None)

    go(steps())


def test_a_coordinator_that_cannot_answer_is_waited_for(tmp_path: Path) -> None:
    """A restart or a full disk over there ends nothing here."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            rig.side.needs("in", b"x")
            rig.side.refusals = [(503, "starting"), (507, "store_full"), (429, "too_fast"), (500, "internal")]
            work = await rig.staged()
            assert tree(work / "home") == {"in": b"x"}

    go(steps())


def test_a_full_disk_says_how_much_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """For the copy, too; before that, what only the cache keeps goes."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            rig.side.needs("old", b"o" * 3_000)
            await rig.staged()
            rig.launched.clear()
            rig.side.files.clear()
            rig.side.needs("in", b"i" * 4_000)
            monkeypatch.setattr(laying, "free_bytes", lambda where: 3_999)
            end = await rig.refused(attempt="1.0.1.1")
            assert (end.cause, end.code) == (EndCause.STAGE, errno.ENOSPC)
            assert "4000 bytes are needed" in end.why
            assert "are free on" in end.why
            assert rig.fetcher.cache.status().size == 4_000, "the old one went for it"
            assert rig.fetcher.cache.status().problem == end.why
            monkeypatch.undo()
            rig.put("1.0.2.1")
            await rig.done(len(rig.over) + 1)
            assert [launch.attempt for launch in rig.launched] == ["1.0.2.1"]
            assert rig.fetcher.cache.status().problem == ""

    go(steps())


def test_one_that_is_dropped_writes_nothing_any_more_once_it_is_over(tmp_path: Path) -> None:
    """Its directories may be removed then; what came of its inputs is kept for the next."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            digest = rig.side.needs("in", os.urandom(2_000_000))
            rig.side.hold.clear()
            work = rig.put()
            await rig.side.until(lambda: len(rig.side.gets) == 1)
            assert rig.stager.holds((A, 0))
            rig.stager.drop((A, 0))
            await rig.done()
            assert not rig.stager.holds((A, 0))
            assert tree(work) == {}
            assert (rig.launched, rig.ended) == ([], [])
            rig.side.hold.set()
            again = await rig.staged(attempt="1.0.0.2")
            assert (again / "home" / "in").read_bytes() == rig.side.blobs[digest]

    go(steps())


def test_one_that_is_dropped_before_it_began_is_never_begun(tmp_path: Path) -> None:
    async def steps() -> None:
        async with staging(tmp_path) as rig:
            rig.put("1.0.1.1")
            rig.stager.drop(("1.0.1.1", 0))
            await rig.staged()
            assert rig.side.asked == [(A, "staging")]

    go(steps())


# ---- checkpoints


def test_the_newest_checkpoint_is_restored(tmp_path: Path) -> None:
    """Into the checkpoint directory, with directories and modes of its own; the program is told its number."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            rig.side.saves(6, {"weights": b"six"})
            rig.side.saves(7, {"weights": b"seven", "optimizer/state": b"adam"})
            work = await rig.staged(inputs=False, checkpoint=RESTORE)
            assert tree(work / "checkpoints") == {"weights": b"seven", "optimizer/state": b"adam"}
            assert rig.side.restored == [7]
            assert ("COORD_RESTORED", "7") in rig.launched[0].plan.env

    go(steps())


def test_one_of_its_own_directory_lies_over_the_inputs(tmp_path: Path) -> None:
    """What the program had made of an input is newer than the input."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            rig.side.needs("ckpt/weights", b"initial")
            rig.side.needs("ckpt/vocab", b"words")
            rig.side.saves(1, {"weights": b"trained"})
            work = await rig.staged(checkpoint=CheckpointPlan(path="ckpt/", restore=True))
            assert tree(work / "home") == {"ckpt/weights": b"trained", "ckpt/vocab": b"words"}
            assert tree(work / "checkpoints") == {}

    go(steps())


@pytest.mark.parametrize("wound", ["file", "gone", "manifest", "no manifest", "manifest gone", "escape", "in the way"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, wound: str) -> None:
    """Whatever is wrong with it, it is said, with its number and the reason, and nothing of it stays."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            rig.side.needs("ckpt/a", b"input")
            rig.side.saves(6, {"b": b"b of six"})
            manifest = rig.side.saves(7, {"a": b"a of seven", "b": b"b of seven"})
            victim = rig.side.put(b"b of seven")
            match wound:
                case "file":
                    rig.side.answers[victim] = b"x of seven"
                case "gone":
                    del rig.side.blobs[victim]
                case "manifest":
                    rig.side.answers[manifest] = rig.side.blobs[manifest][:-1] + b"]"
                case "no manifest":
                    rig.side.states[0] = msgspec.structs.replace(
                        rig.side.states[0], manifest=victim, url=rig.side.url(victim)
                    )
                case "manifest gone":
                    del rig.side.blobs[manifest]
                case "in the way":
                    others = {f"b{number}": os.urandom(200_000) for number in range(20)}  # under way as it fails
                    rig.side.saves(7, {"a/below": b"where an input is a file", "b": b"b of seven", **others})
                    del rig.side.states[1]
                case _:
                    forged = rig.side.blobs[manifest].replace(b'"path":"b"', b'"path":"../b"')
                    digest = rig.side.put(forged)
                    rig.side.states[0] = msgspec.structs.replace(
                        rig.side.states[0], manifest=digest, url=rig.side.url(digest)
                    )
            work = await rig.staged(checkpoint=CheckpointPlan(path="ckpt", restore=True))
            assert [(said.number, bool(said.why)) for said in rig.side.damaged if said.number] == [(7, True)]
            assert rig.side.restored == [6]
            assert tree(work / "home") == {"ckpt/a": b"input", "ckpt/b": b"b of six"}
            assert ("COORD_RESTORED", "6") in rig.launched[0].plan.env

    go(steps())


def test_with_no_checkpoint_left_it_starts_from_nothing(tmp_path: Path) -> None:
    """Told as not restored; that is no failure."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            for number in (1, 2):
                del rig.side.blobs[rig.side.saves(number, {"weights": bytes([number])})]
            work = await rig.staged(inputs=False, checkpoint=RESTORE)
            assert [said.number for said in rig.side.damaged if said.number] == [2, 1]
            assert tree(work) == {}
            assert "COORD_RESTORED" not in dict(rig.launched[0].plan.env)

    go(steps())


def test_a_network_that_breaks_damages_no_checkpoint(tmp_path: Path) -> None:
    async def steps() -> None:
        async with staging(tmp_path) as rig:
            manifest = rig.side.saves(3, {"weights": os.urandom(500_000)})
            weights = next(digest for digest in rig.side.blobs if digest != manifest)
            rig.side.cuts = {manifest: [0, 10], weights: [0, 100_000, 400_000]}
            rig.side.url_refusals = [503, 403, 429]
            work = await rig.staged(inputs=False, checkpoint=RESTORE)
            assert (work / "checkpoints" / "weights").read_bytes() == rig.side.blobs[weights]
            assert (rig.side.damaged, rig.side.restored) == ([], [3])

    go(steps())


# ---- ahead of a grant


def test_inputs_are_fetched_ahead_of_a_grant(tmp_path: Path) -> None:
    """Into the cache; when it is granted nothing travels any more. What fails then concerns nobody."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            digest = rig.side.needs("in", b"x" * 1_000)
            rig.stager.warm(A, 0)
            await rig.side.until(lambda: bool(rig.side.sent))
            while not rig.fetcher.cache.has((TENANT, digest)):
                rig.fetcher.cache.changed.clear()
                await rig.fetcher.cache.changed.wait()
            await rig.staged()
            assert len(rig.side.gets) == 1
            rig.side.refusals = [(404, "not_found")]
            rig.stager.warm("9.0.0.1", 0)
            await rig.side.until(lambda: not rig.side.refusals)
            await rig.staged(attempt="1.0.1.1")

    go(steps())


def test_the_checkpoint_is_fetched_ahead_too(tmp_path: Path) -> None:
    """Of the newest one every file; when it is granted its list alone is read again."""

    async def steps() -> None:
        async with staging(tmp_path) as rig:
            rig.side.saves(1, {"old": b"o" * 1_000})
            rig.side.saves(2, {"a": b"a" * 1_000, "deep/b": b"b" * 2_000})
            rig.stager.warm(A, 0)
            while rig.fetcher.cache.status().size < 3_000:
                rig.fetcher.cache.changed.clear()
                await rig.fetcher.cache.changed.wait()
            before = len(rig.side.gets)
            await rig.staged(inputs=False, checkpoint=CheckpointPlan(restore=True))
            assert (before + 1, [2]) == (len(rig.side.gets), rig.side.restored)

    go(steps())


# ---- what stands still


def test_staging_that_stands_still_is_given_up_and_blamed_on_nobody(tmp_path: Path) -> None:
    """No byte for so long: it ends with cause `stage`, to be tried elsewhere, and nothing of it goes on. What comes
    later is brought."""

    async def steps() -> None:
        async with staging(tmp_path, still_s=0.3) as rig:
            rig.side.needs("in", b"x" * 1_000)
            rig.side.hold.clear()
            end = await rig.refused()
            assert (end.cause, end.code) == (EndCause.STAGE, None) and "nothing of it came" in end.why
            assert not rig.stager.holds((A, 0))
            rig.side.hold.set()
            await rig.staged_again()

    go(steps())


def test_work_goes_on_while_something_moves() -> None:
    """However long it takes; what it raises is raised, and a caller that is cancelled leaves nothing behind."""

    async def steps() -> None:
        motion, ended = Motion(), asyncio.Event()

        async def slow() -> str:
            for _ in range(10):
                await asyncio.sleep(0.05)
                motion.moved()
            return "done"

        async def stuck() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async def fails() -> None:
            raise Unsafe("a link")

        assert "done" == await while_it_moves(slow(), motion, 0.4)
        with pytest.raises(Unsafe):
            await while_it_moves(fails(), motion, 0.4)
        with pytest.raises(StoodStill):
            await while_it_moves(stuck(), motion, 0.05)
        assert ended.is_set()
        ended.clear()
        waiting = asyncio.ensure_future(while_it_moves(stuck(), motion, 60.0))
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert ended.is_set()

    go(steps())
