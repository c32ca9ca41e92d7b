"""Makes the verdict at a file's end: from what was followed of it, else from all of it; and checks some of them."""

from __future__ import annotations

import itertools
import logging
import os
import threading
import time
from collections.abc import Callable

from analytics.attribution.desk import passes
from analytics.attribution.desk.jobs import Final, Job, Key
from analytics.attribution.desk.rooted import Root
from analytics.attribution.desk.settings import DeskSettings
from analytics.attribution.desk.tally import Tally
from analytics.attribution.engine import Rules, canonical, judge
from analytics.attribution.following.tracker import TrackerState, full_pass
from coordinator.core.verdict.rows import PastVerdict

log = logging.getLogger("coord.attribution")
History = tuple[PastVerdict, ...]


class Maker:
    """For any thread; of one job one at a time. Changes nothing of a job but what is followed of its file."""

    def __init__(
        self, root: Root, rules: Rules, settings: DeskSettings, tally: Tally, closing: threading.Event
    ) -> None:
        self._root, self._rules, self._settings, self._tally, self._closing = root, rules, settings, tally, closing
        self._finished = itertools.count(1)

    def opener(self, real: str) -> Callable[[], int]:
        """What opens the file that lies at a resolved path now."""
        return lambda: self._root.open(real)

    def key(self, real: str) -> Key | None:
        """What tells whether a file is still as it was; None: there is none."""
        try:
            fd = self._root.open(real)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)

    def make(self, job: Job, history: History, began: float) -> Final:
        """The verdict; the reason of a full pass is counted."""
        self._settle(job)
        made = self._from_progress(job, history, began)
        if isinstance(made, Final):
            return made
        self._tally.fallback(made)
        return self.from_the_whole(job, history, made)

    def to_be_checked(self, made: Final) -> bool:
        """One in so many of those that rest on what was followed."""
        return made.progressive and next(self._finished) % self._settings.check_one_in == 0

    def _settle(self, job: Job) -> None:
        """Until the file has been quiet for as long as is asked, or four times as long has gone by."""
        quiet_s = self._settings.settle_s
        until = time.monotonic() + 4 * quiet_s
        before, since = self.key(job.path), time.monotonic()
        while quiet_s and time.monotonic() - since < quiet_s and time.monotonic() < until:
            if self._closing.wait(min(0.05, quiet_s)):
                return
            now = self.key(job.path)
            if now != before:
                before, since = now, time.monotonic()

    def _from_progress(self, job: Job, history: History, began: float) -> Final | str:
        """From what was followed; or why it cannot be."""
        followed = job.followed
        if followed is None:
            return job.why_not or "missing"
        with followed.lock:
            before, spent, replays = followed.tracker.consumed, followed.busy_s, followed.tracker.replays.copy()
            followed.drain()
            anew = followed.tracker.replays - replays
            state = followed.tracker.state
            if state in (TrackerState.PENDING, TrackerState.FAILED):
                self._tally.analysis("failed")
                return "failed"
            if state is TrackerState.UNSUPPORTED or followed.several_cycles:
                self._tally.analysis("unsupported")
                return "unsupported"
            verdict = followed.judge(history)
            consumed = followed.tracker.consumed
        for why in anew:
            self._tally.replay(why)
        if anew:
            self._tally.fallback("stale")
            spent, before = 0.0, 0
        self._tally.analysis("completed")
        self._tally.end(time.perf_counter() - began, consumed - before, spent)
        key = self.key(job.path)
        if key is not None:
            key = (key[0], key[1], consumed, key[3])  # what came since was not read: the file is another one then
        return Final((verdict,), 0, key, True, "stale" if anew else "", "")

    def from_the_whole(self, job: Job, history: History, why: str) -> Final:
        """A full pass, by cycles; `why` it is one."""
        key = self.key(job.path)
        try:
            passed = passes.by_cycles(self.opener(job.path), self._rules, history, job.name, self._closing.is_set)
        except FileNotFoundError:
            return Final((), 0, None, False, why, "there is no log")
        except OSError as error:
            return Final((), 0, None, False, why, f"the log cannot be read: {error.strerror}")
        if not passed.read_bytes:
            return Final((), 0, key, False, why, "the log is empty")
        return Final(passed.verdicts, passed.first, key, False, why, passed.remark)

    def corrected(self, job: Job, made: Final, history: History) -> Final | None:
        """The same bytes at once. -> what is right, where that says otherwise; None: it says the same, or the file is
        another one by now."""
        if made.key is None or self.key(job.path) != made.key:
            return None
        try:
            whole = full_pass(self.opener(job.path), self._rules, made.key[2], job.name, self._closing.is_set)
        except OSError:
            return None
        if self._closing.is_set():
            return None
        verdict = judge((whole,), None, history)
        same = canonical(verdict) == canonical(made.verdicts[0])
        self._tally.checked(same)
        if same:
            return None
        log.error("a progressive verdict was corrected by a full pass")
        return made._replace(verdicts=(verdict,), progressive=False, remark="corrected by a full pass")
