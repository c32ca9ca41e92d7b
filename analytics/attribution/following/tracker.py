"""One file that grows: read once, from where reading stopped, for as long as it is the same file.

A tracker is for one thread at a time. Between two looks it holds the file open, so that its inode is nobody else's.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec import Struct

from analytics.attribution.engine import Analysis, End, Rules, judge
from analytics.attribution.following.boundary import SAMPLE_BYTES, Boundary, Change, boundary_of
from coordinator.core.errors import Code, CoordError
from coordinator.core.verdict.rows import PastVerdict, Verdict

READ_BYTES = 1024 * 1024
QUIET_LOOKS = 2
"""Looks in a row that find nothing new: then a file that nobody writes any more is through."""
QUIET_S = 0.03
"""Between them; longer than the clock of a file system stands still."""
DRAIN_S = 2.0
"""A file that grows on is judged as it is after so long."""
COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ\x00": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}
"""First bytes of files whose growth cannot be followed."""
_FORMAT = 1

OpenFile = Callable[[], int]
"""A new descriptor of whatever lies at the path now, opened without blocking; FileNotFoundError while nothing does."""


class TrackerState(StrEnum):
    PENDING = "pending"
    """No file is there yet."""
    RUNNING = "running"
    READY_TO_COMPLETE = "ready_to_complete"
    """All that was there at the last look is read."""
    COMPLETED = "completed"
    FAILED = "failed"
    UNSUPPORTED = "unsupported"


class _Kept(Struct, frozen=True, array_like=True):
    """A tracker between two processes: state of the analysis and cursor are one."""

    format: int
    boundary: Boundary
    analysis: bytes


class _Opened(NamedTuple):
    fd: int
    status: os.stat_result


class Tracker:
    """Follows the file that `open_file` opens. `replays` counts, by reason, how often it had to begin anew."""

    def __init__(self, open_file: OpenFile, rules: Rules, name: str = "") -> None:
        self.state = TrackerState.PENDING
        self.error = ""
        self.replays: Counter[str] = Counter()
        self.why_replayed = ""
        """Why it began anew the last time."""
        self._open_file = open_file
        self._rules = rules
        self._name = name
        self._analysis = Analysis(rules, name)
        self._boundary: Boundary | None = None
        self._held: _Opened | None = None
        self._head = b""
        self._tail = b""
        self._consumed = 0
        self._doubted = (-1, -1)
        """Size and time of a file that is in doubt."""

    @classmethod
    def restore(cls, open_file: OpenFile, rules: Rules, data: bytes, name: str = "") -> Tracker:
        """Go on where `save` was called. CoordError(BAD_REQUEST) when `data` is none of ours, or made with other rules:
        then begin anew. Whether the file is still the same is found at the first look."""
        try:
            kept = msgspec.msgpack.decode(data, type=_Kept)
        except msgspec.DecodeError as error:
            raise CoordError(Code.BAD_REQUEST, f"this is no tracker: {error}", "begin anew") from error
        if kept.format != _FORMAT:
            raise CoordError(Code.BAD_REQUEST, f"a tracker of format {kept.format} was kept", "begin anew")
        tracker = cls(open_file, rules, name)
        tracker._analysis = Analysis.restore(rules, kept.analysis)
        tracker._boundary = kept.boundary
        tracker._consumed = kept.boundary.cursor
        tracker.state = TrackerState.RUNNING
        return tracker

    @property
    def consumed(self) -> int:
        """Bytes of the file that were read, and will not be again."""
        return self._consumed

    @property
    def analysis(self) -> Analysis:
        return self._analysis

    def save(self) -> bytes | None:
        """For `restore`; None while nothing was read."""
        if self._boundary is None:
            return None
        return msgspec.msgpack.encode(_Kept(_FORMAT, self._boundary, self._analysis.save()))

    def close(self) -> None:
        """Let go of the file. Safe to call twice."""
        if self._held is not None:
            os.close(self._held.fd)
            self._held = None

    # ---- looking

    def advance(self, limit: int = READ_BYTES) -> int:
        """Look at the file, and read at most `limit` new bytes of it. -> how many. Raises nothing: what goes wrong is
        in `state` and `error`."""
        if self.state in (TrackerState.COMPLETED, TrackerState.UNSUPPORTED):
            return 0
        try:
            return self._advance(limit)
        except FileNotFoundError:
            if self.state is not TrackerState.PENDING:
                self._fail("it is not there any more")
        except OSError as error:
            self._fail(error.strerror or str(error))
        return 0

    def _fail(self, error: str) -> None:
        self.state, self.error = TrackerState.FAILED, error

    def _advance(self, limit: int) -> int:
        opened = self._look()
        if not stat.S_ISREG(opened.status.st_mode):
            self.state, self.error = TrackerState.UNSUPPORTED, "it is no regular file"
            return 0
        self.error = ""
        if self._boundary is not None:
            change = self._boundary.change(opened.fd, opened.status)
            if change is Change.DOUBTFUL and not self._stands(opened.status):
                return 0
            if change is Change.UNCHANGED:
                self._boundary = self._boundary_now(opened.status)
                self.state = TrackerState.READY_TO_COMPLETE
                return 0
            if change is not Change.GROWN:
                self._begin_anew(Change.REWRITTEN if change is Change.DOUBTFUL else change)
        return self._read(opened, min(limit, opened.status.st_size - self._consumed))

    def _look(self) -> _Opened:
        """What lies at the path now. The descriptor before stays open until here: so another inode is another file."""
        fd = self._open_file()
        try:
            opened = _Opened(fd, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        self.close()
        self._held = opened
        return opened

    def _stands(self, status: os.stat_result) -> bool:
        """Whether a doubt was there at the last look too. The time alone changed: a write that is on its way, which has
        gone on then, or one in place where nobody looked."""
        before, self._doubted = self._doubted, (status.st_size, status.st_mtime_ns)
        return before == self._doubted

    def _begin_anew(self, why: Change) -> None:
        self.replays[why.value] += 1
        self.why_replayed = why.value
        self._analysis = Analysis(self._rules, self._name)
        self._boundary = None
        self._head = self._tail = b""
        self._consumed = 0
        self._doubted = (-1, -1)

    def _read(self, opened: _Opened, size: int) -> int:
        data = os.pread(opened.fd, size, self._consumed) if size > 0 else b""
        if not self._consumed:
            kind = next((kind for magic, kind in COMPRESSED.items() if data.startswith(magic)), "")
            if kind:
                self.state, self.error = TrackerState.UNSUPPORTED, f"it is compressed ({kind})"
                return 0
        elif not self._tail:  # restored: what was read lies in the file, as its samples say
            sample = min(SAMPLE_BYTES, self._consumed)
            self._head = os.pread(opened.fd, sample, 0)
            self._tail = os.pread(opened.fd, sample, self._consumed - sample)
        if data:
            self._analysis.feed(data)
            self._head = (self._head + data[:SAMPLE_BYTES])[:SAMPLE_BYTES]
            self._tail = (self._tail + data[-SAMPLE_BYTES:])[-SAMPLE_BYTES:]
            self._consumed += len(data)
        self._boundary = self._boundary_now(opened.status)
        through = self._consumed >= opened.status.st_size
        self.state = TrackerState.READY_TO_COMPLETE if through else TrackerState.RUNNING
        return len(data)

    def _boundary_now(self, status: os.stat_result) -> Boundary:
        if self._boundary is not None and not self._tail and self._consumed:  # restored, and nothing read since
            made = boundary_of(status, self._consumed, b"", b"")
            return msgspec.structs.replace(made, head=self._boundary.head, tail=self._boundary.tail)
        return boundary_of(status, self._consumed, self._head, self._tail)

    # ---- the end

    def drain(self, pause: Callable[[float], None] = time.sleep, patience_s: float = DRAIN_S) -> None:
        """Read until nothing comes any more: QUIET_LOOKS in a row without a new byte, or `patience_s` are over."""
        until = time.monotonic() + patience_s
        quiet = 0
        while quiet < QUIET_LOOKS and self.state is not TrackerState.UNSUPPORTED:
            if self.advance():
                quiet = 0
            else:
                quiet += 1
                if quiet < QUIET_LOOKS:
                    pause(QUIET_S)
            if time.monotonic() > until:
                return

    def peek(self) -> Verdict:
        """As if it ended here, without the partial last line."""
        return self._analysis.peek()

    def finish(
        self, end: End | None = None, history: Sequence[PastVerdict] = (), pause: Callable[[float], None] = time.sleep
    ) -> Verdict:
        """Drain, and judge with the partial last line. CoordError(NOT_FOUND) where there was no file at the end,
        BAD_REQUEST where it cannot be followed."""
        self.drain(pause)
        self.close()
        if self.state in (TrackerState.PENDING, TrackerState.FAILED):
            raise CoordError(Code.NOT_FOUND, self.error or "it was never there", "name a file that can be read")
        if self.state is TrackerState.UNSUPPORTED:
            raise CoordError(Code.BAD_REQUEST, self.error, "name a plain text file")
        verdict = judge((self._analysis,), end, history)
        self.state = TrackerState.COMPLETED
        return verdict


def full_pass(
    open_file: OpenFile,
    rules: Rules,
    upto: int | None = None,
    name: str = "",
    stop: Callable[[], bool] = lambda: False,
) -> Analysis:
    """The whole file, or its first `upto` bytes, in one go; no further once `stop` says so. OSError where it cannot be
    read."""
    analysis = Analysis(rules, name)
    fd = open_file()
    try:
        offset = 0
        while (upto is None or offset < upto) and not stop():
            data = os.pread(fd, READ_BYTES if upto is None else min(READ_BYTES, upto - offset), offset)
            if not data:
                break
            analysis.feed(data)
            offset += len(data)
    finally:
        with suppress(OSError):
            os.close(fd)
    return analysis
