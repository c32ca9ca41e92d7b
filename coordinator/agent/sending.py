"""Bytes on their way to the coordinator: what is missing there alone, several files at once, from where they broke off.

Bounds are of all attempts together. A transfer is tried until it is through: a network, a restart and a full disk of
the coordinator are nobody's failure, and whoever waits stops by being cancelled. What no repetition mends is raised.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple, Protocol

import aiohttp

from coordinator import wire_data
from coordinator.agent.asking import CEILINGS_S, UNREACHABLE, Asking, Whose, refusal, retry_after_s
from coordinator.agent.backoff import Backoff
from coordinator.agent.log import logger

AT_ONCE = 4
"""Files that travel at once, over all attempts."""
ASKED_AT_ONCE = 256
"""Blobs in one question for URLs: those at its end would expire before their turn, were there more."""
PIECE_BYTES = 1 << 20
ASKED_BYTES = 1 << 20
"""From so many on the coordinator is asked before they are sent (`Expect`): while its disk is full, not one travels."""
ASKED_S = 15.0
"""Who says nothing to that for so long may not know the question: it is not asked again for that file."""
_AGAIN = (403, 404, 409, 410)
"""The URL or the upload is over: another one is asked for, unless the code says that nothing may be sent any more."""
_LATER = (408, 429, 500, 502, 503, 504, 507)
_ASK_AGAIN_CODES = ("bad_signature", "not_found", "upload_gone", "conflict", "")


class Changed(Exception):
    """The bytes are not, or no longer, those that were announced."""


class Readable(Protocol):
    """Where the bytes of a parcel are."""

    def open(self) -> int:
        """A descriptor, the caller's to close. OSError, beneath.Unsafe."""


class Parcel(NamedTuple):
    """One blob that is to be there."""

    digest: str
    size: int
    source: Readable


class Sending:
    """Shared by all attempts of one daemon."""

    def __init__(self, asking: Asking, at_once: int = AT_ONCE, draw: Callable[[], float] = random.random) -> None:
        self._asking = asking
        self._room = asyncio.Semaphore(at_once)
        self._draw = draw
        self.sent_bytes = 0
        """Handed to connections, what had to be sent again included."""

    async def send(self, whose: Whose, parcels: Sequence[Parcel]) -> int:
        """Return when all of them are there; how many bytes had to travel. Raises Stale, Refused, Changed, and what
        opening a source raises; what was sent is then kept for whoever tries again."""
        missing = {parcel.digest: parcel for parcel in parcels}
        sent, backoff = 0, Backoff(CEILINGS_S, self._draw)
        while missing:
            batch = list(missing.values())[:ASKED_AT_ONCE]
            asked = [wire_data.Wanted(digest=parcel.digest, size=parcel.size) for parcel in batch]
            targets = await self._asking.uploads(whose, asked)
            through = {target.digest for target in targets if target.present}
            todo = [(target, missing[target.digest]) for target in targets if not target.present]
            done = await _all(self._put(target, parcel) for target, parcel in todo)
            through |= {parcel.digest for (_, parcel), there in zip(todo, done, strict=True) if there}
            sent += sum(parcel.size for (_, parcel), there in zip(todo, done, strict=True) if there)
            for digest in through:
                missing.pop(digest, None)
            if through:
                backoff.reset()
            else:
                await asyncio.sleep(backoff.next_s())
        return sent

    async def _put(self, target: wire_data.UploadTarget, parcel: Parcel) -> bool:
        """Send what is missing of one. False: its URL is over."""
        async with self._room:
            fd = await _opened(parcel.source)
            try:
                return await _Transfer(self._asking, target, parcel, fd, self._count, self._draw).run()
            finally:
                os.close(fd)

    def _count(self, size: int) -> None:
        self.sent_bytes += size


async def _opened(source: Readable) -> int:
    """In a thread, which goes on when we are cancelled: what it opens then is closed."""
    opening = asyncio.get_running_loop().run_in_executor(None, source.open)
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        opening.add_done_callback(_close)
        raise


