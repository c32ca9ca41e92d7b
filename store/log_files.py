"""The files of stored logs, as the one thread that writes them sees them. Nothing here may be called from another.

    logs/<job // 1000>/<job>/<step>.<task>.<attempt>.<rank>.out      byte for byte what the agent's file holds
                                                            .err
                                                            .idx     what arrived when (store/log_index.py)

Directories are 0700, files 0600. A stream is as long as its file. Bytes are synced before they count; the index is
written after them.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, JobId, Ms
from coordinator.ports.logs import LogKey, LogWrite
from store.layout import DIRECTORY_MODE, FILE_MODE, sync_directory
from store.log_index import RECORD_BYTES, Arrival, arrivals, encoded, kept_records, mended
from store.sqlite import broken, translated

SUFFIXES = ("out", "err")
"""By the number of the stream."""
INDEX = "idx"
JOBS_PER_DIRECTORY = 1_000
REMOVED = ".removed-"
"""Begins the name of a job's directory on its way out."""
SYNCS_AT_ONCE = 8
"""64 files at once take 8 ms to sync so, 14 one after the other: the file system joins them into one of its commits."""
_TAIL_BYTES = 4_096 * RECORD_BYTES

RankKey = tuple[AttemptId, int]


def job_directory(root: Path, job_id: JobId) -> Path:
    return root / str(job_id // JOBS_PER_DIRECTORY) / str(job_id)


def log_path(root: Path, rank_key: RankKey, suffix: str) -> Path:
    """The file of one stream of a rank, or its index."""
    (job_id, step, task, attempt), rank = rank_key
    return job_directory(root, job_id) / f"{step}.{task}.{attempt}.{rank}.{suffix}"


class Told(NamedTuple):
    """What readers may know of a rank: all of it at once, or one would see an arrival whose bytes are not there yet."""

    marks: int = 0
    """Records of the index that may be read."""
    durable: tuple[int, int] = (0, 0)
    """Lengths as they were promised."""


class RankLog:
    """The open files of one rank. Readers may look at `durable` and `marks`; the rest is the writer's."""

    def __init__(self, key: RankKey) -> None:
        self.key = key
        self.told = Told()
        self.written = [0, 0]
        self.fds: list[int] = [-1, -1]
        self.index_fd = -1
        self.last_ms: Ms = 0

    @property
    def marks(self) -> int:
        return self.told.marks

    @property
    def durable(self) -> tuple[int, int]:
        return self.told.durable

    def close(self) -> None:
        for fd in (*self.fds, self.index_fd):
            if fd >= 0:
                os.close(fd)
        self.fds, self.index_fd = [-1, -1], -1


class Batch:
    """What one call changed, so that it can be taken back."""

    def __init__(self) -> None:
        self.before: dict[tuple[RankKey, int], int] = {}
        """Length of every stream that it touched."""
        self.arrivals: list[tuple[RankKey, Arrival]] = []


class LogFiles:
    """See the module. `ranks_max` ranks have their files open at a time; the one not needed for longest is closed.

    Raises OSError, of which `meaning` tells what it is. After `roll_back` everything is as it was before the batch.
    """

    def __init__(self, root: Path, ranks_max: int, leave_bytes: int) -> None:
        self.root = root
        self._leave_bytes = leave_bytes
        self.open_ranks: dict[RankKey, RankLog] = {}
        """In the order of their last use."""
        self._ranks_max = ranks_max
        self._syncs = ThreadPoolExecutor(SYNCS_AT_ONCE, thread_name_prefix="sync logs")
        self._new_in: set[Path] = set()
        """Directories with names in them that are not durable yet."""

    # ---- one rank

    def rank(self, key: RankKey) -> RankLog:
        """The rank with its files open where there are any, its streams durable, its index mended."""
        log = self.open_ranks.pop(key, None)
        if log is None:
            log = self._opened(key)
        self.open_ranks[key] = log
        return log

    def trim(self) -> None:
        """Close what is beyond the bound. Not amid a batch: what it touched must stay open."""
        while len(self.open_ranks) > self._ranks_max:
            self.open_ranks.pop(next(iter(self.open_ranks))).close()

    def _opened(self, key: RankKey) -> RankLog:
        log = RankLog(key)
        try:
            modified_ms = 0
            for stream, suffix in enumerate(SUFFIXES):
                with suppress(FileNotFoundError):
                    fd = log.fds[stream] = os.open(log_path(self.root, key, suffix), os.O_RDWR | os.O_CLOEXEC)
                    # A process that was killed may have left bytes that it never synced: from here on they count.
                    os.fdatasync(fd)
                    status = os.fstat(fd)
                    log.written[stream] = status.st_size
                    modified_ms = max(modified_ms, status.st_mtime_ns // 1_000_000)
            with suppress(FileNotFoundError):
                log.index_fd = os.open(log_path(self.root, key, INDEX), os.O_RDWR | os.O_CLOEXEC)
            self._settle_index(log, modified_ms)
        except BaseException:
            log.close()
            raise
        return log

    def _settle_index(self, log: RankLog, modified_ms: Ms) -> None:
        """Cut what is torn or goes beyond the streams; add what the streams have beyond it."""
        lengths = (log.written[0], log.written[1])
        size = os.fstat(log.index_fd).st_size if log.index_fd >= 0 else 0
        end = size - size % RECORD_BYTES
        last: Arrival | None = None
        while end and last is None:
            begin = max(0, end - _TAIL_BYTES)
            kept, last = kept_records(os.pread(log.index_fd, end - begin, begin), lengths)
            end = begin + kept * RECORD_BYTES
        if end != size:
            os.ftruncate(log.index_fd, end)
        log.told = Told(end // RECORD_BYTES, lengths)
        log.last_ms = last.at_ms if last is not None else 0
        covered = last.lengths if last is not None else (0, 0)
        missing = arrivals(max(modified_ms, log.last_ms), covered, lengths)
        # On a full disk the bytes are there all the same; their arrival is told when there is room.
        if missing:
            with suppress(OSError):
                self._write_marks(log, missing)
                log.told = Told(log.marks + len(missing), lengths)

    def _write_marks(self, log: RankLog, found: list[Arrival]) -> None:
        """Behind those that are told."""
        if log.index_fd < 0:
            log.index_fd = self._create(log_path(self.root, log.key, INDEX))
        _write_at(log.index_fd, b"".join(map(encoded, found)), log.marks * RECORD_BYTES)
        log.last_ms = found[-1].at_ms

    def mend_index(self, key: RankKey) -> None:
        """Replace damaged records by what their neighbours tell."""
        log = self.rank(key)
        if log.index_fd >= 0:
            whole = mended(read_at(log.index_fd, log.marks * RECORD_BYTES, 0))
            _write_at(log.index_fd, whole, 0)

    # ---- a batch

    def write(self, writes: Sequence[LogWrite], batch: Batch) -> None:
        """Write what is new of `writes`, not synced. An OSError leaves `batch` for roll_back."""
        for key, offset, data, at_ms in writes:
            rank_key = (key.attempt_id, key.rank)
            log = self.rank(rank_key)
            length = log.written[key.stream]
            known = length - offset
            if known < 0 or known >= len(data):
                continue
            fresh = memoryview(data)[known:]
            if not batch.before:
                self._leave_room()
            batch.before.setdefault((rank_key, key.stream), length)
            if log.fds[key.stream] < 0:
                path = log_path(self.root, rank_key, SUFFIXES[key.stream])
                log.fds[key.stream] = self._create(path)
                self._new_in.add(path.parent)
            elif os.fstat(log.fds[key.stream]).st_nlink > 1:
                self._separate(log, key.stream)
            _write_at(log.fds[key.stream], fresh, length)
            log.written[key.stream] = length + len(fresh)
            log.last_ms = max(log.last_ms, at_ms)
            batch.arrivals.append(
                (rank_key, Arrival(log.last_ms, length, log.written[1 - key.stream], len(fresh), key.stream))
            )

    def durable(self, key: LogKey) -> int:
        """Length of a stream as far as it is synced."""
        return self.rank((key.attempt_id, key.rank)).durable[key.stream]

    def sync(self, batches: Sequence[Batch]) -> None:
        """Make them durable, and their arrival known."""
        touched = {place for batch in batches for place in batch.before}
        fds = [self.open_ranks[key].fds[stream] for key, stream in touched]
        if len(fds) > 2:
            for _ in self._syncs.map(os.fdatasync, fds):
                pass
        else:
            for fd in fds:
                os.fdatasync(fd)
        for directory in sorted(self._new_in):
            sync_directory(directory)
        self._new_in.clear()
        told: dict[RankKey, list[Arrival]] = {}
        for batch in batches:
            for key, arrival in batch.arrivals:
                told.setdefault(key, []).append(arrival)
        for key, found in told.items():
            self._write_marks(self.open_ranks[key], found)
        for key, found in told.items():
            log = self.open_ranks[key]
            log.told = Told(log.marks + len(found), (log.written[0], log.written[1]))

    def roll_back(self, batches: Sequence[Batch]) -> None:
        """Have the files be as they were before these, the last batch first. STORE_BROKEN where that fails."""
        for batch in reversed(batches):
            for (key, stream), length in batch.before.items():
                log = self.open_ranks[key]
                try:
                    if log.fds[stream] >= 0:
                        os.ftruncate(log.fds[stream], length)
                    log.written[stream] = length
                    if log.index_fd >= 0:
                        os.ftruncate(log.index_fd, log.marks * RECORD_BYTES)
                except OSError as error:
                    raise broken(f"a log could not be cut back: {error.strerror or error}") from error

    def _leave_room(self) -> None:
        """Logs may wait on their agents for a while; a submission or an end may not."""
        room = os.statvfs(self.root)
        leave = min(self._leave_bytes, room.f_blocks * room.f_frsize // 20)
        if room.f_bavail * room.f_frsize < leave:
            raise OSError(errno.ENOSPC, f"less than {leave} bytes are free, which logs leave to everything else")

    # ---- files

    def _create(self, path: Path) -> int:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        try:
            fd = os.open(path, flags, FILE_MODE)
        except FileNotFoundError:
            for directory in (path.parent.parent, path.parent):
                if not directory.exists():
                    directory.mkdir(mode=DIRECTORY_MODE)
                    self._new_in.add(directory.parent)
            fd = os.open(path, flags, FILE_MODE)
        return fd

    def _separate(self, log: RankLog, stream: int) -> None:
        """Have a file of our own again: a backup took this one for complete, and links to it."""
        path = log_path(self.root, log.key, SUFFIXES[stream])
        copy = path.with_suffix(".copy")
        shutil.copyfile(path, copy)
        copy.chmod(FILE_MODE)
        fd = os.open(copy, os.O_RDWR | os.O_CLOEXEC)
        os.fsync(fd)
        copy.rename(path)
        os.close(log.fds[stream])
        log.fds[stream] = fd
        self._new_in.add(path.parent)

    def put_aside(self, job_id: JobId) -> Path | None:
        """Take a job's logs out of the way, to be deleted elsewhere; None when it has none."""
        for key in [key for key in self.open_ranks if key[0][0] == job_id]:
            self.open_ranks.pop(key).close()
        directory = job_directory(self.root, job_id)
        aside = self.root / f"{REMOVED}{job_id}.{secrets.token_hex(4)}"
        try:
            directory.rename(aside)
        except FileNotFoundError:
            return None
        with suppress(OSError):
            directory.parent.rmdir()  # the last job of its thousand
        return aside

    def close(self) -> None:
        for log in self.open_ranks.values():
            log.close()
        self.open_ranks.clear()
        self._syncs.shutdown()


def meaning(error: BaseException, path: Path) -> BaseException:
    """The CoordError that a failure means; the error itself when it is a mistake of ours."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return CoordError(
            Code.STORE_FULL, "too many files are open to write a log", "raise the limit of open files (ulimit -n)"
        )
    return translated(error, path)


def jobs_with_logs(root: Path) -> Iterator[tuple[JobId, Path]]:
    """Every job's directory that is there, in no order."""
    for thousand in root.iterdir():
        if thousand.name.isdecimal():
            for directory in thousand.iterdir():
                if directory.name.isdecimal():
                    yield JobId(int(directory.name)), directory


def _write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """All of it: a disk that fills up under way writes a part first."""
    left = memoryview(data)
    while left:
        count = os.pwrite(fd, left, offset)
        left, offset = left[count:], offset + count


def read_at(fd: int, length: int, offset: int) -> bytes:
    """So many bytes, or as many as there are."""
    pieces: list[bytes] = []
    while length:
        piece = os.pread(fd, length, offset)
        if not piece:
            break
        pieces.append(piece)
        length, offset = length - len(piece), offset + len(piece)
    return b"".join(pieces)
