"""Blobs from the coordinator into the cache: each once, several at a time, verified while they are written.

A connection that breaks is taken up where it ended; so is what an earlier daemon left half done. A blob that two
attempts want is fetched by one of them while the other waits; if the one gives up, the other goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import aiohttp
from blake3 import blake3

from coordinator.agent import heavy
from coordinator.agent.asking import CEILINGS_S, PASSING, UNREACHABLE, Asking, Refused, Whose, refusal, retry_after_s
from coordinator.agent.backoff import Backoff
from coordinator.agent.beneath import Unsafe
from coordinator.agent.cache import BlobKey, Cache, NoRoom, free_bytes, is_intact
from coordinator.agent.log import logger
from coordinator.agent.parts import DiskFailed, Part
from coordinator.agent.sending import Readable
from coordinator.agent.stillness import Motion

THREADS = 4
"""That write, compare and copy. The disk is the bound, not they."""
GATHER_BYTES = 1 << 20
"""Written at a time: a hop into a thread costs 0.1 ms."""
HOLD_BYTES = 8 * GATHER_BYTES
"""That wait for a slow disk; then the network waits, too."""
TRIES_MAX = 2
"""Of a blob that came whole and was not what its digest says."""
URLS_MAX = 4
"""Fresh URLs in a row that are refused without a byte."""
TURN_S = 1.0
"""Whoever waits for a transfer to end says every so often that it does."""
BARREN_MAX = 8
"""Answers in a row that bring no byte. Nobody who cannot be reached counts: that may last, and passes."""
_REFUSED = (401, 403, 404, 410)
"""Of a signed URL: it has expired, or what it names is gone. A fresh one is asked for, which tells."""
_HEX64 = re.compile(r"[0-9a-f]{64}")
T = TypeVar("T")


class Gone(Exception):
    """The coordinator does not have it any more."""


class Damaged(Exception):
    """What the coordinator has under this digest is something else."""


class Barren(Exception):
    """Answers come, and break off at the same byte again and again: of the way here or of the blob, nobody can tell."""


class Blob(NamedTuple):
    """What is wanted, and where it was said to be; `url` may be empty: then it is asked for."""

    digest: str
    size: int
    url: str = ""


class _Lock:
    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.users: list[Motion] = []
        """Of those who want it: what one of them fetches moves for all."""


class Fetcher:
    """All fetches of one daemon. `at_once`: transfers at a time, over all attempts."""

    def __init__(self, asking: Asking, cache: Cache, at_once: int, draw: Callable[[], float] = random.random) -> None:
        self.cache = cache
        self.fetched_bytes = 0
        """That came over the network since this daemon began, twice where they came twice."""
        self._asking = asking
        self._slots = asyncio.Semaphore(at_once)
        self._draw = draw
        self._locks: dict[BlobKey, _Lock] = {}
        self._threads = ThreadPoolExecutor(THREADS, "staging")

    def close(self) -> None:
        """Whoever used it has ended."""
        self._threads.shutdown(wait=False)

    @asynccontextmanager
    async def having(self, tenant: str, blob: Blob, whose: Whose, motion: Motion) -> AsyncIterator[Path]:
        """The file with these bytes, verified, which stays while the block runs and must not be changed.

        Waits for the network as long as it takes, and tells `motion` of every byte. Raises NoRoom, Gone, Damaged,
        Barren, DiskFailed, Stale, Refused.
        """
        if not _HEX64.fullmatch(blob.digest):
            raise Damaged(f"{blob.digest[:80]!a} is no digest")
        key = tenant, blob.digest
        with contextlib.ExitStack() as stack:
            async with self._alone(key, motion):
                if not await self._is_here(key, blob.size):
                    await self._fetch(key, blob, whose)
                stack.enter_context(self.cache.pinned(key))
            yield self.cache.path(key)

    async def adopt(self, tenant: str, blob: Blob, source: Readable) -> bool:
        """Have a copy of a file that lies here, verified, if there is room for it at once. Whether it is there.

        Nobody is waited for, and nothing that goes wrong is anybody's failure: who wants it fetches it then.
        """
        key = tenant, blob.digest
        if key in self._locks or self.cache.is_going(key):
            return False
        async with self._alone(key, Motion()):
            if self.cache.has(key):
                with self.cache.pinned(key):
                    return True
            if not await self.cache.promise_at_once(blob.size):
                return False
            self.cache.forget(key)
            part, placed = Part(self.cache.part(key), self.cache.path(key), blob.digest), False
            try:
                placed = await heavy.by_turns(_copied(part, blob.size, source))
            except (DiskFailed, OSError, Unsafe) as error:
                logger.info("%s is not kept for later steps: %s", blob.digest, error)
            finally:
                self.cache.keep(blob.size)
                if placed:
                    self.cache.put(key, blob.size, whole=True)
        return placed

    async def read(self, blob: Blob, whose: Whose) -> bytes:
        """A small one, verified, past the cache: no more than `blob.size` bytes. Raises like `having`."""
        data = bytearray()

        async def take(response: aiohttp.ClientResponse) -> bool:
            data.clear()
            async for part in response.content.iter_any():
                data.extend(part)
                if len(data) > blob.size:
                    raise Damaged(f"{blob.digest} has more than {blob.size} bytes")
            return True

        for _ in range(TRIES_MAX):
            await self._transfer(blob, whose, lambda: 0, take)
            self.fetched_bytes += len(data)
            if blake3(data).hexdigest() == blob.digest:
                return bytes(data)
        raise await self._is_damaged(blob, whose)

    async def in_thread(self, work: Callable[[], T], stop: Callable[[], None] = lambda: None) -> T:
        """`work` in a thread of ours. It is waited for even by a caller that is cancelled, and told to `stop` then:
        nothing of it goes on."""
        return await self._ended(self._begun(work), stop)

    def _begun(self, work: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, work)

    @staticmethod
    async def _ended(future: asyncio.Future[T], stop: Callable[[], None] = lambda: None) -> T:
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            stop()
            await asyncio.wait({future})
            with contextlib.suppress(BaseException):
                future.result()  # nobody is left whom it concerns
            raise

    # ---- one at a time

    @asynccontextmanager
    async def _alone(self, key: BlobKey, motion: Motion) -> AsyncIterator[None]:
        found = self._locks.setdefault(key, _Lock())
        found.users.append(motion)
        try:
            async with found.lock:
                yield
        finally:
            found.users.remove(motion)
            if not found.users:
                del self._locks[key]

    async def _is_here(self, key: BlobKey, size: int) -> bool:
        if not self.cache.has(key):
            return False
        with self.cache.pinned(key):
            good = await self.in_thread(partial(is_intact, self.cache.path(key), key[1], size))
        if not good:
            self.cache.forget(key)
        return good

    # ---- over the network

    async def _fetch(self, key: BlobKey, blob: Blob, whose: Whose) -> None:
        """Have it whole and in its place. What came stays in the book when this is cut short."""
        await self.cache.gone(key)
        self.cache.forget(key)  # what there is of it is ours now, and nobody makes room of it
        part = Part(self.cache.part(key), self.cache.path(key), blob.digest)
        promised = placed = False
        try:
            await self.in_thread(part.begin)
            await self.cache.promise(blob.size, part.length)
            promised = True
            await self._bring(part, blob, whose, self._locks[key].users)
            placed = True
        except DiskFailed as failed:
            if failed.full:
                free = await asyncio.to_thread(free_bytes, self.cache.root)
                raise NoRoom(blob.size - part.length, free, self.cache.root) from None
            raise
        finally:
            try:
                await self.in_thread(part.close)
            finally:
                if promised:
                    self.cache.keep(blob.size)
                if placed or part.length:
                    self.cache.put(key, part.length, whole=placed)

    async def _bring(self, part: Part, blob: Blob, whose: Whose, users: Sequence[Motion]) -> None:
        for _ in range(TRIES_MAX):
            if part.length > blob.size:
                await self.in_thread(part.restart)
            if part.length < blob.size:
                receive = partial(self._receive, part, blob.size, users)
                await self._transfer(blob, whose, lambda: part.length, receive, users)
            if await self.in_thread(part.place):
                return
            logger.warning("what came as %s is something else", blob.digest)
            await self.in_thread(part.restart)
        raise await self._is_damaged(blob, whose)

    async def _is_damaged(self, blob: Blob, whose: Whose) -> Damaged:
        """Told to the coordinator, which looks at it and takes it anew from whoever has it."""
        why = f"what the coordinator has as {blob.digest} is something else: coord db check"
        with contextlib.suppress(Refused):
            await self._asking.damaged(whose, 0, why, [blob.digest])
        return Damaged(why)

    async def _receive(self, part: Part, size: int, users: Sequence[Motion], response: aiohttp.ClientResponse) -> bool:
        """Into the file; also what came before a break. Whether that is all.

        Reading goes on while a piece is written: what lies in a connection's buffer when it breaks is lost, and would
        travel again.
        """
        if response.status == 200 and part.length:
            await self.in_thread(part.restart)  # whoever answers knows no ranges
        gathered: list[bytes] = []
        left, waiting = size - part.length, 0
        writing: asyncio.Future[None] | None = None
        try:
            async for data in response.content.iter_any():
                self.fetched_bytes += len(data)
                for motion in users:
                    motion.moved()
                gathered.append(data[:left])
                left -= len(gathered[-1])
                waiting += len(gathered[-1])
                if len(data) > len(gathered[-1]):
                    response.close()  # more than was announced: the digest will tell
                    break
                if waiting < GATHER_BYTES or (writing is not None and not writing.done() and waiting < HOLD_BYTES):
                    continue
                if writing is not None:
                    await self._ended(writing)
                pieces, gathered, waiting = gathered, [], 0
                writing = self._begun(partial(part.write, pieces))
        finally:
            if writing is not None:
                await self._ended(writing)
            if gathered:
                await self.in_thread(partial(part.write, gathered))
        return part.length >= size

    async def _transfer(
        self,
        blob: Blob,
        whose: Whose,
        at: Callable[[], int],
        take: Callable[[aiohttp.ClientResponse], Awaitable[bool]],
        users: Sequence[Motion] = (),
    ) -> None:
        """Have `take` read answers that begin with byte `at()`, until it says that it has everything."""
        url, refused, barren, backoff = blob.url, 0, 0, Backoff(CEILINGS_S, self._draw)
        while True:
            before, wait_s, why = at(), 0.0, "it broke off"
            if not url:
                url = await self._fresh_url(blob, whose)
            try:
                async with self._turn(users), self._asking.signed("GET", url, headers=_range(before, blob)) as response:
                    if _brings(response, before):
                        barren += 1
                        if await take(response):
                            return
                    elif response.status in PASSING:
                        wait_s, why = retry_after_s(response), f"HTTP {response.status}"
                    elif response.status in _REFUSED and refused < URLS_MAX:
                        url, why, refused = "", f"HTTP {response.status}", refused + 1
                    else:
                        raise await refusal(response)
            except aiohttp.InvalidURL:  # its text would be the URL, which is a secret
                raise Refused(0, "bad_url", f"{blob.digest} was said to be at what is no URL") from None
            except UNREACHABLE as error:
                self._asking.forget_certificate()
                why = str(error) or type(error).__name__
            if at() > before:
                backoff.reset()
                refused = barren = 0
            elif barren >= BARREN_MAX:
                raise Barren(f"{blob.digest} breaks off at byte {at()} every time: {why}")
            wait_s = max(wait_s, backoff.next_s())
            logger.debug("%s goes on at byte %d in %.1f s: %s", blob.digest, at(), wait_s, why)
            await asyncio.sleep(wait_s)

    @asynccontextmanager
    async def _turn(self, users: Sequence[Motion]) -> AsyncIterator[None]:
        """One of the transfers that may go on at a time. Who waits for that does not stand still: those before it do,
        and are given up then."""
        while True:
            try:
                async with asyncio.timeout(TURN_S):
                    await self._slots.acquire()
                break
            except TimeoutError:
                for motion in users:
                    motion.moved()
        try:
            yield
        finally:
            self._slots.release()

    async def _fresh_url(self, blob: Blob, whose: Whose) -> str:
        try:
            url = (await self._asking.urls(whose, [blob.digest])).get(blob.digest)
        except Refused as error:
            if error.status != 404:
                raise
            url = None
        if url is None:
            raise Gone(f"the coordinator has no {blob.digest} any more")
        return url


def _copied(part: Part, size: int, source: Readable) -> Generator[None, None, bool]:
    """Whether it lies in its place. Else nothing of it is left."""
    placed = False
    try:
        part.begin(anew=True)
        fd = source.open()
        try:
            placed = (yield from part.copying(fd, size)) and part.place()
        finally:
            os.close(fd)
    finally:
        if not placed:
            part.drop()
        part.close()
    return placed


def _range(at: int, blob: Blob) -> dict[str, str]:
    return {"Range": f"bytes={at}-", "If-Range": f'"{blob.digest}"'} if at else {}


def _brings(response: aiohttp.ClientResponse, at: int) -> bool:
    """Whether its body is the blob, from byte `at` or from the first one on."""
    if response.status == 206:
        return response.headers.get("Content-Range", "").startswith(f"bytes {at}-")
    return response.status == 200
