"""Bytes of a blob to whoever asks: by sendfile over plain sockets, in pieces through TLS.

A thread of a small pool hands pieces to the kernel: it may have to read the disk, which the loop must not wait for.
When the socket takes no more for a moment the thread goes back to the pool, and the loop waits until it does: a slow
reader costs a descriptor. uvloop has no sendfile and does not let its sockets be watched; a duplicate of the descriptor
may be, while the transport, which has nothing to write then, is left alone.
"""

from __future__ import annotations

import asyncio
import functools
import os
import select
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from aiohttp import web

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import TenantName
from coordinator.service.data.gate import Gate
from coordinator.service.data.meters import Meters, Outflow
from coordinator.service.data.patience import Patience
from coordinator.service.data.settings import DataSettings

CALL_BYTES = 2 * 1024 * 1024
"""One sendfile asks for so much."""
LINGER_MS = 10
"""A thread waits so long for a full socket before it gives it back to the loop ..."""
TURN_S = 0.25
"""... and keeps one socket so long at most."""
TLS_BYTES = 256 * 1024
FLUSH_S = 0.002
T = TypeVar("T")


class Sender:
    """Bounds: `send_threads`; a piece is at most `send_bytes`."""

    def __init__(self, gate: Gate, meters: Meters, settings: DataSettings) -> None:
        self._gate = gate
        self._meters = meters
        self._settings = settings
        self._threads = ThreadPoolExecutor(settings.send_threads, thread_name_prefix="sending")
        self.cut_slow = 0

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def send(
        self, request: web.Request, response: web.StreamResponse, tenant: TenantName, file: int, first: int, size: int
    ) -> None:
        """Answer with `size` bytes of `file` from `first` on; the response's head says so already.

        They count as sent while they are on their way.

        A reader that is too slow, or gone, is cut: CoordError(TIMEOUT), ConnectionError. `file` stays the caller's;
        nothing reads it any more when this returns or raises.
        """
        with self._meters.outflow(tenant, size) as outflow:
            await self._send(request, response, _Course(self, tenant, file, first, outflow))

    async def _send(self, request: web.Request, response: web.StreamResponse, course: _Course) -> None:
        await response.prepare(request)
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the reader is gone")
        if transport.get_extra_info("sslcontext") is not None:
            await self._in_pieces(response, course)
        else:
            await self._by_kernel(transport, course)
        await response.write_eof()

    # ---- plain sockets

    async def _by_kernel(self, transport: asyncio.Transport, course: _Course) -> None:
        await self._flushed(transport, course)
        out = os.dup(transport.get_extra_info("socket").fileno())
        try:
            while course.left:
                size = await course.may(self._settings.send_bytes)
                while size:
                    sent = await self._in_thread(functools.partial(_push, out, course.file, course.at, size))
                    course.sent(sent)
                    size -= sent
                    if size and transport.is_closing():
                        raise ConnectionResetError("the reader is gone")
                    if size:
                        await self._writable(out, course)
        finally:
            os.close(out)

    async def _flushed(self, transport: asyncio.Transport, course: _Course) -> None:
        """Return when the head has left: what the kernel sends must not overtake it. It usually has after a turn of
        the loop; a reader that has not taken the answer before is asked for at a slow pace, within its patience."""
        turns = 0
        while transport.get_write_buffer_size():
            turns += 1
            if transport.is_closing():
                raise ConnectionResetError("the reader is gone")
            if course.is_over():
                raise self._too_slow()
            await asyncio.sleep(0 if turns < 5 else FLUSH_S)

    async def _in_thread(self, part: Callable[[], T]) -> T:
        """Run `part`, to its end also when this is cancelled: it uses descriptors that are closed after that."""
        pushing = asyncio.get_running_loop().run_in_executor(self._threads, part)
        try:
            return await asyncio.shield(pushing)
        except asyncio.CancelledError:
            await asyncio.wait((pushing,))
            if not pushing.cancelled():
                pushing.exception()
            raise

    async def _writable(self, out: int, course: _Course) -> None:
        """Return when the socket takes bytes, or has failed, which the next attempt to send finds."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_writer(out, ready.set)
        try:
            async with asyncio.timeout_at(course.until_s):
                await ready.wait()
        except TimeoutError:
            raise self._too_slow() from None
        finally:
            loop.remove_writer(out)

    # ---- TLS

    async def _in_pieces(self, response: web.StreamResponse, course: _Course) -> None:
        while course.left:
            size = await course.may(TLS_BYTES)
            piece = await self._in_thread(functools.partial(os.pread, course.file, size, course.at))
            if not piece:
                raise _shorter()
            try:
                async with asyncio.timeout_at(course.until_s):
                    await response.write(piece)
            except TimeoutError:
                raise self._too_slow() from None
            course.sent(len(piece))

    def _too_slow(self) -> CoordError:
        self.cut_slow += 1
        return CoordError(
            Code.TIMEOUT,
            f"the reader takes fewer than {self._settings.rate_min_bytes_per_s} bytes a second",
            "go on with a range",
        )

    # ---- what every way does with a piece

    async def admit(self, tenant: TenantName, size: int) -> int:
        piece = self._gate.egress_piece(size)
        await self._gate.egress(tenant, piece)
        return piece

    def patience(self) -> Patience:
        now_s = asyncio.get_running_loop().time()
        return Patience(self._settings.stall_s, self._settings.rate_min_bytes_per_s, now_s)


class _Course:
    """Where one answer is: what is left of it, and how long its reader may take."""

    def __init__(self, sender: Sender, tenant: TenantName, file: int, at: int, outflow: Outflow) -> None:
        self.file = file
        self.at = at
        self._outflow = outflow
        self._sender = sender
        self._tenant = tenant
        self._patience = sender.patience()

    @property
    def left(self) -> int:
        return self._outflow.left

    @property
    def until_s(self) -> float:
        return self._patience.until_s

    def is_over(self) -> bool:
        return asyncio.get_running_loop().time() >= self._patience.until_s

    async def may(self, size: int) -> int:
        """Wait until a piece of at most `size` bytes may go. -> its size"""
        piece = await self._sender.admit(self._tenant, min(size, self.left))
        self._patience.held_up(asyncio.get_running_loop().time())
        return piece

    def sent(self, size: int) -> None:
        self.at += size
        self._outflow.sent(size)
        self._patience.moved(size, asyncio.get_running_loop().time())


def _push(out: int, file: int, first: int, size: int) -> int:
    """Hand over up to `size` bytes while the socket takes them, in a thread. -> how many it took.

    ConnectionError when it is gone; CoordError(INTERNAL) when the file is shorter than it was.
    """
    sent = 0
    until_s = time.monotonic() + TURN_S
    writable = select.poll()
    writable.register(out, select.POLLOUT)
    while sent < size:
        try:
            n = os.sendfile(out, file, first + sent, min(size - sent, CALL_BYTES))
        except BlockingIOError:
            if time.monotonic() > until_s or not writable.poll(LINGER_MS):
                break
            continue
        except ConnectionError:
            if sent:  # counted first; the next call finds the same
                break
            raise
        if not n:
            raise _shorter()
        sent += n
    return sent


def _shorter() -> CoordError:
    return CoordError(Code.INTERNAL, "a blob's file is shorter than its row says", "coord db check")
