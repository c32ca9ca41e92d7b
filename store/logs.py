"""Stored logs of attempts: ports.logs.Logs over plain files.

One thread writes. Whatever waits for it is written and synced together, so that a hundred streams cost no hundred
syncs of the disk one after the other. Reads happen in threads of their own, past the writer, and see synced bytes only.
"""

from __future__ import annotations

import asyncio
import os
import queue
import shutil
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, JobId, Ms
from coordinator.ports.logs import LogKey, LogMark, LogWrite
from store import waiting
from store.layout import sync_directory
from store.log_files import INDEX, REMOVED, SUFFIXES, Batch, LogFiles, RankKey, RankLog, log_path, meaning, read_at
from store.log_index import RECORD_BYTES, decoded
from store.settings import StoreSettings

T = TypeVar("T")
GROUP_BYTES = 16 * 1024 * 1024
GROUP_CALLS = 256
"""What is written before one sync: no caller waits for more than this of others."""
READ_THREADS = 4
READ_BYTES_MAX = 4 * 1024 * 1024


class DiskLogs:
    """See ports.logs.Logs. `report` is told of indexes that were damaged."""

    def __init__(self, root: Path, settings: StoreSettings, report: Callable[[str], None]) -> None:
        self.root = root
        self.broken: CoordError | None = None
        self._report = report
        self._files = LogFiles(root, settings.logs_open, settings.logs_leave_bytes)
        # Bounded by its callers: each waits for its answer.
        self._work: queue.SimpleQueue[_Append | _Call | None] = queue.SimpleQueue()
        self._readers = ThreadPoolExecutor(READ_THREADS, thread_name_prefix="read logs")
        self._thread = threading.Thread(target=self._serve, name="write logs", daemon=True)

    async def open(self) -> None:
        """Begin to serve; what an earlier process left half removed goes. Raises CoordError."""
        try:
            await asyncio.to_thread(sync_directory, self.root.parent)
        except OSError as error:
            raise meaning(error, self.root) from error
        self._thread.start()
        for leftover in await self._read(lambda: list(self.root.glob(f"{REMOVED}*"))):
            self._readers.submit(shutil.rmtree, leftover, ignore_errors=True)

    # ---- writing

    async def append(self, writes: Sequence[LogWrite]) -> dict[LogKey, int]:
        if self.broken is not None:
            raise self.broken
        item = _Append(writes)
        self._work.put(item)
        durable: dict[LogKey, int] = await item.future
        return durable

    async def remove(self, job_id: JobId) -> None:
        aside = await self._call(lambda: self._files.put_aside(job_id))
        if aside is not None:
            await self._read(lambda: shutil.rmtree(aside, ignore_errors=True))

    async def length(self, key: LogKey) -> int:
        return (await self._rank((key.attempt_id, key.rank))).durable[key.stream]

    # ---- reading

    async def read(self, key: LogKey, offset: int, limit: int) -> bytes:
        """At most 4 MB at a time."""
        rank_key = (key.attempt_id, key.rank)
        log = self._files.open_ranks.get(rank_key)
        upto = offset + min(limit, READ_BYTES_MAX)
        if log is not None:
            upto = min(upto, log.durable[key.stream])
        path = log_path(self.root, rank_key, SUFFIXES[key.stream])
        return await self._read(lambda: _piece(path, offset, upto))

    async def marks(self, attempt_id: AttemptId, rank: int, after: int, limit: int) -> list[LogMark]:
        log = await self._rank((attempt_id, rank))
        upto = min(after + limit, log.marks)
        path = log_path(self.root, log.key, INDEX)
        begin, end = after * RECORD_BYTES, upto * RECORD_BYTES
        found = await self._read(lambda: _marks(path, begin, end))
        if found is None:
            self._report(f"logs: the index {path.relative_to(self.root)} was damaged and is mended")
            await self._call(lambda: self._files.mend_index(log.key))
            found = await self._read(lambda: _marks(path, begin, end))
        return found or []

    async def marks_count(self, attempt_id: AttemptId, rank: int) -> int:
        return (await self._rank((attempt_id, rank))).marks

    async def since(self, attempt_id: AttemptId, rank: int, at_ms: Ms) -> int:
        log = await self._rank((attempt_id, rank))
        path, count = log_path(self.root, log.key, INDEX), log.marks
        return await self._read(lambda: _first_since(path, count, at_ms))

    async def close(self) -> None:
        """Finish what was handed over. Safe to call twice."""
        if self._thread.is_alive():
            self._work.put(None)
            await asyncio.to_thread(self._thread.join)
        await asyncio.to_thread(self._readers.shutdown)

    async def _rank(self, key: RankKey) -> RankLog:
        log = self._files.open_ranks.get(key)
        return log if log is not None else await self._call(lambda: self._files.rank(key))

    async def _call(self, work: Callable[[], T]) -> T:
        """Do it in the writer's thread."""
        if self.broken is not None:
            raise self.broken
        item = _Call(work)
        self._work.put(item)
        made: T = await item.future
        return made

    async def _read(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, work)

    # ---- the writer's thread

    def _serve(self) -> None:
        ahead: list[_Append | _Call | None] = []
        while True:
            item = ahead.pop() if ahead else self._work.get()
            if item is None:
                break
            if isinstance(item, _Call):
                self._do(item)
            else:
                self._store(self._group(item, ahead))
        self._files.close()

    def _group(self, first: _Append, ahead: list[_Append | _Call | None]) -> list[_Append]:
        """The appends that wait already, as many as go together; what comes after them is put into `ahead`."""
        group, size = [first], first.bytes
        while size < GROUP_BYTES and len(group) < GROUP_CALLS:
            try:
                item = self._work.get_nowait()
            except queue.Empty:
                break
            if not isinstance(item, _Append):
                ahead.append(item)
                break
            group.append(item)
            size += item.bytes
        return group

    def _store(self, group: list[_Append]) -> None:
        stored: list[tuple[_Append, Batch]] = []
        for item in group:
            batch = Batch()
            failure = self._guarded(partial(self._files.write, item.writes, batch))
            if failure is None:
                stored.append((item, batch))
            else:
                self._take_back([batch])
                item.answer(None, failure)
        batches = [batch for _, batch in stored]
        failure = self._guarded(lambda: self._files.sync(batches))
        if failure is not None:
            self._take_back(batches)
            for item, _ in stored:
                item.answer(None, failure)
            return
        lengths = [{write.key: self._files.durable(write.key) for write in item.writes} for item, _ in stored]
        self._files.trim()
        for (item, _), durable in zip(stored, lengths, strict=True):
            item.answer(durable, None)

    def _take_back(self, batches: list[Batch]) -> None:
        self._guarded(lambda: self._files.roll_back(batches))

    def _do(self, item: _Call) -> None:
        result: list[Any] = []
        failure = self._guarded(lambda: result.append(item.work()))
        self._files.trim()
        item.answer(result[0] if failure is None else None, failure)

    def _guarded(self, work: Callable[[], object]) -> BaseException | None:
        """Do `work`; what it failed with, if it did. Once the disk is broken nothing is done any more."""
        if self.broken is not None:
            return self.broken
        try:
            work()
        except BaseException as error:  # handed to the caller
            failure = meaning(error, self.root)
            if isinstance(failure, CoordError) and failure.code is Code.STORE_BROKEN:
                self.broken = failure
            return failure
        return None


