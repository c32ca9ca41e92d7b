"""One socket to an agent: frames out within a bound, reading held up and let go, and an end that says why."""

from __future__ import annotations

import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterator

from coordinator.service.frames import close_frame, text_frame
from coordinator.service.link_settings import LinkCounters, LinkSettings
from coordinator.wire import FRAME_MESSAGES_MAX

ARRAY_BYTES_MAX = 256 * 1024
"""Of messages that share a frame: what is taken apart at a time."""


AHEAD_BYTES = 1024 * 1024
"""Of frames that are made one by one: the next is made when less waits in the socket."""
AHEAD_S = 0.01
"""How soon the socket is looked at again."""


def _frames(messages: list[bytes]) -> Iterator[bytes]:
    """One message as it is, more of them as arrays."""
    while len(messages) > 1:
        some = messages[:FRAME_MESSAGES_MAX]
        if sum(map(len, some)) + len(some) <= ARRAY_BYTES_MAX:  # nearly always
            yield text_frame(b"[" + b",".join(some) + b"]")
            messages = messages[FRAME_MESSAGES_MAX:]
            continue
        count, room = 0, ARRAY_BYTES_MAX
        while count < min(len(messages), FRAME_MESSAGES_MAX) and (room > len(messages[count]) or not count):
            room -= len(messages[count]) + 1
            count += 1
        yield text_frame(b"[" + b",".join(messages[:count]) + b"]")
        messages = messages[count:]
    if messages:
        yield text_frame(messages[0])


class Peer:
    """`gone` is done when the socket is closed; `closed` is true from when nothing more is to be said."""

    __slots__ = (
        "_counters",
        "_gathered",
        "_holds",
        "_queue",
        "_queued_bytes",
        "_settings",
        "_timer",
        "_transport",
        "closed",
        "gone",
        "out_max",
    )

    def __init__(self, settings: LinkSettings, counters: LinkCounters) -> None:
        self.closed = False
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.out_max = settings.out_bytes_max
        self._settings = settings
        self._counters = counters
        self._gathered: list[bytes] = []
        self._holds = 0
        self._queue: deque[Iterator[bytes]] = deque()
        """Frames that are not made yet, and all that was written behind them."""
        self._queued_bytes = 0
        """Of the latter."""
        self._timer: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport | None = None

    def attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self.receive(self._settings.in_bytes)
        if self.closed:
            transport.abort()

    def receive(self, in_bytes: int) -> None:
        """Ask the kernel for so large a receive buffer."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, in_bytes)

    def gather(self, message: bytes) -> None:
        """Queue a message; all that is gathered in one turn of the loop shares frames, and leaves in one call of the
        system."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._send_gathered)
        self._gathered.append(message)

    def gather_all(self, messages: list[bytes]) -> None:
        """The same of several."""
        if not self._gathered:
            asyncio.get_running_loop().call_soon(self._send_gathered)
        self._gathered += messages

    def _send_gathered(self) -> None:
        if self._gathered:
            messages, self._gathered = self._gathered, []
            self.write(b"".join(_frames(messages)))

    def write_slowly(self, frames: Iterator[bytes]) -> None:
        """Queue large frames, each of which is made when those before it have all but left. Whatever is written later
        waits behind them: an acknowledgement that overtook a lease would have it end later than we think."""
        self._send_gathered()
        waits = bool(self._queue)
        self._queue.append(frames)
        if not waits:
            self._go_on()

    def _go_on(self) -> None:
        transport = self._transport
        while self._queue and transport is not None and not transport.is_closing():
            if transport.get_write_buffer_size() >= AHEAD_BYTES:
                asyncio.get_running_loop().call_later(AHEAD_S, self._go_on)
                return
            frame = next(self._queue[0], None)
            if frame is None:
                self._queue.popleft()
            else:
                transport.write(frame)
        self._forget_queue()

    def _behind(self, frame: bytes) -> Iterator[bytes]:
        self._queued_bytes -= len(frame)
        yield frame

    def _forget_queue(self) -> None:
        self._queue.clear()
        self._queued_bytes = 0

    def write(self, frame: bytes) -> None:
        """Queue it; a peer that does not read what waits already is cut."""
        self._send_gathered()
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if transport.get_write_buffer_size() + self._queued_bytes > self.out_max:
            self._counters.cut_stalled += 1
            self.abort()
        elif self._queue:
            self._queued_bytes += len(frame)
            self._queue.append(self._behind(frame))
        else:
            transport.write(frame)

    @property
    def held(self) -> bool:
        return self._holds > 0

    def hold(self) -> None:
        """Stop reading until `release` was called as often. The kernel, and then the peer, keeps what comes."""
        self._holds += 1
        if self._holds == 1 and self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def release(self) -> None:
        self._holds -= 1
        if self._holds == 0 and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    # ---- the end

    def shut(self, code: int, reason: str, error: bytes = b"") -> None:
        """Write the `error` frame and a close; a peer that does not close from its side is cut after `close_s`."""
        if self.closed:
            return
        self._send_gathered()
        self._forget_queue()
        if error:
            self.write(error)
        self.write(close_frame(code, reason))
        self.closed = True
        self.after(self._settings.close_s, self.abort)

    def hang_up(self) -> None:
        """Close when what was written has left."""
        self._send_gathered()
        self.closed = True
        self._forget_queue()
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close without a word."""
        self.closed = True
        self._forget_queue()
        if self._transport is not None:
            self._transport.abort()

    def lost(self) -> None:
        """The socket is gone."""
        self.closed = True
        self._forget_queue()
        self.disarm()
        if not self.gone.done():
            self.gone.set_result(None)

    # ---- its one timer

    def after(self, delay_s: float, call: Callable[[], None]) -> None:
        """Have `call` called then, in place of what was set before."""
        self.disarm()
        self._timer = asyncio.get_running_loop().call_later(delay_s, call)

    def disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
