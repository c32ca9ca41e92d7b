"""The heartbeat writer: heartbeats go in without waiting, and to the store in batches.

Bound: `rows_max` rows, the batch that is being written included. Policy when full: the newcomer is
dropped and counted. While the store is merely slower than the fleet, links may ask to be called when
there is room and stop reading meanwhile (`crowded`, `when_roomy`); while it fails nobody is held up.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_left
from collections.abc import Callable, Iterable
from typing import cast

from msgspec import Struct, field

from coordinator import wire
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, ProviderId, ProviderKey
from coordinator.ports.clock import Clock
from coordinator.ports.store import HeartbeatRow, Store
from coordinator.service.metrics import FLUSH_S

log = logging.getLogger("coord.heartbeats")

_STATUS: dict[str, int] = {name: i for i, name in enumerate(wire.STATUSES)}
_THERMAL: dict[str | None, int | None] = {None: None, **{name: i for i, name in enumerate(wire.THERMALS)}}


class HeartbeatSettings(Struct, frozen=True, kw_only=True):
    """Bounds and pace of the writer."""

    rows_max: int = 60_000
    """About 25 MB; thirty seconds of a full disk at 2,000 heartbeats a second."""
    batch_rows: int = 2_000
    """Rows of one transaction."""
    batch_age_s: float = 0.25
    """A row waits so long for company."""
    flush_s: float = 5.0
    """A flush that takes longer has failed (its rows are not written twice: they have one key)."""
    backoff_s: float = 0.25
    """Pause after the first failure; doubles up to `backoff_max_s`."""
    backoff_max_s: float = 5.0
    crowded_rows: int = 2_000
    """From so many waiting rows on, links are asked to stop reading until a quarter is left. On one core it is
    better to take turns with the writer thread than to contend with it: with 8,000 a flush took 250 ms (p99) under
    a flood, with 2,000 it took 50, at the same throughput."""
    hold_s: float = 1.0
    """No link is held up by a flush that takes longer: a stuck disk must not make agents look dead."""
    drain_s: float = 5.0
    """For all that waits at shutdown."""


class HeartbeatCounters(Struct):
    """What became of the heartbeats. offered = stored + dropped_* + duplicates + those that wait."""

    offered: int = 0
    stored: int = 0
    duplicates: int = 0
    dropped_full: int = 0
    dropped_store: int = 0
    flushes: int = 0
    flush_failures: int = 0
    holds: int = 0
    """How often links were asked to stop reading."""
    flush_seconds_sum: float = 0.0
    flush_seconds_max: float = 0.0
    flush_seconds: list[int] = field(default_factory=lambda: [0] * (len(FLUSH_S) + 1))
    """Flushes by duration: the n-th took at most FLUSH_S[n], the last one longer than all."""


class Track(Struct, gc=False):
    """What the writer knows of one provider; held by its connection."""

    key: ProviderKey
    process_id: str = ""
    seq: int = -1
    """The highest seen of this process: everything up to it was received."""
    at_ms: Ms = 0
    """Of the newest row; never decreases."""
    n: int = 0
    """Number of the newest row within its millisecond."""
    received_ms: Ms = 0
    latest: wire.Heartbeat | None = None


class HeartbeatWriter:
    """Takes heartbeats of all connections and writes them through `store`. `run` is its task."""

    def __init__(self, store: Store, clock: Clock, settings: HeartbeatSettings | None = None) -> None:
        self.counters = HeartbeatCounters()
        self._store = store
        self._clock = clock
        self._settings = settings or HeartbeatSettings()
        self._tracks: dict[ProviderId, Track] = {}
        self._rows: list[HeartbeatRow] = []
        self._batch: list[HeartbeatRow] = []
        self._call: asyncio.Future[None] | None = None
        self._began_s = 0.0
        self._due = asyncio.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._held: list[Callable[[], None]] = []
        self._hold_timer: asyncio.TimerHandle | None = None
        self._patient = True
        self._narrowed = 0
        self._closing = False
        self._ended = asyncio.Event()
        self._running = False

    # ---- providers

    def track(self, provider_id: ProviderId, key: ProviderKey, process_id: str) -> Track:
        """The provider's track for a connection of this agent process; another process counts `seq` anew."""
        track = self._tracks.get(provider_id)
        if track is None or track.key != key:
            track = self._tracks[provider_id] = Track(key, process_id)
        elif track.process_id != process_id or not process_id:
            track.process_id = process_id
            track.seq = -1
        return track

    def forget(self, provider_id: ProviderId) -> None:
        """The provider was forgotten: nothing of it is kept here."""
        self._tracks.pop(provider_id, None)

    def latest(self, provider_id: ProviderId) -> tuple[Ms, wire.Heartbeat] | None:
        """The newest heartbeat since the start, and when it was received."""
        track = self._tracks.get(provider_id)
        return (track.received_ms, track.latest) if track is not None and track.latest is not None else None

    # ---- taking

    def offer(self, track: Track, beats: Iterable[wire.Heartbeat], received_ms: Ms) -> None:
        """Take heartbeats of one provider, in the order of their arrival. O(1) each; never blocks, never raises.

        One whose `seq` is not above all before it is a duplicate: counted, not stored.
        """
        rows, counters = self._rows, self.counters
        room = self._settings.rows_max - len(rows) - len(self._batch)
        was = len(rows)
        at_ms, n, seq, key = track.at_ms, track.n, track.seq, track.key
        if received_ms > at_ms:
            at_ms, n = received_ms, -1
        for beat in beats:
            counters.offered += 1
            if beat.seq <= seq:
                counters.duplicates += 1
                continue
            seq = beat.seq
            track.latest = beat
            if room <= 0:
                counters.dropped_full += 1
                continue
            room -= 1
            n += 1
            rows.append(
                _row(
                    HeartbeatRow,
                    (
                        at_ms,
                        key,
                        n,
                        _STATUS[beat.status],
                        beat.memory_pressure,
                        beat.cpu_usage,
                        _THERMAL[beat.thermal_state],
                        beat.memory_available_gb,
                        beat.gpu_memory_active_gb,
                        beat.gpu_memory_cache_gb,
                        beat.backend_state,
                        beat.active_model,
                        beat.capacity,
                    ),
                )
            )
        track.received_ms = received_ms
        if n >= 0:
            track.at_ms, track.n = at_ms, n
        track.seq = seq
        waiting = len(rows)
        if waiting >= self._settings.batch_rows:
            self._due.set()
        elif waiting and not was:
            self._arm()

    @property
    def waiting(self) -> int:
        """Rows that are not stored yet."""
        return len(self._rows) + len(self._batch)

    @property
    def crowded(self) -> bool:
        """Whether a link should stop reading until `when_roomy`. Never while the store fails or is stuck."""
        return len(self._rows) >= self._settings.crowded_rows and self._patient

    def when_roomy(self, resume: Callable[[], None]) -> None:
        """Have `resume` called once there is room, the store fails, or no flush ended for `hold_s`."""
        if not self._held:
            self.counters.holds += 1
            self._time_hold()
        self._held.append(resume)

    def _time_hold(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
        self._hold_timer = asyncio.get_running_loop().call_later(self._settings.hold_s, self._lose_patience)

    def _lose_patience(self) -> None:
        self._patient = False
        self._let_go()

    def _let_go(self) -> None:
        if self._hold_timer is not None:
            self._hold_timer.cancel()
            self._hold_timer = None
        held, self._held = self._held, []
        for resume in held:
            resume()

    def _arm(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._settings.batch_age_s, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._due.set()

    # ---- writing

    async def run(self) -> None:
        """Write batch after batch until `close`. Raises CoordError(STORE_BROKEN) when the disk is."""
        self._running = True
        try:
            while not self._closing:
                await self._due.wait()
                self._due.clear()
                while self.waiting and not self._closing:
                    if await self._flush(self._settings.flush_s):
                        if len(self._rows) < self._settings.batch_rows:
                            break
                    else:
                        await self._back_off()
                if self._rows and not self._closing:
                    self._arm()
            await self._drain()
        finally:
            self._give_up()
            self._ended.set()

    async def close(self) -> None:
        """Write what waits, without any back-off and for at most `drain_s`, and end `run`."""
        self._closing = True
        self._due.set()
        if self._running:
            await self._ended.wait()

    async def _drain(self) -> None:
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._settings.drain_s
        while self.waiting:
            left_s = deadline_s - loop.time()
            if left_s <= 0 or not await self._flush(left_s):
                log.warning("%d heartbeats were not written before the stop", self.waiting)
                return

    def _give_up(self) -> None:
        self.counters.dropped_store += self.waiting
        self._rows.clear()
        self._batch = []
        self._let_go()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._call is not None:
            self._call.cancel()

    async def _back_off(self) -> None:
        settings = self._settings
        pause_s = min(settings.backoff_s * 2 ** min(self._failures - 1, 16), settings.backoff_max_s)
        try:
            async with asyncio.timeout(pause_s):
                while not self._closing:
                    self._due.clear()
                    await self._due.wait()
        except TimeoutError:
            pass

    async def _flush(self, patience_s: float) -> bool:
        """Write one batch; False when it failed and is to be tried again. One call is under way at a time:
        after a timeout the next attempt waits for the same call, so that a stuck disk holds one batch, not many."""
        if not self._batch:
            size = self._narrowed or self._settings.batch_rows
            self._batch, self._rows[:size] = self._rows[:size], []
        if self._call is None:
            self._call = asyncio.ensure_future(self._store.append_heartbeats(self._batch))
            self._began_s = self._clock.monotonic_s()
        await asyncio.wait((self._call,), timeout=patience_s)
        if not self._call.done():
            return self._failed(f"the store did not take {len(self._batch)} heartbeats within {patience_s:.0f} s")
        call, self._call = self._call, None
        self._measure(self._clock.monotonic_s() - self._began_s)
        error = call.exception()
        if error is None:
            self._stored()
            return True
        if isinstance(error, CoordError) and error.code is Code.STORE_FULL:
            return self._failed(str(error))
        if isinstance(error, CoordError) or not isinstance(error, Exception):
            raise error
        return self._narrow(error)

    def _stored(self) -> None:
        if self._failures:
            log.info("the store takes heartbeats again")
        self._failures = 0
        self._narrowed = min(2 * self._narrowed, self._settings.batch_rows) % self._settings.batch_rows
        self._patient = True
        self.counters.stored += len(self._batch)
        self._batch = []
        if self._held:
            if len(self._rows) < self._settings.crowded_rows // 4:
                self._let_go()
            else:
                self._time_hold()

    def _failed(self, why: str) -> bool:
        if not self._failures:
            log.warning("heartbeats wait: %s", why)
        self._failures += 1
        self.counters.flush_failures += 1
        self._lose_patience()
        return False

    def _narrow(self, error: Exception) -> bool:
        """The store choked on a row: halve the batch until that row is alone, and set it aside."""
        self.counters.flush_failures += 1
        if len(self._batch) == 1:
            log.error("a heartbeat was set aside, the store cannot hold it: %r: %s", self._batch[0], error)
            self.counters.dropped_store += 1
            self._batch = []
        else:
            self._narrowed = len(self._batch) // 2
            self._rows[:0], self._batch = self._batch, []
        return True

    def _measure(self, took_s: float) -> None:
        counters = self.counters
        counters.flushes += 1
        counters.flush_seconds_sum += took_s
        counters.flush_seconds_max = max(counters.flush_seconds_max, took_s)
        counters.flush_seconds[bisect_left(FLUSH_S, took_s)] += 1


_row = cast(Callable[[type[HeartbeatRow], tuple[object, ...]], HeartbeatRow], tuple.__new__)
"""A NamedTuple without its keyword-aware constructor: 0.1 us instead of 0.4."""
