"""What this agent asks the coordinator over HTTP for attempts that it holds: `wire_data`, with its own credential.

One client for all attempts. A question is repeated until it is answered: the network, a restart and a full disk of the
coordinator are nobody's failure, and whoever asked stops waiting by being cancelled. An answer that no repetition
changes is raised: `Stale`, when the attempt is not ours any more, else `Refused`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, TypeVar

import aiohttp
import msgspec
from msgspec import Struct
from yarl import URL

from coordinator import wire, wire_data, wire_traces
from coordinator.agent.backoff import Backoff
from coordinator.agent.clock import boot_s
from coordinator.agent.log import logger, printable
from coordinator.agent.tls import Endpoint, PinMismatch, Trust
from coordinator.core.errors import Code
from coordinator.core.rows import LeaseToken

CONNECT_S = 10.0
SILENT_S = 60.0
"""A connection that brings nothing for so long is given up: signs of life are asked for by asking again."""
CEILINGS_S = (0.5, 1.0, 2.0, 4.0, 8.0)
"""The n-th wait before a question is asked again is drawn from 0 to the n-th of these."""
RETRY_AFTER_MAX_S = 60.0
CONNECTIONS_MAX = 32
"""To the coordinator at once, over all attempts; transfers have bounds of their own below this."""
READ_BYTES = 128 * 1024
"""That a connection reads ahead, up to twice so much: when it breaks, that is lost, and travels again."""
ANSWER_BYTES_MAX = 16 << 20
"""Of an answer: URLs for a checkpoint's 4,200 files are 2 MB."""
PROBLEM_BYTES_MAX = 64 * 1024
UNREACHABLE = (aiohttp.ClientError, OSError, TimeoutError, PinMismatch)
"""What a network does, and asking again may mend."""
PASSING = (408, 429, 500, 502, 503, 504, 507)

A = TypeVar("A")


