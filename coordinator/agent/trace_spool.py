"""Traces on their way to the coordinator: bounded files on this machine's disk, sent in batches, behind all else.

A file holds what one request sends (`wire_traces`). It survives the daemon, not a power cut: nothing is synced. Nobody
waits for its way to the coordinator: results are told, leases end and places are used again without it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from msgspec import Struct

from coordinator.agent.asking import Refused
from coordinator.agent.clock import boot_s
from coordinator.agent.log import logger
from coordinator.agent.logship import Key
from coordinator.core.errors import CoordError
from coordinator.wire_traces import BODY_BYTES_MAX, PART_BYTES_MAX, PARTS_MAX, Part, TracePartsAnswer, encoded, split

NAME = "traces"
BYTES_MAX = 256 << 20
"""Over all attempts."""
ATTEMPT_BYTES_MAX = 16 << 20
"""Of one rank of an attempt, as long as this daemon lives."""
BATCH_BYTES = 1 << 20
"""A file of so much is sent at once, and the next one begun."""
BATCH_PARTS = PARTS_MAX // 2
BATCH_S = 1.0
"""A smaller one when it is so old."""
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
Send = Callable[[bytes], Awaitable[TracePartsAnswer]]


class Full(Exception):
    """There is no room for it. `for_good`: for this attempt there will be none."""

    def __init__(self, what: str, *, for_good: bool) -> None:
        super().__init__(what)
        self.for_good = for_good


class TraceStatus(Struct, frozen=True, kw_only=True):
    """What became of traces since the daemon started."""

    waiting_bytes: int = 0
    sent_parts: int = 0
    rejected_rows: int = 0
    """By the coordinator."""
    refused_parts: int = 0
    """By the coordinator: their attempt was not ours any more."""
    dropped_parts: int = 0
    """Here: no room, or no coordinator that takes them."""


class TraceSpool:
    """`run` is a task of the daemon, `send` tries until it is answered."""

    def __init__(
        self, state: Path, send: Send, bytes_max: int = BYTES_MAX, attempt_bytes_max: int = ATTEMPT_BYTES_MAX
    ) -> None:
        self._path = state / NAME
        self._send = send
        self._bytes_max = bytes_max
        self._attempt_bytes_max = attempt_bytes_max
        self._of: dict[Key, int] = {}
        self._waiting: list[bytes] = []
        self._news = asyncio.Event()
        self._taken = self._done = 0
        """Parts that were put, and those of them that are on the disk or were dropped."""
        self._written = asyncio.Event()
        self._number = 0
        """Of the file that is written to."""
        self._began_s = 0.0
        self._size = self._parts = 0
        """Of that file."""
        self._sealed: deque[int] = deque()
        """Files that are written to no more."""
        self._to_send = asyncio.Event()
        self._used = 0
        """Bytes on the disk, and on their way there."""
        self._full_told = False
        self.sent = self.rejected = self.refused = self.dropped = 0

    def status(self) -> TraceStatus:
        return TraceStatus(
            waiting_bytes=self._used,
            sent_parts=self.sent,
            rejected_rows=self.rejected,
            refused_parts=self.refused,
            dropped_parts=self.dropped,
        )

    def knows(self, key: Key) -> bool:
        """Whether something of this attempt was put."""
        return key in self._of

    def forget(self, key: Key) -> None:
        """This attempt sends nothing any more."""
        self._of.pop(key, None)

    def put(self, part: Part, data: bytes) -> None:
        """Have it sent. Raises Full: it is counted as dropped."""
        key, body = (part.attempt, part.rank), encoded(part, data)
        if self._of.get(key, 0) + len(body) > self._attempt_bytes_max:
            self.dropped += 1
            raise Full(f"an attempt may send {self._attempt_bytes_max >> 20} MiB of traces", for_good=True)
        if self._used + len(body) > self._bytes_max:
            self.dropped += 1
            if not self._full_told:
                logger.warning("traces are dropped: %d MiB of them wait for the coordinator", self._bytes_max >> 20)
            self._full_told = True
            raise Full("more traces wait here than may", for_good=False)
        self._of[key] = self._of.get(key, 0) + len(body)
        self._used += len(body)
        self._waiting.append(body)
        self._taken += 1
        self._news.set()

    async def written(self) -> None:
        """Wait until what was put before is on the disk, or was dropped for want of room there."""
        upto = self._taken
        while self._done < upto:
            self._written.clear()
            await self._written.wait()

    async def run(self) -> None:
        """Write and send, for ever; first what a daemon before us left."""
        self._sealed.extend(await asyncio.to_thread(self._find))
        async with asyncio.TaskGroup() as group:
            group.create_task(self._write_forever())
            while True:
                while self._sealed:
                    await self._ship(self._sealed.popleft())
                self._to_send.clear()
                await self._to_send.wait()

    # ---- the disk

    def _find(self) -> list[int]:
        """Files of daemons before us, oldest first."""
        self._path.mkdir(mode=0o700, exist_ok=True)
        found = sorted(int(path.stem) for path in self._path.glob("*.parts") if path.stem.isdigit())
        self._used += sum(self._file(number).stat().st_size for number in found)
        self._number = max(found, default=0) + 1
        return found

    def _file(self, number: int) -> Path:
        return self._path / f"{number}.parts"

    async def _write_forever(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, self._began_s + BATCH_S - boot_s()) if self._parts else None):
                    await self._news.wait()
            self._news.clear()
            bodies, self._waiting = self._waiting, []
            for some in _batches(bodies):
                await self._write(some)
            if self._parts and boot_s() >= self._began_s + BATCH_S:
                self._seal()

    async def _write(self, bodies: list[bytes]) -> None:
        size = sum(map(len, bodies))
        if self._parts and (self._size + size > BODY_BYTES_MAX or self._parts + len(bodies) > PARTS_MAX):
            self._seal()
        self._began_s = self._began_s if self._parts else boot_s()
        try:
            await asyncio.to_thread(self._append, b"".join(bodies))
        except OSError as error:
            self._used -= size
            self.dropped += len(bodies)
            logger.warning("traces are dropped: %s: %s", self._path, error.strerror)
            self._seal()  # it may end in the middle of one
        else:
            self._size, self._parts = self._size + size, self._parts + len(bodies)
        self._done += len(bodies)
        self._written.set()
        if self._size >= BATCH_BYTES or self._parts >= BATCH_PARTS:
            self._seal()

    def _seal(self) -> None:
        """It is sent, and the next one begun."""
        self._sealed.append(self._number)
        self._number += 1
        self._size = self._parts = 0
        self._to_send.set()

    def _append(self, data: bytes) -> None:
        fd = os.open(self._file(self._number), _APPEND, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.write(data)

    # ---- the coordinator

    async def _ship(self, number: int) -> None:
        body, parts, size = await asyncio.to_thread(self._read, number)
        try:
            if body:
                answer = await self._send(body)
                refused = sum(attempt in answer.refused for attempt in parts)
                self.sent += len(parts) - refused
                self.refused += refused
                self.rejected += answer.rejected
        except Refused as error:
            self.dropped += len(parts)
            logger.warning("%d parts of traces are dropped: %s", len(parts), error)
        await asyncio.to_thread(self._file(number).unlink, missing_ok=True)
        self._used, self._full_told = max(0, self._used - size), False

    def _read(self, number: int) -> tuple[bytes, list[str], int]:
        """The whole parts of a file, whose they are, and its size: a daemon may have been killed as it wrote."""
        try:
            data = self._file(number).read_bytes()
        except OSError:
            return b"", [], 0
        end, attempts = 0, []
        with contextlib.suppress(CoordError):
            for part, _ in split(data):
                end = data.index(b"\n", end) + 1 + part.size
                attempts.append(part.attempt)
        return data[:end], attempts, len(data)


def _batches(bodies: list[bytes]) -> Iterator[list[bytes]]:
    """In their order, each small enough for a request."""
    batch: list[bytes] = []
    size = 0
    for body in bodies:
        if batch and (size + len(body) > PART_BYTES_MAX or len(batch) >= BATCH_PARTS):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += len(body)
    if batch:
        yield batch
