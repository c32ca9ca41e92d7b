"""From the spool to the coordinator: what attempts wrote, as binary frames, fair between them and byte for byte.

The files are the truth; here are positions only. A stream goes on from what was acknowledged last, on every
connection, and never runs further ahead than the windows allow. Nothing here waits for anything but the socket.
"""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path

from coordinator import wire
from coordinator.agent import channel
from coordinator.agent.clock import boot_s
from coordinator.agent.log import logger
from coordinator.core.ids import AttemptId, attempt_of
from coordinator.core.rows import LeaseToken

PIECE_BYTES_MIN = 16 * 1024
SLOW_S, QUICK_S = 0.2, 0.05
"""A piece that took longer than the one halves the next, one that took less than the other doubles it: on a slow link
a heartbeat is behind a fraction of a second of log, not behind a quarter of a megabyte."""
COLD_BYTES = 4 * 1024 * 1024
"""What is so far behind the end of its file may have left the page cache: it is read in a thread."""
PAUSES_S = (0.0, 0.5, 1.0, 2.0, 5.0)
"""Before a stream is sent again from where the coordinator dropped it, the n-th time in a row at one offset."""
UNREADABLE_S = 5.0

Key = tuple[str, int]
"""Attempt and rank."""
Look = Callable[[Key, LeaseToken, int, int, bytes], None]
"""Takes stream, offset and bytes of an attempt's log."""


class Stream:
    """Where one stream stands: 0 <= acked <= sent <= length, `acked` is the coordinator's word."""

    def __init__(self, key: Key, stream: int, token: LeaseToken, path: Path, stored: int) -> None:
        self.key = key
        self.attempt_id: AttemptId = attempt_of(key[0])
        self.rank = key[1]
        self.stream = stream
        self.token = token
        self.path = path
        self.length = stored
        self.acked = stored
        self.sent = stored
        self.unwanted = False
        self.queued = False
        self.asking = False
        """What the coordinator has is not known: it is asked before anything is sent. Otherwise its answers to what it
        had already would look like those to what it dropped."""
        self.asked = False
        self.not_before_s = 0.0
        self.repeats = 0
        """Acknowledgements in a row of one offset."""

    def sendable(self) -> int:
        """How many bytes may leave now, by this stream's own window."""
        if self.unwanted or self.asking:
            return 0
        return min(self.length, self.acked + wire.LOG_WINDOW_BYTES) - self.sent


