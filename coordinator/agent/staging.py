"""What an attempt needs is brought before its program starts: who is staged, and what becomes of it.

One task an attempt; when it is done, the attempt is launched. Nothing here is remembered: a daemon that is killed
leaves a lease that was not begun. Its successor is given the order to launch again, and finds in the cache what came.

What fails here is not the program's failure: the attempt ends with cause `stage`, with `code` 28 where our own disk was
full, 122 where its tenant may fetch no more, and 2 where something that it needs does not exist any more, which no
other provider would change.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from coordinator import wire
from coordinator.agent import channel
from coordinator.agent.asking import Asking, Refused, Stale, Whose
from coordinator.agent.beneath import Unsafe
from coordinator.agent.bringing import (
    AT_ONCE,
    Bringing,
    CannotStage,
    Order,
    Wanted,
    each,
    files_of,
    tenant_named,
    wanted,
)
from coordinator.agent.cache import NoRoom
from coordinator.agent.fetching import Barren, Damaged, Fetcher, Gone
from coordinator.agent.log import logger
from coordinator.agent.logship import Key
from coordinator.agent.parts import DiskFailed
from coordinator.agent.stillness import Motion, StoodStill, while_it_moves
from coordinator.agent.trace_rows import Traced, nobody, timed
from coordinator.core.rows import EndCause, LeaseToken
from coordinator.core.work.jobspec import Isolation
from coordinator.core.work.launch_plan import LaunchPlan

WARM_MAX = 16
"""Attempts at a time whose inputs are fetched ahead; more are not."""
WARM_S = 900.0
"""A reservation that comes to nothing is not told to us."""
RESTORED = "COORD_RESTORED"
UNLEASED = LeaseToken(0, 0)
"""Of an attempt that is only reserved."""
WHY_CHARS_MAX = 800
_FOR_GOOD = (404, 410, 422)
"""An input is gone, or a pattern matches no output: nothing will change that."""


def needs_staging(plan: LaunchPlan) -> bool:
    return plan.inputs or (plan.checkpoint is not None and plan.checkpoint.restore)


class Stager:
    """`run` is a task of the daemon. `launch` completes a plan and has it run; `work` is where programs have their
    directories, `level` what keeps them apart. An attempt of which nothing moves for `still_s` ends."""

    def __init__(
        self,
        asking: Asking,
        fetcher: Fetcher,
        work: Path,
        level: Isolation,
        to_keeper: Callable[[channel.ToKeeper], None],
        launch: Callable[[str, wire.Launch], None],
        still_s: float,
        traced: Traced = nobody,
    ) -> None:
        self._asking = asking
        self._fetcher = fetcher
        self._work = work
        self._level = level
        self._to_keeper = to_keeper
        self._launch = launch
        self._still_s = still_s
        self._traced = traced
        self._orders: dict[Key, Order] = {}
        self._warm: dict[Key, None] = {}
        self._news = asyncio.Event()
        self._tasks: dict[Key, asyncio.Task[None]] = {}
        self._warming: dict[Key, asyncio.Task[None]] = {}
        self.over: Callable[[Key], None] = lambda key: None
        """Told when one is done, or was dropped and nothing of it goes on."""

    def put(self, now: channel.Now, launch: wire.Launch) -> None:
        """Have it staged, then launched."""
        self._orders[now.attempt, now.rank] = Order(now, launch)
        self._news.set()

    def warm(self, attempt: str, rank: int) -> None:
        """Have its inputs in the cache: it may be granted to us soon."""
        if len(self._warming) + len(self._warm) < WARM_MAX and (attempt, rank) not in self._warming:
            self._warm[attempt, rank] = None
            self._news.set()

    def drop(self, key: Key) -> None:
        """Nobody wants it any more. It may go on for a moment: see `holds`."""
        self._orders.pop(key, None)
        task = self._tasks.get(key)
        if task is not None:
            task.cancel()

    def holds(self, key: Key) -> bool:
        """Whether something may still be written into its directories."""
        return key in self._tasks

    async def run(self) -> None:
        """Stage what is put, for ever."""
        try:
            await self._fetcher.cache.load()
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._news.wait()
                    self._news.clear()
                    for key, order in self._orders.items():
                        task = self._tasks[key] = group.create_task(self._stage(order))
                        task.add_done_callback(partial(self._on_staged, key))
                    for key in self._warm:
                        task = self._warming[key] = group.create_task(self._fetch_ahead(key))
                        task.add_done_callback(partial(self._on_warm, key))
                    self._orders.clear()
                    self._warm.clear()
        finally:
            self._fetcher.close()

    def _on_staged(self, key: Key, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        self.over(key)

    def _on_warm(self, key: Key, task: asyncio.Task[None]) -> None:
        self._warming.pop(key, None)

    # ---- one attempt

    async def _stage(self, order: Order) -> None:
        """Bring everything and have it launched; or have it ended, with the reason."""
        motion = Motion()
        bringing = Bringing(order, self._asking, self._fetcher, self._work, self._level, motion, self._traced)
        try:
            with timed(self._traced, order.whose, "stage", "stage", "network", {}):
                number = await while_it_moves(bringing.bring(), motion, self._still_s)
        except Stale:
            self._end(order, EndCause.STOPPED, "its lease is over", None)
        except Exception as error:
            failed = _as_cannot(error)
            if failed is None:
                logger.error("%s cannot be staged: the agent failed at it", order.now.attempt, exc_info=error)
                failed = CannotStage(f"the agent failed at it: {type(error).__name__}: {error}")
            else:
                logger.warning("%s cannot be staged: %s", order.now.attempt, failed)
            if isinstance(error, NoRoom | DiskFailed):
                self._fetcher.cache.problem = str(failed)
            self._end(order, EndCause.STAGE, str(failed), failed.code)
        else:
            self._fetcher.cache.problem = ""
            self._launch(order.now.directory, _told(order.launch, number))

    def _end(self, order: Order, cause: EndCause, why: str, code: int | None) -> None:
        attempt, token = order.now.attempt, order.now.token
        self._to_keeper(
            channel.End(attempt=attempt, token=token, why=why[:WHY_CHARS_MAX], grace_s=0.0, cause=cause, code=code)
        )

    # ---- ahead of a grant

    async def _fetch_ahead(self, key: Key) -> None:
        """Its inputs into the cache, and the files of the checkpoint that it would resume from. What fails will be
        found when it is granted, if it is."""
        whose = Whose(*key, UNLEASED)
        try:
            async with asyncio.timeout(WARM_S):
                answer = await self._asking.staging(whose)
                tenant = tenant_named(answer.tenant)

                async def one(_number: int, file: Wanted) -> None:
                    async with self._fetcher.having(tenant, file.blob, whose, Motion()):
                        pass

                await each([wanted(file) for file in answer.files], one, AT_ONCE)
                if answer.checkpoints:
                    saved = await files_of(answer.checkpoints[0], tenant, whose, self._asking, self._fetcher)
                    await each(saved, one, AT_ONCE)
        except (TimeoutError, CannotStage, NoRoom, Gone, Damaged, Barren, DiskFailed, Refused) as error:
            logger.debug("the inputs of %s were not fetched ahead: %s", key[0], error)


def _as_cannot(error: Exception) -> CannotStage | None:
    """What it is to the coordinator. None: nothing that was expected to happen."""
    match error:
        case CannotStage():
            return error
        case NoRoom():
            return CannotStage(f"the disk of this provider is full: {error}", errno.ENOSPC)
        case DiskFailed():
            return CannotStage(f"the disk of this provider: {error}", errno.ENOSPC if error.full else None)
        case Gone():
            return CannotStage(f"what it needs does not exist any more: {error}", errno.ENOENT)
        case Unsafe():
            return CannotStage(f"it cannot be laid out: {error}", errno.ENOENT)
        case Refused(code="quota"):
            return CannotStage(f"its tenant may fetch no more: {error}", errno.EDQUOT)
        case Refused():
            return CannotStage(str(error), errno.ENOENT if error.status in _FOR_GOOD else None)
        case Damaged() | Barren() | StoodStill():
            return CannotStage(str(error))
        case _:
            return None


def _told(launch: wire.Launch, number: int) -> wire.Launch:
    """With the number of the checkpoint that it resumes from."""
    if not number:
        return launch
    plan = msgspec.structs.replace(launch.plan, env=(*launch.plan.env, (RESTORED, str(number))))
    return msgspec.structs.replace(launch, plan=plan)
