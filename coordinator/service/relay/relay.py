"""The relay: bytes of logs come from connections, are stored and synced, and only then acknowledged.

Bounds: `bytes_max` in all, `connection_bytes_max` of one connection, beyond which its socket is not read. While the
disk takes nothing no socket is held up, since heartbeats come by the same one: what finds no room then is dropped
unacknowledged, and its agent is told to go back to it when there is room again. Agents may have to be told twice of
one offset for that (`_Stream.go_back`): while all is well the acknowledgements of a stream only rise.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Protocol, get_args

from coordinator import wire
from coordinator.core import commands
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import AttemptId, ConnId, ProviderId
from coordinator.core.rows import LeaseToken
from coordinator.ports.clock import Clock
from coordinator.ports.logs import LogKey, Logs, LogWrite
from coordinator.ports.store import Store
from coordinator.service.relay.custody import Custody, Verdict
from coordinator.service.relay.reading import Piece, Reader, Start
from coordinator.service.relay.settings import RelayCounters, RelaySettings
from coordinator.service.relay.waiting import Waiting
from coordinator.service.views import LiveViews

log = logging.getLogger("coord.relay")

LOOKUPS_MAX = 1_024
"""Attempts that the store is to be asked about; what comes of others meanwhile is dropped, and sent again."""
FENCED = "its lease is over and another attempt may run"


class Source(Protocol):
    """A connection that log bytes come from."""

    conn_id: ConnId

    @property
    def provider_id(self) -> ProviderId | None: ...

    def acknowledge_log(self, attempt_id: AttemptId, rank: int, stream: int, offset: int) -> None: ...

    def stop_attempt(self, attempt_id: AttemptId, token: LeaseToken, why: str) -> None: ...

    def hold(self) -> None: ...

    def release(self) -> None: ...


class _Sender:
    """A connection, and what of it waits."""

    __slots__ = ("bytes", "held", "source", "streams")

    def __init__(self, source: Source) -> None:
        self.source = source
        self.bytes = 0
        self.held = False
        self.streams: set[LogKey] = set()


class _Stream:
    """A stream that bytes came of on a connection that is open."""

    __slots__ = ("acked", "behind", "next", "sender", "stored")

    def __init__(self, sender: _Sender) -> None:
        self.sender = sender
        self.next = -1
        """The end of what was taken; -1: nothing on this connection yet."""
        self.stored = -1
        self.acked = -1
        self.behind = False
        """Bytes were dropped: its agent has to go back, and is told so once."""

    def acknowledge(self, key: LogKey) -> None:
        self.acked = self.stored
        self.sender.source.acknowledge_log(key.attempt_id, key.rank, key.stream, self.stored)

    def go_back(self, key: LogKey) -> None:
        """Acknowledge what is stored once more than it rises: the sign that bytes above it were dropped."""
        if self.acked != self.stored:
            self.acknowledge(key)
        self.acknowledge(key)
        self.next = self.stored


class Relay:
    """Takes log bytes of all connections, stores them through `logs`, and reads them back. `run` is its task."""

    def __init__(
        self,
        logs: Logs,
        store: Store,
        views: LiveViews,
        clock: Clock,
        settings: RelaySettings | None = None,
    ) -> None:
        self.counters = RelayCounters()
        self._logs = logs
        self._clock = clock
        self._settings = settings or RelaySettings()
        self._custody = Custody(views, store)
        self._reader = Reader(logs, self._custody, self._settings)
        self._waiting = Waiting()
        self._batch: list[LogWrite] = []
        self._batch_bytes = 0
        self._senders: dict[ConnId, _Sender] = {}
        self._streams: dict[LogKey, _Stream] = {}
        self._owed: dict[LogKey, None] = {}
        """Streams whose agents have to go back when there is room."""
        self._lookups: dict[AttemptId, list[tuple[_Sender, wire.LogChunk]]] = {}
        self._asked = asyncio.Event()
        self._wake = asyncio.Event()
        self._patient = True
        self._failures = 0
        self._hold_timer: asyncio.TimerHandle | None = None
        self._closing = False
        self._running = False
        self._ended = asyncio.Event()
        views.listen(self._on_note, commands.AttemptChanged, *get_args(commands.Together))

    # ---- taking

    def take(self, source: Source, chunk: wire.LogChunk) -> None:
        """Bytes of an attempt, as they came. O(1); never blocks, never raises."""
        match self._custody.judge(chunk, source.provider_id):
            case Verdict.TAKE:
                self._accept(self._sender(source), chunk)
            case Verdict.REFUSE:
                self._refuse(source, chunk)
            case Verdict.ASK:
                self._ask(self._sender(source), chunk)

    def gone(self, source: Source) -> None:
        """Its socket is closed. What was taken of it is stored all the same."""
        sender = self._senders.pop(source.conn_id, None)
        for key in sender.streams if sender is not None else ():
            stream = self._streams.get(key)
            if stream is not None and stream.sender is sender:
                del self._streams[key]
                self._owed.pop(key, None)

    @property
    def waiting_bytes(self) -> int:
        """Taken and not stored yet."""
        return self._waiting.bytes + self._batch_bytes

    @property
    def followers(self) -> int:
        return self._reader.followers

    @property
    def failing(self) -> bool:
        """Whether the disk does not take what waits."""
        return self._failures > 0

    def held_connections(self) -> int:
        """Sockets that are not read just now."""
        return sum(sender.held for sender in self._senders.values())

    def _sender(self, source: Source) -> _Sender:
        sender = self._senders.get(source.conn_id)
        if sender is None:
            sender = self._senders[source.conn_id] = _Sender(source)
        return sender

    def _accept(self, sender: _Sender, chunk: wire.LogChunk) -> None:
        key = LogKey(chunk.attempt_id, chunk.rank, chunk.stream)
        stream = self._streams.get(key)
        if stream is None or stream.sender is not sender:
            stream = self._streams[key] = _Stream(sender)
            sender.streams.add(key)
        size = len(chunk.data)
        gap = stream.next >= 0 and chunk.offset > stream.next
        full = size > 0 and self.waiting_bytes + size > self._settings.bytes_max
        over = size > 0 and sender.bytes + size > 2 * self._settings.connection_bytes_max
        if gap or full or over:
            self.counters.dropped_bytes += size
            self.counters.no_room += not gap
            if not (gap and stream.behind):  # else it is on its way back, and this was sent before it heard
                stream.behind = True
                self._owed[key] = None
                self._wake.set()
            return
        stream.behind = False
        self._owed.pop(key, None)
        stream.next = max(stream.next, chunk.offset + size)
        sender.bytes += size
        self.counters.taken_bytes += size
        self._waiting.add(key, chunk.offset, chunk.data, self._clock.now_ms())
        self._wake.set()
        if self._patient and not sender.held and self._is_much(sender, self._settings.connection_bytes_max):
            sender.held = True
            self.counters.holds += 1
            sender.source.hold()
            if self._hold_timer is None:
                self._time_hold()

    def _is_much(self, sender: _Sender, bytes_max: int) -> bool:
        """Whether its socket is not to be read now: it brought too much, or all did and it has a part in it."""
        crowded = self.waiting_bytes > self._settings.bytes_max // 2
        return sender.bytes > (min(bytes_max, wire.LOG_BYTES_MAX) if crowded else bytes_max)

    def _refuse(self, source: Source, chunk: wire.LogChunk) -> None:
        """An older token, or none of ours: it is told to stop, and that nothing of this stream is wanted."""
        self.counters.refused += 1
        source.stop_attempt(chunk.attempt_id, chunk.token, FENCED)
        source.acknowledge_log(chunk.attempt_id, chunk.rank, chunk.stream, wire.LOG_UNWANTED)

    def _ask(self, sender: _Sender, chunk: wire.LogChunk) -> None:
        """Look the attempt up; its bytes wait no longer than that, and only the first of each connection and stream."""
        asked = self._lookups.get(chunk.attempt_id)
        if asked is None:
            if len(self._lookups) >= LOOKUPS_MAX:
                self.counters.dropped_bytes += len(chunk.data)
                return
            asked = self._lookups[chunk.attempt_id] = []
        if len(asked) < 2 * len(wire.STREAMS):
            asked.append((sender, chunk))
        else:
            self.counters.dropped_bytes += len(chunk.data)
        self._asked.set()

    # ---- patience

    def _time_hold(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        self._hold_timer = asyncio.get_running_loop().call_later(self._settings.hold_s, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patient = False
        self._hold_timer = None
        for sender in self._senders.values():
            self._let_go(sender)

    def _let_go(self, sender: _Sender) -> None:
        if sender.held:
            sender.held = False
            sender.source.release()

    # ---- storing

    async def run(self) -> None:
        """Store batch after batch until `close`. Raises CoordError(STORE_BROKEN) when the disk is."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as group:
                lookups = group.create_task(self._answer_lookups())
                while not self._closing:
                    await self._wake.wait()
                    self._wake.clear()
                    self._send_back()
                    while self._waiting and not self._closing:
                        await self._store_some()
                        self._send_back()
                lookups.cancel()
        finally:
            if self._hold_timer is not None:
                self._hold_timer.cancel()
            self._lose_patience()
            self._reader.close()
            self._ended.set()

    async def close(self) -> None:
        """Let the write that is under way end, for at most `stop_s`, and end `run` and every reader."""
        self._closing = True
        self._wake.set()
        if self._running:
            try:
                async with asyncio.timeout(self._settings.stop_s):
                    await self._ended.wait()
            except TimeoutError:
                log.warning("%d bytes of logs were not stored before the stop; they come again", self.waiting_bytes)

    async def _store_some(self) -> None:
        """One batch, tried until the disk takes it."""
        settings, counters = self._settings, self.counters
        self._batch = self._waiting.take(settings.batch_bytes, settings.batch_streams)
        self._batch_bytes = sum(len(write.data) for write in self._batch)
        while not self._closing:
            began_s = self._clock.monotonic_s()
            try:
                lengths = await self._logs.append(self._batch)
            except CoordError as error:
                if error.code is not Code.STORE_FULL:
                    raise
                await self._back_off(error)
                continue
            took_s = self._clock.monotonic_s() - began_s
            counters.appends += 1
            counters.append_seconds += took_s
            counters.append_seconds_max = max(counters.append_seconds_max, took_s)
            self._stored(lengths)
            return

    async def _back_off(self, error: CoordError) -> None:
        if not self._failures:
            log.warning("logs wait: %s", error)
        self._failures += 1
        self.counters.append_failures += 1
        self._lose_patience()
        pause_s = min(self._settings.retry_s * 2 ** min(self._failures - 1, 16), self._settings.retry_max_s)
        await asyncio.sleep(pause_s)

    def _stored(self, lengths: dict[LogKey, int]) -> None:
        """What was just written is on the disk: acknowledge it, and wake who reads."""
        counters, batch = self.counters, self._batch
        if self._failures:
            log.info("the disk takes logs again")
        self._failures = 0
        self._batch, taken, self._batch_bytes = [], self._batch_bytes, 0
        counters.stored_bytes += taken
        counters.lag_seconds = max(0, self._clock.now_ms() - min(write.at_ms for write in batch)) / 1_000
        counters.lag_seconds_max = max(counters.lag_seconds_max, counters.lag_seconds)
        for write in batch:
            stream = self._streams.get(write.key)
            if stream is not None:
                stream.sender.bytes -= min(len(write.data), stream.sender.bytes)
        for key, length in lengths.items():
            stream = self._streams.get(key)
            if stream is not None:
                self._settle(key, stream, length)
                self._drop_if_over(key)
        for where in dict.fromkeys((write.key.attempt_id, write.key.rank) for write in batch):
            self._reader.wake(*where)
        self._patient = True
        if any(sender.held for sender in self._senders.values()):
            for sender in self._senders.values():
                if not self._is_much(sender, self._settings.connection_bytes_max // 2):
                    self._let_go(sender)
            self._time_hold()
        elif self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None

    def _settle(self, key: LogKey, stream: _Stream, length: int) -> None:
        stream.stored, stream.next = length, max(stream.next, length)
        if stream.next > length and key not in self._waiting:
            stream.go_back(key)  # a gap before it that only the file knew of
        else:
            stream.acknowledge(key)

    def _drop_if_over(self, key: LogKey) -> None:
        """Forget a stream of an attempt that does not live any more and of which nothing waits here: a connection
        lasts longer than any number of attempts. Should more of it come, it begins anew."""
        stream = self._streams.get(key)
        if stream is None or stream.behind or key in self._waiting or any(w.key == key for w in self._batch):
            return
        if not self._custody.lives(key.attempt_id):
            del self._streams[key]
            stream.sender.streams.discard(key)

    def _send_back(self) -> None:
        """There is room again: agents whose bytes were dropped go back to what is stored, once all of theirs is."""
        if not self._owed or self.waiting_bytes > self._settings.bytes_max // 2:
            return
        owed = [key for key in self._owed if key not in self._waiting]
        for key in owed:
            del self._owed[key]
            stream = self._streams.get(key)
            if stream is not None and stream.stored >= 0:
                stream.go_back(key)
            elif stream is not None:  # nothing of it was stored on this connection: the file knows how far it is
                stream.next, stream.behind = -1, False
                self._waiting.add(key, 0, b"", self._clock.now_ms())
                self._wake.set()

    # ---- attempts of long ago

    async def _answer_lookups(self) -> None:
        while True:
            await self._asked.wait()
            self._asked.clear()
            while self._lookups:
                attempt_id = next(iter(self._lookups))
                await self._custody.look_up(attempt_id)
                for sender, chunk in self._lookups.pop(attempt_id):
                    if self._senders.get(sender.source.conn_id) is sender:
                        self.take(sender.source, chunk)

    # ---- reading

    def follow(self, attempt_id: AttemptId, rank: int, from_mark: int = 0) -> AsyncIterator[Piece]:
        """What arrived from number `from_mark` on, and then what arrives, until the attempt ended and its log is
        whole (or cannot become so). A reader is a position in the stored file: a slow one costs nobody anything."""
        return self._reader.follow(attempt_id, rank, from_mark)

    def stored(self, attempt_id: AttemptId, rank: int, from_mark: int = 0) -> AsyncIterator[Piece]:
        """What is stored now, from number `from_mark` on."""
        return self._reader.stored(attempt_id, rank, from_mark)

    async def tail_lines(self, attempt_id: AttemptId, rank: int, lines: int, stream: int | None = None) -> Start:
        """Where the last `lines` lines begin; of one stream, or of both as they came."""
        return await self._reader.tail_lines(attempt_id, rank, lines, stream)

    def _on_note(self, note: commands.Note) -> None:
        if isinstance(note, commands.Together):
            streams = len(wire.STREAMS) if self._streams and isinstance(note, commands.Ended) else 0
            if not (streams or self._reader.followers or self._custody.remembers):
                return
            for attempt_id in note.ids:
                self._custody.forget(attempt_id)
                self._reader.wake(attempt_id, 0)
                for stream in range(streams):
                    self._drop_if_over(LogKey(attempt_id, 0, stream))
        if not isinstance(note, commands.AttemptChanged):
            return
        attempt_id = note.row.attempt_id
        self._custody.forget(attempt_id)
        for rank in range(len(note.row.ranks)):
            self._reader.wake(attempt_id, rank)
            for stream in range(len(wire.STREAMS)) if self._streams else ():
                self._drop_if_over(LogKey(attempt_id, rank, stream))
