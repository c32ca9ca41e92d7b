"""The process that keeps traces: takes uploads in, gives rows back, analyses. Started at first need, ended when idle.

    python -m analytics.traces.keeping.process --data DIR --coordinator-id ID --settings JSON

It is no part of the analytics worker: what a user uploads may be large or hostile, and must not hold up whoever owes a
verdict within two seconds. Its memory is limited, and whoever started it ends it when it takes too long. One thread
puts and reads rows, another one analyses; it ends with its standard input.
"""

from __future__ import annotations

import argparse
import os
import queue
import resource
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO

import msgspec

from analytics.framing import HEADER_BYTES, frame
from analytics.memory import keep_freed_memory
from analytics.traces.keeping.desk import Desk
from analytics.traces.keeping.intake import take_in
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.lines import pieces
from analytics.traces.keeping.messages import (
    ANSWER_BYTES_MAX,
    Analyze,
    Analyzed,
    Began,
    CloseRows,
    FromKeeper,
    MoreRows,
    Noticed,
    OpenRows,
    Refused,
    Rows,
    TakeIn,
    TakenIn,
    encode,
    for_keeper,
)
from analytics.traces.keeping.shelf import Shelf
from coordinator.core.errors import Code, CoordError
from store.layout import DataDir

QUEUE_MAX = 1_024
"""Requests that wait for one of the threads. The parent bounds them more tightly."""


