"""Bytes on their way, for whoever watches: a bar on a terminal, a line for a log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from cli import humane, terminal

CLIENT = "coord.client"
"""Where the client says what it waits for."""
WIDTH = 30
EVERY_S = 0.1
SMALL_BYTES = 1 << 20
"""Less is over before anybody could read that it has begun."""
BROKEN_OFF = {
    "uploading": "broken off: what was sent is kept, the same command goes on from there",
    "fetching": "broken off: what has come is kept, the same command goes on from there",
}


class Moving:
    """`with Moving(sys.stderr) as moving: moved = moving.begin("uploading", size); moved(n)`, one thing at a time."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._drawn = False
        self._what = ""
        self._total = 0
        self._done = 0
        self._began_s = 0.0
        self._next_s = 0.0
        self._says = _Says(self)

    def say(self, text: str) -> None:
        """A line of its own; the bar comes again below it."""
        if self._drawn:
            self._out.write("\r\x1b[K")
        print(terminal.safe(text), file=self._out, flush=True)

    def begin(self, what: str, total: int) -> Callable[[int], None]:
        """So many bytes are to be moved from now on. -> whom to tell of each that was."""
        self._what, self._total, self._done = what, total, 0
        self._began_s = time.monotonic()
        self._next_s = 0.0
        if not self._out.isatty() and total >= SMALL_BYTES:
            print(f"{what} {humane.size_text(total)}", file=self._out, flush=True)
        return self._moved

    def _moved(self, size: int) -> None:
        self._done += size
        now_s = time.monotonic()
        if not self._out.isatty() or (now_s < self._next_s and self._done < self._total):
            return
        self._next_s = now_s + EVERY_S
        line = drawn(self._what, self._done, self._total, now_s - self._began_s)
        self._out.write(f"\r\x1b[K{line[: terminal.width(self._out) - 1]}")
        self._out.flush()
        self._drawn = True

    def __enter__(self) -> Moving:
        logging.getLogger(CLIENT).addHandler(self._says)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        logging.getLogger(CLIENT).removeHandler(self._says)
        if self._drawn:
            self._out.write("\r\x1b[K")
            self._out.flush()
        if kind is KeyboardInterrupt and self._what in BROKEN_OFF:
            print(BROKEN_OFF[self._what], file=self._out, flush=True)


class _Says(logging.Handler):
    """What the client waits for."""

    def __init__(self, moving: Moving) -> None:
        super().__init__()
        self._moving = moving
        self._said = ""

    def emit(self, record: logging.LogRecord) -> None:
        if (text := record.getMessage()) != self._said:  # of many files it is the same
            self._said = text
            self._moving.say(text)


def drawn(what: str, done: int, total: int, took_s: float) -> str:
    """`uploading [######........] 45 %  1.2 GiB of 2.6 GiB, 110 MiB/s, 13s left`."""
    share = min(1.0, done / max(1, total))
    full = round(WIDTH * share)
    parts = [f"{round_size(done)} of {round_size(total)}"]
    if took_s >= 1 and done > 0:
        parts.append(f"{round_size(int(done / took_s))}/s")
        if done < total:
            parts.append(f"{humane.length(took_s * (total - done) / done)} left")
    if done >= total and what == "uploading":
        parts.append("waiting for the coordinator")
    return f"{what} [{'#' * full}{'.' * (WIDTH - full)}] {100 * share:3.0f} %  {', '.join(parts)}"


def round_size(size: int) -> str:
    """Bytes to three digits: `1.21 GiB`."""
    for unit, factor in (("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)):
        if size >= factor:
            return f"{size / factor:.3g} {unit}" if size < 1000 * factor else f"{size / factor:.0f} {unit}"
    return f"{size} B"