class _Item:
    """Something for the writer's thread, and whoever waits for it."""

    def __init__(self) -> None:
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

    def answer(self, result: Any, failure: BaseException | None) -> None:
        waiting.answer(self.future, result, failure)


class _Append(_Item):
    def __init__(self, writes: Sequence[LogWrite]) -> None:
        super().__init__()
        self.writes = writes
        self.bytes = sum(len(write.data) for write in writes)


class _Call(_Item):
    def __init__(self, work: Callable[[], Any]) -> None:
        super().__init__()
        self.work = work


def _piece(path: Path, begin: int, end: int) -> bytes:
    """Bytes [begin, end) of a file, as far as it goes; none of a file that is not there."""
    if end <= begin:
        return b""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return read_at(fd, end - begin, begin)
    finally:
        os.close(fd)


def _marks(path: Path, begin: int, end: int) -> list[LogMark] | None:
    """The records in [begin, end); None when one of them is damaged."""
    found: list[LogMark] = []
    data = memoryview(_piece(path, begin, end))
    for place in range(0, len(data) - len(data) % RECORD_BYTES, RECORD_BYTES):
        arrival = decoded(data[place : place + RECORD_BYTES])
        if arrival is None:
            return None
        found.append(arrival.mark)
    return found


def _first_since(path: Path, count: int, at_ms: Ms) -> int:
    """By halving: times in an index never fall. A damaged record counts as earlier; reading it mends it."""

    def at(number: int) -> Ms:
        arrival = decoded(_piece(path, number * RECORD_BYTES, (number + 1) * RECORD_BYTES))
        return arrival.at_ms if arrival is not None else 0

    return bisect_left(range(count), at_ms, key=at)
