"""Bytes of blobs on local disk: ports.blobs.BlobStore.

An upload is a file of its own until it is verified, synced and renamed to its digest. What it holds so far is hashed by
another thread behind the writing; after a restart, or a write that failed, the file is read again instead. All work is
done in threads; one upload is written by one at a time.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from itertools import islice
from typing import NoReturn, TypeVar

from blake3 import blake3

from coordinator.core.errors import Code, CoordError
from coordinator.core.ids import Ms, TenantName, check_name
from store.blob_hashing import HashThread, Pieces
from store.blob_tree import BlobTree, check_digest, check_upload
from store.blob_upload import Upload, bad_digest, write_pieces
from store.failpoints import FailPoints
from store.layout import DataDir
from store.log_files import meaning, read_at
from store.settings import StoreSettings

T = TypeVar("T")
WRITERS = 8
"""Threads that write, sync and remove."""
READERS = 4
"""Threads that open and read: they wait for no sync."""


class DiskBlobs:
    """See ports.blobs.BlobStore. `broken`, once set, is what everything is refused with: the process has to end."""

    def __init__(self, data: DataDir, settings: StoreSettings, points: FailPoints) -> None:
        self.broken: CoordError | None = None
        self._tree = BlobTree(data.blobs)
        self._leave_bytes = settings.blobs_leave_bytes
        self._points = points
        self._uploads: dict[str, Upload] = {}
        self._writers = ThreadPoolExecutor(WRITERS, thread_name_prefix="write blobs")
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix="read blobs")
        self._hashing = HashThread()
        self._names = threading.Lock()
        """Held while a blob gets or loses its name."""
        self._backups = 0
        """That are linking or copying: what they have a row of must stay until they are done."""
        self._put_off: set[tuple[TenantName, str]] = set()
        """What is to be removed then, unless it is published anew."""
        self._closed = False

    def get_url(self, tenant: TenantName, digest: str, size: int) -> str | None:
        return None

    def put_url(self, upload_id: str, size: int) -> str | None:
        return None

    # ---- uploads

    async def begin(self, upload_id: str, size: int) -> int:
        check_upload(upload_id)
        upload = self._uploads.get(upload_id)
        if upload is None:
            upload = self._uploads[upload_id] = Upload(upload_id, size)
        return await self._run(self._readers, lambda: self._begin(upload))

    async def write(self, upload_id: str, offset: int, data: Pieces) -> int:
        """The pieces must never change: they are hashed later. On a full disk what fitted stays."""
        upload = self._upload(upload_id)
        return await self._run(self._writers, lambda: self._write(upload, offset, data))

    async def finish(
        self, upload_id: str, tenant: TenantName, digest: str, sha256: str, *, mends: bool = False
    ) -> tuple[str, str, int]:
        """SHA-256 is computed here, by reading the file once more."""
        if digest:
            check_digest(digest)
        check_name(tenant, "tenant")
        upload = self._upload(upload_id)
        try:
            return await self._run(self._writers, lambda: self._finish(upload, tenant, digest, sha256, mends))
        finally:
            if upload.gone:
                self._uploads.pop(upload_id, None)

    async def drop(self, upload_id: str) -> None:
        upload = self._uploads.pop(upload_id, None) or Upload(check_upload(upload_id), 0)
        await self._run(self._writers, lambda: self._drop(upload))

    async def tidy(self, uploads: Sequence[str]) -> None:
        await self._run(self._writers, lambda: self._tidy(frozenset(uploads)))

    def _upload(self, upload_id: str) -> Upload:
        upload = self._uploads.get(upload_id)
        if upload is None:
            _gone(upload_id)
        return upload

    def _begin(self, upload: Upload) -> int:
        with upload.mutex:
            if upload.gone:
                _gone(upload.upload_id)
            fd = self._tree.open_upload(upload.upload_id, make=True)
            try:
                end = upload.settle(os.fstat(fd).st_size)
                if end > upload.size:
                    os.ftruncate(fd, 0)
                    end = upload.settle(0)
                self._leave_room(upload.size - end)
                return end
            finally:
                os.close(fd)

    def _write(self, upload: Upload, offset: int, pieces: Pieces) -> int:
        with upload.mutex:
            fd = self._open(upload)
            try:
                end = upload.settle(os.fstat(fd).st_size)
                length = sum(map(len, pieces))
                upload.check(offset, length)
                self._leave_room(length)
                try:
                    write_pieces(fd, pieces, end)
                except BaseException:
                    upload.forget()
                    raise
                upload.push(fd, end + length)
            finally:
                os.close(fd)
            self._points.reach("blob.written")
            return upload.wrote(pieces, length, self._hashing)

    def _finish(
        self, upload: Upload, tenant: TenantName, digest: str, sha256: str, mends: bool
    ) -> tuple[str, str, int]:
        with upload.mutex:
            fd = self._open(upload)
            try:
                size = upload.settle(os.fstat(fd).st_size)
                upload.check_complete()
                found = upload.hexdigest(fd)
                found_sha256 = _sha256(fd) if sha256 else ""
                self._points.reach("blob.verified")
                if (digest or found) != found or sha256 != found_sha256:
                    self._tree.remove_upload(upload.upload_id)
                    upload.gone = True
                    self._points.reach("blob.refused")
                    raise bad_digest(digest, sha256, found, found_sha256)
                os.fsync(fd)
            finally:
                os.close(fd)
            self._points.reach("blob.synced")
            anew = mends or not self._tree.is_whole(tenant, found)
            with self._names:
                self._tree.publish(upload.upload_id, tenant, found, anew=anew)
                upload.gone = True
                self._put_off.discard((tenant, found))
            self._points.reach("blob.renamed")
            self._tree.sync(tenant, found)
            self._points.reach("blob.published")
            return found, found_sha256, size

    def _drop(self, upload: Upload) -> None:
        with upload.mutex:
            upload.gone = True
            self._tree.remove_upload(upload.upload_id)
        self._points.reach("blob.dropped")

    def _tidy(self, uploads: frozenset[str]) -> None:
        for upload_id in self._tree.uploads():
            if upload_id not in uploads:
                self._tree.remove_upload(upload_id)
                self._points.reach("blob.tidied")

    def _open(self, upload: Upload) -> int:
        """Opened for each piece: that costs some microseconds, and thousands of open uploads hold no file open."""
        if upload.gone:
            _gone(upload.upload_id)
        try:
            return self._tree.open_upload(upload.upload_id)
        except FileNotFoundError:
            upload.gone = True
            _gone(upload.upload_id)

    def _leave_room(self, length: int) -> None:
        """Blobs may wait; a submission or an end may not."""
        room = os.statvfs(self._tree.root)
        leave = min(self._leave_bytes, room.f_blocks * room.f_frsize // 20)
        if room.f_bavail * room.f_frsize < leave + length:
            raise CoordError(
                Code.STORE_FULL,
                f"no room for {length} bytes: blobs leave {leave} bytes of the disk to everything else",
                f"free some space on the disk of {self._tree.root}, or wait until what nobody holds is collected",
            )

    # ---- blobs

    async def open_blob(self, tenant: TenantName, digest: str) -> tuple[int, int]:
        fd, status = await self._run(self._readers, lambda: self._found(tenant, digest))
        return fd, status.st_size

    async def read(self, tenant: TenantName, digest: str, limit: int) -> bytes:
        """BAD_DIGEST: the bytes are damaged."""
        return await self._run(self._readers, lambda: self._read(tenant, digest, limit))

    async def sizes(self, tenant: TenantName, digests: Sequence[str]) -> list[int | None]:
        return await self._run(self._readers, lambda: [self._size(tenant, digest) for digest in digests])

    async def is_whole(self, tenant: TenantName, digest: str) -> bool:
        """One that cannot be read is none."""
        return await self._run(self._readers, lambda: self._tree.is_whole(tenant, digest))

    async def remove(self, gone: Sequence[tuple[TenantName, str]]) -> int:
        """What is removed while a backup is made is gone for all but that, until it is done, and counts 0 here."""
        return await self._run(self._writers, lambda: self._remove(gone))

    async def stored(
        self, unchanged_since_ms: Ms, limit: int, after: tuple[str, str] | None = None
    ) -> list[tuple[TenantName, str]]:
        return await self._run(self._readers, lambda: self._stored(unchanged_since_ms, limit, after or ("", "")))

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """While this is held no bytes go away."""
        with self._names:
            self._backups += 1
        try:
            yield
        finally:
            with self._names:
                self._backups -= 1
                put_off = sorted(self._put_off) if not self._backups else []
            if put_off and not self._closed:
                await self._run(self._writers, lambda: self._remove_put_off(put_off))

    def _found(self, tenant: TenantName, digest: str) -> tuple[int, os.stat_result]:
        if (tenant, digest) not in self._put_off:
            with suppress(FileNotFoundError):
                return self._tree.open_blob(tenant, digest)
        raise CoordError(Code.NOT_FOUND, f"tenant {tenant} has no blob {digest}", "it was collected, or never uploaded")

    def _size(self, tenant: TenantName, digest: str) -> int | None:
        try:
            fd, status = self._found(tenant, digest)
        except CoordError as error:
            if error.code not in (Code.NOT_FOUND, Code.CONFLICT):
                raise
            return None
        os.close(fd)
        return status.st_size

    def _read(self, tenant: TenantName, digest: str, limit: int) -> bytes:
        fd, status = self._found(tenant, digest)
        try:
            if status.st_size > limit:
                raise CoordError(
                    Code.TOO_LARGE, f"blob {digest} has {status.st_size} bytes", f"at most {limit} are read"
                )
            data = read_at(fd, status.st_size, 0)
        finally:
            os.close(fd)
        if blake3(data).hexdigest() != digest:
            raise CoordError(Code.BAD_DIGEST, f"blob {digest} of tenant {tenant} is damaged", "run coord db check")
        return data

    def _remove(self, gone: Sequence[tuple[TenantName, str]]) -> int:
        freed = 0
        for tenant, digest in gone:
            with self._names:
                if self._backups:
                    self._put_off.add((tenant, digest))
                    continue
                freed += self._tree.remove_blob(tenant, digest)
            self._points.reach("blob.removed")
        return freed

    def _remove_put_off(self, put_off: list[tuple[TenantName, str]]) -> None:
        for place in put_off:
            with self._names:
                if place in self._put_off and not self._backups:
                    self._put_off.discard(place)
                    self._tree.remove_blob(*place)

    def _stored(self, unchanged_since_ms: Ms, limit: int, after: tuple[str, str]) -> list[tuple[TenantName, str]]:
        with self._names:
            removed = frozenset(self._put_off)
        found = ((tenant, digest) for tenant, digest, _, ms in self._tree.blobs(after) if ms < unchanged_since_ms)
        return list(islice((place for place in found if place not in removed), limit))

    # ---- threads

    async def close(self) -> None:
        """Finish what was begun. Safe to call twice."""
        if not self._closed:
            self._closed = True
            for stop in (self._readers.shutdown, self._writers.shutdown, self._hashing.close):
                await asyncio.to_thread(stop)
            self._tree.close()

    async def _run(self, pool: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        """A caller that is cancelled does not stop it: whoever is next waits for it by the upload's mutex."""
        if self.broken is not None:
            raise self.broken
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, work)
        except OSError as error:
            failure = meaning(error, self._tree.root)
            if isinstance(failure, CoordError) and failure.code is Code.STORE_BROKEN:
                self.broken = failure
            raise failure from error


def _gone(upload_id: str) -> NoReturn:
    raise CoordError(
        Code.UPLOAD_GONE, f"upload {upload_id} was published or dropped, or has expired", "open another one"
    )


def _sha256(fd: int) -> str:
    with os.fdopen(os.dup(fd), "rb") as file:
        file.seek(0)
        return hashlib.file_digest(file, "sha256").hexdigest()
