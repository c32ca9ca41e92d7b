"""One stream of an attempt: from the pipe that its program writes into to the file that is shipped.

The bytes are moved by the kernel (splice), never through this process. A bound is exact: to the byte, whatever the
size of the program's writes; what is beyond it is handled as the job said (`LogFull`).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import select
import termios
from pathlib import Path

from coordinator.agent.log import logger
from coordinator.agent.syscalls import punch_hole
from coordinator.core.work.jobspec import LogFull

TURN_BYTES = 1 << 20
"""What one stream may move before the others have their turn."""
PIPE_BYTES = 1 << 20
"""A program that filled its pipe gets one of this size, if the system lets us: fewer wake-ups a megabyte."""
PIPE_FULL_BYTES = 60 * 1024
_NONE = bytes(4)
HOLE_BYTES = 16 << 20
"""Room of stored bytes is given back in pieces of this size."""


class Pump:
    """Owns the pipe's reading end and the file, which is made for the first byte."""

    def __init__(self, path: str | Path, bound: int, policy: LogFull) -> None:
        """`bound` in bytes, 0: none."""
        self._path = path
        self.bound = bound
        self.policy = policy
        self.length = 0
        """Of the file."""
        self.dropped = 0
        self.stored = 0
        self.overran = False
        """The bound was reached and more came."""
        self.open = False
        self._holes_to = 0
        self._failed = False
        self._file = -1
        self._sink = -1
        self._pipe = -1
        self._large = False

    def connect(self) -> int:
        """Make the pipe; the program's end is returned, and is the caller's to close."""
        self._pipe, theirs = os.pipe2(os.O_CLOEXEC)
        self.open = True
        return theirs

    def fileno(self) -> int:
        return self._pipe

    @property
    def has_file(self) -> bool:
        """Whether one may have been made."""
        return self._file >= 0 or self.length + self.dropped > 0

    def close(self) -> None:
        for fd in (self._pipe, self._file, self._sink):
            if fd >= 0:
                os.close(fd)
        self._pipe = self._file = self._sink = -1
        self.open = False

    @property
    def blocked(self) -> bool:
        """The program waits for its bytes to be stored elsewhere."""
        return self.policy is LogFull.BLOCK and self._room() == 0

    def move(self) -> bool:
        """Take what is in the pipe, up to a turn's worth. False: nothing is in it now, or never will be (`open`)."""
        room = self._room()
        if not self.open or (room == 0 and self.policy is LogFull.BLOCK):
            return False
        try:
            moved = self._drop() if room == 0 else self._keep(TURN_BYTES if room is None else min(room, TURN_BYTES))
        except BlockingIOError:
            return False
        if moved == 0:
            os.close(self._pipe)
            self._pipe, self.open = -1, False
            return False
        if moved >= PIPE_FULL_BYTES and not self._large and self.policy is not LogFull.BLOCK:
            self._large = True
            with contextlib.suppress(OSError):  # over the user's share of pipe memory: it works as it is
                fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        return True

    def drain(self) -> None:
        """Take what is in the pipe now: whoever wrote is dead, and what still holds it open is not waited for.

        With `BLOCK` this last pipeful (64 kB) is kept whatever the bound says: nobody is left who could wait.
        """
        if self.policy is LogFull.BLOCK:
            self.bound = 0
        before = self.length + self.dropped
        while self.open and self.length + self.dropped - before < 2 * PIPE_BYTES and self._waits() and self.move():
            pass
        self.close()

    def on_stored(self, offset: int) -> None:
        """The coordinator has everything below `offset`: its room is given back."""
        self.stored = max(self.stored, min(offset, self.length))
        start, end = self._holes_to, self.stored // HOLE_BYTES * HOLE_BYTES
        if end > start and self._file >= 0:
            with contextlib.suppress(OSError):  # a file system without holes: the room comes back at the end
                punch_hole(self._file, start, end)
            self._holes_to = end

    def _room(self) -> int | None:
        """Bytes that may still be written; None: no bound."""
        if self._failed:
            return 0
        if not self.bound:
            return None
        if self.policy is LogFull.BLOCK:
            return max(0, self.bound - (self.length - self.stored))
        return max(0, self.bound - self.length)

    def _keep(self, count: int) -> int:
        """Bytes moved into the file; 0 at the end of the stream. BlockingIOError when there are none yet."""
        try:
            if self._file < 0:
                if not self._has_news():
                    return 0
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
                self._file = os.open(self._path, flags, 0o600)
            moved = self._splice(self._file, count, self.length)
        except BlockingIOError:
            raise
        except OSError as error:
            logger.error("a log cannot be written: %s; the rest of it is dropped", error.strerror)
            self._failed = True  # from here on it is as if the bound were reached
            if self.policy is LogFull.BLOCK:
                self.policy = LogFull.TRUNCATE
            return self._drop()
        self.length += moved
        return moved

    def _has_news(self) -> bool:
        """Whether there is anything to move: False at the end of the stream, BlockingIOError when nothing is there."""
        news = self._waits()
        if not news and not self._ended():
            raise BlockingIOError
        return news

    def _waits(self) -> bool:
        """Whether bytes are in the pipe."""
        return fcntl.ioctl(self._pipe, termios.FIONREAD, _NONE) != _NONE

    def _ended(self) -> bool:
        poll = select.poll()
        poll.register(self._pipe, select.POLLIN)
        return any(mask & select.POLLHUP for _, mask in poll.poll(0))

    def _drop(self) -> int:
        if self._sink < 0:
            self._sink = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        moved = self._splice(self._sink, TURN_BYTES)
        if moved and not self.overran:
            self.overran = True
            self._mark()
        self.dropped += moved
        return moved

    def _splice(self, target: int, count: int, offset: int | None = None) -> int:
        try:
            return os.splice(self._pipe, target, count, offset_dst=offset, flags=os.SPLICE_F_NONBLOCK)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
        os.set_blocking(self._pipe, False)
        # a file system that cannot be spliced into; what was read and could not be written counts as dropped
        data = os.read(self._pipe, min(count, PIPE_FULL_BYTES))
        written = os.write(target, data) if offset is None else os.pwrite(target, data, offset)
        self.dropped += len(data) - written
        return written

    def _mark(self) -> None:
        """One line at the place of the gap. It counts as a part of the stream, not of the bound."""
        if self._file < 0:
            return
        before = os.pread(self._file, 1, self.length - 1) if self.length else b"\n"
        then = "the attempt is ended" if self.policy is LogFull.FAIL else "what follows is dropped"
        why = "its log could not be written" if self._failed else f"its log reached its bound of {self.bound} bytes"
        line = f"[coord: {why}; {then}]\n".encode()
        with contextlib.suppress(OSError):
            self.length += os.pwrite(self._file, line if before == b"\n" else b"\n" + line, self.length)
