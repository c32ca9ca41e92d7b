"""What programs say of how far they are: the three ways to say it, read as one text, and told on, the newest first.

    coord-progress 0.4 step=1200 loss=0.31 third epoch

A fraction (or a percentage, `40%`), values by name, and words; each may be left out, not all of them. Said to the
endpoint, as a line of stdout or stderr, or as the whole of the file $COORD_PROGRESS_FILE. To the coordinator goes at
most one a second of each attempt. What is no progress is nothing: a program may print what it likes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from msgspec import Struct

from coordinator import wire
from coordinator.agent.clock import boot_s
from coordinator.agent.logship import Key
from coordinator.core.rows import LeaseToken

PREFIX = b"coord-progress "
LINE_BYTES_MAX = 512
_REST_BYTES_MAX = len(PREFIX) + LINE_BYTES_MAX + 1
"""Of a line that is not whole: enough to know that it is too long."""
_NO_BEGIN = (b"", b"\0")
FILE = "progress"
"""Beside the program's home: $COORD_PROGRESS_FILE."""
TELL_AGAIN_S = 1.0
VALUES_MAX, NAME_CHARS_MAX, TEXT_CHARS_MAX = 16, 64, 200
_VALUE = re.compile(r"([A-Za-z_][A-Za-z0-9_.%/-]{0,63})=(\S{1,64})")


class Report(Struct, frozen=True, kw_only=True):
    """One of them."""

    fraction: float | None = None
    """0..1"""
    values: tuple[tuple[str, str], ...] = ()
    text: str = ""


def parse(line: str) -> Report | None:
    """What `line` (without the prefix) says; None when it is no report."""
    words = line.split()
    fraction = _fraction(words[0]) if words else None
    values: dict[str, str] = {}
    rest: list[str] = []
    for word in words[0 if fraction is None else 1 :]:
        match = _VALUE.fullmatch(word)
        if match is None or (match[1] not in values and len(values) >= VALUES_MAX):
            rest.append(word)
        else:
            values[match[1]] = match[2]
    text = " ".join(rest)[:TEXT_CHARS_MAX]
    if fraction is None and not values and not text:
        return None
    if not (line.isprintable() or all(c.isprintable() or c.isspace() for c in line)):
        return None
    return Report(fraction=fraction, values=tuple(values.items()), text=text)


def _fraction(word: str) -> float | None:
    share = word.endswith("%")
    try:
        value = float(word.removesuffix("%")) / (100 if share else 1)
    except ValueError:
        return None
    return value if math.isfinite(value) and 0.0 <= value <= 1.0 else None


class LineScan:
    """Finds reports in the bytes of one stream, which come in pieces. `at` is the offset up to which it has looked."""

    def __init__(self) -> None:
        self.at = 0
        self._rest = b""
        """The begin of a line that may be a report, and is not whole yet."""

    def feed(self, offset: int, data: bytes) -> Report | None:
        """The last report that is whole in these bytes. Bytes that were seen before count for nothing."""
        if offset > self.at:
            self._rest, self.at = b"\0", offset  # a gap: the line that it cuts is none
        fresh = data[self.at - offset :]
        if not fresh:
            return None
        self.at = offset + len(data)
        newest = fresh.rfind(b"\n")
        if newest < 0:
            self._rest = _begin(self._rest + fresh[:_REST_BYTES_MAX])
            return None
        rest, self._rest = self._rest, _begin(fresh[newest + 1 : newest + 1 + _REST_BYTES_MAX])
        if rest in _NO_BEGIN and PREFIX not in fresh:
            return None  # nearly always: a log costs one search
        return _last_in(rest + fresh[:newest])


def _begin(line: bytes) -> bytes:
    """What is kept of a line that is not whole: nothing that cannot become a report."""
    if line.startswith(PREFIX) or PREFIX.startswith(line):
        return line[:_REST_BYTES_MAX]
    return b"\0"


def _last_in(lines: bytes) -> Report | None:
    """The last line that is a report."""
    end = len(lines)
    while (found := lines.rfind(PREFIX, 0, end)) >= 0:
        end = found
        if found and lines[found - 1 : found] != b"\n":
            continue
        line = lines[found + len(PREFIX) :].partition(b"\n")[0]
        if len(line) <= LINE_BYTES_MAX and (report := parse(line.decode("utf-8", "replace").rstrip("\r"))) is not None:
            return report
    return None


class Teller:
    """The newest report of each attempt on its way to the coordinator: one a second, and the last one for certain."""

    def __init__(self, now: Callable[[], float] = boot_s) -> None:
        self._now = now
        self._newest: dict[Key, tuple[LeaseToken, Report]] = {}
        self._told: dict[Key, float] = {}

    def put(self, key: Key, token: LeaseToken, report: Report) -> None:
        """A newer one takes the place of one that was not told yet."""
        self._newest[key] = token, report

    def drop(self, key: Key) -> None:
        """The attempt is forgotten here."""
        self._newest.pop(key, None)
        self._told.pop(key, None)

    def due_s(self) -> float:
        """When there is something to tell; infinite: nothing."""
        return min((self._told.get(key, -math.inf) + TELL_AGAIN_S for key in self._newest), default=math.inf)

    def ready(self) -> list[wire.Progress]:
        """Those that may be told now."""
        now_s = self._now()
        ready = [key for key in self._newest if self._told.get(key, -math.inf) + TELL_AGAIN_S <= now_s]
        return [self._take(key, now_s) for key in ready]

    def last(self, key: Key) -> wire.Progress | None:
        """What was not told of it yet, though a second has not gone by: its end is about to be told."""
        return self._take(key, self._now()) if key in self._newest else None

    def _take(self, key: Key, now_s: float) -> wire.Progress:
        token, report = self._newest.pop(key)
        self._told[key] = now_s
        return wire.Progress(
            attempt=key[0],
            rank=key[1],
            token=token,
            fraction=report.fraction,
            values=dict(report.values),
            text=report.text,
        )
