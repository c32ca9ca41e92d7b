"""The coordinator's side of traces: starts the process that keeps them when it is needed, asks it, ends it when it is
idle or takes too long. Implements ports.traces.Traces.

Its end costs those who waited for it an error that says "again"; what it had acknowledged is on the disk.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from analytics.child import Child
from analytics.traces.keeping.limits import TraceSettings
from analytics.traces.keeping.messages import (
    ANSWER_BYTES_MAX,
    Analyze,
    Analyzed,
    Began,
    CloseRows,
    FromKeeper,
    MoreRows,
    Noticed,
    OpenRows,
    Refused,
    Rows,
    TakeIn,
    TakenIn,
    ToKeeper,
    encode,
    from_keeper,
)
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import JobId
from coordinator.ports.traces import AskTrace, Taken, TraceAnswer, TraceBody, TraceKind, TracesHealth

log = logging.getLogger("coord.traces")

DEADLY_MAX = 64
"""Bodies that are remembered because a process ended while it read them."""
FRAME_BYTES_MAX = ANSWER_BYTES_MAX + 1024
PAUSE_S = 0.5
"""Between two starts, at least."""


class _Waits(NamedTuple):
    """Who waits for an answer of one process."""

    future: asyncio.Future[tuple[FromKeeper, bytes]]
    fingerprint: int | None
    """Of the body that it is to read; None: of no body."""
    clock: asyncio.Timeout
    patience_s: float
    """How long it may take once it has begun; what stands before it is not its fault."""


class TraceLink:
    """One process at a time. Run `run()` in a task group; everything is for the loop that runs it."""

    def __init__(
        self,
        data: Path,
        coordinator_id: str,
        settings: TraceSettings = TraceSettings(),  # noqa: B008 frozen
    ) -> None:
        self._data = data
        self._coordinator_id = coordinator_id
        self._settings = settings
        self._wanted = asyncio.Event()
        self._up = asyncio.Event()
        self._child: Child | None = None
        self._waiting: dict[int, _Waits] = {}
        self._begun: set[int] = set()
        """What the process is at: an upload, an analysis."""
        self._deadly: OrderedDict[int, int] = OrderedDict()
        """Bodies by their fingerprints, and how many processes ended while they read them."""
        self._next = 0
        self._asked_s = 0.0
        self._heard_s = 0.0
        self._starts = 0
        self._last_error = ""
        self._stored_bytes = 0
        self._idle = False
        """The process ended, or ends, because nobody asked."""

    # ---- ports.traces.Traces

    async def take_in(self, body: TraceBody) -> tuple[Taken, ...]:
        """See ports.traces.Traces. BAD_REQUEST also for a body that two processes ended of."""
        if self._deadly.get(body.fingerprint, 0) >= 2:
            raise CoordError(
                Code.BAD_REQUEST, "whatever reads this body ends: it is not read again", "send fewer spans at once"
            )
        answer, _ = await self._exchange(lambda n: TakeIn(n, body), self._settings.take_s, body.fingerprint)
        assert isinstance(answer, TakenIn)
        self._stored_bytes = answer.stored_bytes
        return answer.parts

    async def rows(self, job_id: JobId, kind: TraceKind) -> AsyncGenerator[bytes, None]:
        """See ports.traces.Traces."""
        answer, lines = await self._some_rows(lambda n: OpenRows(n, job_id, kind))
        child, opened = self._child, answer.n
        try:
            while not answer.last:
                yield lines
                if self._child is not child:
                    raise self._unavailable()
                answer, lines = await self._some_rows(lambda n: MoreRows(n, opened))
        finally:
            if not answer.last and self._child is child:
                self._say(CloseRows(opened))

    async def _some_rows(self, make: Callable[[int], ToKeeper]) -> tuple[Rows, bytes]:
        answer, lines = await self._exchange(make, self._settings.analyze_s)
        assert isinstance(answer, Rows)
        return answer, lines

    async def analyze(self, ask: AskTrace) -> TraceAnswer:
        """See ports.traces.Traces."""
        answer, body = await self._exchange(lambda n: Analyze(n, ask), self._settings.analyze_s)
        assert isinstance(answer, Analyzed)
        return TraceAnswer(body=body, cached=answer.cached, policy=answer.policy, took_s=answer.took_s)

    def health(self) -> TracesHealth:
        """How the process is now; none is up while nobody needs it."""
        return TracesHealth(
            up=self._up.is_set(), starts=self._starts, last_error=self._last_error, stored_bytes=self._stored_bytes
        )

    @property
    def pid(self) -> int | None:
        """Of the process, for tests; None when there is none."""
        return self._child.pid if self._child is not None else None

    # ---- asking

    async def _exchange(
        self, make: Callable[[int], ToKeeper], patience_s: float, fingerprint: int | None = None
    ) -> tuple[FromKeeper, bytes]:
        if len(self._waiting) >= 2 * self._settings.waiting_max:
            raise CoordError(Code.TOO_MANY, f"{len(self._waiting)} requests for traces wait", "ask again in a moment")
        self._asked_s = time.monotonic()
        self._next += 1
        n = self._next
        loop = asyncio.get_running_loop()
        message: ToKeeper | None = None
        try:
            async with asyncio.timeout(patience_s) as clock:
                self._wanted.set()
                await self._up.wait()
                waits = _Waits(loop.create_future(), fingerprint, clock, patience_s)
                self._waiting[n] = waits
                self._say(message := make(n))
                return await waits.future
        except TimeoutError:
            begun = n in self._begun
            if begun and fingerprint is not None:
                self._suspect(fingerprint)
            self._end_what_hangs(n, patience_s)
            if not begun and isinstance(message, TakeIn | Analyze):
                raise CoordError(
                    Code.ANALYTICS_UNAVAILABLE, f"others' traces stood before it for {patience_s:.0f} s", "ask again"
                ) from None
            raise CoordError(
                Code.TIMEOUT, f"no answer about traces within {patience_s:.0f} s", "ask again, or for less"
            ) from None
        finally:
            self._waiting.pop(n, None)
            self._asked_s = time.monotonic()

    def _say(self, message: ToKeeper) -> None:
        heard = self._child is not None and self._child.say(encode(message))
        if not heard and not isinstance(message, CloseRows):
            raise self._unavailable()

    def _end_what_hangs(self, n: int, patience_s: float) -> None:
        """Nothing else stops a thread that computes: the process goes, and whoever else waits for it asks again. What
        only stood in line behind others that were answered is no reason."""
        silent = time.monotonic() - self._heard_s >= patience_s
        if (n in self._begun or silent) and self._child is not None and not self._child.ended:
            self._last_error = "the process that keeps traces was ended: it took too long"
            self._begun.clear()  # what else it was at is not to blame
            self._child.kill()

    def _unavailable(self) -> CoordError:
        why = f" ({self._last_error})" if self._last_error else ""
        return CoordError(
            Code.ANALYTICS_UNAVAILABLE, f"the process that keeps traces is not there{why}", "it is started again"
        )

    # ---- the life of processes

    async def run(self) -> None:
        """Have a process when it is needed, until cancelled."""
        while True:
            await self._wanted.wait()
            try:
                await self._live()
            finally:
                self._up.clear()
                self._wanted.clear()
                self._child = None
                self._fail_waiting()
            await asyncio.sleep(PAUSE_S)

    async def _live(self) -> None:
        """One process, from its start to its end."""
        self._starts += 1
        try:
            child = await Child.start(
                *("analytics.traces.keeping.process", "--data", str(self._data)),
                *("--coordinator-id", self._coordinator_id),
                *("--settings", msgspec.json.encode(self._settings).decode()),
            )
        except OSError as error:
            self._last_error = f"the process that keeps traces could not be started: {error}"
            return
        self._child = child
        self._heard_s = time.monotonic()
        self._idle = False
        self._up.set()
        try:
            await child.live(lambda: self._listen(child), lambda: self._end_when_idle(child))
        finally:
            self._up.clear()
        if not self._idle:
            self._last_error = f"the process that keeps traces {child.end()}"

    async def _end_when_idle(self, child: Child) -> None:
        """Ends its input, and so its life, when nobody asked for a while."""
        while True:
            left_s = self._asked_s + self._settings.idle_s - time.monotonic()
            if left_s <= 0 and not self._waiting:
                break
            await asyncio.sleep(max(left_s, 1.0))
        self._up.clear()
        self._wanted.clear()
        self._idle = True
        child.dismiss()

    async def _listen(self, child: Child) -> None:
        """Take what it says until it ends. What is no message ends it too."""
        while (body := await child.frame(FRAME_BYTES_MAX)) is not None:
            try:
                message = from_keeper(body)
            except msgspec.DecodeError as error:
                self._last_error = f"the process that keeps traces said what is no message: {error}"
                return
            self._heard_s = time.monotonic()
            more = b""
            if isinstance(message, Rows | Analyzed):
                found = await child.frame(FRAME_BYTES_MAX)
                if found is None:
                    return
                more = found
            if isinstance(message, Noticed):
                log.warning("%s", message.problem)
                continue
            if isinstance(message, Began):
                self._begin(message.n)
                continue
            self._begun.discard(message.n)
            waits = self._waiting.pop(message.n, None)
            if waits is None or waits.future.done():
                continue
            if isinstance(message, Refused):
                waits.future.set_exception(CoordError(Code(message.code), message.message, message.hint))
            else:
                waits.future.set_result((message, more))

    def _begin(self, n: int) -> None:
        """The process is at it from now on: its time runs anew."""
        self._begun.add(n)
        waits = self._waiting.get(n)
        if waits is not None and not waits.clock.expired():
            waits.clock.reschedule(asyncio.get_running_loop().time() + waits.patience_s)

    def _fail_waiting(self) -> None:
        """Whoever waits asks again; but the body that was being read is under suspicion."""
        waiting, self._waiting = self._waiting, {}
        for n, waits in waiting.items():  # whose time is over is not among them
            if n in self._begun and waits.fingerprint is not None:
                self._suspect(waits.fingerprint)
            if not waits.future.done():
                waits.future.set_exception(self._unavailable())
        self._begun.clear()

    def _suspect(self, fingerprint: int) -> None:
        """Once may be chance: somebody ended the process, or the machine had no memory."""
        self._deadly[fingerprint] = self._deadly.pop(fingerprint, 0) + 1
        while len(self._deadly) > DEADLY_MAX:
            self._deadly.popitem(last=False)