class Refused(Exception):
    """The coordinator will not, whenever it is asked."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail or f"{code} (HTTP {status})")
        self.status = status
        self.code = code
        self.detail = detail


class Stale(Refused):
    """The attempt is not ours any more: whatever is done for it is to stop."""


class Problem(Struct):
    """What is read of a problem+json."""

    detail: str = ""
    code: str = ""
    hint: str = ""


class Whose(NamedTuple):
    """For which rank of which attempt, under which token."""

    attempt: str
    rank: int
    token: LeaseToken


class Asking:
    """Used by one daemon. Questions wait until `aim` has said where the coordinator is."""

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._http: aiohttp.ClientSession | None = None
        self._where: tuple[Endpoint, Trust, str] | None = None
        self._aimed = asyncio.Event()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Have connections while the block runs."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S, sock_read=SILENT_S)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS_MAX)
        # a blob's bytes are what its digest says: whoever packs them on the way only costs us
        async with aiohttp.ClientSession(
            timeout=timeout, connector=connector, read_bufsize=READ_BYTES, auto_decompress=False
        ) as http:
            self._http = http
            try:
                yield
            finally:
                self._http = None

    def aim(self, endpoint: Endpoint, trust: Trust, credential: str) -> None:
        """From now on the coordinator is there."""
        self._where = endpoint, trust, credential
        self._aimed.set()

    # ---- questions

    async def staging(self, whose: Whose) -> wire_data.StagingAnswer:
        """What the attempt needs, and where each of it is."""
        return await self._ask(
            whose,
            "staging",
            wire_data.StagingRequest(rank=whose.rank, token=whose.token),
            wire_data.StagingAnswer,
        )

    async def urls(self, whose: Whose, digests: Sequence[str]) -> dict[str, str]:
        """Fresh URLs of these; what is not there is left out."""
        asked = wire_data.UrlsRequest(rank=whose.rank, token=whose.token, digests=tuple(digests))
        return (await self._ask(whose, "urls", asked, wire_data.UrlsAnswer)).urls

    async def uploads(self, whose: Whose, blobs: Sequence[wire_data.Wanted]) -> tuple[wire_data.UploadTarget, ...]:
        """Where to send each of these, in their order."""
        asked = wire_data.UploadsRequest(rank=whose.rank, token=whose.token, blobs=tuple(blobs))
        return (await self._ask(whose, "uploads", asked, wire_data.UploadsAnswer)).uploads

    async def outputs(
        self, whose: Whose, files: Sequence[wire_data.File], exit: wire.Exit, cached: Sequence[str] = ()
    ) -> bool:
        """Publish the result with the end; of `cached` ones a copy is here. Whether it was there already."""
        asked = wire_data.OutputsRequest(
            rank=whose.rank, token=whose.token, files=tuple(files), exit=exit, cached=tuple(cached)
        )
        return (await self._ask(whose, "outputs", asked, wire_data.OutputsAnswer)).repeated

    async def checkpoint(self, whose: Whose, taken: wire_data.CheckpointRequest) -> wire_data.CheckpointAnswer:
        """`taken.age_ms` is as of now. It grows while the coordinator cannot be asked, or what was done meanwhile would
        count as saved."""
        since_s = boot_s()

        def aged() -> wire_data.CheckpointRequest:
            return msgspec.structs.replace(taken, age_ms=taken.age_ms + int((boot_s() - since_s) * 1000))

        return await self._ask(whose, "checkpoints", aged, wire_data.CheckpointAnswer)

    async def restored(self, whose: Whose, number: int) -> None:
        """Say that the program starts from this checkpoint."""
        asked = wire_data.RestoredRequest(rank=whose.rank, token=whose.token, number=number)
        await self._ask(whose, "restored", asked, None)

    async def damaged(self, whose: Whose, number: int, why: str, digests: Sequence[str] = ()) -> None:
        """Say that this checkpoint cannot be restored (0: of none), or that these blobs are not what they should be."""
        asked = wire_data.DamagedRequest(
            rank=whose.rank, token=whose.token, number=number, why=printable(why)[:500], digests=tuple(digests)
        )
        await self._ask(whose, "damaged", asked, None)

    async def traces(self, body: bytes) -> wire_traces.TracePartsAnswer:
        """Hand over what attempts traced."""
        return await self._post(
            wire_traces.PATH, lambda: body, wire_traces.TracePartsAnswer, "traces", wire_traces.CONTENT_TYPE
        )

    async def _ask(self, whose: Whose, what: str, asked: Struct | Callable[[], Struct], answer: type[A] | None) -> A:
        """`asked` that is a function is called for each try."""

        def body() -> bytes:
            return msgspec.json.encode(asked if isinstance(asked, Struct) else asked())

        return await self._post(f"/v1/attempts/{whose.attempt}/{what}", body, answer, f"{what} of {whose.attempt}")

    async def _post(
        self,
        path: str,
        body_now: Callable[[], bytes],
        answer: type[A] | None,
        named: str,
        content_type: str = "application/json",
    ) -> A:
        """Until it is answered."""
        await self._aimed.wait()
        assert self._where is not None
        endpoint, _, credential = self._where
        url = endpoint.url(path)
        headers = {"Authorization": f"Bearer {credential}", "Content-Type": content_type}
        backoff = Backoff(CEILINGS_S, self._draw)
        while True:
            body = body_now()
            try:
                async with self._request("POST", url, headers=headers, data=body) as response:
                    if response.status < 300:
                        data = await read_bounded(response, ANSWER_BYTES_MAX)
                        return msgspec.json.decode(data, type=answer) if answer is not None else None  # type: ignore[return-value]
                    wait_s, why = retry_after_s(response), f"HTTP {response.status}"
                    if response.status not in PASSING:
                        raise await refusal(response)
            except UNREACHABLE as error:
                self.forget_certificate()
                wait_s, why = 0.0, str(error) or type(error).__name__
            except msgspec.DecodeError as error:
                wait_s, why = 0.0, f"the answer was not understood: {error}"
            wait_s = max(wait_s, backoff.next_s())
            logger.debug("%s: asked again in %.1f s: %s", named, wait_s, why)
            await asyncio.sleep(wait_s)

    # ---- bytes

    @asynccontextmanager
    async def signed(
        self, method: str, url: str, *, headers: Mapping[str, str] = {}, data: Any = None, asks: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """One request, once, to a signed URL as an answer named it. Raises UNREACHABLE; any status is returned.

        `asks`: `data` is sent when the other side says that it may come; how long that takes is the caller's to bound.
        """
        await self._aimed.wait()
        assert self._where is not None
        endpoint = self._where[0]
        async with self._request(
            method, endpoint.url(url) if url.startswith("/") else url, headers=headers, data=data, asks=asks
        ) as response:
            yield response

    def forget_certificate(self) -> None:
        """A connection failed: the certificate may have been renewed."""
        if self._where is not None:
            self._where[1].forget_certificate()

    @asynccontextmanager
    async def _request(
        self, method: str, url: str, *, headers: Mapping[str, str], data: Any, asks: bool = False
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        assert self._http is not None
        assert self._where is not None
        endpoint, trust, _ = self._where
        ours = url.startswith(endpoint.url("/"))
        async with self._http.request(
            method,
            URL(url, encoded=True),  # as it was signed
            headers={"Accept-Encoding": "identity", **headers},
            data=data,
            expect100=asks,
            ssl=await trust.for_aiohttp() if ours else True,
            allow_redirects=False,
        ) as response:
            yield response


async def read_bounded(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """The body. aiohttp.ClientPayloadError when it is longer than `limit`."""
    data = bytearray()
    async for part in response.content.iter_any():
        data += part
        if len(data) > limit:
            response.close()
            raise aiohttp.ClientPayloadError(f"the answer is longer than {limit} bytes")
    return bytes(data)


def retry_after_s(response: aiohttp.ClientResponse) -> float:
    """How long the coordinator wants to be left alone; 0: it does not say."""
    text = response.headers.get("Retry-After", "")
    return min(float(text), RETRY_AFTER_MAX_S) if text.isdecimal() else 0.0


async def refusal(response: aiohttp.ClientResponse) -> Refused:
    """What an answer that is no success says."""
    problem = Problem()
    try:
        problem = msgspec.json.decode(await read_bounded(response, PROBLEM_BYTES_MAX), type=Problem)
    except (*UNREACHABLE, msgspec.DecodeError):
        logger.debug("HTTP %d came without a reason that can be read", response.status)
    kind = Stale if problem.code == Code.STALE_TOKEN else Refused
    return kind(response.status, problem.code, problem.detail)
