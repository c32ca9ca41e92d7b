"""What is owed to attempts while they run and when they have ended: their state saved, their stalls noticed, their
results published before their end is told.

One `Tended` an attempt that anything is owed to; a daemon that is killed leaves nothing here: its successor reads what
is owed in the attempt's directory, and goes on. Reports of progress are everybody's.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from coordinator import wire
from coordinator.agent import channel, duties, grounds
from coordinator.agent.asking import Asking, Stale, Whose
from coordinator.agent.clock import boot_s
from coordinator.agent.courier import Means, NotSaved, Saved
from coordinator.agent.duties import Duties
from coordinator.agent.fetching import Fetcher
from coordinator.agent.grounds import Ground
from coordinator.agent.held import RUNNING
from coordinator.agent.keeping import Keeping
from coordinator.agent.log import logger
from coordinator.agent.logship import Key
from coordinator.agent.marks import Ready
from coordinator.agent.places import place_at
from coordinator.agent.progress import Report
from coordinator.agent.reporting import Reports
from coordinator.agent.reports import exit_of
from coordinator.agent.results import TEXT_CHARS_MAX, publish
from coordinator.agent.saving import Saver
from coordinator.agent.sending import Sending
from coordinator.agent.spool import Spool
from coordinator.agent.stall import StallClock
from coordinator.agent.trace_rows import Traced, timed
from coordinator.core.rows import EndCause, ExitInfo, LeaseToken
from coordinator.core.work.jobspec import Isolation

LOOK_EVERY_S = 0.2
"""How often it is looked for what programs say by files."""
LAST_S = 600.0
"""For the last checkpoint of a program that failed to reach the coordinator; then its end is told without."""
LAST_WORDS_BYTES = 4_096
"""Of each stream of a program that reports by lines are looked at once more at its end."""
UNASKED_S = 5.0
"""What a program that may know of no checkpoints is given to write one before it is ended."""
FILES_EVERY = 5
"""Progress files are looked for in each n-th look."""
Work = Callable[[], Coroutine[Any, Any, None]]


class Tended:
    """One attempt."""

    def __init__(self, now: channel.Now, owed: Duties) -> None:
        self.now = now
        self.owed = owed
        self.saver: Saver | None = None
        self.saving: asyncio.Task[None] | None = None
        self.stall: StallClock | None = None
        self.stalled = False
        self.errand: asyncio.Task[None] | None = None
        """What is done for it after its end."""
        self.ended = False
        """Its end was seen."""
        self.busy = False
        """The errand is about to begin, or goes on."""
        self.logged = now.out_bytes + now.err_bytes

    @property
    def whose(self) -> Whose:
        return Whose(self.now.attempt, self.now.rank, self.now.token)


class Tending:
    """`run` is a task of the daemon. `work` is where programs have their directories, `level` what keeps them apart."""

    def __init__(
        self,
        asking: Asking,
        fetcher: Fetcher,
        state: Path,
        work: Path,
        level: Isolation,
        to_keeper: Callable[[channel.ToKeeper], None],
        traced: Traced,
    ) -> None:
        self._traced = traced
        self.sending = Sending(asking)
        self.reports = Reports()
        self._spool = Spool(state)
        self._means = Means(asking, self.sending, self._spool, traced)
        self._asking = asking
        self._fetcher = fetcher
        self._work = str(work)
        self._walled = level is not Isolation.NONE
        self._to_keeper = to_keeper
        self._tended: dict[Key, Tended] = {}
        self._expected: dict[Key, Duties | None] = {}
        """Of attempts that this daemon ordered to run, and of those that it found and looked into."""
        self._starts: list[tuple[Tended, str, Work]] = []
        self._news = asyncio.Event()
        self._busy = asyncio.Event()
        self.over: Callable[[Key, ExitInfo | None], None] = lambda key, end: None
        """Told when an end may be told, and how it ended if that is not what the keeper says."""
        self.running: Callable[[], Mapping[Key, channel.Now]] = dict
        """What has processes here."""
        self.news: Callable[[], None] = lambda: None
        """Told when `reports` has something to tell."""

    # ---- what happens to attempts

    def expect(self, launch: wire.Launch) -> None:
        """This one is ordered to run."""
        self._expected[launch.attempt, launch.rank] = duties.duties_of(launch)

    def on_now(self, now: channel.Now) -> bool:
        """It stands so. True: it has ended, and that may not be told yet."""
        if now.phase in RUNNING:
            self._busy.set()
        elif now.phase != "exited":
            return False
        key = now.attempt, now.rank
        if key not in self._expected:
            self._expected[key] = duties.read(now.directory, now.attempt, now.rank, now.token)
        owed = self._expected[key]
        if owed is None:
            return False
        one = self._tended.get(key)
        if one is None:
            one = self._tended[key] = Tended(now, owed)
        one.now = now
        if now.phase == "exited":
            return self._on_end(one)
        self._on_running(one)
        return False

    def holds(self, key: Key) -> bool:
        """Whether its end may not be told yet, or something of it still goes on."""
        one = self._tended.get(key)
        return one is not None and one.busy

    def give_up(self, key: Key) -> None:
        """Nobody wants its result any more, or its last checkpoint. `over` is told when nothing of it goes on."""
        one = self._tended.get(key)
        if one is None or not one.busy:
            return
        if one.errand is not None:
            one.errand.cancel()
        else:
            self._starts = [start for start in self._starts if start[0] is not one]
            self._finish(one, None)

    def drop(self, key: Key) -> None:
        """It is forgotten here."""
        self._expected.pop(key, None)
        self.reports.drop(key)
        one = self._tended.pop(key, None)
        if one is not None:
            self._starts = [start for start in self._starts if start[0] is not one]
            for task in (one.saving, one.errand):
                if task is not None:
                    task.cancel()

    def problem(self, key: Key) -> str:
        """What is wrong with its checkpoints, for people."""
        one = self._tended.get(key)
        return one.saver.problem if one is not None and one.saver is not None else ""

    def sends(self) -> bool:
        """Whether results or last checkpoints are still on their way."""
        return any(one.busy for one in self._tended.values())

    # ---- what programs say

    def on_report(self, key: Key, token: LeaseToken, report: Report) -> None:
        """It said how far it is."""
        self.reports.put(key, token, report)
        one = self._tended.get(key)
        if one is not None and one.stall is not None:
            one.stall.reported(boot_s())

    def last_report(self, now: channel.Now) -> wire.Progress | None:
        """What was said at the very end and not told: its end is about to be."""
        key = now.attempt, now.rank
        if key in self.reports.heard:
            for piece in self.reports.read_tails(now, self.reports.seen(key), LAST_WORDS_BYTES):
                self.on_log(key, now.token, *piece)
        files = [] if now.untouched else self.reports.read_files([(key, self._place_of(now))])
        for _, which, text in files:
            report = self.reports.on_file(key, which, text)
            if report is not None:
                self.reports.put(key, now.token, report)
        return self.reports.last(key)

    def _place_of(self, now: channel.Now) -> str:
        return f"{self._work}/{now.directory.rpartition('/')[2]}"

    def on_log(self, key: Key, token: LeaseToken, stream: int, offset: int, data: bytes) -> None:
        """Bytes of its log, on their way or found on the disk."""
        report = self.reports.feed(key, stream, offset, data)
        if report is not None:
            self.on_report(key, token, report)

    async def call(self, key: Key, label: str, wait: bool) -> Saved:
        """It says that its state is whole. Raises NotSaved."""
        one = self._tended.get(key)
        if one is None or one.saver is None:
            raise NotSaved("its job names no `checkpoint`, so nothing of it is saved")
        return await one.saver.call(label, wait)

    # ---- what the coordinator says

    def save(self, attempt: str, token: LeaseToken, why: str) -> None:
        """A checkpoint is wanted now."""
        for one in self._tended.values():
            if one.now.attempt == attempt and one.now.token == token and one.saver is not None:
                self._start(one, "", partial(one.saver.want, why))

    async def save_all(self, why: str) -> None:
        """Everything that can be saved is, or has had its time."""
        running = [one for one in self._tended.values() if one.saver is not None and one.now.phase == "running"]
        async with asyncio.TaskGroup() as group:
            for one in running:
                group.create_task(self._save_before_end(one, why))

    async def _save_before_end(self, one: Tended, why: str) -> None:
        saver = one.saver
        assert saver is not None
        knows = saver.explicit or saver.rule.signal
        within_s = saver.rule.grace_ms / 1000 if knows else min(UNASKED_S, saver.rule.grace_ms / 1000)
        await saver.want(why)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await saver.settled.wait()

    # ---- tasks

    async def run(self) -> None:
        """Tend, for ever."""
        await asyncio.to_thread(self._spool.clear)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._look_forever())
            while True:
                await self._news.wait()
                self._news.clear()
                starts, self._starts = self._starts, []
                for one, role, work in starts:
                    task = group.create_task(work())
                    if role == "saving":
                        one.saving = task
                    elif role == "errand":
                        one.errand = task
                        task.add_done_callback(partial(self._on_errand_done, one))

    def _start(self, one: Tended, role: str, work: Work) -> None:
        self._starts.append((one, role, work))
        self._news.set()

    # ---- while it runs

    def _on_running(self, one: Tended) -> None:
        now_s = boot_s()
        if one.owed.stall_ms is not None and one.stall is None:
            one.stall = StallClock(one.owed.stall_ms / 1000, now_s)
        if one.stall is not None:
            one.stall.frozen(one.now.phase == "frozen", now_s)
            logged = one.now.out_bytes + one.now.err_bytes
            if logged > one.logged:
                one.logged = logged
                one.stall.wrote(now_s)
        if one.owed.checkpoint is not None and one.saver is None:
            self._have_saver(one)

    def _have_saver(self, one: Tended) -> Saver | None:
        rule = one.owed.checkpoint
        assert rule is not None
        place = place_at(one.now.directory, self._work)
        ground = grounds.checkpoints(place, one.owed.directory, rule.path, self._walled)
        if ground is None:
            logger.warning("%s is not saved: its working directory is none of its own", one.now.attempt)
            return None
        one.saver = Saver(
            one.whose,
            ground,
            rule,
            self._means,
            one.now.user,
            explicit=one.owed.explicit,
            tell=lambda: self._signal(one, rule.signal),
            on_explicit=lambda: self._start(one, "", partial(self._be_explicit, one)),
            on_saved=lambda: self._on_saved(one),
        )
        self._start(one, "saving", partial(self._save, one, one.saver))
        return one.saver

    async def _save(self, one: Tended, saver: Saver) -> None:
        try:
            await saver.run()
        except Stale:
            logger.info("%s is not ours any more: nothing of it is saved", one.now.attempt)
        except Exception as error:
            logger.error("%s is not saved any more: the agent failed at it", one.now.attempt, exc_info=error)

    def _signal(self, one: Tended, name: str) -> None:
        number = getattr(signal, f"SIG{name}", None)
        if isinstance(number, signal.Signals):
            self._to_keeper(channel.Tell(attempt=one.now.attempt, token=one.now.token, signum=int(number)))

    async def _be_explicit(self, one: Tended) -> None:
        one.owed = msgspec.structs.replace(one.owed, explicit=True)
        try:
            await asyncio.to_thread(duties.write, one.now.directory, one.owed)
        except OSError as error:
            logger.warning("that %s saves itself is not kept: %s", one.now.attempt, error.strerror)

    def _on_saved(self, one: Tended) -> None:
        if one.stall is not None:
            one.stall.reported(boot_s())

    async def _look_forever(self) -> None:
        """What programs say by files, and who says nothing for too long."""
        looks = 0
        while True:
            await self._busy.wait()
            await asyncio.sleep(LOOK_EVERY_S)
            running = self.running()
            if not running:
                self._busy.clear()
            looks += 1
            tended = [one for key in running if (one := self._tended.get(key)) is not None]
            await self._look_at_savers([(one, one.saver) for one in tended if one.saver is not None])
            if looks % FILES_EVERY == 0:
                await self._look_at_files(running)
            for one in tended:
                if one.stall is not None and not one.stalled and boot_s() >= one.stall.due_s():
                    await self._end_stalled(one, one.stall)
            if self.reports.due_s() <= boot_s():
                self.news()

    async def _look_at_savers(self, savers: Sequence[tuple[Tended, Saver]]) -> None:
        if not savers:
            return
        seen = await asyncio.to_thread(_look_all, [saver for _, saver in savers])
        for (one, saver), ready in zip(savers, seen, strict=True):
            if one.now.phase in RUNNING:
                saver.on_ready(ready)

    async def _look_at_files(self, running: Mapping[Key, channel.Now]) -> None:
        places = [(key, self._place_of(now)) for key, now in running.items()]
        for key, which, text in await asyncio.to_thread(self.reports.read_files, places):
            report = self.reports.on_file(key, which, text)
            if report is not None:
                self.on_report(key, running[key].token, report)

    async def _end_stalled(self, one: Tended, stall: StallClock) -> None:
        """What it wrote while nobody could be told may hold a report: that is looked for first."""
        key = one.now.attempt, one.now.rank
        for piece in await asyncio.to_thread(self.reports.read_tails, one.now, self.reports.seen(key)):
            self.on_log(key, one.now.token, *piece)
        if boot_s() < stall.due_s():
            return
        one.stalled = True
        logger.warning("%s %s", one.now.attempt, stall.why())
        self._to_keeper(
            channel.End(
                attempt=one.now.attempt,
                token=one.now.token,
                why=stall.why(),
                grace_s=one.owed.grace_ms / 1000,
                cause=EndCause.STALLED,
            )
        )

    # ---- when it has ended

    def _on_end(self, one: Tended) -> bool:
        end = one.now.exit
        if one.ended or end is None:
            return one.busy
        one.ended = True
        if one.saver is not None:
            one.saver.settled.set()
        succeeded = end.cause is EndCause.EXITED and end.code == 0
        if succeeded and one.owed.outputs:
            self._stop_saving(one)
            self._run_errand(one, partial(self._publish, one, end))
        elif succeeded or one.owed.checkpoint is None or end.cause in (EndCause.START, EndCause.STAGE):
            self._stop_saving(one)
        else:
            seen = one.saver is not None
            saver = one.saver or self._have_saver(one)
            if saver is not None:
                by_itself = end.signal is None and end.code is not None
                self._run_errand(one, partial(self._save_last, one, saver, by_itself, seen))
        return one.busy

    def _stop_saving(self, one: Tended) -> None:
        if one.saving is not None:
            one.saving.cancel()
        self._starts = [start for start in self._starts if start[0] is not one]

    def _run_errand(self, one: Tended, work: Work) -> None:
        one.busy = True
        self._start(one, "errand", work)

    async def _publish(self, one: Tended, end: ExitInfo) -> None:
        verdict: ExitInfo | None = None
        try:
            with timed(self._traced, one.whose, "publish", "publish outputs", "network", {}):
                verdict = await publish(
                    one.whose,
                    end,
                    exit_of(end),
                    self._output_grounds(one),
                    one.owed.outputs,
                    one.now.user,
                    self.sending,
                    self._asking,
                    Keeping(self._fetcher, one.owed.tenant, one.owed.passed_on),
                )
        except Stale:
            logger.info("%s is not ours any more: its outputs are nobody's", one.now.attempt)
        except Exception as error:
            logger.error("the outputs of %s: the agent failed at them", one.now.attempt, exc_info=error)
            why = f"the agent failed at its outputs: {type(error).__name__}: {error}"
            verdict = msgspec.structs.replace(end, cause=EndCause.OUTPUT, text=why[:TEXT_CHARS_MAX])
        finally:
            self._finish(one, verdict)

    def _output_grounds(self, one: Tended) -> list[Ground]:
        place = place_at(one.now.directory, self._work)
        found = [grounds.part(place, "COORD_OUTPUT_DIR"), grounds.working(place, one.owed.directory, self._walled)]
        return [ground for ground in found if ground is not None]

    async def _save_last(self, one: Tended, saver: Saver, by_itself: bool, just_now: bool) -> None:
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_S):
                    await saver.last(by_itself, just_now)
        except Exception as error:
            logger.error("%s is not saved: the agent failed at it", one.now.attempt, exc_info=error)
        finally:
            if one.saving is not None:
                one.saving.cancel()
            self._finish(one, None)

    def _finish(self, one: Tended, verdict: ExitInfo | None) -> None:
        one.errand, one.busy = None, False
        self.over((one.now.attempt, one.now.rank), verdict)

    def _on_errand_done(self, one: Tended, task: asyncio.Task[None]) -> None:
        if one.errand is task:  # cancelled before it began
            self._finish(one, None)


def _look_all(savers: Iterable[Saver]) -> list[Ready | None]:
    return [saver.look() for saver in savers]
