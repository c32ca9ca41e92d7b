"""The body of a PUT into the file of its upload: streamed, paced, metered. What arrived stays, however it ends."""

from __future__ import annotations

import asyncio

from aiohttp import StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from coordinator.core.data.rows import UploadRow
from coordinator.core.errors import Code, CoordError
from coordinator.ports.blobs import BlobStore
from coordinator.service.data.gate import Gate
from coordinator.service.data.meters import Meters
from coordinator.service.data.patience import Patience
from coordinator.service.data.settings import DataSettings

_CUT_SHORT = (web.RequestPayloadError, HttpProcessingError, ConnectionError)


class Receiver:
    """Memory: `receive_bytes` that are gathered, as many that the disk has, and what the socket hands over."""

    def __init__(self, blobs: BlobStore, gate: Gate, meters: Meters, settings: DataSettings) -> None:
        self._blobs = blobs
        self._gate = gate
        self._meters = meters
        self._settings = settings
        self.cut_slow = 0

    async def take(self, body: StreamReader, upload: UploadRow, offset: int) -> int:
        """Append `body` to what arrived before, `offset` bytes. -> where it ends now.

        CoordError: TOO_LARGE beyond the upload's size, TIMEOUT for one that is too slow, BAD_REQUEST when the
        connection broke, TOO_FAST, STORE_FULL. After any of these what arrived is stored, as far as there was room.
        """
        body.set_read_chunk_size(self._settings.receive_bytes // 2)  # else reading stops and starts with every piece
        inflow = _Inflow(self._blobs, self._gate, upload, offset)
        loop = asyncio.get_running_loop()
        patience = Patience(self._settings.stall_s, self._settings.rate_min_bytes_per_s, loop.time())
        try:
            async with asyncio.timeout_at(patience.until_s) as clock:
                while chunk := await body.readany():
                    self._meters.received(upload.tenant, upload.upload_id, len(chunk))
                    inflow.add(chunk)
                    until_s = patience.moved(len(chunk), loop.time())
                    if inflow.gathered >= self._settings.receive_bytes:
                        clock.reschedule(None)
                        await inflow.store()
                        until_s = patience.held_up(loop.time())
                    clock.reschedule(until_s)
        except TimeoutError:
            if not clock.expired():
                raise
            self.cut_slow += 1
            await inflow.settle()
            raise CoordError(
                Code.TIMEOUT,
                f"the body came more slowly than {self._settings.rate_min_bytes_per_s} bytes a second",
                "go on behind what arrived: HEAD of this URL tells Upload-Offset",
            ) from None
        except _CUT_SHORT as error:
            await inflow.settle()
            raise CoordError(
                Code.BAD_REQUEST,
                "the body ended before its time",
                "go on behind what arrived: Upload-Offset tells where",
            ) from error
        except BaseException:
            await inflow.settle()
            raise
        await inflow.store()
        return await inflow.stored()


class _Inflow:
    """Bytes of one body on their way to the disk: one piece is written while the next one is gathered."""

    def __init__(self, blobs: BlobStore, gate: Gate, upload: UploadRow, offset: int) -> None:
        self._blobs = blobs
        self._gate = gate
        self._upload = upload
        self._end = offset
        """Where the disk's part ends, with the piece that is being written."""
        self._pieces: list[bytes] = []
        self._writing: asyncio.Future[int] | None = None
        self.gathered = 0

    def add(self, chunk: bytes) -> None:
        if self._end + self.gathered + len(chunk) > self._upload.size:
            raise CoordError(
                Code.TOO_LARGE, f"more came than the {self._upload.size} bytes announced", "announce what will be sent"
            )
        self._pieces.append(chunk)
        self.gathered += len(chunk)

    async def store(self) -> None:
        """Hand over what was gathered, when the piece before it is on the disk."""
        if not self.gathered:
            return
        pieces, size = self._pieces, self.gathered
        self._pieces, self.gathered = [], 0
        await self._gate.ingress(self._upload.tenant, self._upload.upload_id, size)
        try:
            await self.stored()
        except asyncio.CancelledError:
            self._pieces, self.gathered = pieces, size
            raise
        self._writing = asyncio.ensure_future(self._blobs.write(self._upload.upload_id, self._end, pieces))
        self._end += size

    async def stored(self) -> int:
        """Wait for the disk. -> where its part ends."""
        if self._writing is not None:
            self._end = await asyncio.shield(self._writing)
            self._writing = None
        return self._end

    async def settle(self) -> None:
        """It ends here: bring what arrived to the disk, unless that is what failed."""
        try:
            await self.stored()
            await self.store()
            await self.stored()
        except CoordError:
            self._pieces, self.gathered = [], 0
