"""The in-memory twin of the blob store. For tests and the simulator."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from blake3 import blake3

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, TenantName, check_name
from store.blob_hashing import Pieces
from store.blob_tree import check_digest, check_upload
from store.blob_upload import Upload, bad_digest


class MemoryBlobs:
    """See ports.blobs.BlobStore. `fault`, while set, is raised by all that writes, as a full or broken disk does."""

    def __init__(self) -> None:
        self.fault: CoordError | None = None
        self.broken: CoordError | None = None
        self.now_ms: Ms = 0
        """When blobs are published: what `stored` goes by."""
        self._uploads: dict[str, tuple[Upload, bytearray]] = {}
        self._blobs: dict[tuple[TenantName, str], tuple[Ms, bytes]] = {}

    def get_url(self, tenant: TenantName, digest: str, size: int) -> str | None:
        return None

    def put_url(self, upload_id: str, size: int) -> str | None:
        return None

    async def begin(self, upload_id: str, size: int) -> int:
        self._refuse_if_faulty()
        upload, data = self._uploads.setdefault(check_upload(upload_id), (Upload(upload_id, size), bytearray()))
        return upload.settle(len(data))

    async def write(self, upload_id: str, offset: int, data: Pieces) -> int:
        self._refuse_if_faulty()
        upload, held = self._upload(upload_id)
        upload.check(offset, sum(map(len, data)))
        for piece in data:
            held += piece
        return upload.settle(len(held))

    async def finish(
        self, upload_id: str, tenant: TenantName, digest: str, sha256: str, *, mends: bool = False
    ) -> tuple[str, str, int]:
        self._refuse_if_faulty()
        if digest:
            check_digest(digest)
        check_name(tenant, "tenant")
        upload, held = self._upload(upload_id)
        upload.check_complete()
        data = bytes(held)
        found, found_sha256 = blake3(data).hexdigest(), hashlib.sha256(data).hexdigest() if sha256 else ""
        del self._uploads[upload_id]
        if (digest or found) != found or sha256 != found_sha256:
            raise bad_digest(digest, sha256, found, found_sha256)
        if mends or not await self.is_whole(tenant, found):
            self._blobs[tenant, found] = self.now_ms, data
        else:
            self._blobs[tenant, found] = self.now_ms, self._blobs[tenant, found][1]
        return found, found_sha256, len(data)

    async def drop(self, upload_id: str) -> None:
        self._uploads.pop(check_upload(upload_id), None)

    async def open_blob(self, tenant: TenantName, digest: str) -> tuple[int, int]:
        data = self._blob(tenant, digest)
        fd = os.memfd_create("blob", os.MFD_CLOEXEC)
        os.write(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd, len(data)

    async def read(self, tenant: TenantName, digest: str, limit: int) -> bytes:
        data = self._blob(tenant, digest)
        if len(data) > limit:
            raise CoordError(Code.TOO_LARGE, f"blob {digest} has {len(data)} bytes", f"at most {limit} are read")
        return data

    async def sizes(self, tenant: TenantName, digests: Sequence[str]) -> list[int | None]:
        found = (self._blobs.get((tenant, digest)) for digest in digests)
        return [len(one[1]) if one is not None else None for one in found]

    async def is_whole(self, tenant: TenantName, digest: str) -> bool:
        _, data = self._blobs.get((tenant, digest), (0, None))
        return data is not None and blake3(data).hexdigest() == digest

    async def remove(self, gone: Sequence[tuple[TenantName, str]]) -> int:
        self._refuse_if_faulty()
        for tenant, digest in gone:
            check_digest(digest)
            check_name(tenant, "tenant")
        return sum(len(self._blobs.pop(place, (0, b""))[1]) for place in gone)

    async def stored(
        self, unchanged_since_ms: Ms, limit: int, after: tuple[str, str] | None = None
    ) -> list[tuple[TenantName, str]]:
        found = [place for place, (ms, _) in self._blobs.items() if ms < unchanged_since_ms]
        return sorted(place for place in found if after is None or place > after)[:limit]

    async def tidy(self, uploads: Sequence[str]) -> None:
        self._uploads = {upload_id: kept for upload_id, kept in self._uploads.items() if upload_id in uploads}

    def _upload(self, upload_id: str) -> tuple[Upload, bytearray]:
        if upload_id not in self._uploads:
            raise CoordError(
                Code.UPLOAD_GONE, f"upload {upload_id} was published or dropped, or has expired", "open another one"
            )
        return self._uploads[upload_id]

    def _blob(self, tenant: TenantName, digest: str) -> bytes:
        check_digest(digest)
        check_name(tenant, "tenant")
        if (tenant, digest) not in self._blobs:
            raise CoordError(
                Code.NOT_FOUND, f"tenant {tenant} has no blob {digest}", "it was collected, or never uploaded"
            )
        return self._blobs[tenant, digest][1]

    def _refuse_if_faulty(self) -> None:
        if self.fault is not None:
            raise self.fault
