"""The analytics worker: one niced process that owns the warehouse and answers over its standard input and output.

    python -m analytics.worker --data DIR

It reads the store, never writes to it, and ends when its parent does: the end of its input is its end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import BinaryIO

import duckdb
import msgspec

from analytics.attribution.desk.inside import Inside
from analytics.attribution.following.settings import AttributionSettings
from analytics.attribution.following.thread import FollowerThreads
from analytics.figures import Figures
from analytics.framing import (
    CHUNK_PROVIDERS,
    FRAME_BYTES_MAX,
    HEADER_BYTES,
    Answered,
    Ask,
    AskDesk,
    Done,
    FiguresHead,
    FiguresPart,
    Follow,
    Judge,
    Ping,
    Pong,
    Refresh,
    Refused,
    ToParent,
    encode,
    for_worker,
    frame,
)
from analytics.memory import keep_freed_memory
from analytics.reliability.columns import LOST_AFTER_MS
from analytics.room import Room
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.ports.analytics import Answer
from coordinator.ports.attribution import LAUNCHERS_OFF
from store.columns import TruthReader
from store.layout import DataDir

NICENESS = 10
INBOX_MAX = 256
"""Questions that wait here; a further one is refused. The parent bounds them more tightly."""
SLOW_MAX = 16
"""Questions about the past that wait; a further one is refused."""
EVERY_S = 300.0
"""Between two computations of what the coordinator is told."""
LOOK_S = 10.0
"""Between two looks at what changed in the store."""


class Voice:
    """The one way out: frames, whole, from any thread."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, *messages: ToParent) -> None:
        """Send these, one behind the other."""
        self._write(b"".join(encode(message) for message in messages))

    def answer(self, n: int, answer: Answer) -> None:
        """Send an answer: its head, and its JSON as it is."""
        if len(answer.json) > FRAME_BYTES_MAX:
            error = f"the answer has {len(answer.json)} bytes, more than {FRAME_BYTES_MAX}"
            self.say(Refused(n, Code.TOO_LARGE, error, "ask for less: set a limit"))
            return
        self._write(encode(Answered(n, answer.computed_at_ms)) + frame(answer.json))

    def figures(self, figures: Figures) -> None:
        """Publish figures in pieces that the parent decodes without holding its loop."""
        event = figures.published()
        head = FiguresHead(
            event.at_ms,
            event.computed_at_ms,
            event.horizons_ms,
            event.delays_ms,
            event.fleet_stays,
            event.fleet_returns,
        )
        everybody = event.providers
        steps = range(0, max(len(everybody), 1), CHUNK_PROVIDERS)
        parts = [
            FiguresPart(everybody[i : i + CHUNK_PROVIDERS], last=i + CHUNK_PROVIDERS >= len(everybody)) for i in steps
        ]
        self.say(head, *parts)

    def _write(self, data: bytes) -> None:
        with self._lock:
            self._out.write(data)
            self._out.flush()


class Work:
    """What one thread is at, for the others to see: another number for each piece of work, 0 for none."""

    def __init__(self) -> None:
        self.at = 0
        self._begun = 0

    def begin(self) -> None:
        """Another piece begins."""
        self._begun += 1
        self.at = self._begun

    def rest(self) -> None:
        """Nothing is to be done."""
        self.at = 0


class Inbox:
    """What the parent said and nobody took yet, and what the threads that take it are at."""

    def __init__(self) -> None:
        self.questions: queue.Queue[Ask | Refresh] = queue.Queue(INBOX_MAX)
        self.reading = Work()
        self.slow = Work()
        self.reading.begin()


class Worker:
    """Takes questions from `inbox`, keeps the figures fresh, and has a second thread for long questions."""

    def __init__(self, room: Room, voice: Voice, inbox: Inbox) -> None:
        self._room, self._voice, self._inbox = room, voice, inbox
        self._slow: queue.Queue[Ask | None] = queue.Queue(SLOW_MAX)
        self._learnt = threading.Event()
        self._learning = False

    def run(self) -> None:
        """Until the process ends."""
        self._publish(synced=False)
        threading.Thread(target=self._run_slow, name="slow", daemon=True).start()
        due = looked = time.monotonic()
        due += EVERY_S
        while True:
            message = self._next(max(min(looked + LOOK_S, due) - time.monotonic(), 0.0))
            if message is not None:
                self._handle(message)
            now = time.monotonic()
            taught = self._learnt.is_set()
            imported = False
            if now - looked >= LOOK_S:
                looked = now
                imported = self._room.sync().imported > 0
            if now >= due or taught or imported:
                self._learnt.clear()
                self._publish(synced=imported)
                due = time.monotonic() + EVERY_S
            if not self._learning and self._room.wants_lesson():
                with contextlib.suppress(queue.Full):
                    self._slow.put_nowait(None)
                    self._learning = True

    def _next(self, patience_s: float) -> Ask | Refresh | None:
        self._inbox.reading.rest()
        try:
            return self._inbox.questions.get(timeout=patience_s)
        except queue.Empty:
            return None
        finally:
            self._inbox.reading.begin()

    def _publish(self, synced: bool) -> None:
        """Whoever is told the figures may look at the views: those come first."""
        if not synced:
            self._room.sync()
        figures = self._room.compute()
        self._room.publish()
        self._voice.figures(figures)

    def _handle(self, message: Ask | Refresh) -> None:
        match message:
            case Refresh(n=n):
                self._publish(synced=False)
                self._voice.say(Done(n))
            case Ask(n=n, question=question) if self._room.is_slow(question):
                try:
                    self._slow.put_nowait(message)
                except queue.Full:
                    hint = "wait for those to be answered"
                    self._voice.say(
                        Refused(n, Code.TOO_MANY, f"{SLOW_MAX} questions about the past wait already", hint)
                    )
            case Ask(n=n, question=question):
                self._answer(n, lambda: self._room.answer(question))

    def _answer(self, n: int, work: Callable[[], Answer]) -> None:
        try:
            answer = work()
        except CoordError as error:
            self._voice.say(Refused(n, error.code, error.message, error.hint))
        except (duckdb.OutOfMemoryException, MemoryError):
            hint = "ask for a shorter time, or give the worker more memory"
            self._voice.say(Refused(n, Code.ANALYTICS_UNAVAILABLE, "the worker's memory cap was reached", hint))
        else:
            self._voice.answer(n, answer)

    def _run_slow(self) -> None:
        try:
            while True:
                self._inbox.slow.rest()
                item = self._slow.get()
                self._inbox.slow.begin()
                if item is None:
                    self._room.learn()
                    self._learning = False
                    self._learnt.set()
                else:
                    self._answer(item.n, partial(self._room.answer_slowly, item.question))
        except BaseException:
            # A worker with half its threads is worse than none: the parent starts a whole one.
            sys.excepthook(*sys.exc_info())
            os._exit(1)


