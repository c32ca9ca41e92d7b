"""When a state is saved: at the program's word, when it stands still, and not when it could be half of one."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from coordinator import wire_data
from coordinator.agent.asking import Refused, Stale, Whose
from coordinator.agent.courier import Courier, Means, NotSaved, Pending
from coordinator.agent.grounds import Ground
from coordinator.agent.log import logger
from coordinator.agent.saving import Saver
from coordinator.agent.snapshots import Snapshot
from coordinator.agent.spool import Spool
from coordinator.core.rows import LeaseToken
from coordinator.core.work.launch_plan import CheckpointPlan

NOBODY = 65_534
WHOSE = Whose("1.0.0.1", 0, LeaseToken(1, 7))


class Coordinator:
    """Takes what is sent and counts checkpoints: both sides of the network in one, in this process."""

    def __init__(self) -> None:
        self.taken: list[wire_data.CheckpointRequest] = []
        self.states: list[dict[str, bytes]] = []
        self.raises: list[Exception] = []
        self.next_ms: int | None = None
        self.begun = 0
        """What was begun to be sent."""
        self.open = asyncio.Event()
        self.open.set()
        self._news = asyncio.Event()

    async def send(self, _whose: Whose, parcels: Any) -> int:
        self.begun += 1
        await self.open.wait()
        if self.raises:
            raise self.raises.pop()
        return sum(parcel.size for parcel in parcels)

    async def checkpoint(self, _whose: Whose, request: wire_data.CheckpointRequest) -> wire_data.CheckpointAnswer:
        self.taken.append(request)
        self._news.set()
        return wire_data.CheckpointAnswer(number=len(self.taken), next_ms=self.next_ms)

    async def count(self, count: int, within_s: float = 60.0) -> None:
        """Return when so many checkpoints count."""
        async with asyncio.timeout(within_s):
            while len(self.taken) < count:
                self._news.clear()
                await self._news.wait()


class Rig:
    """A saver of a directory of the test's own, looked at as the daemon does."""

    def __init__(self, path: Path, rule: CheckpointPlan, explicit: bool, user: int = 0) -> None:
        self.path = path / "state"
        self.path.mkdir()
        self.head = Coordinator()
        self.spool = Spool(path)
        self.signals = 0
        self.told_explicit = 0
        self.run: asyncio.Future[None] | None = None
        """The saver's own task, while it is used."""
        means = Means(self.head, self.head, self.spool)  # type: ignore[arg-type]
        self.saver = Saver(
            WHOSE,
            Ground(str(path), "state"),
            rule,
            means,
            user,
            explicit=explicit,
            tell=self._tell,
            on_explicit=self._on_explicit,
            on_saved=lambda: None,
        )

    def _tell(self) -> None:
        self.signals += 1

    def _on_explicit(self) -> None:
        self.told_explicit += 1

    def put(self, **files: str) -> None:
        for name, text in files.items():
            (self.path / name.replace("_", ".")).write_text(text)

    async def until(self, true: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not true():  # noqa: ASYNC110  # of files, and of threads: nothing tells of these
                await asyncio.sleep(0.01)

    async def gone(self, name: str) -> None:
        await self.until(lambda: not (self.path / name).exists())


@asynccontextmanager
async def saving(path: Path, explicit: bool = False, user: int = 0, **rule: Any) -> AsyncIterator[Rig]:
    rig = Rig(path, CheckpointPlan(**rule), explicit, user)

    async def look() -> None:
        while True:
            rig.saver.on_ready(rig.saver.look())
            await asyncio.sleep(0.02)

    rig.run = run = asyncio.ensure_future(rig.saver.run())
    looks = asyncio.ensure_future(look())
    try:
        yield rig
    finally:
        for task in (run, looks):
            task.cancel()
        await asyncio.gather(run, looks, return_exceptions=True)
    await rig.until(lambda: rig.spool.used == 0)  # no snapshot is left behind


def test_a_program_says_by_a_file_that_its_state_is_whole(tmp_path: Path) -> None:
    """Its text is the label; the file goes when the copies are made, though nothing has been sent yet."""

    async def go() -> None:
        async with saving(tmp_path) as rig:
            rig.head.open.clear()
            rig.put(n="1", _ready="step=1\n")
            await rig.gone(".ready")
            rig.head.open.set()
            await rig.head.count(1)
            assert "step=1" == rig.head.taken[0].label
            assert 1 == rig.told_explicit

    asyncio.run(go())


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_lies_under_the_name_of_our_word_is_given_to_nobody(tmp_path: Path) -> None:
    """A hard link called `.wanted` to a file of somebody else's stays that one's, with its bytes; a FIFO holds nobody
    up; what we make ourselves is the program's."""
    theirs = tmp_path / "theirs"
    theirs.write_text("a secret")
    theirs.chmod(0o600)

    async def go() -> None:
        async with saving(tmp_path, user=NOBODY) as rig:
            wanted = rig.path / ".wanted"
            os.link(theirs, wanted)
            await rig.saver.want("the machine is drained")
            assert (0, "a secret") == (theirs.stat().st_uid, theirs.read_text())
            wanted.unlink()
            os.mkfifo(wanted)
            await rig.saver.want("the machine is drained")
            wanted.unlink()
            await rig.saver.want("the machine is drained")
            assert NOBODY == wanted.stat().st_uid

    asyncio.run(go())


def test_a_word_that_is_older_than_the_files_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program wrote on after `.ready`: what lies there may be half of the next state. Its next word counts."""
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level("INFO", logger.name)

    async def go() -> None:
        async with saving(tmp_path, explicit=True) as rig:
            rig.put(n="1", _ready="old")
            rig.put(n="half of 2")
            await rig.until(lambda: "the next one is waited for" in caplog.text)
            assert [] == rig.head.taken
            (rig.path / ".ready").unlink()
            rig.put(n="2", _ready="new")
            await rig.head.count(1)
            assert "new" == rig.head.taken[0].label

    asyncio.run(go())


def test_a_program_that_says_nothing_is_saved_when_it_stands_still(tmp_path: Path) -> None:
    """Every `every`, if anything changed; it is told by a file and a signal that one is due."""

    async def go() -> None:
        async with saving(tmp_path, every_ms=300, signal="USR1") as rig:
            rig.head.next_ms = 300
            rig.put(n="1")
            await rig.head.count(1)
            await rig.gone(".wanted")
            before = rig.signals
            await rig.until(lambda: rig.signals >= before + 3)
            assert 1 == len(rig.head.taken), "nothing had changed"
            rig.put(n="2")
            await rig.head.count(2)
            assert 0 == rig.told_explicit

    asyncio.run(go())


def test_who_spoke_once_is_never_guessed_at_again(tmp_path: Path) -> None:
    """A directory that stands still may be half of a state, and this program can say so; also after a new daemon."""

    async def go() -> None:
        async with saving(tmp_path, explicit=True, every_ms=200, signal="USR1") as rig:
            rig.put(n="half")
            await rig.until(lambda: rig.signals >= 5)
            assert (rig.path / ".wanted").exists()
            assert [] == rig.head.taken
            await rig.saver.last(by_itself=True, just_now=True)
            assert [] == rig.head.taken

    asyncio.run(go())


def test_a_call_is_answered_when_it_counts_or_when_it_was_copied(tmp_path: Path) -> None:
    """With `wait` by the number; without, while it is still on its way."""

    async def go() -> None:
        async with saving(tmp_path) as rig:
            rig.put(n="1")
            saved = await rig.saver.call("one", wait=True)
            assert (1, 1, "one") == (saved.number, saved.size, rig.head.taken[0].label)
            rig.head.open.clear()
            rig.put(n="22")
            saved = await rig.saver.call("two", wait=False)
            assert (None, 2) == (saved.number, saved.size)
            rig.head.open.set()
            await rig.head.count(2)

    asyncio.run(go())


def test_what_waits_to_be_sent_gives_way_to_what_came_after(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two copies at most lie in the spool, however slow the network: who waits for the one between gets the last."""
    copied: list[str] = []
    put = Courier.put

    def seen(courier: Courier, taken: Snapshot, label: str, whole_s: float) -> Pending:
        copied.append(label)
        return put(courier, taken, label, whole_s)

    async def go() -> None:
        monkeypatch.setattr(Courier, "put", seen)
        async with saving(tmp_path) as rig:
            rig.head.open.clear()
            calls = []
            for n in range(4):
                rig.put(n=str(n))
                calls.append(asyncio.ensure_future(rig.saver.call(f"{n}", wait=True)))
                await rig.until(lambda n=n: copied[-1:] == [f"{n}"] and rig.head.begun == 1)  # type: ignore[misc]
            rig.head.open.set()
            numbers = [saved.number for saved in await asyncio.gather(*calls)]
            assert [1, 2, 2, 2] == numbers
            assert ["0", "3"] == [request.label for request in rig.head.taken]

    asyncio.run(go())


def test_a_refusal_is_told_and_the_next_one_is_tried(tmp_path: Path) -> None:
    """A quota that is full costs checkpoints, not the job."""

    async def go() -> None:
        async with saving(tmp_path) as rig:
            rig.put(n="1")
            rig.head.raises.append(Refused(403, "quota", "the storage quota is full"))
            with pytest.raises(NotSaved, match="storage quota"):
                await rig.saver.call("", wait=True)
            assert "storage quota" in rig.saver.problem
            assert 1 == (await rig.saver.call("", wait=True)).number
            assert "" == rig.saver.problem

    asyncio.run(go())


def test_an_attempt_that_is_not_ours_any_more_is_saved_no_more(tmp_path: Path) -> None:
    """Whoever waits is told so; nothing is sent for it again."""

    async def go() -> None:
        async with saving(tmp_path) as rig:
            rig.put(n="1")
            rig.head.raises.append(Stale(409, "stale_token", "it is another's"))
            with pytest.raises(NotSaved, match="not ours"):
                await rig.saver.call("", wait=True)
            assert rig.run is not None
            await rig.until(rig.run.done)
            with pytest.raises(NotSaved):
                await rig.saver.call("", wait=True)
            assert [] == rig.head.taken

    asyncio.run(go())


@pytest.mark.parametrize(
    ("by_itself", "just_now", "still_s", "expected"),
    [
        (True, True, 0.0, 1),  # it wrote, and ended: that is what it wanted to leave
        (True, False, 0.0, 1),  # the same, seen by the next daemon
        (False, True, 0.0, 0),  # killed, perhaps in the middle of a write
        (False, True, 0.5, 1),  # killed, long after its last write
        (False, False, 0.5, 0),  # killed nobody knows when
    ],
)
def test_what_an_end_left_is_saved_if_it_can_be_trusted(
    tmp_path: Path, by_itself: bool, just_now: bool, still_s: float, expected: int
) -> None:
    """Of a program that never said anything."""

    async def go() -> None:
        async with saving(tmp_path, every_ms=2_000 if still_s else 60_000) as rig:  # 0.4 s, or a whole one, is long
            rig.put(n="1")
            await asyncio.sleep(still_s)
            await rig.saver.last(by_itself, just_now)
            assert expected == len(rig.head.taken)

    asyncio.run(go())


def test_what_was_vouched_for_is_saved_at_the_end(tmp_path: Path) -> None:
    """By whoever comes: it said that its state is whole, and nothing was written since."""

    async def go() -> None:
        async with saving(tmp_path, explicit=True) as rig:
            rig.saver.on_ready(None)
            rig.put(n="1", _ready="last")
            await rig.saver.last(by_itself=False, just_now=False)
            assert "last" == rig.head.taken[0].label

    asyncio.run(go())


@pytest.mark.parametrize("by_a_word", [True, False])
def test_a_state_is_as_old_as_its_programs_word_or_its_last_write(
    tmp_path: Path, by_a_word: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as young as the copy: what was done in between is not in it, though a daemon that came back copies it now."""

    async def go() -> None:
        monkeypatch.setattr(Saver, "on_ready", lambda saver, ready: None)  # no daemon is there to see it
        async with saving(tmp_path, explicit=by_a_word) as rig:
            rig.put(n="1", **({"_ready": "step=1"} if by_a_word else {}))
            await asyncio.sleep(0.5)
            await rig.saver.last(by_itself=True, just_now=False)
            assert 500 <= rig.head.taken[0].age_ms < 5_000

    asyncio.run(go())


def test_a_state_of_a_program_that_waits_is_as_young_as_its_copy(tmp_path: Path) -> None:
    """It called, and does nothing meanwhile."""

    async def go() -> None:
        async with saving(tmp_path) as rig:
            rig.put(n="1")
            began_s = time.monotonic()
            await asyncio.sleep(0.5)
            await rig.saver.call("", wait=True)
            assert rig.head.taken[0].age_ms < (time.monotonic() - began_s - 0.5) * 1000 + 1

    asyncio.run(go())
