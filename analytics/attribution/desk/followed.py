"""One launcher's file that is followed while it grows: the tracker, which cycles it has, and what it took."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from analytics.attribution.desk.cycles import Splitter
from analytics.attribution.engine import Rules, judge
from analytics.attribution.following.tracker import Tracker, TrackerState
from coordinator.core.verdict.rows import PastVerdict, Verdict

TURN_BYTES = 8 << 20
"""That one file is read of before the next has its turn."""


class Followed:
    """`lock` is held by whoever reads; the rest is for any thread."""

    def __init__(self, open_file: Callable[[], int], rules: Rules, name: str, handle: str) -> None:
        self.handle = handle
        self.lock = threading.Lock()
        self.tracker = Tracker(open_file, rules, name)
        self.touched_s = time.monotonic()
        """It grew, or was asked for."""
        self.busy_s = 0.0
        """Spent on it so far."""
        self.completed = False
        """Its last verdict was given; it may still grow, and is followed on."""
        self._open_file = open_file
        self._splitter = Splitter()
        self._split = 0
        self._replays = 0

    def read(self, limit: int = TURN_BYTES) -> int:
        """Read on; the lock is held. -> new bytes."""
        began = time.perf_counter()
        taken = 0
        while taken < limit and (new := self.tracker.advance()):
            taken += new
        if taken:
            self._look_for_cycles()
            self.touched_s = time.monotonic()
            self.completed = False
            self.busy_s += time.perf_counter() - began
        return taken

    def _look_for_cycles(self) -> None:
        """Over the same bytes, which are in memory still."""
        replays = self.tracker.replays.total()
        if replays != self._replays:
            self._splitter, self._split, self._replays = Splitter(), 0, replays
        try:
            fd = self._open_file()
        except OSError:
            return
        try:
            while self._split < self.tracker.consumed:
                size = min(1 << 20, self.tracker.consumed - self._split)
                data = os.pread(fd, size, self._split)
                if not data:
                    break
                self._split += len(data)
                for _ in self._splitter.feed(data):
                    pass
        finally:
            os.close(fd)

    def drain(self) -> None:
        """At the end: until nothing comes any more; the lock is held."""
        self.tracker.drain()
        self._look_for_cycles()
        self.touched_s = time.monotonic()

    def judge(self, history: Sequence[PastVerdict]) -> Verdict:
        """As if it ended here; it may grow on. The lock is held."""
        return judge((self.tracker.analysis,), None, history)

    @property
    def several_cycles(self) -> bool:
        return self._splitter.cycle > 0 and not self._splitter.none

    @property
    def state(self) -> str:
        if self.completed and self.tracker.state is TrackerState.READY_TO_COMPLETE:
            return TrackerState.COMPLETED
        return self.tracker.state

    def entry(self) -> dict[str, Any]:
        """As `GET /jobs` and `GET /stats` show it: never what is in the file."""
        return {
            "state": str(self.state),
            "handle": self.handle,
            "consumed_offset": self.tracker.consumed,
            "error": self.tracker.error or None,
        }

    def close(self) -> None:
        """Let go of the file."""
        with self.lock:
            self.tracker.close()
