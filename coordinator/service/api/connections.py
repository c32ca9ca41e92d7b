"""What answers bytes that are no HTTP at all: the same problem+json, the same headers, and one quiet log line.

aiohttp's own answer there is plain text that names its version and repeats the bytes, with a stack trace
in the log for each. A connection that never completes a request is closed by its keep-alive timeout.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from typing import Any

from aiohttp import web

from coordinator.core.errors import Code, CoordError
from coordinator.service.api.problems import SECURITY_HEADERS, refusal

log = logging.getLogger("coord.api")

RESERVED_FILES = 256
DROP_S = 0.01


class Connection(web.RequestHandler):
    """One HTTP connection."""

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what the parser or the server itself could not deal with; the connection is closed."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer was under way already")
        if status >= 500:
            log.error("a request failed outside its handler", exc_info=exc)
            told = CoordError(Code.INTERNAL, "the coordinator failed to answer; its log tells why", "report it")
        else:
            log.info("not HTTP, from %s: %s", request.remote, type(exc).__name__)
            told = CoordError(Code.BAD_REQUEST, "this is no HTTP request that can be understood", "speak HTTP/1.1")
        response = refusal(told, headers=SECURITY_HEADERS)
        response.force_close()
        return response


def connections_max(files_max: int) -> int:
    """How many connections a process with so many files may hold; the rest is for databases, segments and children."""
    return files_max - min(RESERVED_FILES, files_max // 2)


class _Server(web.Server):
    def __init__(self, plain: web.Server, settings: dict[str, Any]) -> None:
        super().__init__(plain.request_handler, request_factory=plain.request_factory)
        self._settings = settings
        self._open = 0
        self._open_max = connections_max(resource.getrlimit(resource.RLIMIT_NOFILE)[0])

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        """Take it, or drop it where files would run out: sockets of strangers must not keep us from our disk."""
        super().connection_made(handler, transport)
        self._open += 1
        if self._open > self._open_max:
            # Not at once: aiohttp's task of the connection has to have begun, or its failure is logged for each.
            asyncio.get_running_loop().call_later(DROP_S, transport.abort)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        self._open -= 1

    def __call__(self) -> web.RequestHandler:
        return Connection(self, loop=self._loop, **self._settings)


class ApiRunner(web.AppRunner):
    """web.AppRunner whose connections are ours; takes the same arguments.

    Bodies are not unpacked by aiohttp: it would do so in the loop, without a bound, and for strangers too, whose
    bodies nobody reads (a megabyte of gzip holds the loop for two seconds).
    """

    def __init__(self, app: web.Application, *, shutdown_timeout: float = 60.0, **settings: Any) -> None:
        settings["auto_decompress"] = False
        super().__init__(app, shutdown_timeout=shutdown_timeout, **settings)
        self._settings = settings

    async def _make_server(self) -> web.Server:
        return _Server(await super()._make_server(), self._settings)
