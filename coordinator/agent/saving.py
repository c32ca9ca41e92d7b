"""When the state of an attempt is saved: at its own word, when one is due, and when the coordinator wants one.

A program says that its state is whole by the file `.ready`, or by a call of the endpoint; from then on nothing is taken
that it did not say so of. One that never did is saved when its directory has changed and then stood still. That one is
wanted now it is told by the file `.wanted`, and by the signal that its job named.

Two things go on side by side: copying, which is over before the program is told so, and sending, which may take long.
What waits to be sent gives way to what was copied after it.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import time
from collections.abc import Callable
from functools import partial

from coordinator.agent import beneath, heavy, snapshots
from coordinator.agent.asking import Whose
from coordinator.agent.clock import boot_s
from coordinator.agent.courier import Courier, Means, NotSaved, Pending, Saved, boot_of
from coordinator.agent.grounds import Ground
from coordinator.agent.log import logger
from coordinator.agent.marks import Ready, label_of, mark, ready_in, unmark
from coordinator.agent.snapshots import READY, CannotSave, Known, Scan, Snapshot, Unquiet
from coordinator.agent.spool import NoRoom
from coordinator.core.work.launch_plan import CheckpointPlan

LOOK_AGAIN_S = 0.2
"""Between two looks at a directory that is about to stand still."""
STILL_S = 1.0
"""A directory that nobody vouches for must have stood still for so long, or for a fifth of the interval if that is
less."""
STILL_SHARE = 0.2
SCANS_SHARE = 0.02
"""Of the time at most goes into looking."""
READY_S = 1.0
"""So long a program may go on writing after it said that its state is whole; then its next word is waited for."""
CALL_S = 10.0
"""So long a call waits for files that are still written to."""
AGAIN_S = 30.0
"""After a checkpoint that could not be sent, of a job that names no interval."""
_FAILURES = (CannotSave, NoRoom, OSError, beneath.Unsafe)


class Saver:
    """Of one attempt. `run` is a task of its own; everything else may be called while it runs."""

    def __init__(
        self,
        whose: Whose,
        ground: Ground,
        rule: CheckpointPlan,
        means: Means,
        user: int,
        *,
        explicit: bool,
        tell: Callable[[], None],
        on_explicit: Callable[[], None],
        on_saved: Callable[[], None],
    ) -> None:
        """`tell` has the keeper send the job's signal. `on_explicit`: the program says itself when its state is whole.
        `on_saved`: a checkpoint counts."""
        self._whose = whose
        self.ground = ground
        self.rule = rule
        self._means = means
        self._user = user
        self._tell = tell
        self._on_explicit = on_explicit
        self._on_saved = on_saved
        self.explicit = explicit
        self.problem = ""
        """Why the last one was not taken or not sent."""
        self.settled = asyncio.Event()
        """Nothing is wanted, or it cannot be had."""
        self._due_s = boot_s() + rule.every_ms / 1000 if rule.every_ms is not None else math.inf
        self._wanted = False
        self._known: Known = {}
        self._last: Scan | None = None
        """Of the last one."""
        self._before: Scan | None = None
        """The look before, while it is waited that the directory stands still."""
        self._look_s = 0.0
        """When the next look is due."""
        self._ready: Ready | None = None
        self._ignored: tuple[int, int] | None = None
        self._copying = asyncio.Lock()
        self._news = asyncio.Event()
        self._courier = Courier(whose, means, self._is_saved, self._is_not_stored)

    async def run(self) -> None:
        """Save what is to be saved, for ever. Raises Stale when the attempt is not ours any more."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._watch())
                group.create_task(self._courier.run())
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            self.settled.set()
            self._courier.end()

    # ---- what others say

    def look(self) -> Ready | None:
        """What `.ready` says now. Blocks for a moment: for a thread."""
        return ready_in(self.ground, self._user)

    def on_ready(self, ready: Ready | None) -> None:
        """What `look` saw."""
        self._ready = ready if ready is not None and ready[:2] != self._ignored else None
        if self._ready is not None:
            self._news.set()

    async def want(self, why: str) -> None:
        """Ask the program for a checkpoint; one that stands still already is one. `why`: empty, since one is due."""
        logger.debug("a checkpoint of %s is wanted: %s", self._whose.attempt, why or "one is due")
        self._wanted, self._before, self._look_s = True, None, 0.0
        self.settled.clear()
        self._news.set()
        await self._tell_wanted()
        if self.rule.signal:
            self._tell()

    async def _tell_wanted(self) -> None:
        try:
            await asyncio.to_thread(mark, self.ground, self._user)
        except FileNotFoundError:
            logger.debug("%s has no directory for checkpoints yet", self._whose.attempt)
        except (OSError, beneath.Unsafe) as error:
            logger.warning("%s is not told by a file that a checkpoint is wanted: %s", self._whose.attempt, error)

    async def call(self, label: str, wait: bool) -> Saved:
        """The program says that its state is whole, and waits. Raises NotSaved."""
        self._be_explicit()
        until_s = boot_s() + CALL_S
        while True:
            try:
                pending = await self._take(lambda _: True, label=label, called=True)
                break
            except Unquiet as error:
                if boot_s() >= until_s:
                    raise NotSaved(f"its files are written to all the time: {error}") from None
                await asyncio.sleep(snapshots.QUIET_S)
        if pending is None:
            raise NotSaved(self.problem)
        if not wait:
            return Saved(number=None, size=pending.snapshot.size, sent=0)
        return await pending.outcome.told()

    async def last(self, by_itself: bool, just_now: bool) -> None:
        """The program has ended without success: save what it left, if it can be trusted, and send what is not sent.

        What nobody vouches for is trusted if it ended `by_itself`, or `just_now` and long enough after its last write:
        it may have been killed in the middle of one. `run` goes on meanwhile.
        """
        ready = await asyncio.to_thread(self.look)
        with contextlib.suppress(Unquiet, NotSaved):
            if self.explicit or ready is not None:
                if ready is not None and ready[:2] != self._ignored:
                    await self._wait_quiet()
                    await self._take(lambda found: found.newest_ns <= ready.changed_ns, lambda: ready)
            elif by_itself or just_now:
                await self._wait_quiet()
                ended_ns = time.time_ns()
                still_ns = 0 if by_itself else int(self._still_s() * 1e9)
                await self._take(
                    lambda found: bool(found.files) and found != self._last and ended_ns - found.newest_ns >= still_ns
                )
        await self._courier.idle.wait()

    # ---- watching

    async def _watch(self) -> None:
        while True:
            wait_s = max(0.0, min(self._due_s, self._look_s if self._guesses() else math.inf) - boot_s())
            self._news.clear()
            if self._ready is None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(wait_s, 3600.0)):
                        await self._news.wait()
            if boot_s() >= self._due_s:
                self._due_s = boot_s() + self._every_s()
                await self.want("")
            if self._ready is not None:
                self._ready = None
                await self._take_ready()
            elif self._guesses() and boot_s() >= self._look_s:
                await self._take_still()

    def _every_s(self) -> float:
        return self.rule.every_ms / 1000 if self.rule.every_ms is not None else AGAIN_S

    def _guesses(self) -> bool:
        """Whether a directory that stands still is to be taken for a state."""
        return self._wanted and not self.explicit

    def _still_s(self) -> float:
        return min(STILL_S, STILL_SHARE * self._every_s())

    async def _take_ready(self) -> None:
        """The program has said by a file that its state is whole. That is seen at once, or one that saves at every step
        while a checkpoint is wanted would be at it again before the first was copied."""
        self._be_explicit()
        if self._wanted:
            await asyncio.to_thread(unmark, self.ground, None)
        until_s = boot_s() + READY_S
        vouched = await asyncio.to_thread(self.look)

        def is_whole(found: Scan) -> bool:
            nonlocal vouched
            vouched = self.look()
            return vouched is not None and found.newest_ns <= vouched.changed_ns

        def said() -> Ready | None:
            return vouched

        while boot_s() < until_s:
            with contextlib.suppress(Unquiet):
                if await self._take(is_whole, said) is not None:
                    return
            vouched = await asyncio.to_thread(self.look)
            if vouched is None:
                return  # taken back, or seen to, as nothing that could be saved
            await asyncio.sleep(snapshots.QUIET_S)
        if vouched is not None:
            self._ignored = vouched[:2]
        logger.info("%s wrote to its files after %s: the next one is waited for", self._whose.attempt, READY)
        if self._wanted:
            await self._tell_wanted()

    async def _take_still(self) -> None:
        """Nobody vouches for it: two looks that are equal, and nothing happened in between or just before."""
        began_s = boot_s()
        self._look_s = boot_s() + LOOK_AGAIN_S
        try:
            found = await asyncio.to_thread(self._scan)
        except FileNotFoundError:
            return  # the program has yet to make it
        except _FAILURES as error:
            self._fail(error)
            self._settle()
            return
        took_s = boot_s() - began_s
        self._look_s = boot_s() + max(LOOK_AGAIN_S, self._still_s() / 2, took_s / SCANS_SHARE)
        before, self._before = self._before, found
        if not found.files or found == self._last or found != before or not snapshots.is_quiet(found, self._still_s()):
            return
        with contextlib.suppress(Unquiet):
            await self._take(lambda again: again == found)

    def _scan(self) -> Scan:
        directory = self.ground.open()
        try:
            return snapshots.scan(directory)
        finally:
            os.close(directory)

    def _settle(self) -> None:
        self._wanted = False
        self.settled.set()

    def _be_explicit(self) -> None:
        if not self.explicit:
            self.explicit = True
            self._on_explicit()

    # ---- copying

    async def _take(
        self,
        before: Callable[[Scan], bool],
        vouched: Callable[[], Ready | None] = lambda: None,
        label: str = "",
        called: bool = False,
    ) -> Pending | None:
        """Copy, and have it sent. None: `before` did not want it, or it cannot be (`problem`). Raises Unquiet.

        `vouched` is asked afterwards which `.ready` it was that said so, and is now seen to. What was done since the
        program said that it is whole, or since it wrote last, is not in it; one that `called` waits meanwhile.
        """
        async with self._copying:
            try:
                taken = await self._copy(before)
            except _FAILURES as error:
                self._fail(error)
                await asyncio.to_thread(unmark, self.ground, vouched())
                self._settle()
                return None
            if taken is None:
                return None
            ready = vouched()
            whole_ns = ready.changed_ns if ready is not None else taken.scan.newest_ns
            whole_s = taken.taken_s if called else boot_of(whole_ns, taken.taken_s)
            pending = self._put(taken, label_of(ready.label if ready is not None else label), whole_s)
            await asyncio.to_thread(unmark, self.ground, ready)
            self._settle()
        return pending

    def _put(self, taken: Snapshot, label: str, whole_s: float) -> Pending:
        pending = self._courier.put(taken, label, whole_s)
        if taken.scan.left_out and self._last is None:
            names = ", ".join(taken.scan.left_out[:3])
            logger.warning("%s: no part of its checkpoints, as no plain files: %s", self._whose.attempt, names)
        self._last, self._before = taken.scan, None
        return pending

    async def _copy(self, before: Callable[[Scan], bool]) -> Snapshot | None:
        """In a thread, which goes on when we are cancelled: what it makes then is put away by it."""
        take = partial(snapshots.take, self.ground, self._means.spool, self._known, self._user, before)
        copying = asyncio.get_running_loop().run_in_executor(heavy.POOL, take)
        try:
            return await asyncio.shield(copying)
        except asyncio.CancelledError:
            copying.add_done_callback(_put_away)
            raise

    def _fail(self, error: Exception) -> None:
        self.problem = f"no checkpoint was taken: {(error.strerror if isinstance(error, OSError) else None) or error}"
        logger.warning("%s: %s", self._whose.attempt, self.problem)

    async def _wait_quiet(self) -> None:
        """What was written last has to be a moment old, or a write within the same tick would not be seen."""
        await asyncio.sleep(snapshots.QUIET_S)

    # ---- what became of it

    def _is_saved(self, taken: Snapshot, next_ms: int | None) -> None:
        self._known, self.problem = taken.known, ""
        self._due_s = boot_s() + next_ms / 1000 if next_ms is not None else math.inf
        self._on_saved()

    def _is_not_stored(self, why: str) -> None:
        self._known, self._last, self.problem = {}, None, why
        self._due_s = min(self._due_s, boot_s() + self._every_s())


def _put_away(copying: asyncio.Future[Snapshot | None]) -> None:
    if not copying.cancelled() and copying.exception() is None and (taken := copying.result()) is not None:
        taken.close()
