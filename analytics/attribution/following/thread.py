"""The worker's thread that follows logs: what the coordinator says goes in, verdicts and figures come out.

It is not niced as the rest of the worker is: a task waits two seconds for its verdict, and a niced thread beside a
dozen busy processes got a sixtieth of a core. Following what runs is polite instead.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

from analytics.attribution.engine import Rules
from analytics.attribution.following.follower import Follower
from analytics.attribution.following.places import Places
from analytics.attribution.following.settings import AttributionSettings
from analytics.attribution.following.shelf import Shelf
from analytics.framing import Follow, Following, Judge, ToParent, Verdicts
from coordinator.core.errors import CoordError
from coordinator.core.ids import Ms
from coordinator.ports import FollowerFigures, Judged
from store.layout import DataDir

CROWDED = 1.5
POLITE = 2.0
"""A third of a core at most, where others want it: 28 MB/s, so that a log of 20 MB/s is kept up with."""
PAUSE_S_MAX = 0.25
TELL_S = 2.0
"""Between two tellings of figures."""


class FollowerThread:
    """`say` must be for any thread. No process may end by itself while this runs: RE2 cannot be left in its midst."""

    def __init__(
        self, data: DataDir, settings: AttributionSettings, say: Callable[[ToParent], None], now_ms: Callable[[], Ms]
    ) -> None:
        self.places = Places(settings.active_max)
        """Shared with launchers' files."""
        self.at = 0
        """Another number for each slice of work, 0 for none: for the others to see that it goes on."""
        self._data, self._settings, self._say, self._now_ms = data, settings, say, now_ms
        self._inbox: queue.SimpleQueue[Follow | Judge] = queue.SimpleQueue()  # its sender bounds what waits
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._told: tuple[float, FollowerFigures | None] = (0.0, None)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Have it end after the slice that it is at."""
        self._stopping.set()
        self.put(Follow(()))
        self._thread.join()

    def put(self, message: Follow | Judge) -> None:
        """For any thread."""
        self._inbox.put(message)

    def _run(self) -> None:
        try:
            rules = rules_of(self._settings)
            shelf = Shelf(self._data.attribution)
            follower = Follower(self._data.logs, shelf, rules, self._settings, self.places, self._tell, self._now_ms)
            turn = 0
            while not self._stopping.is_set():
                turn += 1
                self.at = turn
                began_s, used_s = time.perf_counter(), time.thread_time()
                rests_s = follower.turn()
                if rests_s == 0.0 and not follower.is_awaited:
                    rests_s = pause_s(time.perf_counter() - began_s, time.thread_time() - used_s)
                self.at = 0
                self._take(follower, TELL_S if rests_s is None else rests_s)
                self._tell_figures(follower)
        except BaseException:
            # A worker with half its threads is worse than none: the parent starts a whole one.
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def _take(self, follower: Follower, patience_s: float) -> None:
        """What was said meanwhile; wait for it where nothing else is to be done."""
        try:
            message = self._inbox.get(timeout=patience_s) if patience_s != 0.0 else self._inbox.get_nowait()
            while True:
                if isinstance(message, Follow):
                    follower.follow(message.running)
                else:
                    follower.ask(message.wanted)
                message = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _tell(self, judged: Judged) -> None:
        self._say(Verdicts((judged,)))

    def _tell_figures(self, follower: Follower) -> None:
        at_s, before = self._told
        if time.monotonic() - at_s < TELL_S:
            return
        figures = follower.figures()
        if figures != before:
            self._say(Following(figures))
        self._told = (time.monotonic(), figures)


def pause_s(took_s: float, used_s: float) -> float:
    """How long to rest after a slice that nobody waited for. One that took much longer than the CPU time that it used
    says that others want the processor, and these come first: logs that are written, above all."""
    return min(PAUSE_S_MAX, POLITE * used_s) if took_s > CROWDED * used_s else 0.0


def rules_of(settings: AttributionSettings) -> Rules:
    """The table, with the user's own rows before it. A file that has become unreadable since the start is left out."""
    try:
        return Rules.load(Path(settings.signatures) if settings.signatures else None)
    except CoordError as error:
        sys.stderr.write(f"{error}\n")
        return Rules.load(None)