def listen(
    source: BinaryIO, inbox: Inbox, voice: Voice, follower: FollowerThreads | None = None, desk: Inside | None = None
) -> None:
    """Read questions until the input ends; then the process ends, whatever it is doing. Pings are answered here."""
    while len(header := source.read(HEADER_BYTES)) == HEADER_BYTES:
        body = source.read(int.from_bytes(header, "little"))
        try:
            message = for_worker(body)
        except msgspec.DecodeError as error:
            sys.stderr.write(f"the parent said what is no question: {error}\n")
            break
        if isinstance(message, Ping):
            at = (inbox.reading.at, inbox.slow.at, follower.at if follower is not None else 0)
            voice.say(Pong(*at, cpu_s=time.process_time()))
            continue
        if isinstance(message, Follow | Judge):
            if follower is not None:
                follower.put(message)
            continue
        if isinstance(message, AskDesk):
            if desk is None:
                voice.say(Refused(message.n, Code.NOT_FOUND, "launchers are not answered here", LAUNCHERS_OFF))
            else:
                desk.put(message)
            continue
        try:
            inbox.questions.put_nowait(message)
        except queue.Full:
            voice.say(Refused(message.n, Code.TOO_MANY, f"{INBOX_MAX} questions wait already", "ask again later"))
    os._exit(0)


def clock_of(boot_at_ms: Ms | None) -> Callable[[], Ms]:
    """The coordinator's clock, which no step of the wall clock moves: its reading at boot, and what went by since."""
    if boot_at_ms is None:
        boot_at_ms = (time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)) // 1_000_000
    return lambda: boot_at_ms + time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


def main(arguments: list[str] | None = None) -> None:
    """Open the room and serve. Whatever goes wrong ends the process; the parent starts another."""
    parser = argparse.ArgumentParser(prog="python -m analytics.worker", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="the data directory")
    parser.add_argument("--memory", default="512MB", help="DuckDB's memory cap")
    parser.add_argument("--threads", default=2, type=int, help="DuckDB's threads")
    parser.add_argument("--nice", default=NICENESS, type=int, help="added to the niceness")
    parser.add_argument("--lost-after-ms", default=LOST_AFTER_MS, type=int, help="the gap that ends a stay")
    parser.add_argument(
        "--boot-at-ms", type=int, help="the machine's boot on the coordinator's clock; the wall clock's without"
    )
    parser.add_argument("--attribution", default="{}", help="settings of following logs, as JSON")
    given = parser.parse_args(arguments)
    # Frames own the real standard output: a stray print must not become one.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    keep_freed_memory()
    data = DataDir(given.data)
    voice, inbox = Voice(out), Inbox()
    now_ms = clock_of(given.boot_at_ms)
    attribution = msgspec.json.decode(given.attribution, type=AttributionSettings)
    # Before anything that takes long: a task may wait for its verdict.
    follower = FollowerThreads(data, attribution, voice.say, now_ms, given.nice) if attribution.enabled else None
    if follower is not None:
        follower.start()
    places = follower.places if follower is not None else None
    desk = Inside(attribution, voice.say, places) if attribution.launchers_root else None
    listener = (sys.stdin.buffer, inbox, voice, follower, desk)
    threading.Thread(target=listen, args=listener, name="listen", daemon=True).start()
    # Linux nices threads: this one, and those that it starts. The listener and who answers are waited for.
    os.nice(given.nice)
    try:
        room = Room(
            data.warehouse,
            data.views,
            TruthReader(given.data),
            given.memory,
            given.threads,
            now_ms=now_ms,
            lost_after_ms=given.lost_after_ms,
        )
        Worker(room, voice, inbox).run()
    finally:
        if follower is not None:
            follower.stop()


if __name__ == "__main__":
    main()
