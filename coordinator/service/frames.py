"""The seam into aiohttp: frames are handed over as they are parsed, with no task woken for each.

aiohttp puts every parsed frame into a queue that wakes a task; at tens of thousands of frames a second
the wake-ups are most of the work. Here the queue is one of ours: whatever one read of the socket held
reaches the sink in one call. The parser itself stays aiohttp's. The three private names that this
stands on (`_post_start`, the reader and its queue) are tried once by `seam_fits`; where a version of
aiohttp moved them, the public receive loop does the same work, slower.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from typing import Any, Protocol

from aiohttp import WSCloseCode, WSMsgType, web
from aiohttp import __version__ as aiohttp_version
from aiohttp.http import WebSocketError, WebSocketReader, WebSocketWriter

try:
    from aiohttp._websocket.reader import WebSocketDataQueue
except ImportError:  # an aiohttp that moved it: seam_fits says no
    WebSocketDataQueue = object  # type: ignore[assignment,misc]

log = logging.getLogger("coord.frames")

PIECES_MAX = 4
"""A frame in pieces may take so many times the bytes of the largest one."""

Frame = tuple[WSMsgType, Any, Any]
"""(kind, payload, unused) as aiohttp's parser makes it; a text frame's payload is bytes, not yet checked."""


class FrameSink(Protocol):
    """Who takes the frames of one connection. Nothing here may block."""

    def attach(self, transport: asyncio.Transport) -> None:
        """The handshake is done; `transport` is where frames are written to."""
        ...

    def take(self, frames: list[Frame]) -> None:
        """What one read of the socket brought, in order. The list is reused afterwards."""
        ...

    def broken(self, code: int, text: str) -> None:
        """The peer broke the WebSocket protocol; nothing further is read. `code` is the close code for it."""
        ...

    def lost(self) -> None:
        """The socket is gone. Called once or more."""
        ...


class _Queue(WebSocketDataQueue):
    """Collects frames for the one read that is being parsed. It never fills, so the parser never stalls."""

    def __init__(self, protocol: Any, sink: FrameSink, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(protocol, 2**16, loop=loop)
        self.frames: list[Frame] = []
        self.error: WebSocketError | None = None
        self._sink = sink

    def feed_data(self, data: Frame, size: int) -> None:
        self.frames.append(data)

    def set_exception(self, exc: BaseException, exc_cause: BaseException | None = None) -> None:
        if isinstance(exc, WebSocketError):
            self.error = exc
        else:
            self._sink.lost()

    def feed_eof(self) -> None:
        self._sink.lost()


class _Parser:
    """Stands where aiohttp's protocol expects its WebSocket parser, and hands on read by read."""

    __slots__ = ("_broken", "_bytes_max", "_frames", "_queue", "_read", "_sink", "_unfinished")

    def __init__(self, queue: _Queue, reader: WebSocketReader, sink: FrameSink, bytes_max: int) -> None:
        """`bytes_max`: so much may come without a whole frame; pieces of no length would have no end."""
        self._frames = queue.frames
        self._queue = queue
        self._broken = False
        self._read = reader.feed_data
        self._sink = sink
        self._bytes_max = bytes_max
        self._unfinished = 0

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        if self._broken:
            return False, b""
        self._read(data)
        frames = self._frames
        if frames:
            self._unfinished = 0
            self._sink.take(frames)
            frames.clear()
        else:
            self._unfinished += len(data)
        error = self._queue.error
        if error is not None:
            self._broken = True
            self._sink.broken(error.code, str(error))
        elif self._unfinished > self._bytes_max:
            self._broken = True
            self._sink.broken(WSCloseCode.POLICY_VIOLATION, f"{self._unfinished} bytes without a whole frame")
        return False, b""

    def feed_eof(self) -> None:
        self._sink.lost()


