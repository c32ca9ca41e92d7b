"""Uploads of traces on their way to whoever keeps them: laid aside as they come, within bounds of size and pace.

Nothing is unpacked or understood here: a body goes into a file, and what is in it is another process's to find out.
Every sender has a rate, and a share of what may be under way; who is beyond it is told to wait. Of a sender one upload
is taken in at a time, of a tenant one analysis is made, and after a long one it rests as long: whoever keeps traces
does one thing after another, and nobody's many or heavy ones stand before everybody's.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec import Struct
from msgspec import field as default

from coordinator.core.errors import Code, CoordError
from coordinator.ports.clock import Clock
from coordinator.ports.traces import Taken, TraceBody, Traces
from coordinator.service.data.patience import Patience

_GATHERED_BYTES = 1024 * 1024
"""Written at once, off the loop."""
_SENDERS_MAX = 10_000
"""Of whom is remembered how far ahead of their rate they are; the one not heard for longest is forgotten."""
_SHARE = 4
"""A sender may have one part in so many of what may be under way; a single upload always."""
_LONG_S = 10.0
"""After an analysis that took longer its tenant rests."""
_LEAST_BYTES = 16 * 1024
"""What the smallest upload counts for: each is synced."""


class TraceDoorSettings(Struct, frozen=True, kw_only=True):
    """Bounds of what comes in over HTTP. Those of what is kept are of the section `traces`."""

    body_bytes_max: int = 64 * 1024 * 1024
    """Of an upload, as it is sent; `traces.body_bytes_max` is the same of what is unpacked."""
    waiting_bytes_max: int = 512 * 1024 * 1024
    """Of all uploads that are under way; a further one is refused, as is one beyond a quarter of it of one sender."""
    bodies_per_sender_max: int = 8
    """Uploads of one sender (a tenant, an agent) that are under way at a time."""
    bytes_per_s: int = 8 * 1024 * 1024
    """What a sender may send on and on ..."""
    burst_bytes: int = 256 * 1024 * 1024
    """... and what it may be ahead of that."""
    stall_s: float = 30.0
    """An upload that sends nothing for so long is cut ..."""
    rate_min_bytes_per_s: int = 4_096
    """... and so is one that goes on below this rate."""
    analyses_per_tenant_max: int = 8
    """Analyses of a tenant that are made or wait, one behind the other."""
    rows_per_tenant_max: int = 3
    """Answers with rows that are open of a tenant; a further one is refused."""


@dataclass(slots=True)
class Counters:
    """For metrics."""

    accepted: int = 0
    rejected: int = 0
    dropped: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    """Uploads by the code that says why."""
    bytes: int = 0
    analyses: dict[str, int] = field(default_factory=dict)
    """`made`, `cached`, `failed`."""
    analysis_s: float = 0.0
    """Spent waiting for those that were made."""


class Received(Struct, frozen=True):
    """A body that lies in a file."""

    path: Path
    size: int
    fingerprint: int
    turn: asyncio.Lock
    """Of its sender."""


class _Sender(Struct):
    """How much it may send at once, as of when, and what it has under way."""

    room: float
    at_s: float
    open: int = 0
    reserved: int = 0
    turn: asyncio.Lock = default(default_factory=asyncio.Lock)


class TraceDoor:
    """Everything that the routes of traces share."""

    def __init__(self, keeper: Traces, directory: Path, settings: TraceDoorSettings, clock: Clock) -> None:
        self.keeper = keeper
        self.settings = settings
        self.counters = Counters()
        self.directory = directory
        self._clock = clock
        self._senders: OrderedDict[str, _Sender] = OrderedDict()
        self._reserved = 0
        self._turns: dict[str, _Turn] = {}
        self._rest_until_s: dict[str, float] = {}
        self._reading: dict[str, int] = {}

    def clear(self) -> None:
        """What an earlier process left on its way goes; makes the directory where it is missing."""
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        for leftover in self.directory.iterdir():
            leftover.unlink(missing_ok=True)

    # ---- uploads

    @asynccontextmanager
    async def received(self, request: web.Request, sender: str, limit: int) -> AsyncIterator[Received]:
        """The body in a file that is there as long as the block. CoordError: TOO_LARGE, TOO_MANY (with when to come
        again), TIMEOUT, BAD_REQUEST, STORE_FULL."""
        announced = request.content_length
        if announced is not None and announced > limit:
            raise _too_large(limit)
        reserved = announced if announced is not None else limit
        known = self._admitted(sender, reserved)
        known.open += 1
        known.reserved += reserved
        self._reserved += reserved
        path = self.directory / secrets.token_hex(8)
        try:
            size, fingerprint = await self._spool(request, path, limit)
            self.counters.bytes += size
            known.room -= max(size, _LEAST_BYTES)
            yield Received(path, size, fingerprint, known.turn)
        finally:
            known.open -= 1
            known.reserved -= reserved
            self._reserved -= reserved
            await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))

    async def take_in(self, received: Received, body: TraceBody) -> tuple[Taken, ...]:
        """Have it kept, behind what its sender sent before."""
        async with received.turn:
            return await self.keeper.take_in(body)

    def under_way(self, sender: str) -> int:
        """Uploads of a sender that come in or wait."""
        known = self._senders.get(sender)
        return known.open if known is not None else 0

    @asynccontextmanager
    async def laid_out(self, pieces: Iterable[bytes | memoryview]) -> AsyncIterator[Path]:
        """These bytes in a file that is there as long as the block."""
        path = self.directory / secrets.token_hex(8)
        try:
            await asyncio.to_thread(_write, path, list(pieces))
            yield path
        finally:
            await asyncio.shield(asyncio.to_thread(path.unlink, missing_ok=True))

    def _admitted(self, sender: str, size: int) -> _Sender:
        s, now_s = self.settings, self._clock.monotonic_s()
        known = self._senders.pop(sender, None) or _Sender(float(s.burst_bytes), now_s)
        known.room = min(known.room + (now_s - known.at_s) * s.bytes_per_s, float(s.burst_bytes))
        known.at_s = now_s
        self._senders[sender] = known
        while len(self._senders) > _SENDERS_MAX:
            self._senders.popitem(last=False)
        if known.room <= 0:
            wait_s = max(1.0, -known.room / s.bytes_per_s)
            raise CoordError(
                Code.TOO_FAST,
                f"traces come faster than {s.bytes_per_s} bytes a second",
                "send fewer of them, or later",
                retry_after_s=wait_s,
            )
        beyond_share = known.open and known.reserved + size > s.waiting_bytes_max // _SHARE
        if known.open >= s.bodies_per_sender_max or beyond_share or self._reserved + size > s.waiting_bytes_max:
            raise CoordError(
                Code.TOO_MANY,
                f"{known.open} uploads of traces are under way already, {self._reserved} bytes of everybody's",
                "send them one behind the other",
            )
        return known

    async def _spool(self, request: web.Request, path: Path, limit: int) -> tuple[int, int]:
        size = fingerprint = 0
        gathered: list[bytes] = []
        waiting = 0
        s, loop = self.settings, asyncio.get_running_loop()
        patience = Patience(s.stall_s, s.rate_min_bytes_per_s, loop.time())
        try:
            async with asyncio.timeout_at(patience.until_s) as clock:
                while chunk := await request.content.readany():
                    size += len(chunk)
                    if size > limit:
                        raise _too_large(limit)
                    fingerprint = zlib.crc32(chunk, fingerprint)
                    gathered.append(chunk)
                    waiting += len(chunk)
                    until_s = patience.moved(len(chunk), loop.time())
                    if waiting >= _GATHERED_BYTES:
                        clock.reschedule(None)
                        await asyncio.to_thread(_write, path, gathered)
                        gathered, waiting = [], 0
                        until_s = patience.held_up(loop.time())
                    clock.reschedule(until_s)
        except TimeoutError:
            if not clock.expired():
                raise
            raise CoordError(
                Code.TIMEOUT,
                f"the upload came more slowly than {s.rate_min_bytes_per_s} bytes a second",
                "send it without a pause",
            ) from None
        except (web.RequestPayloadError, HttpProcessingError) as error:
            raise CoordError(Code.BAD_REQUEST, "the body is damaged", "send it as its headers say") from error
        await asyncio.to_thread(_write, path, gathered)
        return size, fingerprint ^ (size << 32)

    # ---- analyses

    def waiting(self, tenant: str) -> int:
        """Analyses of a tenant that are made or wait."""
        turn = self._turns.get(tenant)
        return turn.count if turn is not None else 0

    def took(self, tenant: str, took_s: float) -> None:
        """An analysis of this tenant was at work for so long, beside what it waited."""
        if took_s > _LONG_S:
            self._rest_until_s[tenant] = self._clock.monotonic_s() + took_s

    @asynccontextmanager
    async def turn(self, tenant: str) -> AsyncIterator[None]:
        """One analysis of a tenant at a time; CoordError: TOO_MANY when too many wait, TOO_FAST behind a long one."""
        now_s = self._clock.monotonic_s()
        self._rest_until_s = {one: until_s for one, until_s in self._rest_until_s.items() if until_s > now_s}
        if tenant in self._rest_until_s:
            raise CoordError(
                Code.TOO_FAST,
                "an analysis of this tenant took long: others have their turn",
                "ask again then, or fetch the rows and analyse them: coord trace analyze DIR",
                retry_after_s=self._rest_until_s[tenant] - now_s,
            )
        turn = self._turns.setdefault(tenant, _Turn())
        if turn.count >= self.settings.analyses_per_tenant_max:
            raise CoordError(
                Code.TOO_MANY, f"{turn.count} analyses of this tenant wait already", "ask one behind the other"
            )
        turn.count += 1
        try:
            async with turn.lock:
                yield
        finally:
            turn.count -= 1
            if not turn.count:
                self._turns.pop(tenant, None)

    @contextmanager
    def reading(self, tenant: str) -> Iterator[None]:
        """Rows are given to a tenant; CoordError(TOO_MANY) when it reads so many already."""
        count = self._reading.get(tenant, 0)
        if count >= self.settings.rows_per_tenant_max:
            raise CoordError(Code.TOO_MANY, f"{count} answers with rows are open already", "read one behind the other")
        self._reading[tenant] = count + 1
        try:
            yield
        finally:
            left = self._reading[tenant] - 1
            if left:
                self._reading[tenant] = left
            else:
                del self._reading[tenant]


class _Turn:
    """Whose turn it is of a tenant's analyses."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0


def _write(path: Path, pieces: list[bytes] | list[bytes | memoryview]) -> None:
    """Behind what is there. Not synced: nothing was promised."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "ab") as file:
            file.writelines(pieces)
    except OSError as error:
        raise CoordError(
            Code.STORE_FULL, f"an upload could not be laid aside: {error.strerror or error}", "try again later"
        ) from error


def _too_large(limit: int) -> CoordError:
    return CoordError(Code.TOO_LARGE, f"the body is larger than {limit} bytes", "send fewer spans at once")