class Voice:
    """The one way out: frames, whole, from any thread."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def say(self, message: FromKeeper, body: bytes | None = None) -> None:
        """A message, and the frame that belongs to it."""
        with self._lock:
            self._out.write(encode(message) if body is None else encode(message) + frame(body))
            self._out.flush()


class Keeper:
    """The two threads, and what they share."""

    def __init__(self, data: DataDir, coordinator_id: str, settings: TraceSettings, voice: Voice) -> None:
        self._settings = settings
        self._coordinator_id = coordinator_id
        self._voice = voice
        self._lock = threading.Lock()
        """Of the shelf."""
        self._shelf = Shelf(data, settings, lambda problem: voice.say(Noticed(problem)))
        self._desk = Desk(data, self._shelf, self._lock, coordinator_id, settings)
        self._open: OrderedDict[int, Iterator[bytes]] = OrderedDict()
        """Rows that are being read, the least recently asked for first."""
        self.handed: queue.Queue[TakeIn | OpenRows | MoreRows | CloseRows] = queue.Queue(QUEUE_MAX)
        self.asked: queue.Queue[Analyze] = queue.Queue(QUEUE_MAX)

    def start(self) -> None:
        """Begin to work."""
        threading.Thread(target=self._guarded, args=(self._keep,), name="keep", daemon=True).start()
        threading.Thread(target=self._guarded, args=(self._analyze,), name="analyze", daemon=True).start()

    def _guarded(self, work: Callable[[], None]) -> None:
        """A process with half its threads is worse than none: whoever started it starts a whole one."""
        try:
            work()
        except BaseException:
            sys.excepthook(*sys.exc_info())
            os._exit(1)

    def _keep(self) -> None:
        while True:
            message = self.handed.get()
            if isinstance(message, CloseRows):
                self._open.pop(message.rows, None)
                continue
            try:
                self._answer(message)
            except CoordError as error:
                self._voice.say(Refused(message.n, error.code, error.message, error.hint))
            except MemoryError:
                self._voice.say(Refused(message.n, Code.TOO_LARGE, *_NO_MEMORY))
            except Exception:
                self._shelf.forget()
                self._failed(message.n)

    def _failed(self, n: int) -> None:
        """A mistake of ours costs who met it an answer, and nobody else the process."""
        sys.excepthook(*sys.exc_info())
        self._voice.say(Refused(n, Code.INTERNAL, "traces could not be read or analysed: a mistake of ours", _REPORT))

    def _answer(self, message: TakeIn | OpenRows | MoreRows) -> None:
        match message:
            case TakeIn(n=n, body=body):
                self._voice.say(Began(n))
                with self._lock:
                    parts = take_in(body, self._shelf, self._coordinator_id, self._settings)
                    stored = self._shelf.bytes
                self._voice.say(TakenIn(n, parts, stored))
            case OpenRows(n=n, job_id=job_id, kind=kind):
                while len(self._open) >= self._settings.rows_open_max:
                    self._open.popitem(last=False)
                self._open[n] = pieces(self._desk.run(job_id, details=kind == "spans").trace, kind)
                self._next(n, n)
            case MoreRows(n=n, rows=rows):
                self._next(n, rows)

    def _next(self, n: int, rows: int) -> None:
        lines = self._open.pop(rows, None)
        if lines is None:
            raise CoordError(Code.TOO_MANY, "others read rows meanwhile, and there was no room", "read them again")
        piece = next(lines, None)
        if piece is not None:
            self._open[rows] = lines
        self._voice.say(Rows(n, last=piece is None), piece or b"")

    def _analyze(self) -> None:
        while True:
            message = self.asked.get()
            self._voice.say(Began(message.n))
            began_s = time.monotonic()
            try:
                answer = self._desk.answer(message.ask)
                if len(answer.body) > ANSWER_BYTES_MAX:
                    raise CoordError(
                        Code.TOO_LARGE,
                        f"the analysis has {len(answer.body)} bytes, more than {ANSWER_BYTES_MAX}",
                        "fetch the rows and analyse them: coord trace analyze DIR",
                    )
                took_s = time.monotonic() - began_s
                self._voice.say(Analyzed(message.n, answer.cached, answer.policy, took_s), answer.body)
            except CoordError as error:
                self._voice.say(Refused(message.n, error.code, error.message, error.hint))
            except MemoryError:
                self._voice.say(Refused(message.n, Code.TOO_LARGE, *_NO_MEMORY))
            except Exception:
                self._failed(message.n)


_REPORT = "report it with the coordinator's log"
_NO_MEMORY = ("this takes more memory than traces may have", "raise traces.memory_bytes, or ask for less")


def listen(source: BinaryIO, keeper: Keeper, voice: Voice) -> None:
    """Hand over what is asked until the input ends; then the process ends, whatever it is doing."""
    while len(header := source.read(HEADER_BYTES)) == HEADER_BYTES:
        body = source.read(int.from_bytes(header, "little"))
        try:
            message = for_keeper(body)
        except msgspec.DecodeError as error:
            sys.stderr.write(f"the parent said what is no request: {error}\n")
            break
        try:
            if isinstance(message, Analyze):
                keeper.asked.put_nowait(message)
            else:
                keeper.handed.put_nowait(message)
        except queue.Full:
            if not isinstance(message, CloseRows):
                voice.say(Refused(message.n, Code.TOO_MANY, f"{QUEUE_MAX} requests wait already", "ask again later"))
    os._exit(0)


def main(arguments: list[str] | None = None) -> None:
    """Serve until the input ends. Whatever goes wrong ends the process."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="the data directory")
    parser.add_argument("--coordinator-id", required=True, help="whose traces these are")
    parser.add_argument("--settings", default="{}", help="TraceSettings, as JSON")
    given = parser.parse_args(arguments)
    settings = msgspec.json.decode(given.settings, type=TraceSettings)
    # Frames own the real standard output: a stray print must not become one.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    os.nice(settings.nice)
    resource.setrlimit(resource.RLIMIT_DATA, (settings.memory_bytes, settings.memory_bytes))
    keep_freed_memory()
    voice = Voice(out)
    keeper = Keeper(DataDir(given.data), given.coordinator_id, settings, voice)
    keeper.start()
    listen(sys.stdin.buffer, keeper, voice)


if __name__ == "__main__":
    main()