class LogShip:
    """All streams that are not stored to their end. One connection's `run` at a time; the rest may be called always."""

    def __init__(self, look: Look = lambda key, token, stream, offset, data: None) -> None:
        """`look` sees the bytes as they leave, some of them again."""
        self._look = look
        self._streams: dict[tuple[Key, int], Stream] = {}
        self._ready: deque[Stream] = deque()
        self._ahead = 0
        """Bytes on their way over all streams."""
        self._wake = asyncio.Event()
        self._piece = wire.LOG_BYTES_MAX
        self._met = False
        """There was a connection: streams that come from now on were begun under our eyes."""

    # ---- what is there, and what is stored

    def update(self, now: channel.Now) -> None:
        """The keeper says how long an attempt's streams are."""
        key = now.attempt, now.rank
        exit_info = now.exit
        for stream, name, length, stored in (
            (0, "stdout", exit_info.out_bytes if exit_info else now.out_bytes, now.out_stored),
            (1, "stderr", exit_info.err_bytes if exit_info else now.err_bytes, now.err_stored),
        ):
            known = self._streams.get((key, stream))
            if known is None:
                if length == 0:
                    continue
                known = Stream(key, stream, now.token, Path(now.directory, name), min(stored, length))
                self._streams[key, stream] = known
            if length > known.length:
                known.length = length
                self._queue(known)

    def acked(self, ack: wire.LogAck) -> bool:
        """The coordinator says what it has. Whether anything is stored now that was not before."""
        stream = self._streams.get(((ack.attempt, ack.rank), ack.stream))
        if stream is None or stream.unwanted:
            return False
        stream.asking = False
        before, repeated = stream.acked, ack.offset == stream.acked and stream.sent > stream.acked
        if ack.offset >= wire.LOG_UNWANTED:
            self._ahead -= stream.sent - stream.acked
            stream.unwanted = True
            stream.acked = stream.sent = stream.length
            self._wake.set()
            return True
        if repeated or ack.offset < before:
            self._go_back(stream, ack.offset)
            return False
        offset = min(ack.offset, stream.length)
        stream.repeats = 0
        self._ahead -= stream.sent - stream.acked
        stream.acked, stream.sent = offset, max(stream.sent, offset)
        self._ahead += stream.sent - stream.acked
        self._queue(stream)
        self._wake.set()
        return offset > before

    def _go_back(self, stream: Stream, offset: int) -> None:
        """What is above `offset` was dropped there: it is sent again, with growing pauses while nothing gets through.

        Frames that were on their way behind the dropped one are answered alike: within a pause that counts once.
        """
        now_s = boot_s()
        if offset < stream.acked:
            stream.repeats = 0
        elif now_s < stream.not_before_s:
            return
        pause_s = PAUSES_S[min(stream.repeats, len(PAUSES_S) - 1)]
        stream.repeats += 1
        self._ahead -= stream.sent - stream.acked
        stream.acked = stream.sent = offset
        stream.not_before_s = now_s + pause_s
        self._queue(stream)

    def stored(self, key: Key) -> tuple[int, int]:
        """How many bytes of stdout and stderr the coordinator has."""
        out, err = self._streams.get((key, 0)), self._streams.get((key, 1))
        return (out.acked if out else 0, err.acked if err else 0)

    def complete(self, key: Key) -> bool:
        """Whether every byte that is known of is stored, or wanted by nobody."""
        return all(s.unwanted or s.acked >= s.length for s in self._of(key))

    def drop(self, key: Key) -> None:
        """Nothing of it is to be sent any more."""
        for stream in self._of(key):
            self._ahead -= stream.sent - stream.acked
            stream.unwanted = True
            del self._streams[key, stream.stream]
        self._wake.set()

    def _of(self, key: Key) -> list[Stream]:
        return [s for n in (0, 1) if (s := self._streams.get((key, n))) is not None]

    def _queue(self, stream: Stream) -> None:
        if not stream.queued and (stream.sendable() > 0 or (stream.asking and not stream.asked)):
            stream.queued = True
            self._ready.append(stream)
            self._wake.set()

    # ---- one connection

    def restart(self) -> None:
        """A new connection: what was on its way is not known to have arrived."""
        self._ahead = 0
        for stream in self._streams.values():
            stream.asking, stream.asked = not self._met or stream.sent > stream.acked, False
            stream.sent = stream.acked
            stream.not_before_s, stream.repeats = 0.0, 0
            self._queue(stream)
        self._met = True

    async def run(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send what there is, for ever: a piece of each stream in turn. Raises what `send` raises."""
        while True:
            self._wake.clear()
            soonest_s = await self._send_ready(send)
            try:
                async with asyncio.timeout(soonest_s):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def _send_ready(self, send: Callable[[bytes], Awaitable[None]]) -> float | None:
        """Send until nothing may leave. How long until something that pauses may, or None."""
        paused: list[Stream] = []
        while self._ready and self._ahead < wire.LOG_CONNECTION_BYTES:
            stream = self._ready.popleft()
            if stream.not_before_s > boot_s():
                paused.append(stream)
                continue
            stream.queued = False
            await self._send_piece(stream, send)
            self._queue(stream)
        self._ready.extend(paused)
        return max(0.0, min(s.not_before_s for s in paused) - boot_s()) if paused else None

    async def _send_piece(self, stream: Stream, send: Callable[[bytes], Awaitable[None]]) -> None:
        if stream.asking and not stream.asked:
            stream.asked = True
            await send(wire.log_frame(_chunk(stream, stream.sent, b"")))
            return
        size = min(stream.sendable(), self._piece)
        if size <= 0:
            return
        offset = stream.sent
        try:
            if stream.length - offset > COLD_BYTES:
                data = await asyncio.to_thread(_read, stream.path, offset, size)
            else:
                data = _read(stream.path, offset, size)
        except OSError as error:
            self._unreadable(stream, error)
            return
        if stream.unwanted or stream.sent != offset:
            return  # acknowledged, dropped or set back while it was read
        stream.sent += len(data)
        self._ahead += len(data)
        self._look(stream.key, stream.token, stream.stream, offset, data)
        began_s = boot_s()
        await send(wire.log_frame(_chunk(stream, offset, data)))
        self._fit_piece(boot_s() - began_s)

    def _fit_piece(self, took_s: float) -> None:
        if took_s > SLOW_S:
            self._piece = max(PIECE_BYTES_MIN, self._piece // 2)
        elif took_s < QUICK_S:
            self._piece = min(wire.LOG_BYTES_MAX, self._piece * 2)

    def _unreadable(self, stream: Stream, error: OSError) -> None:
        """A file that is gone will not come back; anything else is tried again."""
        logger.error("%s cannot be read at %d: %s", stream.path, stream.sent, error.strerror or error)
        if isinstance(error, FileNotFoundError):
            self._ahead -= stream.sent - stream.acked
            stream.unwanted = True
            stream.acked = stream.sent = stream.length
        else:
            stream.not_before_s = boot_s() + UNREADABLE_S


def _read(path: Path, offset: int, size: int) -> bytes:
    """At least one byte. FileNotFoundError also for a file that ends before `offset`, against the keeper's word."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        data = os.pread(fd, size, offset)
    finally:
        os.close(fd)
    if not data:
        raise FileNotFoundError(2, "it is shorter than it was")
    return data


def _chunk(stream: Stream, offset: int, data: bytes) -> wire.LogChunk:
    return wire.LogChunk(stream.attempt_id, stream.rank, stream.stream, stream.token, offset, data)
