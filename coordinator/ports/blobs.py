"""What the service asks of the bytes of blobs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from coordinator.core.ids import Ms, TenantName


class BlobStore(Protocol):
    """Content-addressed bytes, per tenant. The rows that say which of them count are the Store's.

    Made so that a store of objects behind presigned URLs can stand here too: docs/explanation/data.md. Raises
    CoordError: STORE_FULL, NOT_FOUND, BAD_OFFSET, BAD_DIGEST, UPLOAD_GONE.
    """

    def get_url(self, tenant: TenantName, digest: str, size: int) -> str | None:
        """Where anybody who is told may fetch it, for a while; None: through us (`open_blob`)."""
        ...

    def put_url(self, upload_id: str, size: int) -> str | None:
        """Where anybody who is told may send an upload that was begun, for a while and once; None: through us
        (`write`)."""
        ...

    async def begin(self, upload_id: str, size: int) -> int:
        """Make room for an upload, or find what there is of it. -> how many bytes of it arrived already, and stay."""
        ...

    async def write(self, upload_id: str, offset: int, data: Sequence[bytes | memoryview]) -> int:
        """Append at `offset`, where it ends (else BAD_OFFSET). -> the new end. Not durable yet. Off the loop. What the
        pieces hold must never change: they may be hashed later."""
        ...

    async def finish(
        self, upload_id: str, tenant: TenantName, digest: str, sha256: str, *, mends: bool = False
    ) -> tuple[str, str, int]:
        """Verify by what is not empty of these two, sync, put the bytes under their digest: durable when it returns.
        -> (BLAKE3, SHA-256 where that was asked for, size). BAD_DIGEST: the upload's bytes are gone.

        A conditional create: what lies under the digest and is whole stays, whoever comes second, unless this `mends`
        it."""
        ...

    async def drop(self, upload_id: str) -> None: ...

    async def open_blob(self, tenant: TenantName, digest: str) -> tuple[int, int]:
        """(file descriptor, size): the caller closes it. NOT_FOUND."""
        ...

    async def read(self, tenant: TenantName, digest: str, limit: int) -> bytes:
        """A small one as a whole. TOO_LARGE beyond `limit`."""
        ...

    async def sizes(self, tenant: TenantName, digests: Sequence[str]) -> list[int | None]:
        """How many bytes lie under each of these; None: none. Nothing is read."""
        ...

    async def is_whole(self, tenant: TenantName, digest: str) -> bool:
        """Whether what lies there is what its digest says; False also where nothing does. Reads all of it."""
        ...

    async def remove(self, gone: Sequence[tuple[TenantName, str]]) -> int:
        """-> bytes that were freed."""
        ...

    async def stored(
        self, unchanged_since_ms: Ms, limit: int, after: tuple[str, str] | None = None
    ) -> list[tuple[TenantName, str]]:
        """What bytes there are, published before then, by (tenant, digest) rising after that. Not all have a row."""
        ...

    async def tidy(self, uploads: Sequence[str]) -> None:
        """At start: what belongs to no upload of these goes."""
        ...
