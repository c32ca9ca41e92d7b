"""Bodies that a handler takes as they come: asked for when they may come, and let go of soon when they may not.

Who sends `Expect: 100-continue` is told to go on by the handler, behind every check that needs no byte. Who does not
ask sends anyhow: a refusal is then answered at once, some of what is still coming is thrown away, so that the answer is
read before the connection breaks, and the rest is not taken.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress

from aiohttp import HttpVersion11, web
from aiohttp.http_exceptions import HttpProcessingError

from coordinator.core.errors import Code, CoordError

KEPT_BYTES = 256 * 1024
"""What is left of a body that is smaller is read to its end: the connection is worth more."""
LINGER_BYTES = 4 * 1024 * 1024
LINGER_S = 1.0
"""What is thrown away, and how long, of a body that is not."""
_ASKED = web.RequestKey("asked to go on", bool)


async def put_off(_request: web.Request) -> None:
    """In the place of aiohttp's answer to `Expect`: nothing yet."""


def check_expect(request: web.Request) -> None:
    """CoordError for what else might be expected."""
    if request.headers.get("Expect", "100-continue").lower() != "100-continue":
        raise CoordError(Code.BAD_REQUEST, "only `Expect: 100-continue` is understood", "leave Expect away")


async def go_on(request: web.Request) -> None:
    """The body may come: say so to who waits for that."""
    if _waits(request):
        request[_ASKED] = True
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0  # the answer has not begun


async def let_go(request: web.Request, response: web.StreamResponse) -> None:
    """Send `response` to a request whose body was not read to its end, and be rid of that body."""
    body = request.content
    waits = _waits(request)
    if body.is_eof() or (not waits and (request.content_length or LINGER_BYTES) <= KEPT_BYTES):
        return
    response.force_close()
    await response.prepare(request)
    await response.write_eof()
    if not waits:
        left = LINGER_BYTES
        with suppress(TimeoutError, ConnectionError, web.RequestPayloadError, HttpProcessingError):
            async with asyncio.timeout(LINGER_S):
                while left > 0 and not body.at_eof():
                    left -= len(await body.readany())
    request.protocol.force_close()


def _waits(request: web.Request) -> bool:
    """Whether its sender holds the body back until it is asked for it."""
    return "Expect" in request.headers and request.version == HttpVersion11 and not request.get(_ASKED, False)
