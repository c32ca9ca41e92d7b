"""The directory of one job's traces, and the one way to change it. One process writes; others read, or take it away.

Sealing writes the new segment whole, then removes what went into it. What a crash leaves twice is one row when it is
read, by its key: nothing here has to be undone. Directories are 0700, files 0600.
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from store.layout import DIRECTORY_MODE, FILE_MODE, sync_directory
from store.log_files import job_directory, read_at
from store.traces.frames import BadFrame, Frame, frames
from store.traces.places import INCOMING, SEGMENT, TEMPORARY, sizes

SEGMENTS_MAX = 1_000_000


class Part(NamedTuple):
    """A frame as it lies there. `name`: of its file."""

    name: str
    frame: Frame


class JobTraces:
    """What is kept of one job's traces. An OSError is raised as CoordError: STORE_FULL, ANALYTICS_UNAVAILABLE. Never as
    STORE_BROKEN: traces are no reason to end a coordinator, and on a broken disk the truth fails too."""

    def __init__(self, root: Path, job_id: JobId, leave_bytes: int = 0) -> None:
        self._root = root
        self._job_id = job_id
        self._leave_bytes = leave_bytes
        self.path = job_directory(root, job_id)
        self.incoming_bytes = 0
        """How long `incoming` was when this last wrote it."""
        self.damaged: set[str] = set()
        """Files in which `parts` found frames that are none."""

    def sizes(self) -> dict[str, int]:
        """Bytes of each file that counts, by its name; empty where there is nothing."""
        return sizes(self.path)

    def parts(self, stack: ExitStack, report: Callable[[str], None]) -> list[Part]:
        """Every frame there is, segments first; their files stay open as long as `stack`. `report` is told what is
        damaged and left out: the end of `incoming` that a crash cut short is not."""
        found: list[Part] = []
        self.damaged = set()
        for name in sorted(self.sizes(), key=_order):
            try:
                fd = os.open(self.path / name, os.O_RDONLY | os.O_CLOEXEC)
            except FileNotFoundError:
                continue  # sealed or removed meanwhile
            stack.callback(os.close, fd)
            walked = list(frames(_reading(fd), os.fstat(fd).st_size))
            torn = name == INCOMING and walked and isinstance(walked[-1], BadFrame)
            for frame in walked[:-1] if torn else walked:
                if isinstance(frame, BadFrame):
                    self.damaged.add(name)
                    report(f"traces/{self.path.relative_to(self._root)}/{name} is damaged: {frame}")
                else:
                    found.append(Part(name, frame))
        return found

    def append(self, pieces: Sequence[bytes]) -> int:
        """One more frame at the end of `incoming`, durable on return; returns how long that is now. All or nothing."""
        self._leave_room(sum(map(len, pieces)))
        path = self.path / INCOMING
        try:
            fd = self._opened(path)
            try:
                end = self._whole_end(fd)
                try:
                    self.incoming_bytes = _write(fd, pieces, end)
                    os.fdatasync(fd)
                except OSError:
                    self.incoming_bytes = end
                    os.ftruncate(fd, end)
                    raise
            finally:
                os.close(fd)
            if end == 0:
                for directory in (self.path, self.path.parent, self._root):
                    sync_directory(directory)
        except OSError as error:
            raise _meaning(error, path) from error
        return self.incoming_bytes

    def seal(self, pieces: Sequence[bytes], names: Sequence[str]) -> str:
        """A new segment that holds what these files do; then they go. Returns its name."""
        name = self._next_name()
        temporary = self.path / f"{TEMPORARY}{secrets.token_hex(4)}"
        self._leave_room(sum(map(len, pieces)))
        try:
            for leftover in self.path.glob(f"{TEMPORARY}*"):
                leftover.unlink()
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
            try:
                _write(fd, pieces, 0)
                os.fsync(fd)
            except BaseException:
                temporary.unlink()
                raise
            finally:
                os.close(fd)
            temporary.rename(self.path / name)
            sync_directory(self.path)
            for old in names:
                (self.path / old).unlink(missing_ok=True)
            if INCOMING in names:
                self.incoming_bytes = 0
        except FileNotFoundError:
            raise gone(self._job_id) from None
        except OSError as error:
            raise _meaning(error, self.path) from error
        return name

    def set_aside(self) -> str:
        """What is incoming becomes a segment as it is, since it is damaged: what comes begins a new one. Returns its
        name."""
        name = self._next_name()
        try:
            (self.path / INCOMING).rename(self.path / name)
            sync_directory(self.path)
        except OSError as error:
            raise _meaning(error, self.path) from error
        self.incoming_bytes = 0
        return name

    def _next_name(self) -> str:
        numbers = [_order(name) for name in self.sizes() if name != INCOMING]
        return f"{max(numbers, default=0) + 1}{SEGMENT}"

    def _opened(self, path: Path) -> int:
        for last in (False, True):
            try:
                for directory in (self._root, path.parent.parent, path.parent):
                    directory.mkdir(mode=DIRECTORY_MODE, exist_ok=True)
                return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
            except FileNotFoundError:
                if last:
                    raise
        raise AssertionError  # the directory of a thousand goes with its last job: the second time it is made anew

    def _whole_end(self, fd: int) -> int:
        """Where the last whole frame ends: a crash may have left a part of one behind it, which goes."""
        size = os.fstat(fd).st_size
        if size != self.incoming_bytes:
            self.incoming_bytes = max(
                (one.end for one in frames(_reading(fd), size) if isinstance(one, Frame)), default=0
            )
            os.ftruncate(fd, self.incoming_bytes)
        return self.incoming_bytes

    def _leave_room(self, size: int) -> None:
        """Traces may be sent again; a submission or an end may not."""
        room = os.statvfs(self._root.parent)
        leave = min(self._leave_bytes, room.f_blocks * room.f_frsize // 20)
        if room.f_bavail * room.f_frsize < leave + size:
            raise _meaning(OSError(errno.ENOSPC, f"less than {leave} bytes would be left"), self.path)


def _meaning(error: OSError, path: Path) -> CoordError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return CoordError(Code.STORE_FULL, f"no room for {path}: {error.strerror}", "free some space on the data disk")
    return CoordError(
        Code.ANALYTICS_UNAVAILABLE, f"{path} cannot be written: {error.strerror}", "look at the disk; nothing was kept"
    )


def gone(job_id: JobId) -> CoordError:
    """What is answered when a job was removed under way."""
    return CoordError(Code.NOT_FOUND, f"there is no job {job_id} any more", "it was removed with all that it had")


def _order(name: str) -> int:
    """Segments by their number, what is incoming behind them."""
    number = name.removesuffix(SEGMENT)
    return int(number) if number.isdecimal() else SEGMENTS_MAX


def _reading(fd: int) -> Callable[[int, int], bytes]:
    return lambda at, size: read_at(fd, size, at)


def _write(fd: int, pieces: Sequence[bytes], at: int) -> int:
    """All of them from `at` on; returns where they end."""
    for piece in pieces:
        left = memoryview(piece)
        while left:
            count = os.pwrite(fd, left, at)
            left, at = left[count:], at + count
    return at
