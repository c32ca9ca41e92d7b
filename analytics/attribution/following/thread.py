"""The worker's threads that follow logs: what the coordinator says goes in, verdicts and figures come out.

One answers, and is not niced as the rest of the worker is: a task waits two seconds for its verdict, and a niced thread
beside a dozen busy processes got a sixtieth of a core. The other reads what grows, and is: at the same niceness as the
coordinator it cost the relay of logs a sixth. They take turns, slice by slice; nobody reads on while an answer is due.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from analytics.attribution.engine import Rules
from analytics.attribution.following.follower import Follower
from analytics.attribution.following.places import Places
from analytics.attribution.following.settings import AttributionSettings
from analytics.attribution.following.shelf import Shelf
from analytics.framing import Follow, Following, Judge, ToParent, Verdicts
from coordinator.core.errors import CoordError
from coordinator.core.ids import Ms
from coordinator.ports.attribution import FollowerFigures, Judged
from store.layout import DataDir

TELL_S = 2.0
"""Between two tellings of figures."""


class FollowerThreads:
    """`say` must be for any thread. No process may end by itself while these run: RE2 cannot be left in its midst."""

    def __init__(
        self,
        data: DataDir,
        settings: AttributionSettings,
        say: Callable[[ToParent], None],
        now_ms: Callable[[], Ms],
        nice: int = 0,
    ) -> None:
        """`nice`: of the one that nobody waits for."""
        self.places = Places(settings.active_max)
        """Shared with launchers' files."""
        self._data, self._settings, self._say, self._now_ms, self._nice = data, settings, say, now_ms, nice
        self._inbox: queue.SimpleQueue[Follow | Judge] = queue.SimpleQueue()  # its sender bounds what waits
        self._stopping = threading.Event()
        self._turns = threading.Lock()
        self._calm = threading.Event()
        """No answer is due."""
        self._news = threading.Event()
        """Something was said, or is to be read on."""
        self._answering = self._reading = 0
        self._told: tuple[float, FollowerFigures | None] = (0.0, None)
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._threads = [threading.Thread(target=self._run, name="answer", daemon=True)]
        self._threads[0].start()

    def stop(self) -> None:
        """Have them end after the slices that they are at."""
        self._stopping.set()
        self.put(Follow(()))
        for thread in self._threads:
            thread.join()

    def put(self, message: Follow | Judge) -> None:
        """For any thread."""
        self._inbox.put(message)

    @property
    def at(self) -> int:
        """Another number for each slice of work, 0 for none: for the others to see that it goes on."""
        return self._answering or self._reading

    def _run(self) -> None:
        with _or_the_end():
            follower = Follower(
                self._data.logs,
                Shelf(self._data.attribution),
                rules_of(self._settings),
                self._settings,
                self.places,
                self._tell,
                self._now_ms,
            )
            reader = threading.Thread(target=self._read, args=(follower,), name="read on", daemon=True)
            reader.start()
            self._answer(follower)
            self._calm.set()
            self._news.set()
            reader.join()

    def _answer(self, follower: Follower) -> None:
        slices = 0
        while not self._stopping.is_set():
            slices += 1
            self._answering = slices
            with self._turns:
                rests_s = follower.answer()
                self._tell_figures(follower)
            self._answering = 0
            if rests_s != 0.0:
                self._calm.set()
                self._news.set()
            messages = self._messages(TELL_S if rests_s is None else rests_s)
            if messages:
                self._calm.clear()
                with self._turns:
                    for message in messages:
                        _hand_over(follower, message)
                self._news.set()

    def _read(self, follower: Follower) -> None:
        with _or_the_end():
            os.nice(self._nice)  # on Linux of this thread
            slices = 0
            while not self._stopping.is_set():
                self._calm.wait()
                self._news.clear()
                slices += 2
                self._reading = slices + 1  # never a number of the other's
                with self._turns:
                    rests_s = follower.read_on()
                self._reading = 0
                if rests_s != 0.0:
                    self._news.wait(rests_s)

    def _messages(self, patience_s: float) -> list[Follow | Judge]:
        """What was said meanwhile; wait for it where nothing else is to be done."""
        found: list[Follow | Judge] = []
        with suppress(queue.Empty):
            found.append(self._inbox.get(timeout=patience_s) if patience_s else self._inbox.get_nowait())
            while True:
                found.append(self._inbox.get_nowait())
        return found

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


@contextmanager
def _or_the_end() -> Iterator[None]:
    """A worker with half its threads is worse than none: the parent starts a whole one."""
    try:
        yield
    except BaseException:
        sys.excepthook(*sys.exc_info())
        os._exit(1)


def _hand_over(follower: Follower, message: Follow | Judge) -> None:
    if isinstance(message, Follow):
        follower.follow(message.running)
    else:
        follower.ask(message.wanted)


def rules_of(settings: AttributionSettings) -> Rules:
    """The table, with the user's own rows before it. A file that has become unreadable since the start is left out."""
    try:
        return Rules.load(Path(settings.signatures) if settings.signatures else None)
    except CoordError as error:
        sys.stderr.write(f"{error}\n")
        return Rules.load(None)
