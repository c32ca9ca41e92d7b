"""From an upload that is complete to a blob that counts: verified, durable under its digest, then one row.

The digest's lock is held from before the bytes come to lie there until the row is durable or they are gone again. A
crash in between leaves bytes that no row names, which the next start removes, and the upload open.
"""

from __future__ import annotations

import os
from collections import OrderedDict

from coordinator.core.data.events import UploadDone, UploadDrop
from coordinator.core.data.rows import BlobRow, UploadRow
from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Digest, UploadId
from coordinator.ports.blobs import BlobStore
from coordinator.ports.store import Store
from coordinator.service.data.gate import Gate
from coordinator.service.data.locks import UNKNOWN, BlobLocks
from coordinator.service.data.soundness import Soundness
from coordinator.service.engine import Engine

PLACED_MAX = 10_000


class Publisher:
    """Publishes uploads, and drops those that are not what was announced."""

    def __init__(
        self,
        engine: Engine,
        store: Store,
        blobs: BlobStore,
        locks: BlobLocks,
        gate: Gate,
        soundness: Soundness,
    ) -> None:
        self._engine = engine
        self._store = store
        self._blobs = blobs
        self._locks = locks
        self._gate = gate
        self._soundness = soundness
        self._placed: OrderedDict[UploadId, tuple[str, str, int]] = OrderedDict()
        """Uploads whose bytes lie under their digest, and have no row: asking again publishes them. Bound: PLACED_MAX;
        of one that is forgotten the bytes are sent again."""
        self.published = 0
        """Since the start."""

    async def arrived(self, upload: UploadRow) -> int:
        """How many bytes of it are there: all of them also where only the row is missing, since a full disk refused it
        or we were killed before it was durable. What lies under a digest was verified before it came to lie there; an
        upload that mends it brings all of it anew."""
        if upload.upload_id in self._placed:
            return upload.size
        offset = await self._blobs.begin(upload.upload_id, upload.size)
        if offset or upload.mends or not upload.digest or upload.sha256:
            return offset
        if not self._soundness.is_trusted(upload.tenant, upload.digest):
            return offset
        if not await self._lies_there(upload, upload.digest):
            return offset
        self._place(upload.upload_id, (upload.digest, "", upload.size))
        return upload.size

    async def _lies_there(self, upload: UploadRow, digest: str) -> bool:
        try:
            file, size = await self._blobs.open_blob(upload.tenant, digest)
        except CoordError as error:
            if error.code is Code.NOT_FOUND:
                return False
            raise
        os.close(file)
        return size == upload.size

    def is_placed(self, upload_id: UploadId) -> bool:
        """Whether all of its bytes are verified, and only the row is missing."""
        return upload_id in self._placed

    def _place(self, upload_id: UploadId, found: tuple[str, str, int]) -> None:
        self._placed[upload_id] = found
        if len(self._placed) > PLACED_MAX:
            self._placed.popitem(last=False)

    async def publish(self, upload: UploadRow) -> BlobRow:
        """CoordError: BAD_DIGEST (it is dropped then), UPLOAD_GONE, STORE_FULL (asked again, it goes on)."""
        await self._gate.settled(upload.upload_id)
        async with self._locks.alone(upload.tenant, upload.digest or UNKNOWN):
            digest, sha256, size = await self._finish(upload)
            if upload.digest:
                return await self._count(upload, Digest(digest), sha256, size)
            async with self._locks.alone(upload.tenant, digest):
                return await self._count(upload, Digest(digest), sha256, size)

    async def drop(self, upload_id: UploadId, why: str) -> None:
        """Give it up. CoordError(UPLOAD_GONE, NOT_FOUND) when it is no more."""
        self._placed.pop(upload_id, None)
        await self._engine.call(
            lambda request_id: UploadDrop(
                at_ms=self._engine.clock.now_ms(), request_id=request_id, upload_id=upload_id, why=why
            )
        )

    async def _finish(self, upload: UploadRow) -> tuple[str, str, int]:
        placed = self._placed.pop(upload.upload_id, None)
        if placed is not None and await self._lies_there(upload, placed[0]):
            return placed
        try:
            return await self._blobs.finish(
                upload.upload_id, upload.tenant, upload.digest, upload.sha256, mends=upload.mends
            )
        except CoordError as error:
            if error.code is Code.BAD_DIGEST:
                await self.drop(upload.upload_id, "its bytes are not what was announced")
            raise

    async def _count(self, upload: UploadRow, digest: Digest, sha256: str, size: int) -> BlobRow:
        """The row. Bytes that it is refused for go again, unless another row names them."""
        known = next(iter(await self._store.blobs(upload.tenant, (digest,))), None)
        try:
            row = await self._engine.call(
                lambda request_id: UploadDone(
                    at_ms=self._engine.clock.now_ms(),
                    request_id=request_id,
                    upload_id=upload.upload_id,
                    digest=digest,
                    size=size,
                    sha256=sha256,
                    known=known,
                )
            )
        except CoordError as error:
            if error.code in (Code.STORE_FULL, Code.TOO_MANY, Code.SHUTTING_DOWN):
                self._place(upload.upload_id, (digest, sha256, size))
            elif known is None:
                await self._blobs.remove(((upload.tenant, digest),))
            raise
        assert isinstance(row, BlobRow)
        self.published += 1
        self._soundness.healed(upload.tenant, digest)
        return row
