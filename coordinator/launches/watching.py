"""One launch that is watched: threads ask its source and judge its log, the caller's decides and tells.

The threads hold nothing and write nothing: whoever watches may leave at any moment.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from queue import Empty, Queue
from typing import NamedTuple, Protocol

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms
from coordinator.core.verdict.rows import Evidence, Verdict
from coordinator.launches.monitor import Monitor, Outcome, Remark, Until
from coordinator.launches.recent import Recent
from coordinator.launches.sightings import Ended, LogRead, Piece, Sighting, Source, Unheard

QUEUE_MAX = 256
"""Sightings that nobody looked at yet: then the threads wait."""
PEEK_S = 0.5
"""A log that grows is judged this often."""
LAST_LINES_MS: Ms = 3_000
"""When it has ended, the rest of its log is waited for so long."""
AGAIN_S = 2.0
"""After no answer, at least."""
_PASSES = frozenset({Code.UNREACHABLE, Code.SHUTTING_DOWN, Code.TIMEOUT, Code.STORE_FULL, Code.TOO_MANY})
"""Refusals of a coordinator that pass."""


class Reader(Protocol):
    """What makes a verdict of a log: analytics.attribution's Analysis."""

    def feed(self, data: bytes, stream: int = 0) -> None: ...

    def peek(self) -> Verdict: ...


class _Over(NamedTuple):
    """A thread has come to its end; `error`: for good."""

    thread: str
    error: BaseException | None


class _Log:
    """The log of the newest try, fed by one thread and judged by another, so that reading never waits for judging."""

    def __init__(self, reader: Callable[[], Reader]) -> None:
        self._make = reader
        self._lock = threading.Lock()
        self._run: str | None = None
        self._reader = reader()
        self._grown = threading.Event()
        self.is_over = False
        self._recent = (Recent(), Recent())
        self._told_all = False
        self._closed = False

    def feed(self, pieces: Sequence[Piece]) -> None:
        with self._lock:
            for piece in pieces if not self._closed else ():
                if piece.run != self._run:
                    if self._run is not None:
                        self._reader = self._make()
                    self._run = piece.run
                    self._recent = (Recent(), Recent())
                self._reader.feed(piece.data, piece.stream)
                self._recent[piece.stream].add(piece.data)
        if pieces:
            self._grown.set()

    def end(self) -> None:
        """Nothing more is fed."""
        self.is_over = True
        self._grown.set()

    def judge(self) -> tuple[Verdict, str] | None:
        """When there is more to judge, with the try that it is of; None: there never will be."""
        self._grown.wait()
        if self._told_all:
            return None
        self._grown.clear()
        if self.is_over:
            self._told_all = True
            self._grown.set()
            if self._run is None:
                return None
        with self._lock:
            return (self._reader.peek(), self._run or "") if not self._closed else None

    def around(self, evidence: Evidence) -> list[str]:
        """The lines around this one, where they are still kept."""
        with self._lock:
            return self._recent[evidence.source == "stderr"].around(evidence.offset)

    def close(self) -> None:
        """From then on no thread is in the reader: a process must not end while one is, in a library of C++."""
        with self._lock:
            self._closed = True


class Watch:
    """Iterate over it for remarks as they come; then `outcome` says how it went."""

    def __init__(
        self, source: Source, until: Until, within_ms: Ms | None, reader: Callable[[], Reader], now_ms: Callable[[], Ms]
    ) -> None:
        self._source, self._now_ms = source, now_ms
        self._until, self._within_ms = until, within_ms
        self._log = _Log(reader)
        self._queue: Queue[Sighting | _Over] = Queue(QUEUE_MAX)
        self.outcome: Outcome | None = None

    def around(self, verdict: Verdict) -> list[str]:
        """The lines around the one that the verdict rests on, as far as they are still kept."""
        line = next((evidence for evidence in verdict.evidence if evidence.line), None)
        return self._log.around(line) if line is not None else []

    def __iter__(self) -> Iterator[Remark]:
        try:
            yield from self._watch()
        finally:
            self._log.close()

    def _watch(self) -> Iterator[Remark]:
        began_ms = self._now_ms()
        # Of one that has ended already its result is the answer, whatever it came through.
        until = self._until if self._source.ended_ms is None else Until.FINISHED
        monitor = Monitor(until, began_ms, self._within_ms, self._source.past())
        pace = self._source.pace
        running = {"states", "record", "log", "judge"}
        self._begin("states", pace.look_s, self._source.look)
        self._begin("record", pace.record_s, self._source.record)
        self._begin("log", pace.read_s, self._read)
        self._begin("judge", PEEK_S, self._judge)
        end: tuple[Ms, Ended] | None = None
        while monitor.outcome is None:
            if end is not None and ("judge" not in running or self._now_ms() >= end[0]):
                yield from monitor.see(end[1])
                continue
            due_ms = monitor.due_ms if self._source.ended_ms is None else None
            due = [ms for ms in (due_ms, end[0] if end is not None else None) if ms is not None]
            left_s = max(0.0, (min(due) - self._now_ms()) / 1000) if due else 3600.0
            try:
                item = self._queue.get(timeout=left_s)
            except Empty:
                yield from self._pass_time(monitor)
                continue
            if isinstance(item, _Over):
                running.discard(item.thread)
                if item.error is not None:
                    raise item.error
                if not running and end is None:
                    raise CoordError(Code.INTERNAL, f"nothing more is heard of {self._source.name}", "look there")
            elif isinstance(item, Ended):  # its last lines, which say why, may be on their way
                end = end or (self._now_ms() + LAST_LINES_MS, item)
            else:
                yield from monitor.see(item)
                yield from self._pass_time(monitor)
        self.outcome = monitor.outcome

    def _pass_time(self, monitor: Monitor) -> Iterator[Remark]:
        """Nothing is early, and nobody late, in what has ended."""
        if self._source.ended_ms is None:
            yield from monitor.pass_time(self._now_ms())

    def _begin(self, name: str, every_s: float, ask: Callable[[], Sequence[Sighting] | None]) -> None:
        def run() -> None:
            error: BaseException | None = None
            while error is None:
                wait_s = every_s
                try:
                    found = ask()
                    if found is None:
                        break
                    for sighting in found:
                        self._queue.put(sighting)
                except CoordError as refused:
                    if refused.code in _PASSES:
                        wait_s = self._unheard(refused.message, every_s)
                    else:
                        error = refused
                except (OSError, TimeoutError) as silent:
                    wait_s = self._unheard(str(silent) or type(silent).__name__, every_s)
                except Exception as wrong:  # raised again where the launch is watched
                    error = wrong
                if wait_s:
                    time.sleep(wait_s)
            if name == "log":
                self._log.end()
            self._queue.put(_Over(name, error))

        threading.Thread(target=run, name=f"watch {name}", daemon=True).start()

    def _unheard(self, why: str, every_s: float) -> float:
        self._queue.put(Unheard(at_ms=self._now_ms(), why=why))
        return max(every_s, AGAIN_S)

    def _read(self) -> Sequence[Sighting] | None:
        pieces = self._source.read()
        if pieces is None:
            return None
        self._log.feed(pieces)
        return ()

    def _judge(self) -> Sequence[Sighting] | None:
        judged = self._log.judge()
        return None if judged is None else (LogRead(at_ms=self._log_ms(), verdict=judged[0], run=judged[1]),)

    def _log_ms(self) -> Ms:
        """A log that is read after the end was written before it."""
        ended_ms = self._source.ended_ms
        return self._now_ms() if ended_ms is None else min(ended_ms, self._now_ms())