def _close(opening: asyncio.Future[int]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        os.close(opening.result())


class _Transfer:
    """One file, over as many connections as it takes."""

    def __init__(
        self,
        asking: Asking,
        target: wire_data.UploadTarget,
        parcel: Parcel,
        fd: int,
        count: Callable[[int], None],
        draw: Callable[[], float],
    ) -> None:
        self._asking = asking
        self._url = target.url
        self._parcel = parcel
        self._fd = fd
        self._count = count
        self._offset = target.offset
        self._known = True
        """What the coordinator has of it is known."""
        self._short = False
        self._asks = True
        self._question: asyncio.Timeout | None = None
        """While it is open whether the bytes may come."""
        self._backoff = Backoff(CEILINGS_S, draw)

    async def run(self) -> bool:
        """True: it is there. False: the URL is over."""
        while True:
            wait_s = 0.0
            try:
                if not self._known and not await self._look():
                    return False
                async with self._put() as response:
                    if response.status == 201:
                        return True
                    wait_s = retry_after_s(response)
                    if not await self._goes_on(response):
                        return False
            except UNREACHABLE as error:
                self._asks = self._asks and not isinstance(error, TimeoutError)
                if self._short:
                    raise Changed(f"{self._parcel.digest[:12]} is shorter than it was") from None
                self._asking.forget_certificate()
                self._known = False
                logger.debug("a transfer broke off: %s", str(error) or type(error).__name__)
            await asyncio.sleep(max(wait_s, 0.0 if self._known else self._backoff.next_s()))

    @asynccontextmanager
    async def _put(self) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send what is missing. TimeoutError: the question whether it may be sent was not answered."""
        asks = self._asks and self._parcel.size - self._offset >= ASKED_BYTES
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(ASKED_S if asks else None) as self._question:
                    sent = self._asking.signed(
                        "PUT", self._url, headers=self._headers(), data=self._pieces(self._offset), asks=asks
                    )
                    response = await stack.enter_async_context(sent)
            finally:
                self._question = None
            yield response

    async def _goes_on(self, response: aiohttp.ClientResponse) -> bool:
        """Whether this URL is still good, after an answer that is not the last."""
        if response.status == 202 or (response.status == 409 and "Upload-Offset" in response.headers):
            self._learn(response.headers)
            return True
        if response.status in _LATER:
            self._known = False
            return True
        refused = await refusal(response)
        if response.status == 422:
            raise Changed(refused.detail or "the coordinator found other bytes than were announced")
        if response.status in _AGAIN and refused.code in _ASK_AGAIN_CODES:
            return False
        raise refused

    async def _look(self) -> bool:
        """Ask how much of it arrived. False: the URL is over."""
        async with self._asking.signed("HEAD", self._url) as response:
            if response.status in _LATER:
                raise aiohttp.ClientConnectionError(f"HTTP {response.status}")
            if "Upload-Offset" not in response.headers:
                return False
            self._learn(response.headers)
            return True

    def _learn(self, headers: Mapping[str, str]) -> None:
        text = headers.get("Upload-Offset", "")
        offset = min(int(text), self._parcel.size) if text.isdecimal() and len(text) < 20 else 0
        if offset > self._offset:
            self._backoff.reset()
        self._offset, self._known = offset, True

    def _headers(self) -> dict[str, str]:
        size, offset = self._parcel.size, self._offset
        headers = {"Content-Length": str(size - offset), "Content-Type": "application/octet-stream"}
        if offset >= size > 0:
            headers["Content-Range"] = f"bytes */{size}"
        elif offset:
            headers["Content-Range"] = f"bytes {offset}-{size - 1}/{size}"
        return headers

    async def _pieces(self, offset: int) -> AsyncIterator[bytes]:
        if self._question is not None:
            self._question.reschedule(None)
        while offset < self._parcel.size:
            piece = await asyncio.to_thread(os.pread, self._fd, min(PIECE_BYTES, self._parcel.size - offset), offset)
            if not piece:
                self._short = True
                raise aiohttp.ClientPayloadError("the file ends before its time")
            self._count(len(piece))
            yield piece
            offset += len(piece)


async def _all(works: Iterable[Coroutine[Any, Any, bool]]) -> list[bool]:
    """The results of all, in their order. The first failure ends the others, and is raised itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in works]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None
    return [task.result() for task in tasks]