class PushedWebSocket(web.WebSocketResponse[Any]):
    """A server's WebSocket whose frames go to `sink`. After `prepare` nothing of it is to be awaited.

    No compression is agreed to: a frame is never larger than what was read. Pings and closes are the sink's.
    """

    def __init__(self, sink: FrameSink, frame_bytes_max: int) -> None:
        super().__init__(
            autoclose=False, autoping=False, compress=False, max_msg_size=frame_bytes_max + 1, decode_text=False
        )
        self._sink = sink
        self._frame_bytes_max = frame_bytes_max

    def _post_start(self, request: web.BaseRequest, protocol: str | None, writer: WebSocketWriter) -> None:
        transport = request.transport
        if transport is None:
            raise ConnectionResetError("the agent went away during the handshake")
        loop = asyncio.get_running_loop()
        self._ws_protocol = protocol
        self._writer = writer
        self._reader = queue = _Queue(request.protocol, self._sink, loop)
        reader = WebSocketReader(queue, self._frame_bytes_max + 1, False, False)
        parser = _Parser(queue, reader, self._sink, PIECES_MAX * self._frame_bytes_max)
        self._sink.attach(transport)
        request.protocol.set_parser(parser)  # type: ignore[arg-type]
        request.protocol.keep_alive(False)


async def pull(request: web.Request, sink: FrameSink, frame_bytes_max: int) -> web.WebSocketResponse[Any]:
    """The same without the seam: aiohttp's public receive loop feeds the sink frame by frame until the end."""
    socket: web.WebSocketResponse[Any] = web.WebSocketResponse(
        autoclose=False, autoping=False, compress=False, max_msg_size=frame_bytes_max + 1, decode_text=False
    )
    await socket.prepare(request)
    transport = request.transport
    if transport is None:
        raise ConnectionResetError("the agent went away during the handshake")
    sink.attach(transport)
    try:
        while True:
            message = await socket.receive()
            if message.type in (WSMsgType.CLOSED, WSMsgType.CLOSING):
                return socket
            if message.type is WSMsgType.ERROR:
                error = message.data
                if isinstance(error, WebSocketError):
                    sink.broken(error.code, str(error))
                return socket
            sink.take([(message.type, message.data, message.extra)])
            if message.type is WSMsgType.CLOSE:
                return socket
    finally:
        sink.lost()


class _Probe:
    """A sink that only remembers."""

    def __init__(self) -> None:
        self.seen: list[Frame] = []

    def attach(self, transport: asyncio.Transport) -> None: ...

    def take(self, frames: list[Frame]) -> None:
        self.seen.extend(frames)

    def broken(self, code: int, text: str) -> None:
        self.seen.append((WSMsgType.ERROR, code, text))

    def lost(self) -> None: ...


@functools.cache
def seam_fits() -> bool:
    """Whether the installed aiohttp hands frames over as this module needs it: tried, not guessed."""
    try:
        fits = hasattr(web.WebSocketResponse, "_post_start") and _try_out()
    except (AttributeError, TypeError, ValueError):
        fits = False
    if not fits:
        log.warning("this aiohttp (%s) does not hand frames over; its slower receive loop is used", aiohttp_version)
    return fits


def _try_out() -> bool:
    """A text frame, a ping, and a frame that is too big, through the parser with our queue behind it."""
    probe = _Probe()
    queue = _Queue(_NoProtocol(), probe, asyncio.get_running_loop())
    parser = _Parser(queue, WebSocketReader(queue, 100, False, False), probe, 1_000)
    parser.feed_data(b"\x81\x82\x00\x00\x00\x00{}\x89\x80\x00\x00\x00\x00\x81\xe4")
    parser.feed_data(b"\x00\x00\x00\x00" + 100 * b" ")
    kinds = [(kind, payload) for kind, payload, _ in probe.seen]
    return kinds == [(WSMsgType.TEXT, b"{}"), (WSMsgType.PING, b""), (WSMsgType.ERROR, 1009)]


class _NoProtocol:
    """What the queue asks of a protocol, for the trial."""

    _reading_paused = False

    def pause_reading(self) -> None: ...

    def resume_reading(self) -> None: ...


# ---- frames of ours: short, whole and unmasked, as RFC 6455 has it for servers


def text_frame(payload: bytes) -> bytes:
    """One text frame."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 2**16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload


def pong_frame(payload: bytes) -> bytes:
    """The answer to a ping frame with this payload."""
    return bytes((0x8A, len(payload))) + payload


def close_frame(code: int, reason: str) -> bytes:
    """A close frame; the reason is cut to what fits."""
    text = reason.encode()[:123].decode(errors="ignore").encode()
    return bytes((0x88, 2 + len(text))) + code.to_bytes(2, "big") + text
